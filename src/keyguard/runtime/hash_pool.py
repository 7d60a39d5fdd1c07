"""A bound on slow hashes, which take tens of milliseconds and megabytes each."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from keyguard.exceptions import ConfigurationError, HashTimeoutError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.threads import Threads

__all__ = ["HashPool"]

T = TypeVar("T")


class HashPool:
    """Bounds how many slow hashes run and wait at once, and keeps them off the event loop.

    Args:
        workers: How many run at once, in this process.
        waiting: How many more may wait; what comes above is refused at once.
        patience: Seconds that a caller waits for its turn at the most.
        longest: Seconds that a hash may take on a worker thread, once it runs.
    """

    def __init__(
        self, *, workers: int, waiting: int, patience: float = 1.0, longest: float = 2.0
    ) -> None:
        self._workers = workers
        self._waiting = waiting
        self._patience = patience
        self._longest = longest
        self._threads = Threads(workers, "keyguard-hash")
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._admitted = threading.BoundedSemaphore(self._workers + self._waiting)
        self._running = threading.BoundedSemaphore(self._workers)

    def run(self, job: Callable[[], T]) -> T:
        """Run a job in this thread, when its turn comes.

        Raises:
            StoreUnavailableError: Too many run or wait already.
        """
        admitted, running = self._admit(), self._running
        try:
            left = remaining()
            if not running.acquire(timeout=self._patience if left is None else left):
                raise _overloaded()
            try:
                return job()
            finally:
                running.release()
        finally:
            admitted.release()

    async def arun(self, job: Callable[[], T]) -> T:
        """Run a job on a worker thread.

        Raises:
            StoreUnavailableError: Too many run or wait already, or no thread is to be had.
            HashTimeoutError: It was begun, and took too long.
            ConfigurationError: The event loop is not asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "hasher 'argon2id' needs asyncio; under trio use the default hasher"
            ) from None
        admitted = self._admit()
        try:
            begun = asyncio.Event()
            future = self._threads.submit(partial(_begin, job, loop, begun))
        except BaseException:
            admitted.release()
            raise
        future.add_done_callback(lambda _: admitted.release())
        answer = asyncio.wrap_future(future)
        try:
            left = remaining()
            await _within(self._patience if left is None else left, begun.wait(), _overloaded)
            return await _within(self._longest, answer, _too_slow)
        finally:
            answer.cancel()  # if it has not begun, it never will

    def close(self) -> None:
        """Let the worker threads go once they are done with what waits."""
        self._threads.close()

    def _admit(self) -> threading.BoundedSemaphore:
        if self._process != os.getpid():  # the parent's threads will release nothing here
            self._start_afresh()
        if not self._admitted.acquire(blocking=False):
            raise _overloaded()
        return self._admitted


def _begin(job: Callable[[], T], loop: asyncio.AbstractEventLoop, begun: asyncio.Event) -> T:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(begun.set)
    return job()


async def _within(
    seconds: float, waiting: Awaitable[T], late: Callable[[], StoreUnavailableError]
) -> T:
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await waiting
    except TimeoutError:
        if not deadline.expired():  # it is the job's own
            raise
    raise late()


def _overloaded() -> StoreUnavailableError:
    return StoreUnavailableError("too many slow hashes are under way; try again shortly")


def _too_slow() -> HashTimeoutError:
    return HashTimeoutError(
        "a slow hash did not end in time; give it longer with hash_timeout, or hash_workers less "
        "to do at once"
    )
