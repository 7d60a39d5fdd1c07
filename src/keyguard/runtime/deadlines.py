"""Deadlines of store calls.

The guard sets a deadline around every call to a store. On an event loop the deadline ends the call.
Sync code can't end a call from outside, so a store reads :func:`remaining` and passes it to its
driver as a timeout.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import NamedTuple

from keyguard.exceptions import StoreError
from keyguard.runtime.lazy import asyncio

__all__ = ["PATIENCE", "Patience", "awithin", "deadline", "remaining", "within"]

_GRACE = 0.1

deadline: ContextVar[float | None] = ContextVar("keyguard_deadline", default=None)
"""When the present store call must have answered, by ``time.monotonic``; None for no limit."""


class Patience(NamedTuple):
    """How long connecting to a server may take, and how long connections last.

    Args:
        connect_timeout: Seconds that opening a connection may take, in the background.
        max_age: Seconds after which a connection is replaced by a new one.
    """

    connect_timeout: float = 10.0
    max_age: float = 300.0

    @property
    def in_pool(self) -> float:
        """Seconds that a connection stays in its pool."""
        return self.max_age / 3

    @property
    def ready(self) -> float:
        """Seconds that a connection is kept ready: until its pool wants it, and some more."""
        return self.max_age * 2 / 3


PATIENCE = Patience()
"""The patience of a service that has settled nothing else."""


def remaining() -> float | None:
    """Return the seconds left for the present store call, never negative; None for no limit."""
    ends = deadline.get()
    return None if ends is None else max(0.0, ends - time.monotonic())


class within:  # noqa: N801 - it is used like a function
    """Set the deadline of the store calls inside, without ending a call.

    Args:
        seconds: How long the calls may take.
    """

    __slots__ = ("_before", "_seconds")

    _before: Token[float | None]

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._before = deadline.set(time.monotonic() + self._seconds)

    def __exit__(self, *_: object) -> None:
        deadline.reset(self._before)


def awithin(seconds: float) -> AbstractAsyncContextManager[None]:
    """Set the deadline of the store calls inside, and end them when it passes.

    Args:
        seconds: How long the calls may take.

    Raises:
        TimeoutError: The deadline passed.
        StoreError: The deadline passed, and the call failed by itself before it could be ended. The
            cancellation that comes out of the call has that failure as its cause.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _within_on_trio(seconds)
    return _WithinOnAsyncio(seconds, loop)


async def asleep(seconds: float) -> None:
    """Wait, on the event loop of asyncio or of trio.

    Args:
        seconds: How long.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def sleep_never_suspending(seconds: float) -> None:
    """Wait, in a thread of sync code.

    Args:
        seconds: How long.
    """
    time.sleep(seconds)  # noqa: ASYNC251 - which never suspends


class _WithinOnAsyncio:
    """Like asyncio.timeout, which takes several times as long, but with a second cancellation.

    On Python 3.11 asyncio.wait_for, by which drivers connect, may swallow a cancellation that
    arrives as it completes (python/cpython#86296). So a second cancellation follows the first.
    """

    __slots__ = ("_before", "_cancellations", "_cancelling", "_loop", "_seconds", "_task", "_timer")

    _before: Token[float | None]
    _task: asyncio.Task[object]
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._seconds = seconds
        self._loop = loop
        self._cancellations = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline ends the task that it is in, and there is no task here")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_later(self._seconds, self._cancel)
        self._before = deadline.set(time.monotonic() + self._seconds)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        deadline.reset(self._before)
        self._timer.cancel()
        if not self._cancellations:
            return
        for _ in range(self._cancellations):
            self._task.uncancel()
        # If something else cancelled the task too, the cancellation goes on.
        if self._task.cancelling() <= self._cancelling and kind is asyncio.CancelledError:
            failure = problem and problem.__cause__
            if problem is not None and isinstance(failure, StoreError):
                problem.__cause__ = None  # or each of the two would be shown below the other
                raise failure
            raise TimeoutError(_late(self._seconds)) from problem

    def _cancel(self) -> None:
        self._cancellations += 1
        if self._cancellations == 1:
            self._timer = self._loop.call_later(_GRACE, self._cancel)
        self._task.cancel()


@asynccontextmanager
async def _within_on_trio(seconds: float) -> AsyncGenerator[None]:
    import trio

    try:
        with within(seconds), trio.fail_after(seconds):
            yield
    except trio.TooSlowError as late:
        raise TimeoutError(_late(seconds)) from late


def _late(seconds: float) -> str:
    return f"it took longer than {seconds:g} seconds"
