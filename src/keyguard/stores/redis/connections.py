"""How a command reaches the server that it is for, and its reply whoever asked.

Nothing is sent twice, and a connection whose exchange did not end is dropped, so that no reply can
reach the wrong question.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError

from keyguard.exceptions import ConfigurationError
from keyguard.runtime.deadlines import awithin, remaining
from keyguard.runtime.frames import frameless
from keyguard.runtime.process import after_fork
from keyguard.stores.redis.addresses import Address, Kind
from keyguard.stores.redis.clients import (
    make_async_clients,
    make_cluster,
    make_pool,
    sentinels_of,
)
from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.pools import MOST_CONNECTIONS, WITHOUT_DEADLINE, patience

__all__ = ["AsyncConnections", "Connections", "running_loop"]


class Connections:
    """Connections for sync code, opened as they are needed.

    Args:
        address: Where the server is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._place = address.place  # which takes a while to spell
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        # What was open is left to the parent process: to close it could end its connections.
        self._lock = threading.Lock()
        self._pool: Any = None
        self._cluster: Any = None
        self._layout_is_old = False

    def call(self, command: Command, key: str) -> Any:
        """Send one command and return its reply.

        Args:
            command: The command.
            key: A key that it is about, which says what server of a cluster has it.

        Raises:
            Exception: Whatever redis-py raises, without its frames.
            StoreUnavailableError: All connections are in use for as long as this may wait.
        """
        with frameless():
            if self._address.kind is Kind.CLUSTER:
                return self._routed(command, key)
            return self._exchange(self._pool or self._whole_pool(), command)

    def close(self) -> None:
        """Close what is open; what is needed later is opened again."""
        with self._lock:
            pool, self._pool = self._pool, None
            cluster, self._cluster = self._cluster, None
        if pool is not None:
            pool.drain()
        if cluster is not None:
            for node in cluster.get_nodes():
                if node.redis_connection is not None:
                    node.redis_connection.connection_pool.drain()
            cluster.close()

    def each(self) -> list[tuple[str, Connections]]:
        """Return the servers that hold data, each with connections to it alone."""
        if self._address.kind is not Kind.CLUSTER:
            return [(self._address.place, self)]
        self._layout_is_old = True
        nodes = self._laid_out().get_primaries()
        return [_apart(self._address, (str(node.host), int(node.port))) for node in nodes]

    def sentinels(self) -> list[tuple[str, Connections]]:
        """Return the Sentinels, each with connections to it alone."""
        return [
            (f"the Sentinel {one.place.rpartition('/')[0]}", Connections(one))
            for one in sentinels_of(self._address)
        ]

    def _routed(self, command: Command, key: str) -> Any:
        for last in (False, True):
            cluster = self._laid_out()
            node = cluster.nodes_manager.get_node_from_slot(cluster.keyslot(key))
            try:
                return self._exchange(cluster.get_redis_connection(node).connection_pool, command)
            except MovedError:
                # It was not run there, and will be where the slot is now.
                self._layout_is_old = True
                if last:
                    raise
            except AskError as asked:
                elsewhere: Any = asked
                target = cluster.get_node(elsewhere.host, elsewhere.port)
                if target is None:
                    self._layout_is_old = True
                    raise
                pool = cluster.get_redis_connection(target).connection_pool
                return self._exchange(pool, Command("ASKING"), command)
            except (ClusterDownError, redis.ConnectionError, redis.TimeoutError):
                self._layout_is_old = True  # a replica may have taken over
                raise
        raise AssertionError  # the last turn returns or raises

    def _exchange(self, pool: Any, *commands: Command) -> Any:
        reply: Any = None
        connection = self._lend(pool)
        try:
            for command in commands:
                connection.send_packed_command((command.packed,))
                reply = connection.read_response(disconnect_on_error=True)
            return reply
        except redis.ResponseError:
            raise  # a whole reply
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._take_back(pool, connection)

    def _lend(self, pool: Any) -> Any:
        return pool.lend(self._place)

    def _take_back(self, pool: Any, connection: Any) -> None:
        pool.idle.put(connection)

    def _whole_pool(self) -> Any:
        if self._pool is None:
            with self._lock:
                if self._pool is None:
                    self._pool = make_pool(self._address)
        return self._pool

    def _laid_out(self) -> Any:
        # Nobody waits behind one who waits for a silent node longer than they may themselves.
        if not self._lock.acquire(timeout=patience()):
            raise redis.TimeoutError("another thread is still reading the layout of the cluster")
        try:
            if self._cluster is None:
                self._cluster = make_cluster(self._address)
            elif self._layout_is_old:
                self._cluster.nodes_manager.initialize()
            self._layout_is_old = False
            return self._cluster
        finally:
            self._lock.release()


class AsyncConnections:
    """Connections for code on asyncio; whoever calls ends a call that is late."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[Any] = []
        self._turns = asyncio.Semaphore(MOST_CONNECTIONS)

    async def call(self, command: Command, key: str) -> Any:
        """Send one command and return its reply; else like :meth:`Connections.call`.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        if remaining() is None:
            async with awithin(WITHOUT_DEADLINE):
                return await self.call(command, key)
        client = self._on_this_loop()
        with frameless():
            async with self._turns:
                if self._address.kind is Kind.CLUSTER:
                    return await self._routed(client, command)
                return await self._exchange(client.connection_pool, command)

    async def aclose(self) -> None:
        """Close what is open; what is needed later is opened again."""
        clients, self._clients = self._clients, []
        if self._loop is running_loop():
            for client in clients:
                if self._address.kind is Kind.CLUSTER:
                    client._initialize = False  # else it takes itself for closed, once one was late
                await client.aclose()

    async def _routed(self, client: Any, command: Command) -> Any:
        try:
            return await client.execute_command(*command.parts)
        except asyncio.CancelledError:
            # It was late, of which the client knows nothing: the node may be gone, and a replica
            # have taken over. Before its next command it reads the layout anew.
            client._initialize = True
            raise

    async def _exchange(self, pool: Any, command: Command) -> Any:
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(command.packed)
            return await connection.read_response(disconnect_on_error=True)
        except redis.ResponseError:
            raise  # a whole reply
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _on_this_loop(self) -> Any:
        loop = running_loop()
        if loop is not self._loop:
            # Connections of a loop that is gone can't be closed without it; they end when freed.
            self._loop, self._clients = loop, []
            self._turns = asyncio.Semaphore(MOST_CONNECTIONS)
        if not self._clients:
            self._clients = make_async_clients(self._address)
        return self._clients[0]


def _apart(address: Address, node: tuple[str, int]) -> tuple[str, Connections]:
    one = Address(
        kind=Kind.STANDALONE,
        nodes=(node,),
        tls=address.tls,
        options=address.options,
        connection_class=address.connection_class,
    )
    return one.place, Connections(one)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs.

    Raises:
        ConfigurationError: It is none of asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "Redis stores need asyncio; under trio use memory:// or a store of your own"
        ) from None
