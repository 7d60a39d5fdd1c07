"""The port of sync code, and how it exchanges commands for replies on one connection."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis
from redis.exceptions import MovedError

from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.runtime.frames import drop_frames, frameless
from keyguard.runtime.process import after_fork, renew_if_forked
from keyguard.runtime.sync import run_sync
from keyguard.stores.redis.clients import Client, is_cluster, make_client, place_of, sentinels_of
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.lending import Connection, patience
from keyguard.stores.redis.pools import EndableConnection, RedisPool, TimelyPool
from keyguard.stores.redis.ports import ScriptPort, ended
from keyguard.stores.redis.routing import Routing
from keyguard.stores.redis.scripts import Command, Replies, Reply


def send_commands(connection: Connection, commands: Sequence[Command]) -> None:
    """Send commands on a connection; the caller closes it if this fails."""
    connection.send_packed_command([b"".join(commands)])  # it sends each item by itself


def exchange(
    pool: RedisPool, commands: Sequence[Command], durability: Durability | None = None
) -> Replies:
    """Send commands on one connection of a pool and return the replies.

    Args:
        pool: The pool.
        commands: The commands.
        durability: Which replicas must have the change that the last command makes.

    Returns:
        The replies. If a command was refused, its place holds the error.

    Raises:
        NotDurableError: Too few replicas have the change.
        RedisError: redis-py failed.
    """
    connection = pool.get_connection()
    try:
        send_commands(connection, commands)
        replies: Replies = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disconnect_on_error=False))
            except redis.ResponseError as refusal:
                replies.append(refusal)  # which is a whole reply
            except redis.ConnectionError as failure:
                connection.disconnect()
                return ended(replies, failure, len(commands))
        if durability is not None and not isinstance(replies[-1], Exception):
            run_sync(durability.confirm(replies[-1], partial(_ask, connection)))
        return replies
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


async def _ask(connection: Connection, command: Command) -> Reply:
    send_commands(connection, (command,))
    return connection.read_response(disconnect_on_error=False)


class SyncScriptPort(ScriptPort, Routing):
    """Runs scripts for sync code; its coroutines never suspend.

    Args:
        target: Where the Redis is, or a client that says so.
        terms: How long opening a connection may take, and how long it is kept.

    Attributes:
        layout_is_old: Whether to read the layout of the cluster before the next command.
    """

    def __init__(self, target: Deployment | Client, terms: Patience = PATIENCE) -> None:
        self.place, self.is_cluster = place_of(target), is_cluster(target)
        self._target = target
        self._terms = terms
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        # The parent process keeps what was open: closing it here could end its connections.
        self._turn = threading.Semaphore(1)
        self._opened: Client | None = None
        self.layout_is_old = False

    def doubt_layout(self) -> None:
        self.layout_is_old = True

    async def send(
        self, commands: Sequence[Command], key: str, durability: Durability | None = None
    ) -> Replies:
        handled = sys.exception()
        renew_if_forked()
        try:
            client = self._opened
            if client is None or self.layout_is_old:
                client = self.open()
            if isinstance(client, redis.RedisCluster):
                return await self._routed(client, commands, key, durability)
            return exchange(client.connection_pool, commands, durability)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def drop_idle(self) -> None:
        with frameless():
            client = self.open()
        if isinstance(client, redis.RedisCluster):
            self.layout_is_old = True
        else:
            pool: Any = client.connection_pool
            pool.lender.distrust()

    async def keep_ready(self) -> None:
        """Keep a connection ready for the next call, in the background.

        Raises:
            StoreError: The layout of a cluster can't be read.
        """
        try:
            with frameless():
                client = self.open()
        except redis.RedisError as failure:
            raise explained(failure, self.place) from failure
        pool = client.connection_pool if isinstance(client, redis.Redis) else None
        if isinstance(pool, TimelyPool):
            await pool.lender.check_ready()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - which never suspends

    async def aclose(self) -> None:
        with self._turn:
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
        renew_if_forked()
        # A thread that waits for a silent node makes no other thread wait longer than it may.
        if not self._turn.acquire(timeout=patience()):
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
            self._turn.release()

    async def connection_for(self, key: str, move: MovedError | None = None) -> EndableConnection:
        """Return a new connection to the server of a key; it belongs to no pool.

        Args:
            key: The key.
            move: The answer that said that the key is elsewhere, if there was one.
        """
        client = self.open()
        if isinstance(client, redis.RedisCluster):
            pool: Any = _pool_of(client, await self._node_after(move, client, key))
        else:
            pool = client.connection_pool
        connection: EndableConnection = pool.connection_class(**pool.connection_kwargs)
        return connection

    async def _node(self, cluster: Any, key: str) -> Any:
        if self.layout_is_old:
            self.open()
        return cluster.get_node_from_key(key)

    async def _exchange_on(
        self, node: Any, commands: Sequence[Command], durability: Durability | None
    ) -> Replies:
        return exchange(_pool_of(self.open(), node), commands, durability)


def _pool_of(cluster: Any, node: Any) -> RedisPool:
    pool: RedisPool = cluster.get_redis_connection(node).connection_pool
    return pool
