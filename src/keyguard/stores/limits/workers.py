"""Threads for calls that know no deadline of their own, so that nobody waits beyond theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.process import after_fork

__all__ = ["Workers"]

Result = TypeVar("Result")
_Job: TypeAlias = Callable[[], None]


class Workers:
    """A bounded number of threads, whose callers leave when their time is over.

    A call that hangs keeps its thread, and no process from ending. Once all hang, calls wait for
    one as long as they may.

    Args:
        name: What the threads are called.
        most: How many there are at the most.
        patience: Seconds that a call may take where its caller has no deadline.
        at_end: Is called on each thread before it ends.
    """

    def __init__(
        self, name: str, *, most: int, patience: float, at_end: Callable[[], None]
    ) -> None:
        self._name = name
        self._most = most
        self._patience = patience
        self._at_end = at_end
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._crew = _Crew(self._most)

    def run(self, call: Callable[[], Result]) -> Result:
        """Make a call on a thread, within the caller's deadline, which holds inside as well.

        Raises:
            StoreUnavailableError: All threads are taken, or none is to be had.
            TimeoutError: The time was over; what was begun may still be done.
        """
        left = remaining()
        left = self._patience if left is None else left
        if not left:
            raise TimeoutError("there was no time left")
        crew = self._crew
        begin = time.monotonic()
        if not crew.turns.acquire(timeout=left):
            raise StoreUnavailableError("all calls to it are still under way")
        answer: Future[Result] = Future()
        with within(left):
            here = copy_context()

        def job() -> None:
            try:
                result = here.run(call)
            except BaseException as failure:  # noqa: BLE001 - it is the caller's
                crew.done()
                answer.set_exception(failure)
            else:
                crew.done()
                answer.set_result(result)

        if not crew.idle.acquire(blocking=False):
            try:
                self._start_thread(crew)
            except RuntimeError as failure:
                crew.turns.release()
                raise StoreUnavailableError("no thread is to be had for it") from failure
        crew.jobs.put(job)  # last, so that each has a thread of its own that will take it
        return answer.result(max(0.0, left - (time.monotonic() - begin)))

    def close(self) -> None:
        """Let the threads end as they come to rest; the next call starts others."""
        self._crew.jobs.put(None)
        self._start_afresh()

    def _start_thread(self, crew: _Crew) -> None:
        work = threading.Thread(
            target=_work, args=(crew.jobs, self._at_end), name=self._name, daemon=True
        )
        work.start()


class _Crew:
    """The threads of one process, between two closes."""

    def __init__(self, most: int) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.turns = threading.BoundedSemaphore(most)
        self.idle = threading.Semaphore(0)

    def done(self) -> None:
        self.idle.release()  # first, or a thread too many were started
        self.turns.release()


def _work(jobs: SimpleQueue[Any], at_end: Callable[[], None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or what it holds lives until the next one
    jobs.put(None)  # for the others
    at_end()
