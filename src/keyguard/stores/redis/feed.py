"""How a process follows the audit trail.

A reader has a connection of its own, on which it may wait: it takes none from the pool that serves
requests. A script tells what changed, and the reader waits with XREAD only if nothing did. Every
answer comes from the script, so it has passed the check of the layout and comes from the server
that takes changes now.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import redis
from redis.exceptions import AskError, MovedError

from keyguard.exceptions import KeyguardError, StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.frames import drop_frames
from keyguard.runtime.process import after_fork
from keyguard.stores.base import News
from keyguard.stores.loops import running_loop
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.lending import AsyncConnection
from keyguard.stores.redis.pools import EndableConnection
from keyguard.stores.redis.ports import AsyncScriptPort, ScriptPort, aexchange
from keyguard.stores.redis.routing import Routing
from keyguard.stores.redis.scripts import (
    NEWS,
    STORE,
    Command,
    Replies,
    Reply,
    list_of,
    only,
    pack,
    store_call,
    text_of,
    texts_of,
)
from keyguard.stores.redis.sync_port import SyncScriptPort, send_commands

_TRAIL = f"{STORE}audit"
_MOST_NEWS = 1000
_GRACE = 1.0
"""Seconds beyond its patience after which a reader gives a silent server up."""


class TrailReader(ScriptPort):
    """What the readers of both flavours share: scripts and waiting, on one connection.

    After a failure the reader connects anew, and so learns which server is the primary by then.
    """

    routing: Routing
    """Knows the nodes of a cluster."""
    is_closed = False
    moved: MovedError | None = None
    """The answer that said last that the trail is on another node; a new connection uses it up."""

    @abstractmethod
    async def exchange(self, command: Command) -> Reply:
        """Send a command on the reader's connection and return the reply."""

    async def drop_idle(self) -> None:
        self.routing.doubt_layout()
        await self.disconnect()

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connection; the next command connects to the server of that time."""

    async def follow(self, move: MovedError) -> None:
        """Close the connection; the next command connects to the node that an answer named."""
        self.moved = move
        await self.disconnect()

    async def news(self, position: str | None, patience: float) -> News:
        """Return what changed after a position.

        Args:
            position: The position; None to get the present end of the trail.
            patience: Seconds to wait for a change; 0 or less not to wait.

        Raises:
            StoreError: The connection failed or was closed.
        """
        ends = time.monotonic() + patience
        while True:
            call = store_call(NEWS, position or "", str(_MOST_NEWS), keys=("audit",))
            end, subjects, is_whole = list_of(await self.run(call))
            try:
                told = None if subjects is None else tuple(texts_of(subjects))
            except UnicodeDecodeError:  # keyguard wrote no such id: nobody knows what changed
                told = None
            news = News(text_of(end), told, whole=bool(is_whole))
            left = ends - time.monotonic()
            if position is None or told is None or news.position != position or left <= 0:
                return news
            if not await self.wait(position, left):
                return news

    async def wait(self, position: str, seconds: float) -> bool:
        """Wait until the trail goes on after a position, and return whether there may be news."""
        # At least a millisecond, for 0 means to wait for ever.
        limit = str(max(1, round(seconds * 1000)))
        waiting = pack("XREAD", "COUNT", "1", "BLOCK", limit, "STREAMS", _TRAIL, position)
        try:
            return await self.exchange(waiting) is not None
        except MovedError as move:
            await self.follow(move)
            return True
        except AskError:  # the script waits for the end of the move
            return True
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self.place) from failure

    async def send(
        self,
        commands: Sequence[Command],
        key: str,  # noqa: ARG002 - all are in one slot
        durability: Durability | None = None,  # noqa: ARG002 - a reader changes nothing
    ) -> Replies:
        (command,) = commands
        try:
            return [await self.exchange(command)]
        except MovedError as move:
            await self.follow(move)
            return [await self.exchange(command)]


class RedisFeed(TrailReader):
    """A reader of the audit trail, for one thread. Its coroutines never suspend.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: SyncScriptPort) -> None:
        self._port = self.routing = port
        self.place = port.place
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._reading = threading.Semaphore(1)
        self._connection: EndableConnection | None = None

    async def read(self, position: str | None, patience: float) -> News:
        try:
            with self._reading, within(max(patience, 0) + _GRACE):
                try:
                    await self._port.keep_ready()
                    return await self.news(position, patience)
                except BaseException:
                    await self.disconnect()
                    raise
        except StoreError:
            if self.is_closed:
                raise _closed() from None
            raise
        finally:
            if self.is_closed:
                await self.aclose()

    async def aclose(self) -> None:
        """Close the reader. A read in progress fails."""
        self.is_closed = True
        connection = self._connection
        if connection is not None:
            connection.hang_up()  # which a reader on another thread is told, and closes it itself
        if self._reading.acquire(blocking=False):
            try:
                await self.disconnect()
            finally:
                self._reading.release()

    async def exchange(self, command: Command) -> Reply:
        handled = sys.exception()
        try:
            connection = await self._connected()
            send_commands(connection, (command,))
            if self.is_closed:  # perhaps before there was anything to hang up
                raise _closed()
            return connection.read_response(disconnect_on_error=False)
        except BaseException as failure:
            if not isinstance(failure, redis.ResponseError):  # which is a whole reply
                await self.disconnect()
            drop_frames(failure, handled)
            raise

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    async def pause(self, seconds: float) -> None:
        await self._port.pause(seconds)

    async def _connected(self) -> EndableConnection:
        if self.is_closed:
            raise _closed()
        if self._connection is None:
            move, self.moved = self.moved, None
            self._connection = await self._port.connection_for(_TRAIL, move)
        if not self._connection.is_connected:
            self._connection.connect()
        return self._connection


