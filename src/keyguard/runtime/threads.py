"""Threads for what would hold up an event loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.process import after_fork

__all__ = ["Threads"]

Result = TypeVar("Result")


class Threads:
    """A bounded number of threads, each started when it is needed, that carry out calls.

    They are those of a ThreadPoolExecutor, which queues a call before it starts a thread for it,
    and leaves it there where none is to be had: it would be carried out some day, though whoever
    asked was told that it failed.

    Args:
        most: How many there are at the most.
        name: With which their names begin.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._executor: futures.ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], Result]) -> futures.Future[Result]:
        """Have a call carried out.

        Raises:
            StoreUnavailableError: No thread is to be had; it never will be.
        """
        answer: futures.Future[Result] = futures.Future()
        try:
            executor = self._executor
            if executor is None:
                executor = self._executor = self._with_a_thread()
            executor.submit(_carry_out, call, answer)
        except RuntimeError as failure:
            if answer.cancel():  # else a thread that came free has begun it
                raise StoreUnavailableError(
                    "no thread is to be had for it; see how many this process may start"
                ) from failure
        return answer

    def close(self) -> None:
        """Let the threads end once they are done with what waits; the next call starts others."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _with_a_thread(self) -> futures.ThreadPoolExecutor:
        # One that had none would keep what it could not begin, and get more of it with each call.
        executor = futures.ThreadPoolExecutor(self._most, self._name)
        executor.submit(int)
        return executor


def _carry_out(call: Callable[[], Result], answer: futures.Future[Result]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as failure:
        answer.set_exception(failure)
        # Else the answer and its failure, which has these frames, would keep each other alive.
        del answer
        raise  # to the executor, which lets go of it likewise
    else:
        answer.set_result(result)
