"""The circuit breaker before the counters, and the lanes in which hits go to them.

A limiter that does not answer within its timeout is left alone for a second. Meanwhile requests are
counted in this process or refused, as ``on_limiter_error`` says, and none waits. Then one request
asks the limiter again. A call that fails while the limiter answers others says nothing about the
limiter: its buckets are contended, and only its own hits are counted or refused as above.

Where a limiter can count several hits in one call, the hits of one process on the counters of one
owner take turns. A store counts the hits on one bucket one after another in any case; a burst that
asks for all of them at once takes many connections, and its last hits wait so long for the bucket
that the store seems to fail. In a lane one call is under way at a time. The next call counts the
hits that arrived meanwhile, in the order of their arrival. A hit that finds its lane free goes at
once. Time spent in a lane is not the limiter's: only calls have deadlines, and only they fail.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeGuard, TypeVar

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.ports import Counters
from keyguard.exceptions import ConfigurationError, CorruptDataError
from keyguard.runtime import events
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.process import Clock, after_fork
from keyguard.runtime.waiting import TaskWaits, ThreadWaits, Waits
from keyguard.stores.base import AsyncRateLimiter, CountsTogether, RateLimiter
from keyguard.stores.memory.counters import MemoryRateLimiter

ASK_AGAIN_AFTER = 1.0
"""Seconds for which a limiter that failed is left alone."""

MOST_TOGETHER = 64
"""Hits that one call counts at most, so that none takes long."""

AnyEvent = TypeVar("AnyEvent", bound=Any)
_Answer: TypeAlias = Outcome | list[Outcome]


class CircuitBreaker(Counters):
    """Asks a limiter, and something else while it fails. It is the core's port to counters.

    Args:
        limiter: The limiter. One in memory is asked directly, since it never waits or fails.
        awaited: Whether a call of the limiter is awaited. Such a call is ended at its deadline.
        timeout: Seconds that a call may take.
        fails_open: Whether requests go on while the limiter fails, counted in this process.
        processes: How many processes share each limit meanwhile.
        clock: Where time comes from.
        tell: Takes the events of its failing and recovering.
    """

    def __init__(
        self,
        limiter: RateLimiter | AsyncRateLimiter,
        *,
        awaited: bool,
        timeout: float,
        fails_open: bool,
        processes: int = 1,
        clock: Clock,
        tell: Callable[[events.Event], None],
    ) -> None:
        self.memory = limiter if isinstance(limiter, MemoryRateLimiter) else None
        """The limiter, if it is in memory: it never waits and never fails."""
        self._limiter = limiter
        self._timeout = timeout
        self._awaited = awaited
        self._fails_open = fails_open
        self._clock = clock
        self._tell = tell
        self._failing_since: float | None = None
        self._outage = 0  # how often the limiter has failed or recovered
        self._ask_again_at = 0.0
        self._told, self._tell_again_at = "", 0.0
        self._answers = 0  # of the limiter, so far
        self._processes = processes
        self._lanes: Lanes[Any] | None = None
        if isinstance(limiter, CountsTogether):
            self._lanes = Lanes(TaskWaits() if awaited else ThreadWaits(), self._ask, 2 * timeout)
        self._stand_in: MemoryRateLimiter | None = None
        self._stood_in = 0
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()

    def hit(self, charges: Sequence[Charge]) -> Coroutine[Any, Any, Outcome | None]:
        if self._lanes is not None and self._failing_since is None:
            return self._lanes.hit(charges)
        return self._hit(charges)

    async def _hit(self, charges: Sequence[Charge]) -> Outcome | None:
        if self.memory is not None:
            return self.memory.hit(charges)
        return (await self._ask((charges,)))[0]

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        if self.memory is not None:
            return self.memory.adjust(charges, units, ends_at)
        # Only the counter that counted refunds. Elsewhere a refund would be credit.
        more = [max(0, change) for change in units]
        if counter == _stand_in_of(self._outage) and self._stand_in is not None:
            return self._stand_in.adjust(self._share_of(charges), units, ends_at)
        asked = units if counter == self._outage else more
        adjustment = _Adjustment(asked, more, ends_at)
        return (await self._ask((charges,), adjustment))[0]

    def close(self) -> None:
        """Free what counted in the limiter's place."""
        if self._stand_in is not None:
            self._stand_in.close()

    async def _ask(
        self, hits: Sequence[Sequence[Charge]], adjustment: _Adjustment | None = None
    ) -> Sequence[Outcome | None]:
        """Count hits in one call of the limiter, or of what stands in for it while it fails.

        Args:
            hits: The charges of each hit. Only a limiter that counts together gets several.
            adjustment: What to adjust by, instead of counting a hit.

        Returns:
            The outcome of each.
        """
        outage = self._outage if self._failing_since is None else self._admitted_outage()
        if outage is None:
            return self._stand_in_answer(hits, adjustment)
        answers, limiter = self._answers, self._limiter
        question: Callable[[], _Answer | Awaitable[_Answer]]
        if adjustment is not None:
            question = partial(limiter.adjust, hits[0], adjustment.units, adjustment.ends_at)
        elif len(hits) == 1:
            question = partial(limiter.hit, hits[0])
        else:
            assert isinstance(limiter, CountsTogether)  # noqa: S101 - others have no lanes
            question = partial(limiter.hit_all, hits)
        answer: object
        try:
            if self._awaited:
                async with awithin(self._timeout):
                    asked = question()
                    answer = await asked if isinstance(asked, Awaitable) else asked
            else:
                with within(self._timeout):
                    answer = question()
        except (CorruptDataError, ConfigurationError) as failure:
            # It concerns one bucket or limit, and no other: the other hits are counted without it.
            if len(hits) > 1:
                return [(await self._ask((charges,)))[0] for charges in hits]
            self._note_refusal(failure)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the limiter failed
            if answers == self._answers:
                self._note_failure(failure, outage)
            else:  # it answered others meanwhile
                self._note_refusal(failure)
        else:
            outcomes: list[Outcome] = []
            if isinstance(answer, Outcome):
                outcomes.append(answer)
            elif _are_outcomes(answer):
                outcomes = answer
            if outcomes:
                self._answers += 1
                counter = outage if self._failing_since is None else self._note_recovery(outage)
                return [
                    outcome if outcome.counter == counter else outcome._replace(counter=counter)
                    for outcome in outcomes
                ]
            self._note_refusal(
                CorruptDataError("the limiter answered with something other than an outcome")
            )
        return self._stand_in_answer(hits, adjustment)

    def _admitted_outage(self) -> int | None:
        """Return the current outage's number if this request may ask again, else None."""
        with self._lock:
            if self._failing_since is None:
                return self._outage
            now = self._clock.monotonic()
            if now < self._ask_again_at:
                return None
            self._ask_again_at = now + ASK_AGAIN_AFTER  # the others wait for this answer
            return self._outage

    def _note_failure(self, failure: Exception, outage: int) -> None:
        with self._lock:
            if outage != self._outage:
                return  # asked before the outage was noticed, or before the limiter recovered
            now = self._clock.monotonic()
            self._ask_again_at = now + ASK_AGAIN_AFTER
            if self._failing_since is not None:
                return
            self._failing_since, self._stood_in = now, 0
            self._outage += 1
        self._tell(events.LimiterFailed(at=self._now(), fails_open=self._fails_open, cause=failure))

    def _note_refusal(self, failure: Exception) -> None:
        now = self._clock.monotonic()
        with self._lock:
            is_news = str(failure) != self._told and now >= self._tell_again_at
            if is_news:
                self._told, self._tell_again_at = str(failure), now + ASK_AGAIN_AFTER
        if is_news:
            self._tell(
                events.LimiterFailed(at=self._now(), fails_open=self._fails_open, cause=failure)
            )

    def _note_recovery(self, outage: int) -> int:
        """Note that the limiter answered; return its number as a counter."""
        with self._lock:
            if outage != self._outage:
                return outage  # asked before the limiter failed
            since, self._failing_since = self._failing_since, None
            self._outage += 1
            counter = self._outage
        if since is not None:
            lasted = self._clock.monotonic() - since
            self._tell(
                events.LimiterRecovered(at=self._now(), lasted=lasted, decisions=self._stood_in)
            )
        return counter

    def _stand_in_answer(
        self, hits: Sequence[Sequence[Charge]], adjustment: _Adjustment | None
    ) -> Sequence[Outcome | None]:
        with self._lock:
            self._stood_in += len(hits)
            if not self._fails_open:
                return [None] * len(hits)
            if self._stand_in is None:
                self._stand_in = MemoryRateLimiter(clock=self._clock)
            stand_in, counter = self._stand_in, _stand_in_of(self._outage)
        outcomes: list[Outcome] = []
        for charges in map(self._share_of, hits):
            if adjustment is None:
                outcome = stand_in.hit(charges)
            else:
                outcome = stand_in.adjust(charges, adjustment.more, adjustment.ends_at)
            outcomes.append(outcome._replace(counter=counter))
        return outcomes

    def _share_of(self, charges: Sequence[Charge]) -> Sequence[Charge]:
        """Return charges with this process's share of their limits."""
        if self._processes == 1:
            return charges
        return [
            charge._replace(amount=max(1, charge.amount // self._processes)) for charge in charges
        ]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


class _Adjustment(NamedTuple):
    units: Sequence[int]
    more: Sequence[int]
    """The same without refunds, for a counter that did not count what they refund."""
    ends_at: Sequence[float]


class _Waiting(Generic[AnyEvent]):
    """A hit that waits for its turn."""

    __slots__ = ("charges", "is_counted", "leads", "outcome", "turn")

    def __init__(self, charges: Sequence[Charge], turn: AnyEvent) -> None:
        self.charges = charges
        self.turn = turn
        self.leads = False  # whether it makes the next call, for itself and those behind it
        self.is_counted = False
        self.outcome: Outcome | None = None


class Lanes(Generic[AnyEvent]):
    """The lanes before one limiter.

    Args:
        waits: How requests wait for one another.
        count: Counts hits in one call, in order, and returns what became of each.
        patience: Seconds after which a hit that is still not due leaves its lane and is counted by
            itself: no lane holds a request for ever.
    """

    def __init__(
        self,
        waits: Waits[AnyEvent],
        count: Callable[[Sequence[Sequence[Charge]]], Awaitable[Sequence[Outcome | None]]],
        patience: float,
    ) -> None:
        self._waits = waits
        self._place = waits.place
        self._count = count
        self._patience = patience
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        # Who waits, by place and owner. A lane is here while a call is under way in it.
        self._lanes: dict[tuple[object, str], list[_Waiting[AnyEvent]]] = {}

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        """Count a hit, now or with the next call of its lane.

        Args:
            charges: What it counts, all of one owner.

        Returns:
            The outcome; None if nothing can be counted now and such a request must not pass.
        """
        try:
            place = self._place()
        except RuntimeError:  # requests can't wait for one another here
            return (await self._count((charges,)))[0]
        key = charges[0].key
        name = (place, key[: key.index("}")])
        while True:
            with self._lock:
                lane = self._lanes.get(name)
                if lane is None:
                    self._lanes[name] = []
                    break
                hit = _Waiting(charges, self._waits.event())
                lane.append(hit)
            if not await self._turn(name, hit):
                return (await self._count((charges,)))[0]
            if hit.leads:
                return await self._waits.finish(self._lead(name))
            if hit.is_counted:
                return hit.outcome
            # Who led was ended from outside: nobody knows what that call counted.
        try:
            return (await self._count((charges,)))[0]
        finally:
            with self._lock:
                lane = self._lanes[name]
                if not lane:
                    del self._lanes[name]
            if lane:
                self._hand_over(name)

    async def _turn(self, name: tuple[object, str], hit: _Waiting[AnyEvent]) -> bool:
        """Wait until a hit was counted, or leads; return False if it left its lane."""
        try:
            while not await self._waits.wait(hit.turn, self._patience):
                with self._lock:
                    lane = self._lanes.get(name, [])
                    if hit in lane and not hit.leads:
                        lane.remove(hit)
                        return False
        except BaseException:
            with self._lock:
                lane = self._lanes.get(name, [])
                if hit in lane:
                    lane.remove(hit)
            if hit.leads:
                self._hand_over(name)
            raise
        return True

    async def _lead(self, name: tuple[object, str]) -> Outcome | None:
        """Count those who wait, in one call; return the outcome of the first."""
        with self._lock:
            lane = self._lanes[name]
            together, self._lanes[name] = lane[:MOST_TOGETHER], lane[MOST_TOGETHER:]
        try:
            outcomes = await self._count([hit.charges for hit in together])
            for hit, outcome in zip(together, outcomes, strict=True):
                hit.outcome, hit.is_counted = outcome, True
        finally:
            self._hand_over(name)
            for hit in together:
                hit.turn.set()
        return together[0].outcome

    def _hand_over(self, name: tuple[object, str]) -> None:
        """End a call: the first who waits makes the next."""
        with self._lock:
            lane = self._lanes[name]
            if not lane:
                del self._lanes[name]
                return
            lane[0].leads = True
            turn = lane[0].turn
        turn.set()


def _are_outcomes(answer: object) -> TypeGuard[list[Outcome]]:
    return isinstance(answer, list)


def _stand_in_of(outage: int) -> int:
    """Return the stand-in's number as a counter. The limiter's is the outage's number."""
    return -1 - outage
