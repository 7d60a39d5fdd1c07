"""The circuit breaker before the counters: what is done while their store fails.

A limiter that does not answer within its timeout is left alone for a second. Meanwhile requests are
counted in this process or refused, as ``on_limiter_error`` says, and none waits. Then one request
asks the limiter again.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.ports import Counters
from keyguard.exceptions import ConfigurationError, CorruptDataError
from keyguard.runtime import events
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.process import Clock, after_fork
from keyguard.stores.base import AsyncRateLimiter, RateLimiter
from keyguard.stores.memory.counters import MemoryRateLimiter

ASK_AGAIN_AFTER = 1.0
"""Seconds for which a limiter that failed is left alone."""


class CircuitBreaker(Counters):
    """Asks a limiter, and something else while it fails. It is the core's port to counters.

    Args:
        limiter: The limiter. One in memory is asked directly, since it never waits or fails.
        awaited: Whether a call of the limiter is awaited. Such a call is ended at its deadline.
        timeout: Seconds that a call may take.
        fails_open: Whether requests go on while the limiter fails, counted in this process.
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
        self._told = ""
        self._stand_in: MemoryRateLimiter | None = None
        self._stood_in = 0
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        if self.memory is not None:
            return self.memory.hit(charges)
        return await self._ask(
            lambda limiter: limiter.hit(charges), lambda stand_in: stand_in.hit(charges)
        )

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
            return self._stand_in.adjust(charges, units, ends_at)
        asked = units if counter == self._outage else more
        return await self._ask(
            lambda limiter: limiter.adjust(charges, asked, ends_at),
            lambda stand_in: stand_in.adjust(charges, more, ends_at),
        )

    def close(self) -> None:
        """Free what counted in the limiter's place."""
        if self._stand_in is not None:
            self._stand_in.close()

    async def _ask(
        self,
        question: Callable[[RateLimiter | AsyncRateLimiter], Outcome | Awaitable[Outcome]],
        meanwhile: Callable[[MemoryRateLimiter], Outcome],
    ) -> Outcome | None:
        """Ask the limiter, or what stands in for it while it fails."""
        outage = self._outage if self._failing_since is None else self._admitted_outage()
        if outage is None:
            return self._stand_in_answer(meanwhile)
        answer: object
        try:
            if self._awaited:
                async with awithin(self._timeout):
                    asked = question(self._limiter)
                    answer = await asked if isinstance(asked, Awaitable) else asked
            else:
                with within(self._timeout):
                    answer = question(self._limiter)
        except (CorruptDataError, ConfigurationError) as failure:
            self._note_refusal(failure)  # it concerns this bucket or limit, and no other
        except Exception as failure:  # noqa: BLE001 - whatever it is, the limiter failed
            self._note_failure(failure, outage)
        else:
            if isinstance(answer, Outcome):
                counter = outage if self._failing_since is None else self._note_recovery(outage)
                return answer if counter == answer.counter else answer._replace(counter=counter)
            self._note_refusal(
                CorruptDataError("the limiter answered with something other than an outcome")
            )
        return self._stand_in_answer(meanwhile)

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
        with self._lock:
            is_known = self._told == str(failure)
            self._told = str(failure)
        if not is_known:
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

    def _stand_in_answer(self, question: Callable[[MemoryRateLimiter], Outcome]) -> Outcome | None:
        with self._lock:
            self._stood_in += 1
            if not self._fails_open:
                return None
            if self._stand_in is None:
                self._stand_in = MemoryRateLimiter(clock=self._clock)
            counter = _stand_in_of(self._outage)
        return question(self._stand_in)._replace(counter=counter)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


def _stand_in_of(outage: int) -> int:
    """Return the stand-in's number as a counter. The limiter's is the outage's number."""
    return -1 - outage
