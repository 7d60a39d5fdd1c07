"""The turns of connections: taken without a lock, waited for where none is free."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

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
