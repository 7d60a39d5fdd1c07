"""A flood of guesses is counted, refused and forgotten."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from datetime import timedelta

import pytest

from keyguard import Allow, AsyncKeyguard, Deny, Keyguard
from tests.test_failures import guess
from tests.world import World

# `make chaos` asks for more.
GUESSES = int(os.environ.get("CHAOS_FLOOD", "8000"))
ADDRESSES = [f"198.51.{high}.{low}" for high in range(4) for low in range(250)]


class Flood:
    """Random tokens from a thousand addresses, a thousand in three seconds."""

    def __init__(self) -> None:
        self.world = World(options={"failure_limit": "3/minute"})
        self.world.clock.uptime = 86400.0
        self.sent = 0

    async def send(self, guard: Keyguard | AsyncKeyguard, number: int) -> None:
        for n in range(self.sent, self.sent + number):
            token, address = guess(n), ADDRESSES[n % len(ADDRESSES)]
            answer = guard.authenticate([f"Bearer {token}"], address=address)
            assert not (answer if isinstance(answer, Allow | Deny) else await answer)
            await asyncio.sleep(0)  # as between requests, the event loop has its turn
        self.sent += number
        self.world.clock.advance(timedelta(seconds=3 * number / len(ADDRESSES)))
        self.world.events.clear()


async def growth(flood: Flood, guard: Keyguard | AsyncKeyguard) -> int:
    """Return how many blocks of memory a flood took for good, once everything has its size."""
    batch = 4 * len(ADDRESSES)
    await flood.send(guard, 2 * batch)
    before = blocks()
    while flood.sent < 2 * batch + GUESSES:
        await flood.send(guard, batch)
    return blocks() - before


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.timeout(60 + GUESSES // 500)
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_flood_from_a_thousand_addresses_leaves_memory_flat(flavour: str) -> None:
    flood = Flood()
    guard = flood.world.guard if flavour == "sync" else flood.world.async_guard
    grown = asyncio.run(growth(flood, guard))
    print(f"{flavour}: {GUESSES} guesses, {grown} blocks of memory more")
    assert grown < 1_000
