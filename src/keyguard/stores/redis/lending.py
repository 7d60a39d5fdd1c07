"""Connections that are lent to calls, and opened beside the calls that want them.

Opening takes several round trips, and a call may have time for few. So a thread or a task opens a
connection within a deadline of its own, while the call waits until its deadline for any that comes.
What comes too late serves the next call.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import redis

from keyguard.runtime.deadlines import Patience, awithin, remaining, within
from keyguard.runtime.frames import drop_frames
from keyguard.runtime.sync import run_sync
from keyguard.stores.redis.scripts import Reply

WITHOUT_DEADLINE = 5.0
"""Seconds that a call may take if nobody set a deadline."""

_SOON = 1.0
"""Seconds after which a call no longer counts on an opening that is still under way."""

_MOST_KEPT = 2
"""Connections that are opened at most beside those for which calls wait."""

_SHORTEST = 0.001


def patience() -> float:
    """Return the seconds that the present call may wait, at least a millisecond."""
    left = remaining()
    return WITHOUT_DEADLINE if left is None else max(left, _SHORTEST)


class Connection(Protocol):
    """What keyguard uses of redis-py's connections for sync code."""

    @property
    def is_connected(self) -> bool: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_command(self, *parts: str | bytes) -> list[bytes]: ...
    def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    def can_read(self, timeout: float = 0) -> bool: ...
    def read_response(self, *, disconnect_on_error: bool) -> Reply: ...


class AsyncConnection(Protocol):
    """What keyguard uses of redis-py's connections for asyncio."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    def pack_command(self, *parts: str | bytes) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    async def can_read(self) -> bool: ...
    async def read_response(self, *, timeout: float, disconnect_on_error: bool) -> Reply: ...  # noqa: ASYNC109 - redis-py's signature


AnyConnection = TypeVar("AnyConnection", Connection, AsyncConnection)


class _Queue(Protocol[AnyConnection]):
    """Connections that nobody uses, and failures to open one."""

    def empty(self) -> bool: ...
    def get_nowait(self) -> AnyConnection | Exception: ...
    def put_nowait(self, item: AnyConnection | Exception) -> None: ...


class _Call:
    """A call that waits for a connection."""


class _Pool(Protocol):
    """What keyguard uses of redis-py's pools."""

    max_connections: int

    @property
    def connection_class(self) -> Callable[..., Any]: ...
    @property
    def connection_kwargs(self) -> Mapping[str, object]: ...


class Lender(ABC, Generic[AnyConnection]):
    """Lends the connections of a pool.

    Args:
        pool: The pool, which makes the connections.
        terms: How long opening may take, and how long a connection is kept.

    Attributes:
        give: Takes a connection back, in whatever state it is.
    """

    def __init__(self, pool: _Pool, terms: Patience) -> None:
        # Weak, so that a store which is dropped without being closed ends its connections at once.
        self._pool: Any = weakref.proxy(pool)
        self._terms = terms
        self._lock = threading.Lock()
        self._idle: _Queue[AnyConnection] = self._queue()
        self.give: Callable[[AnyConnection], object] = self._idle.put_nowait
        self._closed: list[AnyConnection] = []
        # Weak, too: what an exception at any moment loses, such as a signal's, leaves its place.
        self._begun: weakref.WeakKeyDictionary[AnyConnection, float] = weakref.WeakKeyDictionary()
        self._opened_at: weakref.WeakKeyDictionary[AnyConnection, float] = (
            weakref.WeakKeyDictionary()
        )
        self._waiting: weakref.WeakSet[_Call] = weakref.WeakSet()
        self._is_known, self._losses = False, 0

    async def take(self) -> AnyConnection:
        """Return a connection that is open and has nothing left to read.

        Raises:
            RedisError: None could be opened, or none in time.
        """
        # A command takes one connection and needs no other. After a second call there will be more,
        # and one connection is kept ready.
        kept, self._is_known = int(self._is_known), True
        connection = await self._fit()
        if connection is not None:
            self._losses = 0
            self._open_more(kept)
            return connection
        call = _Call()
        with self._lock:
            self._waiting.add(call)
        try:
            while True:
                # Some are kept where others were lost: where opening and asking together take
                # longer than a call may, each call would lose what was opened for it.
                self._open_more(min(self._losses, _MOST_KEPT))
                found = await self._next()
                if isinstance(found, Exception):
                    raise found
                if await self._is_fit(found):
                    return found
                await self._close(found)
        except BaseException:
            self._losses += 1
            raise
        finally:
            with self._lock:
                self._waiting.discard(call)

    async def keep_ready(self) -> None:
        """Have a connection ready, beside the present call."""
        self._is_known = True
        connection = await self._fit()
        if connection is not None:
            self._idle.put_nowait(connection)
        self._open_more(1)

    async def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while (connection := self._found()) is not None:
            await self._close(connection)

    async def distrust(self) -> None:
        """Close the connections that nobody uses, and those that are being opened once they are."""
        with self._lock:
            self._begun.clear()
        await self.close_idle()

    @abstractmethod
    def _queue(self) -> _Queue[AnyConnection]:
        """Return an empty queue."""

    @abstractmethod
    async def _next(self) -> AnyConnection | Exception:
        """Wait until the deadline of the call for a connection, or for word that none is opened."""

    @abstractmethod
    def _begin(self, connection: AnyConnection) -> None:
        """Open a connection beside the present call."""

    @abstractmethod
    async def _connect(self, connection: AnyConnection) -> None:
        """Open a connection within the deadline for that."""

    @abstractmethod
    async def _disconnect(self, connection: AnyConnection) -> None:
        """Close a connection."""

    @abstractmethod
    async def _is_quiet(self, connection: AnyConnection) -> bool:
        """Tell whether a connection is open to the right server, with nothing left to read."""

    async def _fit(self) -> AnyConnection | None:
        while (connection := self._found()) is not None:
            if await self._is_fit(connection):
                return connection
            await self._close(connection)
        return None

    def _found(self) -> AnyConnection | None:
        with suppress(Empty, asyncio.QueueEmpty):
            while True:
                found = self._idle.get_nowait()
                if not isinstance(found, Exception):  # the call that waited has given up
                    return found
        return None

    async def _is_fit(self, connection: AnyConnection) -> bool:
        age = time.monotonic() - self._opened_at[connection]
        return (
            connection.is_connected
            and age < self._terms.max_age
            and await self._is_quiet(connection)
        )

    async def _close(self, connection: AnyConnection) -> None:
        if not connection.is_connected:
            self._losses += 1
        try:
            await self._disconnect(connection)
        finally:
            self._closed.append(connection)

    def _open_more(self, kept: int) -> None:
        """Begin as many openings as are wanted and not under way."""
        if not self._waiting and not self._idle.empty():
            return
        now = time.monotonic()
        begun: list[AnyConnection] = []
        with self._lock:
            expected = self._expected(now)
            # What opens so slowly may lead to a server that is gone, and must not keep others out.
            most = self._pool.max_connections
            most = min(most + len(self._begun) - expected, 2 * most)
            for _ in range(len(self._waiting) + kept - expected):
                if self._closed:
                    connection = self._closed.pop()
                elif len(self._opened_at) < most:
                    # Not by make_connection, which counts those that were lost as well.
                    connection = self._pool.connection_class(**self._pool.connection_kwargs)
                else:
                    break
                self._begun[connection] = self._opened_at[connection] = now
                begun.append(connection)
        for connection in begun:
            self._begin(connection)

    def _expected(self, now: float) -> int:
        """Return how many of the openings under way are counted on."""
        return sum(now - since < _SOON for since in [*self._begun.values()])

    async def _open(self, connection: AnyConnection) -> None:
        """Open a connection, and hand it or the failure to a call that waits."""
        try:
            await self._connect(connection)
        except BaseException as failure:
            drop_frames(failure, None)  # redis-py's hold the password
            is_wanted = self._begun.pop(connection, None) is not None
            await self._close(connection)
            if not isinstance(failure, Exception):
                raise
            # Where others may still succeed, no call needs this failure.
            if is_wanted and len(self._waiting) > self._expected(time.monotonic()):
                self._idle.put_nowait(failure)
            return
        self._opened_at[connection] = time.monotonic()
        if self._begun.pop(connection, None) is not None:
            self._idle.put_nowait(connection)
        else:
            await self._close(connection)


