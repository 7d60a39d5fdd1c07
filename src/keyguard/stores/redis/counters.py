"""Counters in Redis, exact under any number of processes.

A hit is one script and one round trip, whatever the number of limits. All processes count on the
server's clock. The counters use the port of a Redis store: its connections and its deadlines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import CorruptDataError
from keyguard.stores.facade import SyncBatchRateLimiter
from keyguard.stores.redis.ports import ScriptPort
from keyguard.stores.redis.scripts import ADJUST, HIT, Reply, Script, ScriptCall, list_of

Now: TypeAlias = Callable[[], float]

_SECOND = 1_000_000  # microseconds, as the scripts tell times
_STRATEGIES = {
    Strategy.FIXED_WINDOW: "f",
    Strategy.SLIDING_WINDOW_COUNTER: "s",
    Strategy.MOVING_WINDOW: "m",
}

_tally = Tally._make  # which takes less time than Tally(...)


class AsyncRedisRateLimiter:
    """A store of counters for code on asyncio.

    Args:
        port: Runs scripts where the counters are.
        owned: Whether the limiter closes the port with itself.
        now: Where time comes from, in seconds; None for the server's clock.
    """

    def __init__(self, port: ScriptPort, *, owned: bool = False, now: Now | None = None) -> None:
        self._port = port
        self._owned = owned
        self._now = now

    async def migrate(self) -> None:
        """Do nothing: counters need no layout."""

    async def aclose(self) -> None:
        if self._owned:
            await self._port.aclose()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        if self._now is None:
            call = hit_call(tuple(charges))
        else:
            call = _call(HIT, charges, repr(self._now()))
        return _outcome(await self._port.run(call), charges)

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> list[Outcome]:
        charges = [charge for hit in hits for charge in hit]
        sizes = [str(len(hit)) for hit in hits]
        time = "" if self._now is None else repr(self._now())
        replies = list_of(await self._port.run(_call(HIT, charges, time, *sizes)))
        if len(replies) != len(hits):
            raise CorruptDataError("Redis answered hits with something else than as many counts")
        return [_outcome(reply, hit) for reply, hit in zip(replies, hits, strict=True)]

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        changes = [charge._replace(cost=unit) for charge, unit in zip(charges, units, strict=True)]
        ends = [f"{end * _SECOND:.0f}" for end in ends_at]
        time = "" if self._now is None else repr(self._now())
        return _outcome(await self._port.run(_call(ADJUST, changes, time, *ends)), charges)


class RedisRateLimiter(SyncBatchRateLimiter):
    """The same for sync code, over a port that never suspends."""

    def __init__(self, port: ScriptPort, *, owned: bool = False, now: Now | None = None) -> None:
        super().__init__(AsyncRedisRateLimiter(port, owned=owned, now=now))


@lru_cache(1_000)
def hit_call(charges: tuple[Charge, ...]) -> ScriptCall:
    """Return the call that counts charges on the server's clock.

    It is the same for every request of a key, so it is kept.
    """
    return _call(HIT, charges, "")


def _call(script: Script, charges: Sequence[Charge], time: str, *more: str) -> ScriptCall:
    keys = tuple([charge.key for charge in charges])
    arguments = [time]
    for _, _, amount, window, strategy, enforce, cost in charges:
        arguments.append(f"{_STRATEGIES[strategy]} {amount} {window} {cost} {enforce:d}")
    return ScriptCall(script, keys, (*arguments, *more))


def _outcome(reply: Reply, charges: Sequence[Charge]) -> Outcome:
    try:
        admitted, *numbers = map(int, reply.split() if isinstance(reply, bytes | str) else ())
        rows = zip(charges, *[iter(numbers)] * 5, strict=True)
        tallies = [
            _tally((fits == 1, left, reset / _SECOND, wait / _SECOND, ends / _SECOND))
            for _, fits, left, reset, wait, ends in rows
        ]
    except ValueError as failure:
        raise CorruptDataError("Redis answered a hit with something else than counts") from failure
    return Outcome(admitted == 1, tallies)
