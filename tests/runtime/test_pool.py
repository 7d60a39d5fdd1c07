"""Calls on a bounded number of threads, also if no thread can be started."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import weakref
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.pool import Pool

# Nothing here measures time. A call that is never carried out ends with the test's own watchdog.
pytestmark = pytest.mark.timeout(60, func_only=True)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def pool() -> Generator[Pool]:
    pool = Pool("test", most=2)
    yield pool
    pool.close()


@pytest.mark.parametrize("begins", ["without a thread", "with one that is busy"])
def test_a_call_that_got_no_thread_is_never_carried_out(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    begun, end, calls = threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        end.wait()

    if begins == "with one that is busy":
        held = pool.submit(hold)
        begun.wait()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for number in range(3):
            with pytest.raises(StoreUnavailableError, match="no thread could be started"):
                pool.submit(lambda number=number: calls.append(number))  # type: ignore[misc]
    end.set()
    assert pool.submit(lambda: "done").result() == "done"
    if begins == "with one that is busy":
        held.result()
    pool.close()
    assert calls == []


def test_calls_that_got_no_thread_are_kept_nowhere(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Call:
        def __call__(self) -> None: ...

    call = Call()
    kept = weakref.ref(call)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(StoreUnavailableError):
        pool.submit(call)
    del call
    gc.collect()
    assert kept() is None


def test_a_call_that_got_no_thread_takes_none_that_came_free_meanwhile(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end, calls = threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        end.wait()

    first = pool.submit(hold)
    begun.wait()

    def too_late(thread: threading.Thread) -> None:
        end.set()
        first.result()
        assert pool.call(lambda: "answered") == "answered"
        no_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", too_late)
    # The call within the start waits until this deadline: a second is short on a busy machine.
    with within(60), pytest.raises(StoreUnavailableError, match="no thread could be started"):
        pool.call(lambda: calls.append(1))
    assert calls == []


def test_no_call_waits_for_a_thread_that_fails_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, calls, answers = Pool("test", most=1), list[int](), list[Future[None]]()

    def start_meanwhile(thread: threading.Thread) -> None:
        answers.append(pool.submit(lambda: calls.append(1)))
        no_thread(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_meanwhile)
        with pytest.raises(StoreUnavailableError, match="no thread could be started"):
            pool.submit(int)
    with pytest.raises(StoreUnavailableError, match="no thread could be started"):
        answers[0].result(timeout=0)
    assert pool.submit(lambda: 7).result() == 7
    pool.close()
    assert calls == []


def test_no_more_threads_start_than_the_pool_may_have(pool: Pool) -> None:
    end = threading.Event()
    answers = [pool.submit(lambda: end.wait() and threading.current_thread()) for _ in range(9)]
    end.set()
    names = {getattr(answer.result(), "name", "") for answer in answers}
    assert names <= {"test_0", "test_1"}


def test_a_caller_leaves_when_its_time_is_over_and_its_call_never_begins() -> None:
    pool = Pool("test", most=1)
    end, calls = threading.Event(), list[int]()
    held = pool.submit(end.wait)
    for seconds in (0.01, 0.0):
        with within(seconds), pytest.raises(TimeoutError):
            pool.call(lambda: calls.append(1))
    end.set()
    held.result()
    assert pool.call(lambda: "done") == "done"
    assert calls == []
    pool.close()


def test_the_deadline_holds_on_the_thread(pool: Pool) -> None:
    with within(5.0):
        left = pool.call(remaining)
    assert left is not None
    assert 0 < left <= 5.0
    left = pool.call(remaining)  # without a deadline it is the pool's own
    assert left is not None
    assert 0 < left <= 1.0


def test_each_thread_is_told_its_end() -> None:
    ended = threading.Semaphore(0)
    pool = Pool("test", most=2, at_end=ended.release)
    together = threading.Barrier(2)
    for answer in [pool.submit(together.wait) for _ in range(2)]:
        answer.result()
    pool.close()
    for _ in range(2):
        ended.acquire()


def test_a_failure_is_the_callers_and_ends_with_its_last_reference() -> None:
    pool = Pool("test", most=1)
    answer = pool.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        answer.result()
    pool.submit(int).result()  # so the thread has let go of it
    gone = weakref.ref(answer)
    gc.disable()
    try:
        del answer
        assert gone() is None
    finally:
        gc.enable()
    pool.close()


def test_closed_threads_end_and_others_start(pool: Pool) -> None:
    first = pool.submit(threading.current_thread).result()
    pool.close()
    first.join()
    assert pool.submit(threading.current_thread).result() is not first


def _answer(pool: Pool, answers: Any) -> None:
    answers.put(pool.submit(lambda: 7).result())


def test_a_forked_child_starts_its_own(pool: Pool) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    assert pool.submit(lambda: 7).result() == 7
    child = context.Process(target=_answer, args=(pool, answers), daemon=True)
    child.start()
    assert answers.get() == 7
    child.join()
