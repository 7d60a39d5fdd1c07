"""The receipt of a request: how its cost is settled and refunded."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import Limit, Principal, Strategy
from keyguard.core.access.receipt import (
    Hold,
    Part,
    Receipt,
    hold,
    refund,
    reserve,
    settle,
    settle_hold,
)
from keyguard.core.identity.scopes import ScopeGrant
from keyguard.core.limits.charges import AppliedLimits, Charge, Outcome
from keyguard.core.limits.limit import read_limits
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.sync import run_sync
from keyguard.stores.memory.counters import MemoryRateLimiter
from tests.world import StandingClock

Result = TypeVar("Result")


class Suspended:
    """What a test sends into the coroutine becomes the result of awaiting this."""

    def __await__(self) -> Generator[None, Outcome | None, Outcome | None]:
        return (yield)


class Unanswered:
    """Counters that note what they are asked and answer once the test says so."""

    def __init__(self) -> None:
        self.units: list[list[int]] = []
        self.ends_at: list[list[float]] = []
        self.counters: list[int | None] = []
        self.costs: list[int] = []

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        self.costs += [charge.cost for charge in charges]
        return await Suspended()

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        self.units.append([*units])
        self.ends_at.append([*ends_at])
        self.counters.append(counter)
        return await Suspended()


class InMemory:
    """Counters in memory, behind the protocol of counters."""

    def __init__(self, limiter: MemoryRateLimiter) -> None:
        self._limiter = limiter

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        return self._limiter.hit(charges)

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        return self._limiter.adjust(charges, units, ends_at)


def start(coroutine: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Run a coroutine until it asks the counters."""
    coroutine.send(None)
    return coroutine


def finish(coroutine: Coroutine[Any, Any, object], answer: Outcome | None) -> None:
    """Let the counters answer, after which the coroutine ends."""
    with pytest.raises(StopIteration):
        coroutine.send(answer)


def principal() -> Principal:
    return Principal(
        key_id="key1",
        family="fam_1",
        organization="org_1",
        grant=ScopeGrant(frozenset()),
        metadata={},
    )


def charges(rate: str) -> tuple[Charge, ...]:
    return AppliedLimits.of(principal(), read_limits(rate, "key")).charges


def tally(remaining: int, ends_at: float = 0.0) -> Tally:
    return Tally(True, remaining, 0.0, 0.0, ends_at)


def test_two_refunds_at_the_same_time_refund_once() -> None:
    counters = Unanswered()
    receipt = Receipt(None, charges("10/minute"), [tally(9, 60.0)], "", 0)
    first = start(settle(counters, receipt, 0, ()))
    run_sync(settle(counters, receipt, 0, ()))  # it asks nothing
    assert (counters.units, counters.ends_at) == ([[-1]], [[60.0]])
    finish(first, Outcome(True, [tally(10)]))
    assert receipt.paid() == [0]


def test_a_charge_that_nobody_counted_is_not_paid() -> None:
    receipt = Receipt(None, charges("10/minute"), [tally(9, 60.0)], "", 0)
    settling = start(settle(Unanswered(), receipt, 5, ()))
    with pytest.raises(StoreUnavailableError):
        settling.send(None)
    assert receipt.paid() == [1]


@pytest.mark.parametrize(("cost", "paid"), [(90, 10), (4, 4)])
def test_a_cancelled_settlement_still_owes_and_never_refunds_twice(cost: int, paid: int) -> None:
    receipt = Receipt(None, charges("100/minute"), [tally(90, 60.0)], "", 0, [Part(0, 10, 60.0)])
    settling = start(settle(Unanswered(), receipt, cost, ()))
    with pytest.raises(CancelledError):
        settling.throw(CancelledError())
    assert receipt.paid() == [paid]


def test_each_charge_is_refunded_until_its_own_window_ends() -> None:
    counters = Unanswered()
    rate = charges("100/minute")
    first = Receipt(None, rate, [tally(0)], "", 1, [Part(0, 5, 1030.0)], 2)
    later = Receipt(None, rate, [tally(0)], "", 0, [Part(0, 7, 1080.0)], 2)
    another = Receipt(None, rate, [tally(0)], "", 0, [Part(0, 2, 1090.0)], -4)
    first.join(later)
    start(refund(counters, first)).close()
    assert (counters.units, counters.ends_at) == ([[-5, -7]], [[1030.0, 1080.0]])
    first.join(another)
    start(refund(counters, first)).close()
    assert counters.counters == [2, None]  # neither counter refunds what the other counted


