"""Lets requests wait for one another: threads for threads, tasks for tasks of one event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Protocol, TypeVar

from keyguard.runtime.lazy import asyncio

__all__ = ["TaskWaits", "ThreadWaits", "Waits"]

Result = TypeVar("Result")


class _Settable(Protocol):
    def set(self) -> None: ...


AnyEvent = TypeVar("AnyEvent", bound=_Settable)


class Waits(Protocol[AnyEvent]):
    """Lets a request wait for another one."""

    place: Callable[[], object]
    """Returns where requests can wait for one another; raises a RuntimeError where they can't."""

    def event(self) -> AnyEvent:
        """Return a new event."""
        ...

    async def wait(self, event: AnyEvent, patience: float) -> bool:
        """Wait for an event.

        Args:
            event: The event.
            patience: Seconds for which to wait at most.

        Returns:
            Whether the event came.
        """
        ...

    async def finish(self, work: Coroutine[object, None, Result]) -> Result:
        """Complete work that others wait for, even if the present task is cancelled."""
        ...


class ThreadWaits(Waits["threading.Event"]):
    """Threads wait for one another, wherever they run."""

    place: Callable[[], object] = int  # one place for all

    def event(self) -> threading.Event:
        return threading.Event()

    async def wait(self, event: threading.Event, patience: float) -> bool:
        return event.wait(patience)

    async def finish(self, work: Coroutine[object, None, Result]) -> Result:
        return await work


class TaskWaits(Waits["asyncio.Event"]):
    """Tasks wait for one another on one event loop. Under trio they do not."""

    def __init__(self) -> None:
        self.place = asyncio.get_running_loop
        self._work: set[asyncio.Task[object]] = set()  # asyncio itself holds tasks weakly

    def event(self) -> asyncio.Event:
        return asyncio.Event()

    async def wait(self, event: asyncio.Event, patience: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await event.wait()
        return event.is_set()

    async def finish(self, work: Coroutine[object, None, Result]) -> Result:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)
