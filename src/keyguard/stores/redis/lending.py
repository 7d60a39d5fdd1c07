"""Lends connections to calls, and opens them in the background.

A connector opens them, as those of SQL. Only here do they come back to it: SQLAlchemy has pools of
its own. So a lender also says which connections are still fit, and how many there may be.
"""

from __future__ import annotations

import time
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from operator import methodcaller
from typing import Any, Protocol, TypeVar

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from keyguard.runtime.connecting import AsyncConnector, Connector, SyncConnector
from keyguard.runtime.deadlines import Patience, remaining
from keyguard.runtime.sync import run_sync
from keyguard.stores.redis.scripts import Reply

WITHOUT_DEADLINE = 5.0
"""Seconds that a call may take if nobody set a deadline."""

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
    def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    def can_read(self, timeout: float = 0) -> bool: ...
    def read_response(self, *, disconnect_on_error: bool) -> Reply: ...


class AsyncConnection(Protocol):
    """What keyguard uses of redis-py's connections for asyncio."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    async def read_response(self, *, timeout: float, disconnect_on_error: bool) -> Reply: ...  # noqa: ASYNC109 - redis-py's signature


has_unread: Callable[[AsyncConnection], Awaitable[bool]] = methodcaller(
    # The name before redis-py 8.
    "can_read" if hasattr(AbstractConnection, "can_read") else "can_read_destructive"
)
"""Tells whether a connection has anything left to read, or was ended by the server."""


AnyConnection = TypeVar("AnyConnection", bound=Connection | AsyncConnection)


class Lender(Connector[AnyConnection]):
    """Lends the connections of a pool.

    Args:
        pool: The pool, which says how connections are made.
        terms: How long opening may take, and how long a connection is kept.

    Attributes:
        keep: Takes a connection back where no call waits for one.
    """

    def __init__(
        self, pool: redis.ConnectionPool | redis.asyncio.ConnectionPool, terms: Patience
    ) -> None:
        # Weak, so that a store which is dropped without being closed ends its connections at once.
        lender = weakref.proxy(self)
        super().__init__(partial(_connected, lender), partial(_discard, lender), terms)
        self._pool: Any = weakref.proxy(pool)
        self.keep: Callable[[AnyConnection], object] = self._ready.append
        # Weak, too: a connection that an exception loses, such as one of a signal, frees its place.
        self._opened_at: weakref.WeakKeyDictionary[AnyConnection, float] = (
            weakref.WeakKeyDictionary()
        )

    async def take(self) -> AnyConnection:
        """Return a connection that is open and has nothing left to read.

        Raises:
            RedisError: No connection could be opened in time.
        """
        kept, self._is_known = int(self._is_known), True
        connection = await self._fit()
        if connection is not None:
            self._losses = 0
            self._open_more(kept)
            return connection
        try:
            while True:
                found = await super().take()
                if await self._is_fit(found):
                    return found
                self._end(found)
        except TimeoutError as late:
            self.note_loss()
            if self._begun or str(late):
                message = str(late) or "no connection was opened in time"
                raise redis.TimeoutError(message) from None
            raise redis.MaxConnectionsError("all connections are in use") from None
        except BaseException:
            self.note_loss()
            raise

    def give(self, connection: AnyConnection) -> None:
        """Take a connection back, in any state."""
        with self._lock:
            call = self._next_call()
            if call is None:
                self.keep(connection)
        if call is not None:
            call.set_result(connection)

    async def check_ready(self) -> None:
        """Keep a usable connection ready, in the background."""
        connection = await self._fit()
        if connection is not None:
            self.give(connection)
        self.keep_ready()

    @abstractmethod
    async def connected(self) -> AnyConnection:
        """Return a new connection."""

    @abstractmethod
    def discard(self, connection: AnyConnection) -> None:
        """Close a connection."""

    @abstractmethod
    async def _is_quiet(self, connection: AnyConnection) -> bool:
        """Return whether a connection is open to the right server, with nothing left to read."""

    async def _fit(self) -> AnyConnection | None:
        while True:
            self._drop_old()
            with self._lock:
                found = self._popped() if self._ready else None
            if found is None or await self._is_fit(found):
                return found
            self._end(found)

    async def _is_fit(self, connection: AnyConnection) -> bool:
        return (
            connection.is_connected
            and not self._is_old(connection)
            and await self._is_quiet(connection)
        )

    def _is_old(self, connection: AnyConnection) -> bool:
        return time.monotonic() - self._opened_at[connection] >= self._patience.max_age

    def _is_kept(self, connection: AnyConnection) -> bool:
        self.keep(connection)
        return True

    def _end(self, connection: AnyConnection) -> None:
        self._opened_at.pop(connection, None)
        if not connection.is_connected:
            self.note_loss()
        super()._end(connection)

    def _room(self, expected: int) -> int:
        # What opens so slowly may lead to a server that is gone, and must not keep others out.
        most: int = self._pool.max_connections
        most = min(most + len(self._begun) - expected, 2 * most)
        return most - len(self._opened_at) - len(self._begun)


# Not bound methods, which would hold the lender.


def _connected(lender: Lender[AnyConnection]) -> Awaitable[AnyConnection]:
    return lender.connected()


def _discard(lender: Lender[AnyConnection], connection: AnyConnection) -> None:
    lender.discard(connection)


class SyncLender(Lender[Connection], SyncConnector[Connection]):
    """Opens connections on threads. Its coroutines never suspend."""

    async def _result(self, wanted: Future[Connection]) -> Connection:
        return wanted.result(patience())

    async def connected(self) -> Connection:
        # Not by make_connection, which counts those that were lost as well.
        connection: Connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        self._opened_at[connection] = time.monotonic()
        return connection

    def discard(self, connection: Connection) -> None:
        connection.disconnect()

    async def _is_quiet(self, connection: Connection) -> bool:
        try:
            return bool(self._pool.owns_connection(connection)) and not connection.can_read()
        except (OSError, redis.ConnectionError):
            return False


class AsyncLender(Lender[AsyncConnection], AsyncConnector[AsyncConnection]):
    """Opens connections in tasks of one event loop."""

    async def take(self) -> AsyncConnection:
        # Nearly every request comes this way, so it is short: another one is ready, too.
        if len(self._ready) > 1:
            connection = self._ready.popleft()
            if connection.is_connected:
                age = time.monotonic() - self._opened_at[connection]
                with suppress(OSError, redis.ConnectionError):
                    if age < self._patience.max_age and not await has_unread(connection):
                        return connection
            self._ready.append(connection)
        return await super().take()

    async def connected(self) -> AsyncConnection:
        connection: AsyncConnection = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._opened_at[connection] = time.monotonic()
        return connection

    async def _opened(self) -> AsyncConnection:
        try:
            return await super()._opened()
        except TimeoutError as late:
            raise redis.TimeoutError("the server did not accept a connection in time") from late

    def discard(self, connection: AsyncConnection) -> None:
        run_sync(connection.disconnect(nowait=True))

    async def _is_quiet(self, connection: AsyncConnection) -> bool:
        try:
            return not await has_unread(connection)
        except (OSError, redis.ConnectionError):
            return False