def test_a_later_charge_moves_no_end() -> None:
    counters = Unanswered()
    receipt = Receipt(None, charges("100/minute"), [tally(90)], "", 0, [Part(0, 10, 1030.0)])
    settling = start(settle(counters, receipt, 20, ()))
    finish(settling, Outcome(True, [tally(80, 1090.0)]))
    start(settle(counters, receipt, 0, ())).close()
    assert (counters.units[-1], counters.ends_at[-1]) == ([-20], [1030.0])


class Job:
    """A request whose cost is settled, counted by a limiter in memory."""

    def __init__(self, limiter: MemoryRateLimiter, charge: Charge, cost: int) -> None:
        self.limiter, self.charge = limiter, charge
        outcome = limiter.hit([charge._replace(cost=cost)])
        part = Part(0, cost, outcome.tallies[0].ends_at)
        self.receipt = Receipt(None, (charge,), outcome.tallies, "", 0, [part])
        self.admitted = outcome.admitted

    def reserve(self, cost: int) -> Hold:
        held = hold(self.receipt, cost, ())
        assert run_sync(reserve(InMemory(self.limiter), None, held)) is None
        return held

    def settle(self, cost: int) -> None:
        run_sync(settle(InMemory(self.limiter), self.receipt, cost, ()))


def metered(rate: str, strategy: Strategy) -> tuple[StandingClock, MemoryRateLimiter, Charge]:
    """Return a limiter in memory at the turn of a minute, its clock, and a charge of one unit."""
    clock = StandingClock()
    clock.uptime = 6_000.0
    limit = Limit("tokens", rate, strategy=strategy)
    (charge,) = AppliedLimits.of(principal(), [limit]).charges
    return clock, MemoryRateLimiter(clock=clock), charge


def left(limiter: MemoryRateLimiter, charge: Charge) -> int:
    return limiter.adjust([charge], [0], [0]).tallies[0].remaining


SETTLED = st.tuples(
    st.integers(1, 10),  # units reserved
    st.lists(st.tuples(st.floats(0, 90), st.integers(1, 12)), min_size=1, max_size=3),
    st.floats(0, 40),  # seconds until the next job
)


@given(st.sampled_from(Strategy), st.floats(0, 60), st.lists(SETTLED, min_size=1, max_size=12))
def test_late_settlements_let_nobody_exceed_the_limit(
    strategy: Strategy, phase: float, jobs: list[tuple[int, list[tuple[float, int]], float]]
) -> None:
    """A bucket never has more room than if every cost had been known from the start."""
    clock = StandingClock()
    clock.uptime = 6_000.0 + phase
    counted, ideal = MemoryRateLimiter(clock=clock), MemoryRateLimiter(clock=clock)
    limit = Limit("tokens", "20/minute", strategy=strategy)
    (charge,) = AppliedLimits.of(principal(), [limit]).charges
    events: list[tuple[float, int, Any]] = []
    starts = clock.uptime
    for number, (_, settlements, pause) in enumerate(jobs):
        events.append((starts, number, None))
        at = starts
        for lasts, used in settlements:
            at += lasts
            events.append((at, number, used))
        starts += pause
    running: dict[int, Job] = {}
    for at, number, used in sorted(events, key=lambda event: event[0]):
        clock.uptime = at
        reserved, settlements, _ = jobs[number]
        if used is None:
            job = Job(counted, charge, reserved)
            if job.admitted:
                running[number] = job
                least = min(reserved, *(used for _, used in settlements))
                ideal.adjust([charge], [least], [0])
        elif number in running:
            if strategy is Strategy.FIXED_WINDOW:
                # A later, higher charge would open a window here that the ideal does not have.
                used = min(used, *running[number].receipt.paid())  # noqa: PLW2901
            running[number].settle(used)
        assert left(counted, charge) <= left(ideal, charge)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_charge_for_more_in_a_later_window_brings_no_credit_there(strategy: Strategy) -> None:
    clock, limiter, charge = metered("100/minute", strategy)
    limiter.hit([charge._replace(cost=1)])
    clock.uptime += 50
    job = Job(limiter, charge, 90)
    clock.uptime += 15
    limiter.adjust([charge], [30], [0])
    for cost in (91, 1):
        job.settle(cost)
    # In a moving window the job still counts, so it is refunded.
    assert left(limiter, charge) <= (70 if strategy is Strategy.MOVING_WINDOW else 69)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_refund_in_its_window_is_whole_and_after_it_nothing(
    strategy: Strategy,
) -> None:
    clock, limiter, charge = metered("100/minute", strategy)
    job = Job(limiter, charge, 90)
    clock.uptime += 59.0
    job.settle(7)
    assert left(limiter, charge) == 93
    clock.uptime += 61.0
    limiter.adjust([charge], [50], [0])
    job.settle(0)
    assert left(limiter, charge) <= 50


