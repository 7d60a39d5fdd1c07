"""redis-py's connections and pools with the deadline of the present call.

A timeout of redis-py's is that of one read from the socket, so a server that sends a byte now and
then could hold a call for ever. In sync code these connections take their timeouts from
:func:`keyguard.runtime.deadlines.remaining`, and give a reply up when the time for the whole of it
has passed. They override public methods of redis-py alone.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import redis
from redis.asyncio.connection import AbstractConnection as AsyncAbstractConnection
from redis.connection import AbstractConnection
from redis.sentinel import SentinelConnectionPool

from keyguard.runtime.deadlines import remaining
from keyguard.stores.redis.scripts import Reply

MOST_CONNECTIONS = 50
"""The number of connections that a store opens at most to each server."""

WITHOUT_DEADLINE = 5.0
"""Seconds that a call may take if nobody set a deadline."""

_SHORTEST = 0.001
_PAUSE = 0.0005
"""Seconds before a second look at a reply that has arrived in part."""


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


class EndableConnection(Connection, Protocol):
    """A connection that another thread may end."""

    def hang_up(self) -> None:
        """End the connection; a thread that waits for a reply is told at once."""


class RedisPool(Protocol):
    """What keyguard uses of redis-py's pools for sync code."""

    def get_connection(self) -> Connection:
        """Return a connection that is open."""
        ...

    def release(self, connection: Any) -> None:
        """Take a connection back."""


def _read_in_time(
    connection: AbstractConnection, read_what_arrived: Callable[[], Reply], wait: float
) -> Reply:
    begun = time.monotonic()
    if not connection.can_read(wait):
        raise redis.TimeoutError("the server did not answer in time")
    while True:
        try:
            # redis-py keeps what has arrived in part, and reads it again with what follows.
            return read_what_arrived()
        except redis.TimeoutError:
            taken = time.monotonic() - begun
            if taken >= wait:
                raise
        # Each attempt reads from the start, so the pauses grow.
        time.sleep(min(wait - taken, max(_PAUSE, taken / 4)))


class _Timely(AbstractConnection):
    """A connection for sync code that waits no longer than the present call may.

    Args:
        share: The part of the remaining time that one step may take.
        options: What redis-py's connection takes.
    """

    def __init__(self, *, share: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self._share = share

    def connect_check_health(self, *args: bool, **options: bool) -> None:
        """Connect, unless that is done."""
        self.socket_timeout = self.socket_connect_timeout = patience() * self._share
        super().connect_check_health(*args, **options)

    def hang_up(self) -> None:
        """End the connection; a thread that waits for a reply is told at once."""
        opened: Any = self._sock
        if opened is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, which would change what that thread works with.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send a command."""
        self.update_current_socket_timeout(patience() * self._share)
        base: Any = super()  # much of redis-py has no types
        base.send_packed_command(*args, **options)

    def read_response(
        self, *args: Any, disconnect_on_error: bool | None = True, **options: Any
    ) -> Any:
        """Read a reply. The deadline of the call stands in for redis-py's timeout."""
        base: Any = super()
        options |= {"timeout": 0, "disconnect_on_error": False}
        read_what_arrived = partial(base.read_response, *args, **options)
        try:
            return _read_in_time(self, read_what_arrived, patience() * self._share)
        except redis.ResponseError:
            raise  # a whole reply
        except BaseException:
            if disconnect_on_error:
                base.disconnect()
            raise


class _Lending(redis.ConnectionPool):
    """A pool that waits for a free connection no longer than the present call may.

    It also lends three times as fast as redis-py's own, which measures what it does.
    """

    def reset(self) -> None:
        """Forget all connections."""
        super().reset()
        self._idle: SimpleQueue[Connection] = SimpleQueue()

    def get_connection(self, *_: object, **__: object) -> Any:
        """Return a connection that is open and has nothing left to read.

        Raises:
            MaxConnectionsError: All connections stayed in use for as long as the call may wait.
        """
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = self._new_or_freed()
        try:
            if connection.is_connected and not self._is_fit(connection):
                connection.disconnect()
            if not connection.is_connected:
                connection.connect()
        except BaseException:
            connection.disconnect()
            self._idle.put(connection)
            raise
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back."""
        self._idle.put(connection)

    def disconnect(self, inuse_connections: bool = False) -> None:  # noqa: ARG002 - likewise
        """Close the connections that nobody uses."""
        for _ in range(self._idle.qsize()):
            with suppress(Empty):
                connection = self._idle.get_nowait()
                connection.disconnect()
                self._idle.put(connection)

    def _new_or_freed(self) -> Connection:
        with suppress(redis.MaxConnectionsError):
            made: Any = self.make_connection()
            return made  # type: ignore[no-any-return]  # redis-py types it as an interface
        with suppress(Empty):
            return self._idle.get(timeout=patience())
        raise redis.MaxConnectionsError("all connections are in use")

    def _is_fit(self, connection: Any) -> bool:
        """Tell whether a connection is open to the right server, with nothing left to read."""
        try:
            return bool(self.owns_connection(connection)) and not connection.can_read()
        except (OSError, redis.ConnectionError):
            return False


class TimelyPool(_Lending):
    """A pool of connections to one server."""


class TimelySentinelPool(_Lending, SentinelConnectionPool):
    """A pool of connections to the primary that Sentinels name."""


class _AsyncTimely(AsyncAbstractConnection):
    """A connection to a Sentinel, for asyncio, that leaves time for the next one.

    The guard ends the call as a whole.

    Args:
        share: The part of the remaining time that one step may take.
        options: What redis-py's connection takes.
    """

    def __init__(self, *, share: float = 1.0, **options: Any) -> None:
        base: Any = super()
        base.__init__(**options)
        self._share = share

    async def connect(self) -> None:
        """Connect, unless that is done."""
        base: Any = super()
        try:
            async with asyncio.timeout(patience() * self._share):
                await base.connect()
        except TimeoutError as late:
            await self.disconnect(nowait=True)
            raise redis.TimeoutError("the server did not accept a connection in time") from late

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply."""
        base: Any = super()
        try:
            async with asyncio.timeout(patience() * self._share):
                return await base.read_response(*args, **options)
        except TimeoutError as late:
            raise redis.TimeoutError("the server did not answer in time") from late


def timely(kind: type[object]) -> Any:
    """Return redis-py's class of connections, or another, with the deadline of the present call."""
    if issubclass(kind, _Timely):
        return kind
    part = _AsyncTimely if issubclass(kind, AsyncAbstractConnection) else _Timely
    return type(f"Timely{kind.__name__}", (part, kind), {})
