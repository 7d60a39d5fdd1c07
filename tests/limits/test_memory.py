"""Counters in memory: bounded, and swept outside the request."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from datetime import timedelta
from typing import Any

import pytest

from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.stores.memory import counters as memory
from keyguard.stores.memory.counters import MemoryRateLimiter
from tests.world import StandingClock


def charge(number: int = 1, *, owner: str = "org_1", window: int = 60, **fields: Any) -> Charge:
    default: dict[str, Any] = {
        "key": f"keyguard:{{{owner}}}:limit:{window}:{fields.get('strategy', '')}:{number}",
        "name": "test",
        "amount": 10,
        "window": window,
        "strategy": Strategy.SLIDING_WINDOW_COUNTER,
        "enforce": True,
        "cost": 1,
    }
    return Charge(**default | fields)


@pytest.fixture
def clock() -> StandingClock:
    clock = StandingClock()
    clock.uptime = 86400.0
    return clock


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_has_ended_is_swept_and_what_lives_is_kept(
    clock: StandingClock, strategy: Strategy
) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    for number in range(1000):
        limiter.hit([charge(number, strategy=strategy)])
    for number in range(10):
        limiter.hit([charge(number, window=3600, strategy=strategy)])
    clock.advance(timedelta(seconds=100))
    limiter.hit([charge(7, strategy=strategy)])
    limiter.sweep()
    clock.advance(timedelta(seconds=100))
    limiter.sweep()
    assert len(limiter) <= 11
    lasting = charge(5, window=3600, strategy=strategy)
    assert limiter.adjust([lasting], [0], [0]).tallies[0].remaining == 9
    limiter.close()


def test_the_number_of_buckets_is_bounded_and_the_hottest_stay(clock: StandingClock) -> None:
    limiter = MemoryRateLimiter(clock=clock, size=100)
    for number in range(1000):
        limiter.hit([charge(number)])
        limiter.adjust([charge(0)], [1], [0])
    assert len(limiter) == 100
    assert limiter.adjust([charge(0)], [0], [0]).tallies[0].remaining == 0
    limiter.close()


def test_a_flood_of_strangers_pushes_no_key_s_count_out(clock: StandingClock) -> None:
    limiter = MemoryRateLimiter(clock=clock, size=100)
    limiter.hit([charge()])
    for number in range(1000):
        limiter.hit([charge(owner=f"198.51.100.{number}")])
    assert limiter.adjust([charge()], [0], [0]).tallies[0].remaining == 9
    assert len(limiter) == 1 + 25
    limiter.close()


def test_the_sweeper_is_a_thread_of_its_own_that_ends_with_the_limiter(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SWEEP_EVERY", 0.001)
    limiter = MemoryRateLimiter(clock=clock)
    assert limiter._sweeper is None
    limiter.hit([charge()])
    sweeper = limiter._sweeper
    assert sweeper is not None
    assert sweeper.daemon
    limiter.close()
    sweeper.join(30)
    assert not sweeper.is_alive()


def test_where_no_thread_is_to_be_had_it_counts_and_the_next_new_bucket_tries_again(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    limiter = MemoryRateLimiter(clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert limiter.hit([charge()]).admitted
    assert limiter._sweeper is None
    limiter.hit([charge(2)])
    assert limiter._sweeper is not None
    limiter.close()


def test_a_limiter_that_nobody_holds_is_freed_and_its_sweeper_ends(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SWEEP_EVERY", 0.001)
    limiter = MemoryRateLimiter(clock=clock)
    limiter.hit([charge()])
    sweeper, reference = limiter._sweeper, weakref.ref(limiter)
    del limiter
    gc.collect()
    assert sweeper is not None
    sweeper.join(30)
    assert not sweeper.is_alive()
    assert reference() is None


def test_a_forked_child_counts_on_with_a_lock_and_a_sweeper_of_its_own(
    clock: StandingClock,
) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    limiter.hit([charge()])
    with limiter._lock:  # as if another thread were amid a hit
        child = os.fork()
        if child == 0:
            outcome = limiter.hit([charge(), charge(2)])
            swept = limiter._sweeper is not None and limiter._sweeper.is_alive()
            os._exit(0 if outcome.tallies[0].remaining == 8 and swept else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    limiter.close()


def test_hits_of_many_threads_are_exact(clock: StandingClock) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    admitted: list[bool] = []

    def work() -> None:
        for _ in range(50):
            admitted.append(limiter.hit([charge(amount=100), charge(2, amount=1000)]).admitted)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 100
    assert limiter.adjust([charge(2, amount=1000)], [0], [0]).tallies[0].remaining == 900
    limiter.close()


def test_a_signal_whose_handler_raises_leaves_the_counters_usable() -> None:
    class Interruption(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    limiter, bucket = MemoryRateLimiter(), charge(amount=10**9)
    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        for _ in range(100):
            with pytest.raises(Interruption):
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0001)
                while True:
                    limiter.hit([bucket])
            assert not limiter._lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
