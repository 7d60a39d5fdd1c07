"""Opens connections in the background, for calls that need them.

Opening a connection takes several round trips, and a call may not have time for them. So a call
waits for a connection until its own deadline, while a thread or a task opens one within a longer
deadline. A connection that comes too late for its call is kept for the next.
"""

from __future__ import annotations

import contextvars
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import takewhile
from typing import Generic, TypeVar

from keyguard.runtime.deadlines import Patience, awithin, remaining, within
from keyguard.runtime.frames import drop_frames
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import start_thread
from keyguard.runtime.sync import run_sync

Connection = TypeVar("Connection")

CLOSED = "the connections were closed"
"""The error for a call that waits for a connection while all are closed."""

_SOON = 1.0
"""Seconds after which a call no longer counts on an opening that is still under way."""

_MOST_READY = 2
"""Connections that are kept ready at most; after a stall of the server, many arrive too late."""

_MOST_LOSSES = 2
"""Losses one after another from which on a connection is kept for a call that has not begun."""

_MOST_OPENINGS = 20
"""The largest number of openings in progress at once."""

_ENDING = 1.0
"""Seconds that closing waits for the openings that it has cancelled."""


class Connector(ABC, Generic[Connection]):
    """Opens the connections of one pool.

    Args:
        connect: Opens a connection.
        drop: Closes a connection at once.
        patience: How long opening may take, and how long a connection is kept.

    Attributes:
        epoch: How often all connections have been distrusted.
        waiting: The calls that wait for a connection.
    """

    epoch = 0

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        drop: Callable[[Connection], object],
        patience: Patience,
    ) -> None:
        self._connect: Callable[[], Awaitable[Connection]] = connect
        self._drop: Callable[[Connection], object] = drop
        self._patience = patience
        self._inherited: list[object] = []
        self._is_known, self._losses = False, 0
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._ready: deque[Connection] = deque()
        self._ready_since: dict[int, float] = {}  # by identity
        self.waiting: deque[Future[Connection]] = deque()
        self._begun: dict[object, float] = {}

    async def take(self) -> Connection:
        """Return a connection; wait for one until the deadline of the call.

        Raises:
            TimeoutError: No connection was opened in time.
        """
        wanted: Future[Connection] = Future()
        self._drop_old()
        with self._lock:
            found = self._popped() if self._ready else None
            if found is None:
                self.waiting.append(wanted)
            # A command needs only one connection. After a second call there will be more, so one
            # connection is kept ready. After a loss, some are opened while a call waits: if opening
            # and asking together take longer than a call may, each call would lose the connection
            # that was opened for it.
            kept = min(self._losses, _MOST_READY)
            if found is not None:
                kept, self._losses = int(self._is_known), 0
            self._is_known = True
        self._open_more(kept)
        if found is not None:
            return found
        try:
            return await self._result(wanted)
        except BaseException:
            self._leave(wanted)
            raise

    def keep_ready(self) -> None:
        """Open a connection in the background, and keep it ready."""
        self._is_known = True
        self._drop_old()
        self._open_more(1)

    def note_loss(self) -> None:
        """Open more connections when the next call waits: one lost its connection or got none."""
        self._losses += 1

    def distrust(self) -> None:
        """Stop using all connections that are open or being opened: another one was lost."""
        with self._lock:
            self.epoch += 1
            self._begun.clear()
        self.close_ready()
        self._open_more(0)  # calls that wait count on others now

    def close_ready(self) -> None:
        """Close the connections that are ready."""
        with self._lock:
            ready = [self._popped() for _ in [*self._ready]]
        for connection in ready:
            self._end(connection)

    async def aclose(self) -> None:
        """Close the connections that are ready or still being opened."""
        with self._lock:
            while call := self._next_call():
                call.set_exception(TimeoutError(CLOSED))
        self.distrust()

    def leave_parent(self) -> None:
        """Leave the connections that were opened before a fork to the parent process."""
        self._inherited.append(self._ready)
        self._start_afresh()

    @abstractmethod
    async def _result(self, wanted: Future[Connection]) -> Connection:
        """Wait for a connection until the deadline of the call."""

    @abstractmethod
    async def _opened(self) -> Connection:
        """Open a connection within the deadline for opening."""

    @abstractmethod
    def _begin(self, opening: object) -> None:
        """Begin to open a connection in the background."""

    def _drop_old(self) -> None:
        with self._lock:
            old = [self._popped() for _ in takewhile(self._is_old, [*self._ready])]
        for connection in old:
            self._end(connection)

    def _popped(self) -> Connection:
        connection = self._ready.popleft()
        self._ready_since.pop(id(connection), None)
        return connection

    def _is_old(self, connection: Connection) -> bool:
        return time.monotonic() - self._ready_since[id(connection)] > self._patience.ready

    def _open_more(self, kept: int) -> None:
        """Begin as many openings as are needed and not in progress."""
        now = time.monotonic()
        with self._lock:
            missing = len(self.waiting) + kept - len(self._ready) - self._expected(now)
            missing = min(missing, self._room(self._expected(now)))
            openings = [object() for _ in range(missing)]
            self._begun.update(dict.fromkeys(openings, now))
        for opening in openings:
            self._begin(opening)

    def _room(self, expected: int) -> int:  # noqa: ARG002 - for pools that are bounded themselves
        """Return how many openings may begin, given the number expected; the lock is held."""
        return _MOST_OPENINGS - len(self._begun)

    def _expected(self, now: float) -> int:
        """Return how many of the openings in progress are expected; the lock is held."""
        return sum(now - began < _SOON for began in self._begun.values())

    async def _open(self, opening: object) -> None:
        """Open a connection, and pass it or the error to a call that waits."""
        try:
            connection = await self._opened()
        except BaseException as failure:
            drop_frames(failure, None)  # a driver's hold the password
            with self._lock:
                is_wanted = self._begun.pop(opening, None) is not None
                # Where others may still succeed, no call needs this one.
                is_needed = len(self.waiting) > self._expected(time.monotonic())
                is_told = is_wanted and is_needed and isinstance(failure, Exception)
                if is_told and (call := self._next_call()):
                    call.set_exception(failure)
            if not isinstance(failure, Exception):
                raise
            return
        with self._lock:
            is_wanted = self._begun.pop(opening, None) is not None
            # A call that has waited for a part of its time would lose it, too. The next has all,
            # where others are on their way for those that wait.
            others = self._expected(time.monotonic())
            is_for_next = self._losses >= _MOST_LOSSES and others >= len(self.waiting)
            is_for_next = is_for_next and not self._ready
            if is_wanted and not is_for_next and (call := self._next_call()):
                call.set_result(connection)
                return
            is_kept = is_wanted and self._is_kept(connection)
        if not is_kept:
            self._end(connection)

    def _is_kept(self, connection: Connection) -> bool:
        """Keep a connection for the next call, unless enough are ready; the lock is held."""
        if len(self._ready) >= _MOST_READY:
            return False
        self._ready_since[id(connection)] = time.monotonic()
        self._ready.append(connection)
        return True

    def _next_call(self) -> Future[Connection] | None:
        """Return the call that has waited longest, if any still waits."""
        while self.waiting:
            call = self.waiting.popleft()
            if call.set_running_or_notify_cancel():
                return call
        return None

    def _leave(self, wanted: Future[Connection]) -> None:
        """Stop waiting; a connection that comes too late is ready for the next call."""
        late: Connection | None = None
        with self._lock:
            if wanted in self.waiting:
                self.waiting.remove(wanted)
            elif wanted.done() and not wanted.cancelled() and wanted.exception() is None:
                if call := self._next_call():
                    call.set_result(wanted.result())
                elif not self._is_kept(wanted.result()):
                    late = wanted.result()
        if late is not None:
            self._end(late)

    def _end(self, connection: Connection) -> None:
        with suppress(Exception):  # it is of no use to anybody
            self._drop(connection)