class AsyncRedisFeed(TrailReader):
    """A reader of the audit trail, for one task.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: AsyncScriptPort) -> None:
        self._port = self.routing = port
        self.place = port.place
        self._connection: AsyncConnection | None = None
        self._under_way: asyncio.Task[News] | None = None

    async def read(self, position: str | None, patience: float) -> News:
        # A task of its own: closing cancels it, without cancelling the caller.
        task = running_loop("Redis").create_task(self._read(position, patience))
        self._under_way = task
        try:
            return await task
        except asyncio.CancelledError:
            reader = asyncio.current_task()
            if self.is_closed and reader is not None and not reader.cancelling():
                raise _closed() from None
            raise
        finally:
            self._under_way = None

    async def aclose(self) -> None:
        """Close the reader. A read in progress fails."""
        self.is_closed = True
        task = self._under_way
        if task is not None and task.get_loop() is running_loop("Redis"):
            task.cancel()
            await asyncio.wait([task])
        await self.disconnect()

    async def exchange(self, command: Command) -> Reply:
        handled = sys.exception()
        try:
            if self._connection is None:
                move, self.moved = self.moved, None
                self._connection = await self._port.connection_for(_TRAIL, move)
            await self._connection.connect()
            return only(await aexchange(self._connection, (command,)))
        except BaseException as failure:
            drop_frames(failure, handled)
            raise

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # TLS waits for a goodbye, which a silent server never says.
            with suppress(TimeoutError):
                async with awithin(_GRACE):
                    await connection.disconnect(nowait=True)

    async def pause(self, seconds: float) -> None:
        await self._port.pause(seconds)

    async def _read(self, position: str | None, patience: float) -> News:
        if self.is_closed:
            raise _closed()
        try:
            async with awithin(max(patience, 0) + _GRACE):
                await self._port.keep_ready()
                return await self.news(position, patience)
        except TimeoutError as late:
            await self.disconnect()
            raise explained(late, self.place) from late
        except BaseException:
            await self.disconnect()
            raise


def _closed() -> StoreUnavailableError:
    return StoreUnavailableError("this reader of the audit trail was closed")
