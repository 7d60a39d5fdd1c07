"""The way to a Redis, the handling of failed calls, and the port of code on asyncio.

A command that may have written is never sent twice. A connection whose exchange did not end is
closed, so that no reply can answer a later question. The coroutines of a port for sync code never
suspend.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from abc import ABC, abstractmethod
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import MovedError

from keyguard.exceptions import CorruptDataError, KeyguardError, StoreError
from keyguard.runtime.deadlines import PATIENCE, Patience, awithin, deadline, remaining
from keyguard.runtime.frames import drop_frames
from keyguard.stores.loops import PerLoop, closed_with_loop, running_loop
from keyguard.stores.redis.clients import (
    LONGEST_PARTING,
    AsyncClient,
    close_async_client,
    is_cluster,
    make_async_client,
    place_of,
)
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.errors import (
    explained,
    is_lost,
    is_moving,
    keeps_apart,
    keeps_slots_apart,
    lacks_script,
    may_be_replaced,
)
from keyguard.stores.redis.lending import WITHOUT_DEADLINE, AsyncConnection, patience
from keyguard.stores.redis.pools import MOST_CONNECTIONS, AsyncPool
from keyguard.stores.redis.routing import Routing
from keyguard.stores.redis.scripts import Command, Replies, Reply, ScriptCall, only, parted

_NO_TIMEOUTS: dict[str, None] = {"socket_timeout": None, "socket_connect_timeout": None}
_PAUSE = 0.05
"""Seconds until a call is sent again whose keys are just moving to another server."""

_NEVER = math.inf  # when redis-py ends a read: the caller ends a call that is late


class ScriptPort(ABC):
    """Runs scripts on a Redis."""

    place: str
    """The server's address, without secrets."""
    is_cluster: bool
    """Whether each key is on one of several servers."""
    _takes_joined = True
    """Whether the server takes a command with the keys of several calls."""

    @abstractmethod
    async def send(
        self, commands: Sequence[Command], key: str, durability: Durability | None = None
    ) -> Replies:
        """Send commands to the server of a key, all in one round trip.

        Args:
            commands: The commands. All their keys are on the server of the key.
            key: The key.
            durability: Which replicas must have the change that the last command makes; None for
                any.

        Returns:
            The replies. If a command was refused, its place holds the error.

        Raises:
            NotDurableError: Too few replicas have the change.
            Exception: redis-py failed. The errors have no frames of redis-py's, which may hold the
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
        (reply,) = await self.run_all((call,), durability)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def run_all(
        self, calls: Sequence[ScriptCall], durability: Durability | None = None
    ) -> Sequence[Reply | StoreError]:
        """Run one script with several keys and arguments, in one round trip.

        Args:
            calls: The calls. All their keys are on one server.
            durability: As for :meth:`send`.

        Returns:
            The reply to each call. If a single call failed, its place holds the error.

        Raises:
            StoreError: All calls failed.
        """
        # While a slot of a cluster moves, keys of several calls may be in different places.
        is_joined = (
            len(calls) > 1 and calls[0].script.joins and self._takes_joined and not self.is_cluster
        )
        commands = [calls[0].joined(calls[1:])] if is_joined else [call.by_digest for call in calls]
        replies: Replies
        try:
            replies = await self.send(commands, calls[0].keys[0], durability)
            if is_joined and keeps_apart(replies[0]):
                self._takes_joined = not keeps_slots_apart(replies[0])
                commands = [call.by_digest for call in calls]
                replies = await self.send(commands, calls[0].keys[0], durability)
            elif is_joined:
                replies = parted(replies[0], len(calls))
        except KeyguardError:
            raise
        except Exception as failure:  # noqa: BLE001 - its meaning is decided in one place
            replies = [failure for _ in calls]
        answers = [reply for reply in replies if not isinstance(reply, Exception)]
        if len(answers) < len(replies):
            return await self._run_again(calls, durability, replies)
        return answers

    async def _run_again(
        self, calls: Sequence[ScriptCall], durability: Durability | None, replies: Replies
    ) -> Sequence[Reply | StoreError]:
        """Repeat the calls that failed, if that is safe."""
        is_meant: Callable[[Exception], bool]
        is_lacking, is_new, has_moved = False, False, False
        ends = time.monotonic() + patience()
        while remaining() != 0 and time.monotonic() < ends:
            failures = [reply for reply in replies if isinstance(reply, Exception)]
            if not is_lacking and any(map(lacks_script, failures)):
                is_lacking, is_meant = True, lacks_script  # the server ran nothing
            elif not has_moved and any(map(may_be_replaced, failures)):
                # The server changed nothing. After a failover, connections from before it lead to
                # what was the primary.
                has_moved, is_meant = True, may_be_replaced
            elif any(map(is_moving, failures)):
                is_meant = is_moving
                await self.pause(min(_PAUSE, patience()))
            elif not is_new and not calls[0].script.writes and any(map(is_lost, failures)):
                # A connection from the pool may have died long ago. A change may have been made.
                is_new, is_meant = True, is_lost
            else:
                break
            again = [
                number
                for number, reply in enumerate(replies)
                if isinstance(reply, Exception) and is_meant(reply)
            ]
            commands = [calls[number].by_digest for number in again]
            if is_lacking:
                commands[0] = calls[again[0]].in_full()  # after which the server knows it
            try:
                if is_meant is may_be_replaced:
                    await self.drop_idle()
                found: Replies = await self.send(commands, calls[0].keys[0], durability)
            except KeyguardError:
                raise
            except Exception as failure:  # noqa: BLE001 - likewise
                found = [failure for _ in again]
            for number, reply in zip(again, found, strict=True):
                replies[number] = reply
        answers = [
            self._explained(reply) if isinstance(reply, Exception) else reply for reply in replies
        ]
        errors = [answer for answer in answers if isinstance(answer, StoreError)]
        if len(errors) == len(answers):
            # An error that says nothing was done says nothing about calls whose result is not
            # known.
            raise next((e for e in errors if not isinstance(e, CorruptDataError)), errors[0])
        return answers

    def _explained(self, failure: Exception) -> StoreError:
        drop_frames(failure, sys.exception())
        error = explained(failure, self.place)
        error.__cause__ = failure
        return error


def ended(replies: Replies, failure: Exception, wanted: int) -> Replies:
    """Return the replies of a connection that has ended. Other results are not known."""
    unknown = redis.ConnectionError("the connection has ended")
    return [*replies, failure, *[unknown] * (wanted - len(replies) - 1)]


async def aexchange(
    connection: AsyncConnection, commands: Sequence[Command], durability: Durability | None = None
) -> Replies:
    """Send commands on asyncio and return the replies, as ``sync_port.exchange`` does.

    The connection is closed if that does not end.
    """
    try:
        await connection.send_packed_command(commands)
        replies: Replies = []
        read = connection.read_response  # a call of an attribute takes longer
        for _ in commands:
            try:
                replies.append(await read(timeout=_NEVER, disconnect_on_error=True))
            except redis.ResponseError as refusal:
                replies.append(refusal)
            except redis.ConnectionError as failure:
                return ended(replies, failure, len(commands))
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    if durability is not None and not isinstance(replies[-1], Exception):
        await durability.confirm(replies[-1], partial(_aask, connection))
    return replies


async def _aask(connection: AsyncConnection, command: Command) -> Reply:
    async with awithin(patience()):
        return only(await aexchange(connection, (command,)))


class _OnLoop:
    """What a port has opened on the running event loop.

    Args:
        target: Where the Redis is, or a client to use.
        terms: As for ``SyncScriptPort``.
    """

    def __init__(self, target: Deployment | AsyncClient, terms: Patience) -> None:
        self.client = make_async_client(target, terms) if isinstance(target, Deployment) else target
        pool = None
        if isinstance(self.client, redis.asyncio.Redis):
            pool = self.client.connection_pool
        self.lender = pool.lender if isinstance(pool, AsyncPool) else None
        self.turns = asyncio.Semaphore(MOST_CONNECTIONS)
        self.layout_is_old = False
        self._open = None
        if self.client is not target:
            self._open = closed_with_loop(partial(close_async_client, self.client))

    async def aclose(self) -> None:
        """Close the client, unless it is its owner's."""
        if self._open is not None:
            await self._open.aclose()