class SyncConnector(Connector[Connection]):
    """Opens connections on threads. Its ``connect`` never suspends. See :class:`Connector`."""

    async def _result(self, wanted: Future[Connection]) -> Connection:
        return wanted.result(remaining())

    async def _opened(self) -> Connection:
        # A call that opens its own, as no thread could be started, ends by its own deadline.
        left = remaining()
        most = self._patience.connect_timeout
        with within(most if left is None else min(left, most)):
            return await self._connect()

    def _begin(self, opening: object) -> None:
        def work() -> None:
            run_sync(self._open(opening))

        try:
            start_thread(threading.Thread(target=work, name="keyguard-connecting", daemon=True))
        except RuntimeError:  # no thread could be started: the call itself opens a connection
            work()


class AsyncConnector(Connector[Connection]):
    """Opens connections in tasks of one event loop of asyncio. See :class:`Connector`."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _result(self, wanted: Future[Connection]) -> Connection:
        return await asyncio.wrap_future(wanted)

    async def _opened(self) -> Connection:
        async with awithin(self._patience.connect_timeout):
            return await self._connect()

    def _begin(self, opening: object) -> None:
        # In a context of its own: the deadline of the present call is not the opening's.
        task = asyncio.get_running_loop().create_task(
            self._open(opening), name="keyguard-connecting", context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Close the connections that are ready, and cancel openings in progress."""
        await super().aclose()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ENDING)
