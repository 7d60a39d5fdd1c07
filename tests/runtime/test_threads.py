"""Calls on threads, also where none is to be had."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import weakref
from collections.abc import Generator
from typing import Any

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.threads import Threads

# Nothing here measures time. A call that is never carried out ends with the test's own watchdog.
pytestmark = pytest.mark.timeout(20, func_only=True)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def threads() -> Generator[Threads]:
    threads = Threads(2, "test")
    yield threads
    threads.close()


@pytest.mark.parametrize("begins", ["without a thread", "with one that is busy"])
def test_a_call_that_got_no_thread_is_never_carried_out(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    begun, end, calls = threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        end.wait()

    if begins == "with one that is busy":
        held = threads.submit(hold)
        begun.wait()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for number in range(3):
            with pytest.raises(StoreUnavailableError, match="no thread is to be had"):
                threads.submit(lambda number=number: calls.append(number))  # type: ignore[misc]
    end.set()
    assert threads.submit(lambda: "done").result() == "done"
    if begins == "with one that is busy":
        held.result()
    threads.close()
    assert calls == []


def test_calls_that_got_no_thread_are_kept_nowhere(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Call:
        def __call__(self) -> None: ...

    call = Call()
    kept = weakref.ref(call)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(StoreUnavailableError):
        threads.submit(call)
    del call
    gc.collect()
    assert kept() is None


def test_a_call_that_a_thread_takes_as_another_fails_to_start_is_no_failure(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        end.wait()

    taken = threading.Event()
    threads.submit(hold)
    begun.wait()

    def too_late(thread: threading.Thread) -> None:
        end.set()
        taken.wait()
        no_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", too_late)
    answer = threads.submit(lambda: taken.set() or "done")  # type: ignore[func-returns-value]
    assert answer.result() == "done"


def test_a_failure_is_the_callers_and_ends_with_its_last_reference() -> None:
    threads = Threads(1, "test")
    answer = threads.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        answer.result()
    threads.submit(int).result()  # so the thread has let go of it
    gone = weakref.ref(answer)
    gc.disable()
    try:
        del answer
        assert gone() is None
    finally:
        gc.enable()
    threads.close()


def test_closed_threads_end_and_others_start(threads: Threads) -> None:
    first = threads.submit(threading.current_thread).result()
    threads.close()
    first.join()
    assert threads.submit(threading.current_thread).result() is not first


def _answer(threads: Threads, answers: Any) -> None:
    answers.put(threads.submit(lambda: 7).result())


def test_a_forked_child_starts_its_own(threads: Threads) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    assert threads.submit(lambda: 7).result() == 7
    child = context.Process(target=_answer, args=(threads, answers), daemon=True)
    child.start()
    assert answers.get() == 7
    child.join()
