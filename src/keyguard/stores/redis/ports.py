"""How keyguard reaches a Redis, and what it does if a call fails.

Nothing that may have written is sent twice. A connection whose exchange did not end is closed, so
that no reply can answer a later question. The coroutines of a port for sync code never suspend.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from asyncio import get_running_loop
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError

from keyguard.exceptions import ConfigurationError, KeyguardError
from keyguard.runtime.deadlines import PATIENCE, Patience, awithin, remaining
from keyguard.runtime.frames import drop_frames, frameless
from keyguard.runtime.process import after_fork
from keyguard.runtime.sync import run_sync
from keyguard.stores.redis.clients import (
    AsyncClient,
    Client,
    make_async_client,
    make_client,
    place_of,
    sentinels_of,
)
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.errors import explained, is_lost, is_moving, may_be_replaced
from keyguard.stores.redis.lending import (
    WITHOUT_DEADLINE,
    AsyncConnection,
    Connection,
    patience,
)
from keyguard.stores.redis.pools import (
    MOST_CONNECTIONS,
    AsyncLending,
    EndableConnection,
    Lending,
    RedisPool,
)
from keyguard.stores.redis.scripts import Command, Reply, ScriptCall

_PAUSE = 0.05
"""Seconds until a call is sent again whose keys are just moving to another server."""
_LONGEST_PARTING = 1.0
"""Seconds that closing a client on asyncio takes at most."""


class ScriptPort(ABC):
    """Runs scripts on a Redis."""

    place: str
    """The server's address, without secrets."""

    @abstractmethod
    async def send(self, command: Command, key: str, durability: Durability | None = None) -> Reply:
        """Send a command to the server of a key and return the reply.

        Args:
            command: The command.
            key: The key.
            durability: Which replicas must have the change that the command makes; None for any.

        Raises:
            NotDurableError: Too few replicas have the change.
            Exception: redis-py failed. The error has no frames of redis-py's, which may hold the
                password.
        """

    @abstractmethod
    async def drop_idle(self) -> None:
        """Close the connections that nobody uses, so that the next command opens a new one."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait before a call is sent again."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections that the port opened."""

    async def run(self, call: ScriptCall, durability: Durability | None = None) -> Reply:
        """Run a script and return its reply.

        Args:
            call: The script with its keys and arguments.
            durability: As for :meth:`send`.

        Raises:
            StoreError: The call failed; the message says why and what to do.
        """
        try:
            return await self.send(call.by_digest, call.keys[0], durability)
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place
            return await self._run_again(call, durability, failure)

    async def _run_again(
        self, call: ScriptCall, durability: Durability | None, failure: Exception
    ) -> Reply:
        """Run a script whose first call failed again, where that is safe."""
        command, is_new, has_moved = call.by_digest, False, False
        ends = time.monotonic() + patience()
        while remaining() != 0 and time.monotonic() < ends:
            if isinstance(failure, NoScriptError) and command is call.by_digest:
                command = call.in_full()  # the server ran nothing
            elif may_be_replaced(failure) and not has_moved:
                # The server changed nothing. After a failover, connections from before it lead to
                # what was the primary.
                has_moved = True
            elif is_moving(failure):
                await self.pause(min(_PAUSE, patience()))
            elif is_lost(failure) and not call.script.writes and not is_new:
                # A connection from the pool may have died long ago. A change may have been made.
                is_new = True
            else:
                break
            try:
                if may_be_replaced(failure):
                    await self.drop_idle()
                return await self.send(command, call.keys[0], durability)
            except Exception as another:  # noqa: BLE001 - explained below
                failure = another
        if isinstance(failure, KeyguardError):
            raise failure
        raise explained(failure, self.place) from failure


def send_command(connection: Connection, command: Command) -> None:
    """Send a command on a connection; the caller closes it if this fails."""
    if command.packed is None:
        command.packed = connection.pack_command(*command.parts)
    connection.send_packed_command(command.packed)


def exchange(pool: RedisPool, *commands: Command, durability: Durability | None = None) -> Reply:
    """Send commands on one connection of a pool and return the last reply.

    Args:
        pool: The pool.
        commands: The commands.
        durability: Which replicas must have the change that the last command makes.

    Raises:
        NotDurableError: Too few replicas have the change.
        RedisError: redis-py failed, or the server refused a command.
    """
    connection = pool.get_connection()
    try:
        reply: Reply = None
        for command in commands:
            send_command(connection, command)
            reply = connection.read_response(disconnect_on_error=False)
        if durability is not None:
            run_sync(durability.confirm(reply, partial(_ask, connection)))
        return reply
    except redis.ResponseError:
        raise  # a whole reply
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