class AsyncScriptPort(ScriptPort, Routing):
    """Runs scripts for code on asyncio, whose caller ends a call that is late.

    Each event loop has a client of its own, because a connection belongs to its loop.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
        terms: As for ``SyncScriptPort``.
    """

    def __init__(self, target: Deployment | AsyncClient, terms: Patience = PATIENCE) -> None:
        self.place, self.is_cluster = place_of(target), is_cluster(target)
        self._loops = PerLoop("Redis", partial(_OnLoop, target, terms))

    def doubt_layout(self) -> None:
        self._loops.here().layout_is_old = True

    async def send(
        self, commands: Sequence[Command], key: str, durability: Durability | None = None
    ) -> Replies:
        if deadline.get() is None:
            async with awithin(WITHOUT_DEADLINE):
                return await self.send(commands, key, durability)
        handled = sys.exception()
        try:
            here = self._loops.made.get(get_running_loop()) if self._loops.made else None
            if here is None:
                here = self._loops.here()
            async with here.turns:
                if isinstance(here.client, redis.asyncio.RedisCluster):
                    return await self._routed(here.client, commands, key, durability)
                if here.lender is None:
                    return await _aexchange_with(here.client.connection_pool, commands, durability)
                connection = await here.lender.take()
                try:
                    return await aexchange(connection, commands, durability)
                finally:
                    if here.lender.waiting:
                        here.lender.give(connection)
                    else:
                        here.lender.keep(connection)
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def drop_idle(self) -> None:
        here = self._loops.here()
        if isinstance(here.client, redis.asyncio.RedisCluster):
            here.layout_is_old = True
        elif here.lender is not None:
            here.lender.distrust()
        else:  # the connections in use are those of other calls
            await here.client.connection_pool.disconnect(inuse_connections=False)

    async def keep_ready(self) -> None:
        """Keep a connection ready for the next call, in the background."""
        lender = self._loops.here().lender
        if lender is not None:
            await lender.check_ready()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        this = running_loop("Redis")
        for loop in [*self._loops.made]:
            here = self._loops.made.pop(loop, None)
            if here is not None and loop is this:
                await here.aclose()
            elif here is not None and loop.is_running():  # on a thread of its own
                closing = asyncio.run_coroutine_threadsafe(here.aclose(), loop)
                await asyncio.wait([asyncio.wrap_future(closing)], timeout=LONGEST_PARTING)

    def open(self) -> AsyncClient:
        """Return the client for the running event loop.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        return self._loops.here().client

    async def connection_for(self, key: str, move: MovedError | None = None) -> AsyncConnection:
        """Return a new connection to the server of a key, as ``SyncScriptPort`` does.

        It has none of the timeouts of the host's client, not even while it connects: who uses it
        sets a deadline.
        """
        if isinstance(client := self.open(), redis.asyncio.RedisCluster):
            source = await self._node_after(move, client, key)
        else:
            source = client.connection_pool
        options = dict(source.connection_kwargs)
        options.update(_NO_TIMEOUTS)
        connection: AsyncConnection = source.connection_class(**options)
        return connection

    async def _node(self, cluster: Any, key: str) -> Any:
        await cluster.initialize()
        here = self._loops.here()
        if here.layout_is_old:
            await cluster.nodes_manager.initialize()
            here.layout_is_old = False
        return cluster.get_node_from_key(key)

    async def _exchange_on(
        self, node: Any, commands: Sequence[Command], durability: Durability | None
    ) -> Replies:
        connection: AsyncConnection = node.acquire_connection()
        try:
            await connection.connect()
            return await aexchange(connection, commands, durability)
        finally:
            # redis-py before 6.2 has no public method for it.
            (getattr(node, "release", None) or node._free.append)(connection)


async def _aexchange_with(
    pool: redis.asyncio.ConnectionPool, commands: Sequence[Command], durability: Durability | None
) -> Replies:
    """Send commands on a connection of a pool that is not keyguard's, and return the replies."""
    connection = await pool.get_connection()
    try:
        return await aexchange(connection, commands, durability)
    finally:
        await pool.release(connection)
