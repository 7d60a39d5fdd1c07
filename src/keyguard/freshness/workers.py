"""The worker of a guard: a daemon thread in sync code, a task on each event loop in async code."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from keyguard.freshness.background import BackgroundWork
from keyguard.freshness.process_end import part_at_exit
from keyguard.freshness.usage_work import UsageWork
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import renew_if_forked, start_thread
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import AsyncChangeFeed, ChangeFeed, News


class ThreadWorker(BackgroundWork[ChangeFeed]):
    """The worker of a guard for sync code: a daemon thread."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_starting = False
        self._feed: ChangeFeed | None = None
        self._parts = False
        self._sent: threading.Event | None = None  # set once the flush under way was sent

    def start(self) -> None:
        """Start the worker, if it does not run."""
        renew_if_forked()
        thread = self._thread
        if self._is_starting or (thread is not None and thread.is_alive()):
            return
        with self._lock:
            if self._is_starting or self._thread is not thread or self._over.is_set():
                return
            self._is_starting = True
            worker = self._thread = threading.Thread(
                target=self._work, args=(self._over,), name="keyguard-background", daemon=True
            )
        part_at_exit(self)
        try:
            start_thread(worker)
        except RuntimeError:  # no thread may start now; the next look-up tries again
            self._thread = None
        finally:
            self._is_starting = False

    def close(self) -> None:
        """End the worker, and write all uses and counts to the store."""
        with self._lock:
            thread, self._thread = self._thread, None
            feed, self._feed = self._feed, None
            self._over.set()
        if feed is not None:
            with suppress(Exception):
                feed.close()  # which wakes the worker
        if thread is not None and thread.ident not in (None, threading.get_ident()):
            thread.join(self._patience + self._timeout)
        run_sync(self._flush(last=True))
        with self._lock:
            self._over = threading.Event()  # a guard that is used again starts again

    def part(self) -> None:
        """Write all uses and counts to the store, as the process ends.

        This first waits for a flush that is being sent. If the flush were sent again meanwhile, the
        writer could not leave. The thread itself is left alone: a process of uWSGI that wakes a
        thread as it ends may hang.
        """
        with self._lock:
            self._parts, sent = True, self._sent
        if sent is not None:
            sent.wait(self._patience + self._timeout)
        run_sync(self._flush(last=True))

    def flush(self) -> None:
        """Write all uses and counts to the store now."""
        run_sync(self._flush())

    def _work(self, over: threading.Event) -> None:
        feed = self._open_feed()
        with self._lock:
            if not over.is_set():
                self._feed = feed
        try:
            run_sync(self._follow(feed, lambda: self._is_abandoned or over.is_set()))
        finally:
            if feed is not None:
                with suppress(Exception):
                    feed.close()

    async def _read(self, feed: ChangeFeed, position: str | None, patience: float) -> News:
        with within(patience + self._timeout):
            return feed.read(position, patience)

    async def _turn(self, usage: UsageWork) -> bool:
        sent = threading.Event()
        with self._lock:
            if self._parts:
                return False
            self._sent = sent
        try:
            return await usage.turn()
        finally:
            self._sent = None
            sent.set()

    async def _run_slowly(self, job: Callable[[], str]) -> str:
        return self._pool.run(job)

    async def _sleep(self, seconds: float) -> None:
        self._over.wait(seconds)


class TaskWorker(BackgroundWork[AsyncChangeFeed]):
    """The worker of a guard for async code: a task on each event loop of asyncio."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )
        self._over = threading.Event()

    def start(self) -> None:
        """Start the worker on this event loop, if it does not run here."""
        loop = _running_loop()
        if loop is None:
            return
        task = self._tasks.get(loop)
        if task is None or task.done():
            self._forget_closed_loops()
            # In a context of its own, or that of the request that started it would never be freed.
            context = contextvars.Context()
            self._tasks[loop] = loop.create_task(
                self._work(), name="keyguard-background", context=context
            )

    def _forget_closed_loops(self) -> None:
        # A task holds its loop, so both would never be freed.
        for reference in self._tasks.keyrefs():
            loop = reference()
            if loop is not None and loop.is_closed():
                self._tasks.pop(loop, None)

    async def aclose(self) -> None:
        """End the workers of all loops, and write all uses and counts to the store."""
        over, self._over = self._over, threading.Event()  # used again, it starts again
        over.set()  # for the workers of other loops
        await self.part()

    async def flush(self) -> None:
        """Write all uses and counts to the store now."""
        await self._flush()

    async def part(self) -> None:
        """End the worker of this loop, and write all uses and counts to the store."""
        loop = _running_loop()
        task = None if loop is None else self._tasks.pop(loop, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=self._patience + self._timeout)
        await self._flush(last=True)

    async def _work(self) -> None:
        feed = self._open_feed()
        try:
            over = self._over
            await self._follow(feed, lambda: self._is_abandoned or over.is_set())
        finally:
            if feed is not None:
                with suppress(Exception):
                    await feed.aclose()

    async def _read(self, feed: AsyncChangeFeed, position: str | None, patience: float) -> News:
        async with awithin(patience + self._timeout):
            return await feed.read(position, patience)

    async def _turn(self, usage: UsageWork) -> bool:
        # The end of the worker does not cancel a flush: its result would not be known, and the
        # writer could not leave.
        turn = asyncio.create_task(usage.turn())
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:
            await asyncio.wait([turn])
            raise

    async def _run_slowly(self, job: Callable[[], str]) -> str:
        return await self._pool.arun(job)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