async def _ask(connection: Connection, command: Command) -> Reply:
    send_command(connection, command)
    return connection.read_response(disconnect_on_error=False)


class SyncScriptPort(ScriptPort):
    """Runs scripts for sync code; its coroutines never suspend.

    Args:
        target: Where the Redis is, or a client that says so.
        terms: How long opening a connection may take, and how long it is kept.

    Attributes:
        layout_is_old: Whether to read the layout of the cluster before the next command.
    """

    def __init__(self, target: Deployment | Client, terms: Patience = PATIENCE) -> None:
        self.place = place_of(target)
        self._target = target
        self._terms = terms
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        # The parent process keeps what was open: closing it here could end its connections.
        self._lock = threading.Lock()
        self._opened: Client | None = None
        self.layout_is_old = False

    async def send(self, command: Command, key: str, durability: Durability | None = None) -> Reply:
        handled = sys.exception()
        try:
            client = self._opened
            if client is None or self.layout_is_old:
                client = self.open()
            if isinstance(client, redis.RedisCluster):
                return self._routed(client, command, key, durability)
            return exchange(client.connection_pool, command, durability=durability)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def drop_idle(self) -> None:
        with frameless():
            client = self.open()
        if isinstance(client, redis.RedisCluster):
            self.layout_is_old = True
        else:
            client.connection_pool.disconnect()

    async def keep_ready(self) -> None:
        """Have a connection ready for the next call, beside the present one.

        Raises:
            StoreError: The layout of a cluster can't be read.
        """
        try:
            with frameless():
                client = self.open()
        except redis.RedisError as failure:
            raise explained(failure, self.place) from failure
        pool = client.connection_pool if isinstance(client, redis.Redis) else None
        if isinstance(pool, Lending):
            await pool.lender.keep_ready()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - which never suspends

    async def aclose(self) -> None:
        with self._lock:
            client, self._opened = self._opened, None
        if client is None:
            return
        if isinstance(client, redis.RedisCluster):
            nodes: list[Any] = client.get_nodes()
            clients = [node.redis_connection for node in nodes]
        else:
            clients = [client, *sentinels_of(client)]
        for opened in clients:
            if opened is not None:  # a node that was never asked has none
                opened.connection_pool.disconnect()

    def open(self) -> Client:
        """Return the client; one for a cluster knows the present layout.

        Raises:
            TimeoutError: Another thread has been reading the layout for as long as the call may
                wait.
        """
        # A thread that waits for a silent node makes no other thread wait longer than it may.
        if not self._lock.acquire(timeout=patience()):
            raise redis.TimeoutError("another thread is still reading the layout of the cluster")
        try:
            client = self._opened
            if client is None:
                client = self._opened = make_client(self._target, self._terms)
            elif self.layout_is_old and isinstance(client, redis.RedisCluster):
                client.nodes_manager.initialize()
            self.layout_is_old = False
            return client
        finally:
            self._lock.release()

    def connection_for(self, key: str) -> EndableConnection:
        """Return a new connection to the server of a key; it belongs to no pool."""
        client = self.open()
        if isinstance(client, redis.RedisCluster):
            pool: Any = _pool_of(client, key)
        else:
            pool = client.connection_pool
        connection: EndableConnection = pool.connection_class(**pool.connection_kwargs)
        return connection

    def _routed(
        self,
        cluster: redis.RedisCluster,
        command: Command,
        key: str,
        durability: Durability | None,
    ) -> Reply:
        try:
            try:
                return exchange(_pool_of(cluster, key), command, durability=durability)
            except MovedError:
                # The server did not run it; the one that has the slot now will.
                self.layout_is_old = True
                self.open()
                return exchange(_pool_of(cluster, key), command, durability=durability)
        except (MovedError, ClusterDownError, redis.ConnectionError, redis.TimeoutError):
            self.layout_is_old = True  # a replica may have taken over
            raise
        except AskError as asked:
            pool = _pool_named_by(cluster, asked)
            if pool is None:
                self.layout_is_old = True
                raise
            return exchange(pool, Command("ASKING"), command, durability=durability)


# redis-py types these methods of its clusters in part.