class SyncLender(Lender[Connection]):
    """Opens connections on threads. Its coroutines never suspend."""

    def _queue(self) -> SimpleQueue[Connection | Exception]:
        self._offered: SimpleQueue[Connection | Exception] = SimpleQueue()
        return self._offered

    async def _next(self) -> Connection | Exception:
        try:
            return self._offered.get(timeout=patience())
        except Empty:
            if self._begun:
                raise redis.TimeoutError("no connection was opened in time") from None
            raise redis.MaxConnectionsError("all connections are in use") from None

    def _begin(self, connection: Connection) -> None:
        def work() -> None:
            run_sync(self._open(connection))

        try:
            threading.Thread(target=work, name="keyguard-connecting", daemon=True).start()
        except RuntimeError:  # no thread could be started: the call itself opens the connection
            work()

    async def _connect(self, connection: Connection) -> None:
        with within(self._terms.connect_timeout):
            connection.connect()

    async def _disconnect(self, connection: Connection) -> None:
        connection.disconnect()

    async def _is_quiet(self, connection: Connection) -> bool:
        try:
            return bool(self._pool.owns_connection(connection)) and not connection.can_read()
        except (OSError, redis.ConnectionError):
            return False


class AsyncLender(Lender[AsyncConnection]):
    """Opens connections in tasks of one event loop."""

    def __init__(self, pool: _Pool, terms: Patience) -> None:
        super().__init__(pool, terms)
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self) -> AsyncConnection:
        # Nearly every request comes this way, so it is short: another one is ready, too.
        if self._offered.qsize() > 1:
            connection = self._offered.get_nowait()
            if not isinstance(connection, Exception) and connection.is_connected:
                age = time.monotonic() - self._opened_at[connection]
                with suppress(OSError, redis.ConnectionError):
                    if age < self._terms.max_age and not await connection.can_read():
                        return connection
            self._offered.put_nowait(connection)
        return await super().take()

    async def distrust(self) -> None:
        await super().distrust()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _queue(self) -> asyncio.Queue[AsyncConnection | Exception]:
        self._offered: asyncio.Queue[AsyncConnection | Exception] = asyncio.Queue()
        return self._offered

    async def _next(self) -> AsyncConnection | Exception:
        return await self._offered.get()

    def _begin(self, connection: AsyncConnection) -> None:
        # In a context of its own: the deadline of the present call is not the opening's.
        task = asyncio.get_running_loop().create_task(
            self._open(connection), name="keyguard-connecting", context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: AsyncConnection) -> None:
        try:
            async with awithin(self._terms.connect_timeout):
                await connection.connect()
        except TimeoutError as late:
            raise redis.TimeoutError("the server did not accept a connection in time") from late

    async def _disconnect(self, connection: AsyncConnection) -> None:
        await connection.disconnect(nowait=True)

    async def _is_quiet(self, connection: AsyncConnection) -> bool:
        try:
            return not await connection.can_read()
        except (OSError, redis.ConnectionError):
            return False
