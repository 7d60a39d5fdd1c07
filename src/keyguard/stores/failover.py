"""The circuit breaker before the counters.

If a limiter does not answer within its timeout, it is not asked for a second. Meanwhile requests
are counted in this process or refused, as ``on_limiter_error`` says, and none waits. Then one
request asks the limiter again. If a call fails while the limiter answers others, the limiter is up
but the buckets of the call are contended: only the hits of that call are counted in the process or
refused.

If a limiter can count several hits in one call, they go through :mod:`~.lanes`.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, TypeAlias

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.counts import LimitCounts
from keyguard.core.limits.ports import Counters
from keyguard.exceptions import ConfigurationError, CorruptDataError, StoreError
from keyguard.runtime import events
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.observers import UNOBSERVED, Observers, observed
from keyguard.runtime.process import Clock, after_fork
from keyguard.stores.base import AsyncRateLimiter, CountsTogether, RateLimiter
from keyguard.stores.lanes import TaskLanes, ThreadLanes
from keyguard.stores.memory.counters import MemoryRateLimiter

ASK_AGAIN_AFTER = 1.0
"""Seconds for which a limiter that failed is left alone."""

_Answer: TypeAlias = Outcome | Sequence[Outcome | StoreError]


class CircuitBreaker(Counters):
    """Asks a limiter, and a stand-in while the limiter fails. It is the core's port to counters.

    Args:
        limiter: The limiter. One in memory is asked directly, since it never waits or fails.
        awaited: Whether a call of the limiter is awaited. Such a call is ended at its deadline.
        timeout: Seconds that a call may take.
        fails_open: Whether requests go on while the limiter fails, counted in this process.
        processes: How many processes share each limit meanwhile.
        clock: Where time comes from.
        tell: Reports its failures and recoveries to the hooks.
        observers: Who observes the calls of the limiter.
        names: The names of the policies that are known at the start.
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
        observers: Observers | None = None,
        names: Iterable[str] = (),
    ) -> None:
        self.memory = limiter if isinstance(limiter, MemoryRateLimiter) else None
        """The limiter, if it is in memory: it never waits and never fails."""
        self._limiter = limiter
        self.counts = LimitCounts(names)
        """How often each policy had room for a request, as the ledger counts it."""
        self._observers = observers or Observers()
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
        self._lanes: TaskLanes | ThreadLanes | None = None
        self._together = limiter if isinstance(limiter, CountsTogether) else None
        if self._together is not None:
            lanes = TaskLanes if awaited else ThreadLanes
            is_shared = bool(getattr(limiter, "counts_owners_together", False))
            self._lanes = lanes(self._ask, 2 * timeout, is_shared=is_shared)
        self._stand_in: MemoryRateLimiter | None = None
        self._stood_in = 0
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self.counts = LimitCounts(self.counts)

    def hit(self, charges: Sequence[Charge]) -> Coroutine[object, None, Outcome | None]:
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
        # Only the counter that counted refunds. In another one a refund would be credit.
        more = [max(0, change) for change in units]
        if counter == _stand_in_of(self._outage) and self._stand_in is not None:
            return self._stand_in.adjust(self._share_of(charges), units, ends_at)
        asked = units if counter == self._outage else more
        adjustment = _Adjustment(asked, more, ends_at)
        return (await self._ask((charges,), adjustment))[0]

    @property
    def suspends(self) -> bool:
        """Whether a call of the counters may suspend, so that its task can be cancelled in it."""
        return self._awaited and self.memory is None

    @property
    def is_up(self) -> bool:
        """Whether the limiter answers, as far as it was asked."""
        return self._failing_since is None

    def close(self) -> None:
        """Free the stand-in of the limiter."""
        if self._stand_in is not None:
            self._stand_in.close()

    async def _ask(
        self, hits: Sequence[Sequence[Charge]], adjustment: _Adjustment | None = None
    ) -> Sequence[Outcome | None]:
        """Count hits in one call of the limiter, or of its stand-in while it fails.

        Args:
            hits: The charges of each hit. Only a limiter that counts together gets several.
            adjustment: The adjustment to make instead of counting a hit.

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
        elif self._together is None:
            question = partial(limiter.hit, hits[0])
        else:
            question = partial(self._together.hit_all, hits)
        observers = self._observers.of_counters
        operation = "hit" if adjustment is None else "adjust"
        observation = observed(observers, limiter, operation) if observers else UNOBSERVED
        answer: object
        try:
            with observation:
                if self._awaited:
                    async with awithin(self._timeout):
                        asked = question()
                        answer = await asked if isinstance(asked, Awaitable) else asked
                else:
                    with within(self._timeout):
                        answer = question()
        except (CorruptDataError, ConfigurationError) as failure:
            # The error concerns only one bucket or limit: the other hits are counted without it.
            if len(hits) > 1:
                return [(await self._ask((charges,)))[0] for charges in hits]
            self._note_refusal(failure)
        except Exception as failure:  # noqa: BLE001 - any error means that the limiter failed
            if answers == self._answers:
                self._note_failure(failure, outage)
            else:  # it answered others meanwhile
                self._note_refusal(failure)
        else:
            found: Sequence[Outcome | StoreError] = []
            if isinstance(answer, Outcome):
                found = [answer]
            elif isinstance(answer, list):
                found = answer
            if found:
                self._answers += 1
                counter = outage if self._failing_since is None else self._note_recovery(outage)
                outcomes: list[Outcome | None] = []
                for charges, outcome in zip(hits, found, strict=True):
                    if not isinstance(outcome, Outcome):
                        self._note_refusal(outcome)
                        outcomes += self._stand_in_answer((charges,), None)
                    elif outcome.counter == counter:
                        outcomes.append(outcome)
                    else:
                        outcomes.append(outcome._replace(counter=counter))
                return outcomes
            self._note_refusal(
                CorruptDataError("the limiter answered with something other than an outcome")
            )
        return self._stand_in_answer(hits, adjustment)

    def _admitted_outage(self) -> int | None:
        """Return the current outage's number if this request may ask again, otherwise None."""
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


def _stand_in_of(outage: int) -> int:
    """Return the stand-in's number as a counter. The limiter's is the outage's number."""
    return -1 - outage
