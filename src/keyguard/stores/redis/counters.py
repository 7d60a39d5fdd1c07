"""Counters in Redis, right under any number of processes.

A hit is one script, and so one round trip, whatever the number of limits. All processes count on
the server's clock. It runs through the Redis store, whose deadlines, connections and error texts
it shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis import AsyncRedisStore, RedisStore
from keyguard.stores.redis.counter_scripts import ADJUST, HIT
from keyguard.stores.redis.scripts import Call, Script

__all__ = ["AsyncRedisRateLimiter", "RedisRateLimiter"]

Now: TypeAlias = Callable[[], float]

_MICROSECONDS = 1_000_000
_STRATEGIES = {
    Strategy.FIXED_WINDOW: "f",
    Strategy.SLIDING_WINDOW_COUNTER: "s",
    Strategy.MOVING_WINDOW: "m",
}

_tally = Tally._make  # which takes less time than Tally(...)


class RedisRateLimiter:
    """A store of counters for sync code.

    Args:
        store: Where the Redis is.
        owned: Whether the store is the limiter's, to close.
        now: Where time comes from, in seconds; None for the server's clock.
    """

    def __init__(self, store: RedisStore, *, owned: bool = False, now: Now | None = None) -> None:
        self._store = store
        self._owned = owned
        self._now = now

    def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`; there is nothing to create."""

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        if self._owned:
            self._store.close()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        return _outcome(self._store.ask(_hitting(charges, self._now)), charges)

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        return _outcome(self._store.ask(_adjusting(charges, units, ends_at, self._now)), charges)


class AsyncRedisRateLimiter:
    """A store of counters for code on asyncio; else like :class:`RedisRateLimiter`.

    Args:
        store: Where the Redis is.
        owned: Whether the store is the limiter's, to close.
        now: Where time comes from, in seconds; None for the server's clock.
    """

    def __init__(
        self, store: AsyncRedisStore, *, owned: bool = False, now: Now | None = None
    ) -> None:
        self._store = store
        self._owned = owned
        self._now = now

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`; there is nothing to create."""

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        if self._owned:
            await self._store.aclose()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        return _outcome(await self._store.ask(_hitting(charges, self._now)), charges)

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        return _outcome(
            await self._store.ask(_adjusting(charges, units, ends_at, self._now)), charges
        )


def _hitting(charges: Sequence[Charge], now: Now | None) -> Call:
    if now is None:
        return _hitting_now(tuple(charges))
    return _call(HIT, charges, repr(now()))


@lru_cache(1_000)
def _hitting_now(charges: tuple[Charge, ...]) -> Call:
    # The same for every request of a key, as the time is the server's.
    return _call(HIT, charges, "")


def _adjusting(
    charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float], now: Now | None
) -> Call:
    changes = [charge._replace(cost=change) for charge, change in zip(charges, units, strict=True)]
    ends = [f"{end * _MICROSECONDS:.0f}" for end in ends_at]
    return _call(ADJUST, changes, "" if now is None else repr(now()), *ends)


def _call(script: Script, charges: Sequence[Charge], time: str, *more: str) -> Call:
    keys = tuple([charge.key for charge in charges])
    arguments = [time]
    for _, _, amount, window, strategy, enforce, cost in charges:
        arguments.append(f"{_STRATEGIES[strategy]} {amount} {window} {cost} {enforce:d}")
    return Call(script, keys, (*arguments, *more))


def _outcome(reply: Any, charges: Sequence[Charge]) -> Outcome:
    try:
        admitted, *numbers = map(int, reply.split())
        rows = zip(*[iter(numbers)] * 5, strict=True)
        tallies = [
            _tally((fits == 1, remaining, *[time / _MICROSECONDS for time in times]))
            for fits, remaining, *times in rows
        ]
    except (AttributeError, ValueError) as failure:
        raise _no_answer() from failure
    if len(tallies) != len(charges):
        raise _no_answer()
    return Outcome(admitted == 1, tallies)


def _no_answer() -> CorruptDataError:
    return CorruptDataError("Redis answered a hit with something else than counts")
