"""A flood of tokens that look right and are nobody's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

# `make chaos` asks for a million.
TOKENS = int(os.environ.get("CHAOS_FLOOD", "50000"))
MOST_BYTES = 10_000_000
LIVE = 100


@pytest.mark.campaign("sync")
@pytest.mark.timeout(120 + TOKENS // 1000)
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_tokens_of_nobody_leave_nothing_behind_and_push_nothing_out(flavour: str) -> None:
    """Measured in a process of its own, by what the system has given it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.test_unknown_tokens", flavour, str(TOKENS)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, left = map(int, done.stdout.split())
    print(f"{flavour}: {TOKENS} tokens of nobody, {grown} bytes more")
    assert left == LIVE
    assert grown < MOST_BYTES * min(1, TOKENS / 10**6 + 0.1)


async def flooded(flavour: str, tokens: int) -> tuple[int, int]:
    """Return by how many bytes a process grew, and how many live keys it still remembers."""
    from keyguard import Allow, Deny
    from keyguard.core.tokens.format import ENTROPY_SIZE, TokenParts
    from tests.world import World

    world = World({"cache_size": 2 * LIVE, "hooks": ()})
    live = [[f"Bearer {world.token()}"] for _ in range(LIVE)]
    mint = world.guard.policy.tokens.mint

    async def ask(field: list[str]) -> Allow | Deny:
        if flavour == "sync":
            return world.guard.authenticate(field)
        return await world.async_guard.authenticate(field)

    async def flood(first: int, count: int) -> None:
        for number in range(first, first + count):
            parts = TokenParts.draw(number.to_bytes(ENTROPY_SIZE, "big"))
            decision = await ask([f"Bearer {mint(parts).reveal()}"])
            assert isinstance(decision, Deny)
            assert decision.key_id == parts.key_id
            await asyncio.sleep(0)  # the loop has its turn, as it has between requests

    def down(key_id: str) -> None:
        raise AssertionError("looked up again")

    for field in live:
        assert isinstance(await ask(field), Allow)
    await flood(0, 2000)  # whatever is made once is made by now
    before = resident()
    await flood(2000, tokens)
    grown = resident() - before
    world.store.find_key = down  # type: ignore[method-assign]
    left = [isinstance(await ask(field), Allow) for field in live]
    return max(0, grown), sum(left)


def resident() -> int:
    """Return the bytes of memory that this process has, as the system counts them."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(*asyncio.run(flooded(sys.argv[1], int(sys.argv[2]))))
