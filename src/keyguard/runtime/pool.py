"""A bounded pool of threads for calls that block: slow hashes, SQLite, storages without deadlines.

A pool starts a thread only when a call needs one. Its threads are daemon threads, so a call that
hangs does not keep the process from ending.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Queue
from typing import TypeAlias, TypeVar

from keyguard.exceptions import ConfigurationError, HashTimeoutError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import after_fork, forks_unnoticed, renew_if_forked, start_thread
from keyguard.runtime.shares import Shares, overloaded

Result = TypeVar("Result")

_Jobs: TypeAlias = "Queue[tuple[Callable[[Callable[[], None]], None], Callable[[], None]] | None]"

_PATIENCE = 1.0


class Pool:
    """Runs calls on a bounded number of threads; any number of further calls may wait.

    Args:
        name: The beginning of the names of its threads.
        most: How many calls run at once.
        at_end: Called on each thread before it ends.
    """

    def __init__(self, name: str, *, most: int, at_end: Callable[[], object] | None = None) -> None:
        self._name = name
        self._most = most
        self._at_end = at_end
        self._start_afresh()
        after_fork(self._start_afresh)  # a child has none of its parent's threads

    def _start_afresh(self) -> None:
        self._jobs: _Jobs = Queue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0

    def submit(
        self, call: Callable[[], Result], answer: Future[Result] | None = None
    ) -> Future[Result]:
        """Run a call on a thread, and return its future: a new one, unless one is given.

        Raises:
            StoreUnavailableError: No thread could be started. The call will not run, now or later.
        """
        answer = Future() if answer is None else answer
        # Then no thread may start, and the caller makes the call.
        if "uwsgi" in sys.modules and forks_unnoticed():
            _do(call, answer, int)
            return answer
        if not self._idle.acquire(blocking=False):
            self._start_thread()
        # Last: if no thread could be started, no queue keeps the call.
        with self._lock:
            if self._started:  # otherwise the thread for this call could not be started
                self._jobs.put((partial(_do, call, answer), partial(_refuse, answer)))
                return answer
        raise _no_thread()

    def call(self, call: Callable[[], Result]) -> Result:
        """Run a call on a thread, and wait for its result until the caller's deadline, or a second.

        The deadline and the other context variables apply on the thread as well.

        Raises:
            StoreUnavailableError: No thread could be started. The call will not run, now or later.
            TimeoutError: The deadline has passed. A call that has not begun will not run; one that
                has begun may still complete.
        """
        renew_if_forked()
        left = _time_left(_PATIENCE)
        if not left:
            raise TimeoutError("there was no time left")
        with within(left):
            answer = self.submit(partial(copy_context().run, call))
        try:
            return answer.result(left)
        finally:
            answer.cancel()

    def close(self) -> None:
        """Let the threads end after the waiting calls; the next call starts new threads."""
        if self._started:
            self._jobs.put(None)
            self._start_afresh()

    def _start_thread(self) -> None:
        """Start one more thread, if there may be more."""
        with self._lock:
            if self._started == self._most:
                return
            jobs = self._jobs
            thread = threading.Thread(
                target=_work,
                args=(jobs, self._idle.release, self._at_end),
                name=f"{self._name}_{self._started}",
                daemon=True,
            )
            self._started += 1
        try:
            start_thread(thread)
        except RuntimeError as failure:
            waiting: list[Callable[[], None]] = []
            with self._lock:
                if self._jobs is jobs:  # otherwise the pool was closed meanwhile
                    self._started -= 1
                    while not self._started and not jobs.empty():
                        if job := jobs.get_nowait():
                            waiting.append(job[1])
            for refuse in waiting:  # these counted on the thread, and no other would run them
                refuse()
            raise _no_thread() from failure


def _work(jobs: _Jobs, done: Callable[[], None], at_end: Callable[[], object] | None) -> None:
    while (job := jobs.get()) is not None:
        job[0](done)
        del job  # or this frame would keep the call alive until the next one
    jobs.put(None)  # for the other threads
    if at_end is not None:
        at_end()


def _no_thread() -> StoreUnavailableError:
    return StoreUnavailableError(
        "no thread could be started for it; check how many this process may start"
    )


def _refuse(answer: Future[Result]) -> None:
    if answer.set_running_or_notify_cancel():
        answer.set_exception(_no_thread())


def _do(call: Callable[[], Result], answer: Future[Result], done: Callable[[], object]) -> None:
    """Make a call and set the result of its future; the thread counts as idle just before that."""
    if not answer.set_running_or_notify_cancel():
        done()
        return
    try:
        result = call()
    except BaseException as failure:  # noqa: BLE001 - it is the caller's
        done()
        answer.set_exception(failure)
        del answer  # the failure holds this frame: they would keep each other alive
    else:
        done()
        answer.set_result(result)


class HashPool(Pool):
    """Runs slow hashes, which take tens of milliseconds and megabytes each, off the event loop.

    Args:
        workers: How many run at once, in this process.
        waiting: How many more may wait; the pool refuses further ones at once.
        patience: Seconds that a hash waits for its turn if its caller has no deadline.
        longest: Seconds that :meth:`arun` waits for a hash once it runs.
    """

    def __init__(
        self, *, workers: int, waiting: int, patience: float = _PATIENCE, longest: float = 2.0
    ) -> None:
        self._most_waiting = waiting
        self._patience = patience
        self._longest = longest
        super().__init__("keyguard-hash", most=workers)

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._shares = Shares(most=self._most, places=self._most + self._most_waiting)

    def run(self, job: Callable[[], Result], share: str = "") -> Result:
        """Run a hash in this thread, when its turn comes.

        Args:
            job: The hash.
            share: The share of the hash. Shares take turns, so that none delays the others.

        Raises:
            StoreUnavailableError: Too many run or wait already.
        """
        shares, came = self._shares, threading.Event()  # a forked child has others
        shares.ask(share, came.set)
        try:
            if not came.wait(_time_left(self._patience)):
                raise overloaded()
            return job()
        finally:
            shares.leave(share, came.set)

    async def arun(self, job: Callable[[], Result], share: str = "") -> Result:
        """Run a hash on a thread, and await it.

        Args:
            job: The hash.
            share: The share of the hash. Shares take turns, so that none delays the others.

        Raises:
            StoreUnavailableError: Too many run or wait already, or no thread could be started.
            HashTimeoutError: The hash has begun, and did not end in time.
            ConfigurationError: The event loop is not asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "hasher 'argon2id' needs asyncio; under trio use the default hasher"
            ) from None
        begun: asyncio.Future[None] = loop.create_future()
        submitted: Future[Result] = Future()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits any longer
                loop.call_soon_threadsafe(begun.set_result, None)

        def begin() -> Result:
            tell()
            return job()

        def hand_over() -> None:
            try:
                self.submit(begin, submitted)
            except StoreUnavailableError as failure:
                with suppress(InvalidStateError):  # nothing waits any longer
                    submitted.set_exception(failure)
                    tell()

        shares = self._shares  # a forked child has others
        shares.ask(share, hand_over)
        submitted.add_done_callback(lambda _: shares.leave(share, hand_over))
        answer = asyncio.wrap_future(submitted)
        try:
            await asyncio.wait([begun], timeout=_time_left(self._patience))
            if not begun.done():
                raise overloaded()
            await asyncio.wait([answer], timeout=self._longest)
            if not answer.done():
                raise HashTimeoutError(
                    "a slow hash did not end in time; raise hash_timeout, or lower hash_workers so "
                    "that fewer run at once"
                )
            return answer.result()
        finally:
            answer.cancel()  # if the hash has not begun, it will not


def _time_left(patience: float) -> float:
    left = remaining()
    return patience if left is None else left
