"""The turns of connections: taken without a lock, waited for where none is free."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from keyguard.stores.sql.turns import FreeTurns

WATCHDOG = pytest.mark.timeout(60, func_only=True)

THREADS = 8
TIMES = 300


def test_waiting_for_a_turn_ends_in_time() -> None:
    turns = FreeTurns(0)
    assert not turns.acquire(0.0)
    assert not turns.acquire(0.01)


def test_a_turn_that_became_free_meanwhile_is_taken_without_waiting() -> None:
    turns = FreeTurns(1)
    assert turns.acquire(0.0)
    assert not turns


@WATCHDOG
def test_a_thread_that_waits_gets_the_turn_that_is_given_back() -> None:
    turns = FreeTurns(1)
    turns.pop()
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(turns.acquire, None)
        while not turns._waiting:
            pass
        turns.release()
        assert got.result()
    assert not turns


@WATCHDOG
def test_a_waiter_that_is_interrupted_leaves_its_turn_to_the_next() -> None:
    class Interrupted(BaseException):
        pass

    class Interrupting(FreeTurns):
        def _take(self) -> bool:
            if self and self._waiting == 2:  # as a timeout of gevent ends the first waiter
                raise Interrupted
            return super()._take()

    def wait_as(number: int) -> Future[bool]:
        got = threads.submit(turns.acquire, 30.0)
        is_waiting = False
        while not is_waiting:
            with turns._returned:  # which a waiter gives up once it waits
                is_waiting = turns._waiting == number
        return got

    turns = Interrupting(1)
    turns.pop()
    with ThreadPoolExecutor(2) as threads:
        first, second = wait_as(1), wait_as(2)
        turns.release()
        with pytest.raises(Interrupted):
            first.result()
        assert second.result(timeout=15.0)
    assert not turns


@WATCHDOG
def test_no_turn_is_lost_or_taken_twice_where_many_threads_wait() -> None:
    turns = FreeTurns(2)
    lock, present, most = threading.Lock(), 0, 0

    def use() -> None:
        nonlocal present, most
        for _ in range(TIMES):
            try:
                turns.pop()
            except IndexError:
                assert turns.acquire(None)
            with lock:
                present += 1
                most = max(most, present)
            with lock:
                present -= 1
            turns.release()

    with ThreadPoolExecutor(THREADS) as threads:
        for end in [threads.submit(use) for _ in range(THREADS)]:
            end.result()
    assert most <= 2
    assert len(turns) == 2
