"""Our counting beside that of the package ``limits``: the same admitted, left and reset."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from types import SimpleNamespace
from typing import Any
from unittest import mock

import limits.storage.memory
import limits.strategies
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyguard import InvalidValueError, Limit, Strategy
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.windows import COUNTING, State
from keyguard.stores.memory.counters import MemoryRateLimiter
from tests.limits.conftest import WHENEVER, limiter_of
from tests.stores.conftest import make_database
from tests.world import StandingClock

AMOUNT, WINDOW = 10, 8
# In eighths of a second: exact in floating point, and on the boundaries of windows often.
_buckets = itertools.count(1)
STEPS = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 12)), min_size=1, max_size=40)


class Oracle:
    """A strategy of ``limits`` over its own storage in memory, at a time that is passed in."""

    def __init__(self, strategy: Strategy, clock: StandingClock) -> None:
        timer = SimpleNamespace(is_alive=lambda: True, start=lambda: None)  # no thread on each hit
        threading = mock.Mock(wraps=limits.storage.memory.threading)
        threading.Timer = lambda *_: timer
        with mock.patch.object(limits.storage.memory, "threading", threading):
            storage = limits.storage.memory.MemoryStorage()
        self.limiter = limits.strategies.STRATEGIES[strategy.value](storage)
        self.item = limits.parse(f"{AMOUNT}/{WINDOW} seconds")
        self.clock = clock
        # a refused hit of ours counts nothing
        self.tests_first = strategy is Strategy.FIXED_WINDOW

    @contextmanager
    def now(self) -> Iterator[None]:
        time = SimpleNamespace(time=self.clock.monotonic)
        with (
            mock.patch.object(limits.storage.memory, "time", time),
            mock.patch.object(limits.strategies, "time", time),
        ):
            yield

    def hit(self, cost: int) -> tuple[bool, Any]:
        with self.now():
            room = not self.tests_first or self.limiter.test(self.item, "a", cost=cost)
            admitted = room and self.limiter.hit(self.item, "a", cost=cost)
            return admitted, self.limiter.get_window_stats(self.item, "a")


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def counted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StandingClock, Any]]:
    """Each implementation of ours, on a clock that stands."""
    clock = StandingClock()
    if request.param == "memory":
        limiter: Any = MemoryRateLimiter(clock=clock)
    else:
        database = make_database(request.param, request, tmp_path_factory.mktemp("counted"))
        limiter = limiter_of(database.backend(), now=clock.monotonic)
        limiter.migrate()
    yield clock, limiter
    limiter.close()


@pytest.mark.parametrize("strategy", list(Strategy))
def test_hits_are_counted_as_limits_counts_them(
    strategy: Strategy, counted: tuple[StandingClock, Any]
) -> None:
    clock, limiter = counted

    most = settings.default.max_examples

    @settings(max_examples=most if isinstance(limiter, MemoryRateLimiter) else most // 4)
    @given(steps=STEPS)
    def compare(steps: Any) -> None:
        clock.uptime = 8000.0
        oracle = Oracle(strategy, clock)
        key = f"keyguard:{{org_1}}:{strategy}:{next(_buckets)}"
        for wait, cost in steps:
            clock.uptime += wait / 8
            outcome = limiter.hit([Charge(key, "x", AMOUNT, WINDOW, strategy, True, cost)])
            admitted, stats = oracle.hit(cost)
            [tally] = outcome.tallies
            assert outcome.admitted == admitted
            assert tally.remaining == max(0, stats.remaining)
            if tally.remaining < AMOUNT:  # else there is nothing to be reset
                reset = stats.reset_time - clock.uptime
                assert tally.reset_after == pytest.approx(reset, abs=2e-6)  # Redis answers in µs

    compare()


@pytest.mark.parametrize("counted", ["redis"], indirect=True)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 100),
            st.none() | st.integers(-70, 70),  # until when it is given back, where it is
            st.lists(
                st.tuples(
                    st.integers(0, 2),  # which bucket
                    st.sampled_from(list(Strategy)),
                    st.integers(1, 12),
                    st.booleans(),
                ),
                min_size=1,
                max_size=4,
            ),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_redis_counts_as_memory_does(counted: tuple[StandingClock, Any], steps: Any) -> None:
    clock, limiter = counted
    clock.uptime = 8000.0
    memory = MemoryRateLimiter(clock=clock)
    run = next(_buckets)
    for wait, adjusts, parts in steps:
        clock.uptime += wait / 8
        charges = [
            Charge(
                f"keyguard:{{org_1}}:{run}:{strategy}:{number}",
                *("x", AMOUNT, WINDOW, strategy, enforce, cost),
            )
            for number, strategy, cost, enforce in parts
        ]
        if adjusts is not None:
            units = [charge.cost - 6 for charge in charges]
            ends = [clock.uptime + adjusts / 8] * len(charges)
            outcomes = [each.adjust(charges, units, ends) for each in (memory, limiter)]
            # One bucket of two charges: memory reports each as it stood in between.
            if len({charge.key for charge in charges}) < len(charges):
                continue
        else:
            outcomes = [each.hit(charges) for each in (memory, limiter)]
        theirs, ours = outcomes
        assert ours.admitted == theirs.admitted
        for mine, other in zip(ours.tallies, theirs.tallies, strict=True):
            assert mine == pytest.approx(other, abs=2e-6)
    memory.close()


@pytest.mark.parametrize("strategy", list(Strategy))
@given(steps=STEPS, seconds=st.booleans())
def test_waiting_as_long_as_is_said_lets_the_hit_through(
    strategy: Strategy, steps: Any, seconds: bool
) -> None:
    counting = COUNTING[strategy]
    now, state = 8000.0, ()
    for wait, cost in steps:
        now += wait / 8
        tally, state = counting.take(state, AMOUNT, WINDOW, now, cost)
        if not tally.fits and cost <= AMOUNT:
            then = now + (ceil(tally.retry_after) if seconds else tally.retry_after)
            assert counting.look(state, AMOUNT, WINDOW, then, cost).fits
            if tally.retry_after > 0.01:
                assert not counting.look(state, AMOUNT, WINDOW, then - 1.01, cost).fits or seconds


@pytest.mark.parametrize("strategy", list(Strategy))
@given(steps=STEPS, units=st.integers(-30, 30))
@example(steps=[(0, 1), (8 * WINDOW, 1)], units=1)
def test_what_is_charged_and_given_back_leaves_what_was(
    strategy: Strategy, steps: Any, units: int
) -> None:
    counting = COUNTING[strategy]
    now = 8000.0
    state: State = ()
    for wait, cost in steps:
        now += wait / 8
        _, state = counting.take(state, AMOUNT, WINDOW, now, cost)
    before = counting.look(state, AMOUNT, WINDOW, now, 1).remaining
    more = counting.adjust(state, WINDOW, now, abs(units), 0)
    assert counting.look(more, AMOUNT, WINDOW, now, 1).remaining == max(0, before - abs(units))
    back = counting.adjust(more, WINDOW, now, -abs(units), WHENEVER)
    assert counting.look(back, AMOUNT, WINDOW, now, 1).remaining == before


RATES = st.from_regex(
    r"[0-9]{1,4} ?(/|per) ?([0-9]{1,2} )?(second|Minute|hours|day|month|year|week)s?"
    r"([,;|] ?[0-9]{1,3}/(minutes|day))?",
    fullmatch=True,
)


@given(RATES)
def test_rates_are_read_as_limits_reads_them(text: str) -> None:
    try:
        items = limits.parse_many(text)
    except ValueError:
        items = []
    theirs = [(item.amount, item.get_expiry()) for item in items]
    mine: list[tuple[int, int]] = []
    with suppress(InvalidValueError):
        mine = [(rate.amount, rate.window) for rate in Limit("a", text).rates]
    windows = {window for _, window in theirs}
    # What we refuse though limits takes it: nothing, more than a year, two rates for one window.
    sane = (
        len(windows) == len(theirs)
        and all(amount > 0 and window <= 366 * 86400 for amount, window in theirs)
        and not re.search(r"(/|per) ?0+ ", text)
    )
    assert mine == (theirs if sane else [])
