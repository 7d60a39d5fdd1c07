"""The threads for calls that know no deadline."""

from __future__ import annotations

import threading

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.stores.limits.workers import Workers


def test_calls_that_got_no_thread_take_none_from_those_that_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers("test", most=1, patience=1.0, at_end=lambda: None)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for number in range(2):
            with pytest.raises(StoreUnavailableError, match="no thread"):
                workers.run(lambda number=number: calls.append(number))  # type: ignore[misc]

    assert workers.run(lambda: "done") == "done"
    assert calls == []
    workers.close()


@pytest.mark.timeout(20, func_only=True)
def test_a_call_that_got_no_thread_takes_none_that_came_free_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers("test", most=3, patience=1.0, at_end=lambda: None)
    begun, end, over = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        end.wait()

    first = threading.Thread(target=workers.run, args=(hold,))
    first.start()
    begun.wait()

    def too_late(thread: threading.Thread) -> None:
        end.set()
        first.join()
        assert workers.run(lambda: "answered") == "answered"
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", too_late)
    try:
        with pytest.raises(StoreUnavailableError, match="no thread"):
            workers.run(over.wait)
    finally:
        over.set()
    workers.close()