def test_a_moving_window_refunds_what_was_charged_later_too() -> None:
    clock, limiter, charge = metered("100/minute", Strategy.MOVING_WINDOW)
    job = Job(limiter, charge, 1)
    clock.uptime = 6_005.0
    job.settle(60)
    assert left(limiter, charge) == 40
    job.settle(2)
    assert left(limiter, charge) == 98


def test_a_moving_window_refunds_a_request_and_nothing_newer_of_others() -> None:
    clock, limiter, charge = metered("20/minute", Strategy.MOVING_WINDOW)
    first = Job(limiter, charge, 10)
    clock.uptime = 6_050.0
    second = Job(limiter, charge, 10)
    clock.uptime = 6_051.0
    first.settle(0)
    clock.uptime = 6_061.0
    assert left(limiter, charge) == 10  # the second counts until 6110
    second.settle(4)
    assert left(limiter, charge) == 16


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("pause", [5, 70])
def test_a_reservation_is_refunded_in_the_window_that_counted_it(
    strategy: Strategy, pause: int
) -> None:
    clock, limiter, charge = metered("100/minute", strategy)
    limiter.hit([charge._replace(cost=4)])
    job = Job(limiter, charge, 1)
    clock.uptime += pause
    held = job.reserve(60)
    clock.uptime += 5
    limiter.adjust([charge], [4], [0])
    run_sync(settle_hold(InMemory(limiter), held, 2))
    # Of the first window, the sliding window still counts three quarters: 3.75 units of 5.
    first = 5 if pause == 5 else 3 if strategy is Strategy.SLIDING_WINDOW_COUNTER else 0
    assert left(limiter, charge) == 100 - first - 4 - 1
    job.settle(0)
    assert left(limiter, charge) == 100 - first - 4 + (pause == 5)


def test_a_reservation_does_not_ask_for_what_another_is_being_counted_for() -> None:
    counters = Unanswered()
    receipt = Receipt(None, charges("100/minute"), [tally(99, 60.0)], "", 0)
    first, second = hold(receipt, 10, ()), hold(receipt, 20, ())
    asking = start(reserve(counters, None, first))
    meanwhile = start(reserve(counters, None, hold(receipt, 5, ())))
    run_sync(reserve(counters, None, second))  # the first asks for its units as well
    assert counters.costs == [29, 5]
    finish(asking, Outcome(True, [tally(70, 60.0)]))
    with pytest.raises(CancelledError):
        meanwhile.throw(CancelledError())
    run_sync(settle(counters, receipt, 0, ()))
    assert receipt.paid() == [30]


def test_a_refused_reservation_holds_nothing() -> None:
    counters = Unanswered()
    receipt = Receipt(None, charges("100/minute"), [tally(99, 60.0)], "", 0)
    finish(start(reserve(counters, None, hold(receipt, 200, ()))), Outcome(False, [tally(99)]))
    finish(start(reserve(counters, None, hold(receipt, 10, ()))), Outcome(True, [tally(90)]))
    assert counters.costs == [199, 9]
