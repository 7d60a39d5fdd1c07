"""A bounded pool of threads for calls that block: slow hashes, SQLite, storages without deadlines.

A pool starts a thread only when a call needs one. Its threads are daemon threads, so a call that
hangs does not keep the process from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from keyguard.exceptions import ConfigurationError, HashTimeoutError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import after_fork

Result = TypeVar("Result")


class Pool:
    """Runs calls on a bounded number of threads.

    Args:
        name: What the names of its threads begin with.
        most: How many calls run at once.
        waiting: How many more calls may wait; None for any number.
        patience: Seconds that a caller waits if it has no deadline.
        at_end: Called on each thread before it ends.
    """

    _what = "calls"

    def __init__(
        self,
        name: str,
        *,
        most: int,
        waiting: int | None = None,
        patience: float = 1.0,
        at_end: Callable[[], object] | None = None,
    ) -> None:
        self._name = name
        self._most = most
        self._waiting = waiting
        self._patience = patience
        self._at_end = at_end
        self._reset()
        after_fork(self._reset)  # a child has none of its parent's threads

    def _reset(self) -> None:
        self._crew = _Crew(self._name, self._most, self._at_end)
        self._places = (
            None if self._waiting is None else threading.Semaphore(self._most + self._waiting)
        )

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Run a call on a thread, and return its future.

        Raises:
            StoreUnavailableError: Too many calls wait, or no thread could be started. The call
                will not run, now or later.
        """
        leave = self._enter()
        answer: Future[Result] = Future()
        answer.add_done_callback(lambda _: leave())
        try:
            self._crew.take(partial(_do, call, answer))
        except BaseException:
            answer.cancel()
            raise
        return answer

    def call(self, call: Callable[[], Result]) -> Result:
        """Run a call on a thread, and wait for its result until the caller's deadline.

        The deadline and the other context variables hold on the thread as well.

        Raises:
            StoreUnavailableError: As in :meth:`submit`.
            TimeoutError: The deadline has passed. A call that has not begun will not run; one that
                has begun may still complete.
        """
        left = remaining()
        left = self._patience if left is None else left
        if not left:
            raise TimeoutError("there was no time left")
        with within(left):
            answer = self.submit(partial(copy_context().run, call))
        try:
            return answer.result(left)
        finally:
            answer.cancel()

    def close(self) -> None:
        """Let the threads end once they have done what waits; the next call starts others."""
        self._crew.dismiss()
        self._crew = _Crew(self._name, self._most, self._at_end)

    def _enter(self) -> Callable[[], object]:
        """Take a place for a call, and return the function that gives it back."""
        places = self._places
        if places is None:
            return int  # which does nothing
        if not places.acquire(blocking=False):
            raise self._overloaded()
        return places.release

    def _overloaded(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"too many {self._what} are under way; try again shortly")


class HashPool(Pool):
    """Runs slow hashes, which take tens of milliseconds and megabytes each, off the event loop.

    Args:
        workers: How many run at once, in this process.
        waiting: How many more may wait; the pool refuses further ones at once.
        patience: Seconds that a hash waits for its turn if its caller has no deadline.
        longest: Seconds that :meth:`arun` waits for a hash once it runs.
    """

    _what = "slow hashes"

    def __init__(
        self, *, workers: int, waiting: int, patience: float = 1.0, longest: float = 2.0
    ) -> None:
        super().__init__("keyguard-hash", most=workers, waiting=waiting, patience=patience)
        self._longest = longest

    def _reset(self) -> None:
        super()._reset()
        self._turns = threading.Semaphore(self._most)

    def run(self, job: Callable[[], Result]) -> Result:
        """Run a hash in this thread, when its turn comes.

        Raises:
            StoreUnavailableError: Too many run or wait already.
        """
        leave, turns = self._enter(), self._turns
        try:
            left = remaining()
            if not turns.acquire(timeout=self._patience if left is None else left):
                raise self._overloaded()
            try:
                return job()
            finally:
                turns.release()
        finally:
            leave()

    async def arun(self, job: Callable[[], Result]) -> Result:
        """Run a hash on a thread, and await it.

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
        begun = asyncio.Event()
        answer = asyncio.wrap_future(self.submit(partial(_begin, job, loop, begun)))
        try:
            left = remaining()
            await _in_time(self._patience if left is None else left, begun.wait(), self._overloaded)
            return await _in_time(self._longest, answer, _too_slow)
        finally:
            answer.cancel()  # if the hash has not begun, it will not


class _Crew:
    """The threads of one process, from one close of the pool to the next."""

    def __init__(self, name: str, most: int, at_end: Callable[[], object] | None) -> None:
        self._name = name
        self._most = most
        self._at_end = at_end
        self._jobs: SimpleQueue[Callable[[Callable[[], None]], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0

    def take(self, job: Callable[[Callable[[], None]], None]) -> None:
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._started < self._most:
                    self._start()
        self._jobs.put(job)  # last: if no thread could be started, no queue keeps the job

    def dismiss(self) -> None:
        self._jobs.put(None)

    def _start(self) -> None:
        name = f"{self._name}_{self._started}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as failure:
            raise StoreUnavailableError(
                "no thread could be started for it; see how many this process may start"
            ) from failure
        self._started += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job(self._idle.release)
            del job  # or this frame would keep the call alive until the next one
        self._jobs.put(None)  # for the other threads
        if self._at_end is not None:
            self._at_end()


def _do(call: Callable[[], Result], answer: Future[Result], done: Callable[[], object]) -> None:
    """Make a call and settle its future; the thread counts as idle just before that."""
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


def _begin(
    job: Callable[[], Result], loop: asyncio.AbstractEventLoop, begun: asyncio.Event
) -> Result:
    with suppress(RuntimeError):  # the loop is closed, and nothing waits any longer
        loop.call_soon_threadsafe(begun.set)
    return job()


async def _in_time(
    seconds: float, waiting: Awaitable[Result], late: Callable[[], StoreUnavailableError]
) -> Result:
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await waiting
    except TimeoutError:
        if not deadline.expired():  # it is the job's own
            raise
    raise late()


def _too_slow() -> HashTimeoutError:
    return HashTimeoutError(
        "a slow hash did not end in time; raise hash_timeout, or lower hash_workers so that fewer "
        "run at once"
    )
