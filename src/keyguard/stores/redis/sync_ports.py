"""How sync code reaches Redis.

Nothing that writes is sent twice. A connection whose exchange did not end is closed, so that no
reply can answer a later question.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError

from keyguard.exceptions import KeyguardError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.frames import drop_frames
from keyguard.runtime.process import after_fork
from keyguard.stores.redis.clients import Client, make_client, place_of, sentinels_of
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.pools import Connection, Pool, patience, read_reply
from keyguard.stores.redis.ports import TRAIL, closed, rescue, waiting
from keyguard.stores.redis.scripts import Command, Reply, ScriptCall

_LOOK = 0.1
"""Seconds after which a reader that waits looks whether it was closed."""


def exchange(pool: Pool, *commands: Command) -> Reply:
    """Send commands on one connection of a pool and return the last reply.

    Raises:
        RedisError: redis-py failed, or the server refused a command.
    """
    connection = pool.get_connection()
    try:
        reply: Reply = None
        for command in commands:
            _send(connection, command)
            reply = read_reply(connection)
        return reply
    except redis.ResponseError:
        raise  # a whole reply
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _send(connection: Connection, command: Command) -> None:
    if command.packed is None:
        command.packed = connection.pack_command(*command.parts)
    connection.send_packed_command(command.packed)


class SyncScriptPort:
    """Runs scripts for sync code.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
    """

    def __init__(self, target: Deployment | Client) -> None:
        if isinstance(target, Deployment):
            self.place = target.place
            self._deployment: Deployment | None = target
            self._given: Client | None = None
        else:
            self.place = place_of(target)
            self._deployment, self._given = None, target
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        # The parent process keeps what was open: closing it here could end its connections.
        self._lock = threading.Lock()
        self._opened = self._given
        self._layout_is_old = False

    async def run(self, call: ScriptCall) -> Reply:
        key = call.keys[0]
        try:
            return self.send(call.by_digest, key)
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place

            async def send(command: Command) -> Reply:
                return self.send(command, key)

            return await rescue(send, call, failure, self.place)

    def send(self, command: Command, key: str) -> Reply:
        """Send a command to the server of a key and return the reply.

        Raises:
            Exception: redis-py failed. The error has no frames of redis-py's, which may hold the
                password.
        """
        handled = sys.exception()
        try:
            client = self._opened
            if client is None or self._layout_is_old:
                client = self.open()
            if isinstance(client, redis.RedisCluster):
                return self._routed(client, command, key)
            return exchange(client.connection_pool, command)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def aclose(self) -> None:
        with self._lock:
            client, self._opened = self._opened, self._given
        if client is None or self._given is not None:
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
                assert self._deployment is not None  # noqa: S101 - as no client was given
                client = self._opened = make_client(self._deployment)
            elif self._layout_is_old and isinstance(client, redis.RedisCluster):
                client.nodes_manager.initialize()
            self._layout_is_old = False
            return client
        finally:
            self._lock.release()

    def distrust_layout(self) -> None:
        """Read the layout of the cluster before the next command."""
        self._layout_is_old = True

    def connection_for(self, key: str) -> Connection:
        """Return a new connection to the server of a key; it belongs to no pool."""
        client = self.open()
        if isinstance(client, redis.RedisCluster):
            pool: Any = _pool_of(client, key)
        else:
            pool = client.connection_pool
        connection: Connection = pool.connection_class(**pool.connection_kwargs)
        return connection

    def servers(self) -> list[tuple[str, Pool]]:
        """Return the servers that hold data and the Sentinels: their names and pools."""
        self._layout_is_old = True
        client = self.open()
        sentinels = [
            (f"the Sentinel {place_of(sentinel).rpartition('/')[0]}", sentinel.connection_pool)
            for sentinel in sentinels_of(client)
        ]
        if not isinstance(client, redis.RedisCluster):
            return [(self.place, client.connection_pool), *sentinels]
        servers = [client.get_redis_connection(node) for node in client.get_primaries()]
        return [(place_of(server), server.connection_pool) for server in servers]

    def _routed(self, cluster: redis.RedisCluster, command: Command, key: str) -> Reply:
        for is_last in (False, True):
            try:
                return exchange(_pool_of(cluster, key), command)
            except MovedError:
                # The server did not run it; the one that has the slot now will.
                self._layout_is_old = True
                if is_last:
                    raise
                self.open()
            except AskError as asked:
                pool = _pool_named_by(cluster, asked)
                if pool is None:
                    self._layout_is_old = True
                    raise
                return exchange(pool, Command("ASKING"), command)
            except (ClusterDownError, redis.ConnectionError, redis.TimeoutError):
                self._layout_is_old = True  # a replica may have taken over
                raise
        raise AssertionError  # the last turn returns or raises


# redis-py types these methods of its clusters in part.


def _pool_of(cluster: Any, key: str) -> Pool:
    pool: Pool = cluster.get_redis_connection(cluster.get_node_from_key(key)).connection_pool
    return pool


def _pool_named_by(cluster: Any, asked: Any) -> Pool | None:
    node = cluster.get_node(asked.host, asked.port)
    return None if node is None else cluster.get_redis_connection(node).connection_pool


class SyncListenerPort:
    """Runs scripts for one thread, and waits for news, on one connection of its own.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: SyncScriptPort) -> None:
        self._port = port
        self.is_closed = False
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._connection: Connection | None = None

    async def run(self, call: ScriptCall) -> Reply:
        try:
            return await self._answer(call.by_digest)
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place
            return await rescue(self._answer, call, failure, self._port.place)

    async def wait(self, position: str, seconds: float) -> bool:
        try:
            return self._exchange(waiting(position, seconds), waits=True) is not None
        except MovedError:
            self._leave_server()
            return True
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self._port.place) from failure

    async def aclose(self) -> None:
        """Close the connection; the next command connects to the server of that time."""
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    async def _answer(self, command: Command) -> Reply:
        try:
            return self._exchange(command)
        except MovedError:
            self._leave_server()
            return self._exchange(command)

    def _exchange(self, command: Command, *, waits: bool = False) -> Reply:
        handled = sys.exception()
        try:
            connection = self._connected()
            _send(connection, command)
            if waits:
                self._await_reply(connection)
            return read_reply(connection)
        except BaseException as failure:
            if not isinstance(failure, redis.ResponseError):  # which is a whole reply
                self._disconnect()
            drop_frames(failure, handled)
            raise

    def _await_reply(self, connection: Connection) -> None:
        while not connection.can_read(min(patience(), _LOOK)):
            if self.is_closed:
                raise closed()
            if remaining() == 0:
                raise redis.TimeoutError("the server did not answer in time")

    def _connected(self) -> Connection:
        if self.is_closed:
            raise closed()
        connection = self._connection
        if connection is None:
            connection = self._connection = self._port.connection_for(TRAIL)
        if not connection.is_connected:
            connection.connect()
        return connection

    def _leave_server(self) -> None:
        self._port.distrust_layout()
        self._disconnect()