def _pool_of(cluster: Any, key: str) -> RedisPool:
    pool: RedisPool = cluster.get_redis_connection(cluster.get_node_from_key(key)).connection_pool
    return pool


def _pool_named_by(cluster: Any, asked: Any) -> RedisPool | None:
    node = cluster.get_node(asked.host, asked.port)
    return None if node is None else cluster.get_redis_connection(node).connection_pool


class AsyncNode(Protocol):
    """What keyguard uses of redis-py's nodes of a cluster for asyncio."""

    def acquire_connection(self) -> AsyncConnection: ...
    def release(self, connection: Any) -> None: ...


async def aexchange(
    connection: AsyncConnection, *commands: Command, durability: Durability | None = None
) -> Reply:
    """Send commands on asyncio and return the last reply, like :func:`exchange`.

    The connection is closed if that does not end.
    """
    reply: Reply = None
    for command in commands:
        reply = await _aask(connection, command)
    if durability is not None:
        await durability.confirm(reply, partial(_aask_in_time, connection))
    return reply


async def _aask_in_time(connection: AsyncConnection, command: Command) -> Reply:
    async with awithin(patience()):
        return await _aask(connection, command)


async def _aask(connection: AsyncConnection, command: Command) -> Reply:
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


class _OnLoop:
    """What a port has opened on the running event loop.

    Args:
        target: Where the Redis is, or a client to use.
        terms: As for :class:`SyncScriptPort`.
    """

    def __init__(self, target: Deployment | AsyncClient, terms: Patience) -> None:
        self.client = make_async_client(target, terms) if isinstance(target, Deployment) else target
        pool = None
        if isinstance(self.client, redis.asyncio.Redis):
            pool = self.client.connection_pool
        self.lender = pool.lender if isinstance(pool, AsyncLending) else None
        self.turns = asyncio.Semaphore(MOST_CONNECTIONS)
        self.layout_is_old = False
        # asyncio closes its generators before it closes the loop.
        self._open = _closing(None if self.client is target else self.client)
        with suppress(StopIteration):
            self._open.__anext__().send(None)

    async def aclose(self) -> None:
        """Close the client, unless it is its owner's."""
        await self._open.aclose()


