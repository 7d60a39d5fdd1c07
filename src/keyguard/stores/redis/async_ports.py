"""How code on asyncio reaches Redis: as sync code does, but the caller ends a call that is late."""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import get_running_loop
from collections.abc import Iterable
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.exceptions import MovedError

from keyguard.exceptions import ConfigurationError, KeyguardError
from keyguard.runtime.deadlines import awithin, remaining
from keyguard.runtime.frames import drop_frames
from keyguard.stores.redis.clients import AsyncClient, make_async_client, place_of, sentinels_of
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.pools import MOST_CONNECTIONS, WITHOUT_DEADLINE
from keyguard.stores.redis.ports import TRAIL, rescue, waiting
from keyguard.stores.redis.scripts import Command, Reply, ScriptCall


class AsyncConnection(Protocol):
    """What keyguard uses of redis-py's connections for asyncio."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    def pack_command(self, *parts: str | bytes) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    async def read_response(self, *, timeout: float, disconnect_on_error: bool) -> Reply: ...  # noqa: ASYNC109 - redis-py's signature


async def _exchange(connection: AsyncConnection, command: Command) -> Reply:
    """Send a command and return the reply; close the connection if that does not end."""
    if command.packed is None:
        command.packed = connection.pack_command(*command.parts)
    try:
        await connection.send_packed_command(command.packed)
        return await connection.read_response(timeout=math.inf, disconnect_on_error=True)
    except redis.ResponseError:
        raise  # a whole reply
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


class AsyncScriptPort:
    """Runs scripts for code on asyncio.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
    """

    def __init__(self, target: Deployment | AsyncClient) -> None:
        if isinstance(target, Deployment):
            self.place = target.place
            self._deployment: Deployment | None = target
            self._given: AsyncClient | None = None
        else:
            self.place = place_of(target)
            self._deployment, self._given = None, target
        self._opened = self._given
        self._layout_is_old = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(MOST_CONNECTIONS)

    async def run(self, call: ScriptCall) -> Reply:
        key = call.keys[0]
        try:
            return await self.send(call.by_digest, key)
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place
            return await rescue(lambda command: self.send(command, key), call, failure, self.place)

    async def send(self, command: Command, key: str) -> Reply:
        """Send a command to the server of a key and return the reply.

        Raises:
            Exception: redis-py failed. The error has no frames of redis-py's, which may hold the
                password.
            ConfigurationError: The event loop is not asyncio's.
        """
        if remaining() is None:
            async with awithin(WITHOUT_DEADLINE):
                return await self.send(command, key)
        handled = sys.exception()
        try:
            client = self._opened
            if client is None or self._loop is None or get_running_loop() is not self._loop:
                client = self.open()
            async with self._turns:
                if isinstance(client, redis.asyncio.RedisCluster):
                    return await self._routed(client, command, key)
                pool = client.connection_pool
                connection = await pool.get_connection()
                try:
                    return await _exchange(connection, command)
                finally:
                    await pool.release(connection)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def aclose(self) -> None:
        client, self._opened = self._opened, self._given
        if client is None or self._given is not None or self._loop is not running_loop():
            return
        await client.aclose()
        if isinstance(client, redis.asyncio.RedisCluster):
            # A client that lost a node takes itself for closed.
            await client.nodes_manager.aclose()
            await client.nodes_manager.aclose("startup_nodes")
        for sentinel in sentinels_of(client):
            await sentinel.aclose()

    def open(self) -> AsyncClient:
        """Return the client for the running event loop.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        loop = running_loop()
        if loop is not self._loop:
            # Connections of an ended loop can't be closed without it; they end when freed.
            self._loop, self._opened = loop, self._given
            self._turns = asyncio.Semaphore(MOST_CONNECTIONS)
        client = self._opened
        if client is None:
            assert self._deployment is not None  # noqa: S101 - as no client was given
            client = self._opened = make_async_client(self._deployment)
        return client

    def distrust_layout(self) -> None:
        """Read the layout of the cluster before the next command."""
        self._layout_is_old = True

    async def connection_for(self, key: str) -> Any:
        """Return a new connection to the server of a key; it belongs to no pool."""
        client = self.open()
        if isinstance(client, redis.asyncio.RedisCluster):
            source: Any = await self._node(client, key)
        else:
            source = client.connection_pool
        return source.connection_class(**source.connection_kwargs)

    async def _routed(
        self, cluster: redis.asyncio.RedisCluster, command: Command, key: str
    ) -> Reply:
        try:
            node = await self._node(cluster, key)
            # For a named node redis-py follows MOVED and ASK, and sends nothing twice.
            reply: Reply = await cluster.execute_command(*command.parts, target_nodes=node)
            return reply
        except asyncio.CancelledError:
            # The call was late, of which redis-py knows nothing: a replica may have taken over.
            self._layout_is_old = True
            raise

    async def _node(self, cluster: redis.asyncio.RedisCluster, key: str) -> Any:
        client: Any = cluster  # redis-py types these methods in part
        await client.initialize()
        if self._layout_is_old:
            await client.nodes_manager.initialize()
            self._layout_is_old = False
        return client.get_node_from_key(key)


class AsyncListenerPort:
    """Runs scripts for one task, and waits for news, on one connection of its own.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: AsyncScriptPort) -> None:
        self._port = port
        self._connection: AsyncConnection | None = None

    async def run(self, call: ScriptCall) -> Reply:
        try:
            return await self._answer(call.by_digest)
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place
            return await rescue(self._answer, call, failure, self._port.place)

    async def wait(self, position: str, seconds: float) -> bool:
        try:
            return await self._send(waiting(position, seconds)) is not None
        except MovedError:
            await self._leave_server()
            return True
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self._port.place) from failure

    async def aclose(self) -> None:
        """Close the connection; the next command connects to the server of that time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _answer(self, command: Command) -> Reply:
        try:
            return await self._send(command)
        except MovedError:
            await self._leave_server()
            return await self._send(command)

    async def _send(self, command: Command) -> Reply:
        handled = sys.exception()
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._port.connection_for(TRAIL)
            await connection.connect()
            return await _exchange(connection, command)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def _leave_server(self) -> None:
        self._port.distrust_layout()
        await self.aclose()


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigurationError: No event loop of asyncio's is running.
    """
    try:
        return get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "Redis stores need asyncio; under trio use memory:// or a store of your own"
        ) from None
