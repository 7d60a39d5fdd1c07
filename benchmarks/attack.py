"""What an attacker who guesses does to a service whose keys are stored under Argon2id."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from keyguard import Allow, AsyncKeyguard
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenFormat, TokenParts
from keyguard.stores.memory.keys import AsyncMemoryStore

__all__ = ["Attack", "measure"]

RATE = 2000
SECONDS = 3.0


@dataclass
class Attack:
    """What one attack did.

    Args:
        reasons: How often each reason was the answer.
        slow_hashes: How many slow hashes were computed.
        lags: Seconds by which the event loop was late, measured every millisecond.
        slowest: Seconds of the slowest answer.
    """

    reasons: Counter[str] = field(default_factory=Counter[str])
    slow_hashes: int = 0
    lags: list[float] = field(default_factory=list[float])
    slowest: float = 0.0


def measure(loop: asyncio.AbstractEventLoop) -> dict[str, Attack]:
    """Send 2,000 requests a second for three seconds, in three ways."""
    return loop.run_until_complete(_measured())


async def _measured() -> dict[str, Attack]:
    ways: dict[str, tuple[bool, str | None]] = {
        "unknown ids": (False, None),
        "a known id, wrong secrets, no address known": (True, None),
        "a known id, wrong secrets, from one address": (True, "192.0.2.7"),
    }
    return {name: await _attacked(known, address) for name, (known, address) in ways.items()}


async def _attacked(known: bool, address: str | None) -> Attack:
    attack = Attack()
    guard = AsyncKeyguard(AsyncMemoryStore(), hasher="argon2id", hooks=())
    await guard.organizations.create("acme")
    issued = await guard.keys.issue(organization="acme", name="victim")
    key_id = issued.key.id if known else None
    slow = guard._ports.pool.arun

    async def counted(job: Any) -> Any:
        answer = await slow(job)
        attack.slow_hashes += 1
        return answer

    guard._ports.pool.arun = counted  # type: ignore[method-assign]
    tokens = TokenFormat(guard.settings.prefix)
    fields = [
        f"Bearer {tokens.mint(_parts(number, key_id)).reveal()}"
        for number in range(int(RATE * SECONDS))
    ]
    async with _loop_lag(attack), asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number, value in enumerate(fields):
            ahead = began + number / RATE - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            group.create_task(_answered(guard, value, address, attack))
    await guard.aclose()
    return attack


def _parts(number: int, key_id: str | None) -> TokenParts:
    parts = TokenParts.draw(number.to_bytes(ENTROPY_SIZE, "little"))
    return parts if key_id is None else TokenParts(key_id, parts.secret)


async def _answered(guard: AsyncKeyguard, value: str, address: str | None, attack: Attack) -> None:
    began = time.perf_counter()
    decision = await guard.authenticate([value], address=address)
    attack.slowest = max(attack.slowest, time.perf_counter() - began)
    attack.reasons["let in" if isinstance(decision, Allow) else decision.reason.value] += 1


@asynccontextmanager
async def _loop_lag(attack: Attack) -> AsyncGenerator[None]:
    async def ticking() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            attack.lags.append(time.perf_counter() - began - 0.001)

    ticker = asyncio.create_task(ticking())
    try:
        yield
    finally:
        ticker.cancel()