class AsyncScriptPort(ScriptPort):
    """Runs scripts for code on asyncio, whose caller ends a call that is late.

    Each event loop has a client of its own, because a connection belongs to its loop.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
        terms: As for :class:`SyncScriptPort`.
    """

    def __init__(self, target: Deployment | AsyncClient, terms: Patience = PATIENCE) -> None:
        self.place = place_of(target)
        self._target = target
        self._terms = terms
        self._opened: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def layout_is_old(self) -> bool:
        """Whether to read the layout of the cluster before the next command on this loop."""
        return self._here().layout_is_old

    @layout_is_old.setter
    def layout_is_old(self, is_old: bool) -> None:
        self._here().layout_is_old = is_old

    async def send(self, command: Command, key: str, durability: Durability | None = None) -> Reply:
        if remaining() is None:
            async with awithin(WITHOUT_DEADLINE):
                return await self.send(command, key, durability)
        handled = sys.exception()
        try:
            here = self._opened.get(get_running_loop()) if self._opened else None
            if here is None:
                here = self._here()
            async with here.turns:
                if isinstance(here.client, redis.asyncio.RedisCluster):
                    return await self._routed(here.client, command, key, durability)
                if here.lender is None:
                    return await _aexchange_with(here.client.connection_pool, command, durability)
                connection = await here.lender.take()
                try:
                    if durability is None:
                        return await _aask(connection, command)
                    return await aexchange(connection, command, durability=durability)
                finally:
                    here.lender.give(connection)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def drop_idle(self) -> None:
        client = self.open()
        if isinstance(client, redis.asyncio.RedisCluster):
            self.layout_is_old = True
        else:
            pool = client.connection_pool
            # The connections in use are those of other calls, and a pool of keyguard's leaves them.
            await pool.disconnect(inuse_connections=isinstance(pool, AsyncLending))

    async def keep_ready(self) -> None:
        """Have a connection ready for the next call, beside the present one."""
        lender = self._here().lender
        if lender is not None:
            await lender.keep_ready()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        self._forget_closed_loops()
        this = running_loop()
        for loop in [loop for known in self._opened.keyrefs() if (loop := known()) is not None]:
            here = self._opened.pop(loop, None)
            if here is not None and loop is this:
                await here.aclose()
            elif here is not None and loop.is_running():  # on a thread of its own
                closing = asyncio.run_coroutine_threadsafe(here.aclose(), loop)
                await asyncio.wait([asyncio.wrap_future(closing)], timeout=_LONGEST_PARTING)

    def open(self) -> AsyncClient:
        """Return the client for the running event loop.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        return self._here().client

    def _here(self) -> _OnLoop:
        """Return what is open on the running event loop, with a new client if it has none."""
        loop = running_loop()
        here = self._opened.get(loop)
        if here is None:
            self._forget_closed_loops()
            self._opened[loop] = here = _OnLoop(self._target, self._terms)
        return here

    def _forget_closed_loops(self) -> None:
        # A connection holds its loop, so that these would never be freed.
        for loop in [loop for known in self._opened.keyrefs() if (loop := known()) is not None]:
            if loop.is_closed():
                self._opened.pop(loop, None)

    async def connection_for(self, key: str) -> AsyncConnection:
        """Return a new connection to the server of a key; it belongs to no pool."""
        client = self.open()
        if isinstance(client, redis.asyncio.RedisCluster):
            source = await self._node(client, key)
        else:
            source = client.connection_pool
        connection: AsyncConnection = source.connection_class(**source.connection_kwargs)
        return connection

    async def _routed(
        self,
        cluster: redis.asyncio.RedisCluster,
        command: Command,
        key: str,
        durability: Durability | None,
    ) -> Reply:
        try:
            node = await self._node(cluster, key)
            if durability is not None:
                return await self._confirmed(cluster, node, command, key, durability)
            # For a named node redis-py follows MOVED and ASK, and sends nothing twice.
            reply: Reply = await cluster.execute_command(*command.parts, target_nodes=node)
            return reply
        except asyncio.CancelledError:
            # The call was late, of which redis-py knows nothing: a replica may have taken over.
            self.layout_is_old = True
            raise

    async def _confirmed(
        self,
        cluster: redis.asyncio.RedisCluster,
        node: AsyncNode,
        command: Command,
        key: str,
        durability: Durability,
    ) -> Reply:
        """Change something on one connection of a node, which redis-py itself can't keep."""
        try:
            return await _aexchange_on(node, command, durability=durability)
        except MovedError:
            # The server did not run it; the one that has the slot now will.
            self.layout_is_old = True
            node = await self._node(cluster, key)
            return await _aexchange_on(node, command, durability=durability)
        except AskError as asked:
            named: AsyncNode | None = _node_named_by(cluster, asked)
            self.layout_is_old |= named is None
            if named is None:
                raise
            return await _aexchange_on(named, Command("ASKING"), command, durability=durability)
        except (ClusterDownError, redis.ConnectionError, redis.TimeoutError):
            self.layout_is_old = True  # a replica may have taken over
            raise

    async def _node(self, cluster: redis.asyncio.RedisCluster, key: str) -> Any:
        client: Any = cluster  # redis-py types these methods in part
        await client.initialize()
        if self.layout_is_old:
            await client.nodes_manager.initialize()
            self.layout_is_old = False
        return client.get_node_from_key(key)


async def _aexchange_on(node: AsyncNode, *commands: Command, durability: Durability) -> Reply:
    connection = node.acquire_connection()
    try:
        await connection.connect()
        return await aexchange(connection, *commands, durability=durability)
    finally:
        node.release(connection)


async def _aexchange_with(
    pool: redis.asyncio.ConnectionPool, command: Command, durability: Durability | None
) -> Reply:
    """Send a command on a connection of a pool that is not keyguard's, and return the reply."""
    connection = await pool.get_connection()
    try:
        return await aexchange(connection, command, durability=durability)
    finally:
        await pool.release(connection)


def _node_named_by(cluster: Any, asked: Any) -> AsyncNode | None:
    node: AsyncNode | None = cluster.get_node(asked.host, asked.port)
    return node


async def _closing(client: AsyncClient | None) -> AsyncGenerator[None]:
    """Close a client when the generator is closed."""
    try:
        yield
    finally:
        if client is not None:
            # TLS waits for a goodbye, which a silent server never says.
            with suppress(TimeoutError):
                async with awithin(_LONGEST_PARTING):
                    await _close(client)


async def _close(client: AsyncClient) -> None:
    await client.aclose()
    if isinstance(client, redis.asyncio.RedisCluster):
        # A client that lost a node takes itself for closed.
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")
    for sentinel in sentinels_of(client):
        await sentinel.aclose()


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
