"""Between the guard and its limiter: what is done while the limiter fails.

A limiter that does not answer within its timeout is left alone for a second. Meanwhile requests
are counted in this process, or refused, as ``on_limiter_error`` says, and none waits. Then one
request asks again. What is decided is written once; the two gates differ in how they ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.exceptions import ConfigurationError, CorruptDataError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.events import Event, LimiterFailed, LimiterRecovered
from keyguard.runtime.process import Clock, after_fork
from keyguard.stores.base import AsyncRateLimiter, RateLimiter
from keyguard.stores.memory.counters import MemoryRateLimiter

__all__ = ["ASK_AGAIN_AFTER", "AsyncCircuitBreaker", "CircuitBreaker"]

ASK_AGAIN_AFTER = 1.0
"""Seconds for which a limiter that failed is left alone."""

Question: TypeAlias = Callable[[Any], Any]


class _CircuitBreaker:
    """What both flavours share: everything but asking.

    Args:
        limiter: Where counters live.
        timeout: Seconds that it may take to answer.
        fails_open: Whether requests go on while it fails, counted in this process.
        clock: Where time comes from.
        tell: Takes the events of its failing and recovering.
    """

    def __init__(
        self,
        limiter: RateLimiter | AsyncRateLimiter,
        *,
        timeout: float,
        fails_open: bool,
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self.limiter = limiter
        self.memory = limiter if isinstance(limiter, MemoryRateLimiter) else None
        """The limiter, where it is one that never waits and never fails."""
        self._timeout = timeout
        self._fails_open = fails_open
        self._clock = clock
        self._tell = tell
        self._failing_since: float | None = None
        self._outage = 0  # how often the limiter has failed or come back
        self._ask_again_at = 0.0
        self._told = ""
        self._stand_in: MemoryRateLimiter | None = None
        self._stood_in = 0
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()

    def hit(self, charges: Sequence[Charge]) -> Any:
        """Count charges, all or none.

        Returns:
            The outcome, or None where they can't be counted and that must not pass; in async code
            an awaitable of it, but for what never waits.
        """
        if self.memory is not None:
            return self.memory.hit(charges)
        return self._count(lambda limiter: limiter.hit(charges))

    def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Any:
        """Count more, or give back until ``ends_at`` where ``counter`` counted; as :meth:`hit`."""
        if self.memory is not None:
            return self.memory.adjust(charges, units, ends_at)
        question, meanwhile, stand_in = self._adjusting(charges, units, ends_at, counter)
        return meanwhile(stand_in) if stand_in is not None else self._count(question, meanwhile)

    def _count(self, question: Question, meanwhile: Question | None = None) -> Any:
        raise NotImplementedError

    def _settled(self, question: Question, answer: object, outage: int) -> Outcome | None:
        """Return what a question comes to, given the limiter's answer or its failure.

        Args:
            question: What its stand-in is asked if it failed.
            answer: The outcome, or why there is none.
            outage: What :meth:`_turn` returned before the limiter was asked.
        """
        if isinstance(answer, Outcome):
            counter = self._recovered(outage) if self._failing_since is not None else outage
            return answer._replace(counter=counter) if counter != answer.counter else answer
        if not isinstance(answer, Exception):
            answer = CorruptDataError("the limiter answered something else than an outcome")
        if isinstance(answer, CorruptDataError | ConfigurationError):
            self._refused(answer)  # by this bucket or this limit, which says nothing of others
        else:
            self._failed(answer, outage)
        return self._meanwhile(question)

    def _turn(self) -> int | None:
        """Return which outage it is that the limiter may be asked in, or None if it may not be."""
        outage = self._outage
        if self._failing_since is None:
            return outage
        with self._lock:
            now = self._clock.monotonic()
            if now < self._ask_again_at:
                return None
            self._ask_again_at = now + ASK_AGAIN_AFTER  # the others wait for this one's answer
            return self._outage

    def _failed(self, failure: Exception, outage: int) -> None:
        with self._lock:
            if outage != self._outage:
                return  # it was asked before the others found out, or before it recovered
            now = self._clock.monotonic()
            self._ask_again_at = now + ASK_AGAIN_AFTER
            if self._failing_since is not None:
                return
            self._failing_since, self._stood_in = now, 0
            self._outage += 1
        self._tell(LimiterFailed(at=self._now(), fails_open=self._fails_open, cause=failure))

    def _refused(self, failure: Exception) -> None:
        with self._lock:
            is_known = self._told == str(failure)
            self._told = str(failure)
        if not is_known:
            self._tell(LimiterFailed(at=self._now(), fails_open=self._fails_open, cause=failure))

    def _recovered(self, outage: int) -> int:
        """Note that the limiter answered; return who it is as a counter."""
        with self._lock:
            if outage != self._outage:
                return outage  # it was asked before it failed
            since, self._failing_since = self._failing_since, None
            self._outage += 1
            counter = self._outage
        if since is not None:
            lasted = self._clock.monotonic() - since
            self._tell(LimiterRecovered(at=self._now(), lasted=lasted, decisions=self._stood_in))
        return counter

    def _meanwhile(self, question: Question) -> Outcome | None:
        with self._lock:
            self._stood_in += 1
            if not self._fails_open:
                return None
            if self._stand_in is None:
                self._stand_in = MemoryRateLimiter(clock=self._clock)
            counter = _stand_in_of(self._outage)
        outcome: Outcome = question(self._stand_in)
        return outcome._replace(counter=counter)

    def _adjusting(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> tuple[Question, Question, MemoryRateLimiter | None]:
        """Return what to ask the limiter, what its stand-in, and the latter if it alone counted.

        Nothing is given back where it was not counted: there it would be credit.
        """
        more = [max(0, change) for change in units]

        def adjust(limiter: Any) -> Any:
            return limiter.adjust(charges, units, ends_at)

        def charge_more(limiter: Any) -> Any:
            return limiter.adjust(charges, more, ends_at)

        if counter == _stand_in_of(self._outage):
            return charge_more, adjust, self._stand_in
        return adjust if counter == self._outage else charge_more, charge_more, None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

    def _close(self) -> None:
        if self._stand_in is not None:
            self._stand_in.close()


def _stand_in_of(outage: int) -> int:
    """Return what the stand-in is as a counter, the limiter being known as the outage's number."""
    return -1 - outage


