"""How long the present backend call may take.

The guard opens a deadline around every call it makes to a backend. On an event loop the deadline
ends the call. In sync code nothing can end a call from outside without a thread of its own, so a
backend reads :func:`remaining` and hands it to its driver as a timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar

__all__ = ["awithin", "remaining", "within"]

_GRACE = 0.1

_deadline: ContextVar[float | None] = ContextVar("keyguard_deadline", default=None)


def remaining() -> float | None:
    """Return the seconds left for the present backend call, never negative; None for no limit."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Set the deadline of the backend calls inside, without ending any."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


@asynccontextmanager
async def awithin(seconds: float) -> AsyncGenerator[None]:
    """Set the deadline of the backend calls inside, and end them when it is over.

    Raises:
        TimeoutError: It was over.
    """
    with within(seconds):
        async with _timeout(seconds):
            yield


def _timeout(seconds: float) -> AbstractAsyncContextManager[object]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _trio_timeout(seconds)
    return _asyncio_timeout(seconds)


@asynccontextmanager
async def _asyncio_timeout(seconds: float) -> AsyncGenerator[None]:
    # On Python 3.11 asyncio.wait_for, by which drivers connect, may swallow a cancellation that
    # arrives as it completes (python/cpython#86296). So a second one follows the first.
    async with asyncio.timeout(seconds + _GRACE), asyncio.timeout(seconds):
        yield


@asynccontextmanager
async def _trio_timeout(seconds: float) -> AsyncGenerator[None]:
    import trio

    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError as late:
        raise TimeoutError from late
