"""redis-py's connections and pools with the deadline of the present call.

A timeout of redis-py's is that of one read from the socket, so a server that sends a byte now and
then could hold a call for ever. In sync code these connections take their timeouts from
:func:`keyguard.runtime.deadlines.remaining`, and give a reply up when the time for the whole of it
has passed. They override public methods of redis-py alone.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from inspect import signature
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncAbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.connection import AbstractConnection
from redis.sentinel import SentinelConnectionPool

from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.runtime.sync import run_sync
from keyguard.stores.redis.lending import (
    AsyncConnection,
    AsyncLender,
    Connection,
    SyncLender,
    patience,
)
from keyguard.stores.redis.scripts import Reply

MOST_CONNECTIONS = 50
"""The number of connections that a store opens at most to each server."""

_PAUSE = 0.0005
"""Seconds before a second look at a reply that has arrived in part."""

_AT_ONCE = (
    {"timeout": 0} if "timeout" in signature(AbstractConnection.read_response).parameters else {}
)
"""Has redis-py read only what has arrived. Before version 8 the socket's timeout must do that."""


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


class _Timely(AbstractConnection):
    """A connection for sync code that waits no longer than the present call may.

    Args:
        longest: Seconds that one step may take at most.
        options: What redis-py's connection takes.
    """

    def __init__(self, *, longest: float = math.inf, **options: Any) -> None:
        self._longest = longest
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float:
        """The seconds that one step may take."""
        return min(patience(), self._longest)

    @socket_timeout.setter
    def socket_timeout(self, value: object) -> None:
        """Ignore what redis-py would wait."""

    socket_connect_timeout = socket_timeout  # pyright: ignore - redis-py's may be None

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open."""
        return self._sock is not None

    def _wait(self, seconds: float) -> None:
        opened: Any = self._sock
        if opened is not None:
            opened.settimeout(seconds)

    def hang_up(self) -> None:
        """End the connection; a thread that waits for a reply is told at once."""
        opened: Any = self._sock
        if opened is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, which would change what that thread works with.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def send_packed_command(self, *args: object, **options: object) -> None:
        """Send a command."""
        self._wait(self.socket_timeout)
        base: Any = super()  # much of redis-py has no types
        base.send_packed_command(*args, **options)

    def read_response(
        self, *args: object, disconnect_on_error: bool | None = True, **options: object
    ) -> Any:
        """Read a reply. The deadline of the call stands in for redis-py's timeout."""
        base: Any = super()
        options |= {"disconnect_on_error": False, **_AT_ONCE}
        try:
            return self._read_in_time(partial(base.read_response, *args, **options))
        except redis.ResponseError:
            raise  # a whole reply
        except BaseException:
            if disconnect_on_error:
                base.disconnect()
            raise

    def _read_in_time(self, read_what_arrived: Callable[[], Reply]) -> Reply:
        wait = self.socket_timeout
        begun = time.monotonic()
        if not self.can_read(wait):
            raise redis.TimeoutError("the server did not answer in time")
        if not _AT_ONCE:
            self._wait(_PAUSE)
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


class TimelyPool(redis.ConnectionPool):
    """A pool of connections to one server, which a lender lends.

    It also lends three times as fast as redis-py's own, which measures what it does.

    Args:
        arguments: What redis-py's pool takes, like ``options``.
        terms: How long opening may take, and how long a connection is kept.
    """

    def __init__(self, *arguments: object, terms: Patience = PATIENCE, **options: object) -> None:
        self._terms = terms
        base: Any = super()
        base.__init__(*arguments, **options)

    def reset(self) -> None:
        """Forget all connections."""
        super().reset()
        self.lender = SyncLender(self, self._terms)

    def get_connection(self, *_: object, **__: object) -> Any:
        """Return a connection that is open and has nothing left to read."""
        return run_sync(self.lender.take())

    def release(self, connection: Connection) -> None:
        """Take a connection back."""
        self.lender.give(connection)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections that nobody uses; by default also those that are being opened."""
        # A client closes its pool as both are freed, when the lender's way to the pool is gone.
        with suppress(ReferenceError):
            if inuse_connections:
                run_sync(self.lender.aclose())
            else:
                self.lender.close_ready()


class TimelySentinelPool(TimelyPool, SentinelConnectionPool):
    """A pool of connections to the primary that Sentinels name."""


class AsyncPool(redis.asyncio.ConnectionPool):
    """A pool of connections to one server, for asyncio."""

    def __init__(self, *arguments: object, terms: Patience = PATIENCE, **options: object) -> None:
        base: Any = super()
        base.__init__(*arguments, **options)
        self.lender = AsyncLender(self, terms)

    async def get_connection(self, *_: object, **__: object) -> Any:
        """Return a connection that is open and has nothing left to read."""
        return await self.lender.take()

    async def release(self, connection: AsyncConnection) -> None:
        """Take a connection back."""
        self.lender.give(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections that nobody uses; by default also those that are being opened."""
        if inuse_connections:
            await self.lender.aclose()
        else:
            self.lender.close_ready()


class AsyncSentinelPool(AsyncPool, AsyncSentinelConnectionPool):
    """A pool of connections to the primary that Sentinels name, for asyncio."""


class _AsyncTimely(AsyncAbstractConnection):
    """A connection to a Sentinel, for asyncio, that leaves time for the next one.

    The guard ends the call as a whole.

    Args:
        longest: Seconds that one step may take at most.
        options: What redis-py's connection takes.
    """

    def __init__(self, *, longest: float = math.inf, **options: object) -> None:
        base: Any = super()
        base.__init__(**options)
        self._longest = longest

    async def connect(self) -> None:
        """Connect, unless that is done."""
        base: Any = super()
        try:
            async with asyncio.timeout(min(patience(), self._longest)):
                await base.connect()
        except TimeoutError as late:
            await self.disconnect(nowait=True)
            raise redis.TimeoutError("the server did not accept a connection in time") from late

    async def read_response(self, *args: object, **options: object) -> Any:
        """Read a reply."""
        base: Any = super()
        try:
            async with asyncio.timeout(min(patience(), self._longest)):
                return await base.read_response(*args, **options)
        except TimeoutError as late:
            raise redis.TimeoutError("the server did not answer in time") from late


def timely(kind: type[object]) -> Any:
    """Return redis-py's class of connections, or another, with the deadline of the present call."""
    if issubclass(kind, _Timely):
        return kind
    part = _AsyncTimely if issubclass(kind, AsyncAbstractConnection) else _Timely
    return type(f"Timely{kind.__name__}", (part, kind), {})