class CircuitBreaker(_CircuitBreaker):
    """The way to a limiter for sync code. It answers the effects of charging."""

    limiter: RateLimiter

    def close(self, *, limiter: bool) -> None:
        """Give back what was opened, the limiter itself if it is the guard's."""
        self._close()
        if limiter:
            self.limiter.close()

    def _count(self, question: Question, meanwhile: Question | None = None) -> Outcome | None:
        outage = self._turn()
        if outage is None:
            return self._meanwhile(meanwhile or question)
        try:
            with within(self._timeout):
                answer = question(self.limiter)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the limiter failed
            answer = failure
        return self._settled(meanwhile or question, answer, outage)


class AsyncCircuitBreaker(_CircuitBreaker):
    """The way to a limiter for async code; what never waits is answered at once."""

    async def migrate(self) -> None:
        """Create what the limiter needs or bring it up to date."""
        if self.memory is None:
            await self._async_limiter.migrate()

    async def aclose(self, *, limiter: bool) -> None:
        """Give back what was opened, the limiter itself if it is the guard's."""
        self._close()
        if limiter and self.memory is not None:
            self.memory.close()
        elif limiter:
            await self._async_limiter.aclose()

    @property
    def _async_limiter(self) -> AsyncRateLimiter:
        limiter: Any = self.limiter  # who opened it saw to the flavour
        return cast("AsyncRateLimiter", limiter)

    async def _count(self, question: Question, meanwhile: Question | None = None) -> Outcome | None:
        outage = self._turn()
        if outage is None:
            return self._meanwhile(meanwhile or question)
        try:
            async with awithin(self._timeout):
                answer = await question(self._async_limiter)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the limiter failed
            answer = failure
        return self._settled(meanwhile or question, answer, outage)
