"""redis-py's connections and pools, taught to wait no longer than the present call may take.

Its clients wait for five seconds and try again by themselves. Here each connection asks
:func:`keyguard.runtime.deadlines.remaining` when it connects, and at each read and write of its
socket: a timeout of redis-py's is that of each, and so a server that sends a byte now and then
holds a call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

import redis
import redis.sentinel

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import remaining, within

__all__ = [
    "DEFAULTS",
    "MOST_CONNECTIONS",
    "WITHOUT_DEADLINE",
    "AsyncTimely",
    "TimelyPool",
    "TimelySentinelPool",
    "patience",
    "timely",
]

MOST_CONNECTIONS = 50
"""How many connections a store opens at most, to each server."""

WITHOUT_DEADLINE = 5.0
"""Seconds that a call may take which has no deadline."""

DEFAULTS: Mapping[str, Any] = {
    "protocol": 2,
    "driver_info": None,  # else each new connection costs two more round trips
    "max_connections": MOST_CONNECTIONS,
}
"""What every connection is made with."""

_LEAST = 0.001


def patience() -> float:
    """Return the seconds that the present call may wait, never none at all."""
    left = remaining()
    return WITHOUT_DEADLINE if left is None else max(left, _LEAST)


class _Timely:
    """Mixed into a connection class of redis-py for sync code: waits no longer than it may."""

    share: ClassVar[float] = 1
    """Of the time that is left, how much one wait may take."""

    def _connect(self) -> Any:
        this: Any = self
        this.socket_connect_timeout = this.socket_timeout = patience() * self.share
        base: Any = super()
        return _TimelySocket(base._connect())

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = wait = patience() * self.share
        base: Any = super()
        with within(wait):
            return base.read_response(*args, **kwargs)


class _TimelySocket:
    """A socket whose reads and writes take, all together, no longer than the present call may.

    Args:
        real: The socket, connected.
    """

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    # Looked up for each use, so that no frame here holds what is sent: it may be the password.

    @property
    def recv(self) -> Any:
        return self._hurried().recv

    @property
    def recv_into(self) -> Any:
        return self._hurried().recv_into

    @property
    def sendall(self) -> Any:
        return self._hurried().sendall

    def interrupt(self) -> None:
        """End a read that is under way in another thread."""
        # Past what TLS would do first, which is nothing for two threads at once.
        with suppress(OSError):
            socket.socket.shutdown(self._real, socket.SHUT_RDWR)

    def _hurried(self) -> Any:
        if self._real.gettimeout() != 0:  # else it does not wait
            left = remaining()
            if left == 0:
                raise TimeoutError("the call's time is over")
            self._real.settimeout(WITHOUT_DEADLINE if left is None else left)
        return self._real


class AsyncTimely:
    """The same for asyncio, where only a share must be seen to: whoever calls ends the whole."""

    share: ClassVar[float] = 1

    async def _connect(self) -> None:
        base: Any = super()
        try:
            async with asyncio.timeout(patience() * self.share):
                await base._connect()
        except TimeoutError as late:
            raise redis.TimeoutError("Timeout connecting to server") from late

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one reply, within this connection's share of the time."""
        base: Any = super()
        try:
            async with asyncio.timeout(patience() * self.share):
                return await base.read_response(*args, **kwargs)
        except TimeoutError as late:
            raise redis.TimeoutError("Timeout reading from server") from late


@cache
def timely(connection_class: type, share: float = 1, mixin: type = _Timely) -> type:
    """Return a connection class of redis-py, made timely.

    Args:
        connection_class: The class.
        share: Of the time that is left, how much one wait may take.
        mixin: What makes it so; :class:`AsyncTimely` for one of ``redis.asyncio``.
    """
    name = f"Timely{connection_class.__name__}"
    return type(name, (mixin, connection_class), {"share": share})


class _Lender:
    """Mixed into a pool of redis-py for sync code: lends to whoever comes, and waits for one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.idle: SimpleQueue[Any] = SimpleQueue()
        base: Any = super()
        base.__init__(*args, **kwargs)

    def lend(self, place: str) -> Any:
        """Return a connection that is open; it belongs into ``idle`` afterwards.

        Raises:
            StoreUnavailableError: All are in use for as long as this may wait.
        """
        connection = self._one(place)
        try:
            self._leave_old_primary(connection)
            connection.connect()
            if _is_stale(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            connection.disconnect()
            self.idle.put(connection)
            raise
        return connection

    def _one(self, place: str) -> Any:
        this: Any = self
        try:
            return self.idle.get_nowait()
        except Empty:
            pass
        try:
            return this.make_connection()
        except redis.MaxConnectionsError:
            pass
        try:
            return self.idle.get(timeout=patience())
        except Empty:
            raise StoreUnavailableError(
                f"all connections to {place} are in use; try again later, or see what holds them"
            ) from None

    def _leave_old_primary(self, connection: Any) -> None:
        """Close a connection to a server that Sentinels no longer name."""

    def drain(self) -> None:
        """Close the connections that nobody uses."""
        while not self.idle.empty():
            with suppress(Empty):
                self.idle.get_nowait().disconnect()


def _is_stale(connection: Any) -> bool:
    """Tell whether the server closed a connection, or sent what nobody asked for."""
    try:
        return bool(connection.can_read())
    except (OSError, redis.ConnectionError):
        return True


class TimelyPool(_Lender, redis.ConnectionPool):
    """A pool of such connections; redis-py's client for clusters makes one for each node."""

    def __init__(
        self, connection_class: type = redis.Connection, share: float = 1, **kwargs: Any
    ) -> None:
        kwargs = {**DEFAULTS, **kwargs}
        kwargs.pop("redis_connect_func", None)  # it would ask whether replicas may be read
        pool: Any = super()
        pool.__init__(connection_class=timely(connection_class, share), **kwargs)


class TimelySentinelPool(_Lender, redis.sentinel.SentinelConnectionPool):
    """A pool of such connections to the primary that Sentinels name."""

    def _leave_old_primary(self, connection: Any) -> None:
        # redis-py closes those of its own when it learns of another; it does not know of these.
        this: Any = self
        primary = this.master_address
        if primary is not None and primary != (connection.host, connection.port):
            connection.disconnect()

    def drain(self) -> None:
        """Close the connections that nobody uses, those to Sentinels among them."""
        super().drain()
        this: Any = self
        for sentinel in this.sentinel_manager.sentinels:
            sentinel.connection_pool.disconnect(inuse_connections=False)
