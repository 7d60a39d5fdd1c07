"""Counters in Redis, exact under any number of processes.

A hit is one script, whatever the number of limits, and hits that travel together are one call of
it where one server has all their buckets. All processes count on the server's clock. The counters
use the port of a Redis store: its connections and its deadlines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import CorruptDataError, StoreError
from keyguard.stores.base import AsyncBatchRateLimiter
from keyguard.stores.facade import SyncBatchRateLimiter
from keyguard.stores.redis.ports import ScriptPort
from keyguard.stores.redis.scripts import ADJUST, HIT, Reply, Script, ScriptCall

Now: TypeAlias = Callable[[], float]

_SECOND = 1_000_000  # microseconds, as the scripts tell times
_STRATEGIES = {
    Strategy.FIXED_WINDOW: "f",
    Strategy.SLIDING_WINDOW_COUNTER: "s",
    Strategy.MOVING_WINDOW: "m",
}

_tally = Tally._make  # which takes less time than Tally(...)


class AsyncRedisRateLimiter(AsyncBatchRateLimiter):
    """A store of counters for code on asyncio.

    Args:
        port: Runs scripts where the counters are.
        owned: Whether the limiter closes the port with itself.
        now: Where time comes from, in seconds; None for the server's clock.
    """

    system_name = "redis"

    def __init__(self, port: ScriptPort, *, owned: bool = False, now: Now | None = None) -> None:
        self._port = port
        self._owned = owned
        self._now = now
        self.counts_owners_together = not port.is_cluster  # else several servers have buckets

    async def migrate(self) -> None:
        """Do nothing: counters need no layout."""

    async def aclose(self) -> None:
        if self._owned:
            await self._port.aclose()

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> Sequence[Outcome | StoreError]:
        if self._now is None:
            calls = [hit_call(tuple(charges)) for charges in hits]
        else:
            calls = [_call(HIT, charges, repr(self._now())) for charges in hits]
        replies = await self._port.run_all(calls)
        return [
            reply if isinstance(reply, StoreError) else _outcome(reply, charges)
            for reply, charges in zip(replies, hits, strict=True)
        ]

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        changes = [charge._replace(cost=unit) for charge, unit in zip(charges, units, strict=True)]
        ends = [f"{end * _SECOND:.0f}" for end in ends_at]
        time = "" if self._now is None else repr(self._now())
        outcome = _outcome(await self._port.run(_call(ADJUST, changes, time, *ends)), charges)
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome


class RedisRateLimiter(SyncBatchRateLimiter):
    """A store of counters for sync code, over a port that never suspends."""

    system_name = "redis"

    def __init__(self, port: ScriptPort, *, owned: bool = False, now: Now | None = None) -> None:
        super().__init__(AsyncRedisRateLimiter(port, owned=owned, now=now))
        self.counts_owners_together = not port.is_cluster


@lru_cache(1_000)
def hit_call(charges: tuple[Charge, ...]) -> ScriptCall:
    """Return the call that counts charges on the server's clock.

    It is the same for every request of a key, so it is kept.
    """
    return _call(HIT, charges, "")


def _call(script: Script, charges: Sequence[Charge], time: str, *more: str) -> ScriptCall:
    keys = tuple([charge.key for charge in charges])
    arguments = [f"{len(keys)} {time}"]
    for _, _, amount, window, strategy, enforce, cost in charges:
        arguments.append(f"{_STRATEGIES[strategy]} {amount} {window} {cost} {enforce:d}")
    return ScriptCall(script, keys, (*arguments, *more))


def _outcome(reply: Reply, charges: Sequence[Charge]) -> Outcome | CorruptDataError:
    try:
        numbers = [*map(int, reply.split())] if isinstance(reply, bytes | str) else []
        if len(numbers) != 1 + 5 * len(charges):
            raise ValueError(reply)
        tallies: list[Tally] = []
        for at in range(1, len(numbers), 5):  # a comprehension over zip takes longer
            fits, left, reset, wait, ends = numbers[at : at + 5]
            row = fits == 1, left, reset / _SECOND, wait / _SECOND, ends / _SECOND
            tallies.append(_tally(row))
    except ValueError as failure:
        corrupt = CorruptDataError("Redis answered a hit with something other than counts")
        corrupt.__cause__ = failure
        return corrupt
    return Outcome(numbers[0] == 1, tallies)
