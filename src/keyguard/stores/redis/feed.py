"""How a process follows the audit trail.

A reader has a connection of its own, on which it may wait: it takes none from the pool that serves
requests. A script tells what changed, and the reader waits with XREAD only if nothing did. Every
answer comes from the script, so it has passed the check of the layout and comes from the server
that takes changes now.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from keyguard.exceptions import StoreError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.process import after_fork
from keyguard.stores.base import News
from keyguard.stores.redis.async_ports import AsyncListenerPort, AsyncScriptPort, running_loop
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.ports import ListenerPort, closed
from keyguard.stores.redis.replies import list_of, text_of, texts_of
from keyguard.stores.redis.scripts import NEWS, store_call
from keyguard.stores.redis.sync_ports import SyncListenerPort, SyncScriptPort

_MOST_NEWS = 1000
_GRACE = 1.0
"""Seconds beyond its patience after which a reader gives a silent server up."""


async def read_news(port: ListenerPort, position: str | None, patience: float) -> News:
    """Return what changed after a position.

    Args:
        port: The reader's connection.
        position: The position; None to learn where the trail ends now.
        patience: Seconds to wait for a change; 0 or less not to wait.

    Raises:
        StoreError: The connection failed or was closed.
    """
    ends = time.monotonic() + patience
    while True:
        call = store_call(NEWS, position or "", str(_MOST_NEWS), keys=("audit",))
        end, subjects, is_whole = list_of(await port.run(call))
        told = None if subjects is None else tuple(texts_of(subjects))
        news = News(text_of(end), told, whole=bool(is_whole))
        left = ends - time.monotonic()
        if position is None or told is None or news.position != position or left <= 0:
            return news
        if not await port.wait(position, left):
            return news


class RedisFeed:
    """A reader of the audit trail, for one thread. Its coroutines never suspend.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: SyncScriptPort) -> None:
        self._port = SyncListenerPort(port)
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._reading = threading.Lock()

    async def read(self, position: str | None, patience: float) -> News:
        try:
            with self._reading, within(max(patience, 0) + _GRACE):
                try:
                    return await read_news(self._port, position, patience)
                except BaseException:
                    # The next read connects anew, and so learns who the primary is by then.
                    await self._port.aclose()
                    raise
        except StoreError:
            if self._port.is_closed:
                raise closed() from None
            raise
        finally:
            if self._port.is_closed:
                await self.aclose()

    async def aclose(self) -> None:
        """See :meth:`keyguard.stores.base.ChangeFeed.close`. A read that is under way fails."""
        self._port.is_closed = True
        # A reader on another thread sees that soon, and closes the connection itself.
        if self._reading.acquire(blocking=False):
            try:
                await self._port.aclose()
            finally:
                self._reading.release()


class AsyncRedisFeed:
    """A reader of the audit trail, for one task.

    Args:
        port: Knows the server.
    """

    def __init__(self, port: AsyncScriptPort) -> None:
        self._port = AsyncListenerPort(port)
        self._place = port.place
        self._under_way: asyncio.Task[News] | None = None
        self._is_closed = False

    async def read(self, position: str | None, patience: float) -> News:
        # A task of its own: closing cancels it, without cancelling the caller.
        task = running_loop().create_task(self._read(position, patience))
        self._under_way = task
        try:
            return await task
        except asyncio.CancelledError:
            reader = asyncio.current_task()
            if self._is_closed and reader is not None and not reader.cancelling():
                raise closed() from None
            raise
        finally:
            self._under_way = None

    async def aclose(self) -> None:
        """See :meth:`keyguard.stores.base.AsyncChangeFeed.aclose`. A read under way fails."""
        self._is_closed = True
        task = self._under_way
        if task is not None and task.get_loop() is running_loop():
            task.cancel()
            await asyncio.wait([task])
        await self._port.aclose()

    async def _read(self, position: str | None, patience: float) -> News:
        if self._is_closed:
            raise closed()
        try:
            async with awithin(max(patience, 0) + _GRACE):
                return await read_news(self._port, position, patience)
        except TimeoutError as late:
            await self._disconnect()
            raise explained(late, self._place) from late
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        # TLS waits for a goodbye, which a silent server never says.
        with suppress(TimeoutError):
            async with awithin(_GRACE):
                await self._port.aclose()
