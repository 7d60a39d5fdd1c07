"""The change feed on PostgreSQL: a connection that is told of commits (LISTEN, NOTIFY).

It is taken out of the pool for good, so that nobody waits for it, and with it come the host's ways
of connecting. What changed is then asked for through the pool; should a word get lost, as behind a
pooler that shares connections, the next read asks all the same.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from keyguard.runtime.deadlines import awithin, remaining, within
from keyguard.stores.base import News
from keyguard.stores.sql.commits import CHANNEL
from keyguard.stores.sql.errors import unavailable
from keyguard.stores.sql.feeds import ASKING, AsyncSqlFeed, SqlFeed
from keyguard.stores.sql.flows import Flow, keeping

if TYPE_CHECKING:
    from keyguard.stores.sql.store import AsyncSqlStore, SqlStore

__all__ = ["AsyncListeningFeed", "ListeningFeed", "listen"]


@keeping
def listen() -> Flow[Any]:
    """Have a connection listen; return it as psycopg's own."""
    yield text(f"LISTEN {CHANNEL}")
    return (yield _detached)


def _detached(connection: Connection) -> Any:
    driver = connection.connection.driver_connection  # once it is detached it is not told any more
    connection.detach()
    return driver


class ListeningFeed(SqlFeed):
    """A reader of the audit trail that waits for news, for sync code.

    Args:
        store: Where the audit trail is.
    """

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store.perform)
        self._store = store
        self._process = os.getpid()
        self._reading = threading.Lock()
        self._closed = False
        self._driver: Any = None
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        ends = time.monotonic() + patience
        with self._reading:
            waits = position is not None and patience > 0 and not self._closed
            if waits:
                self._listen()  # first, so that what is not seen now will be told
            news = self._ask(position)
            # Word may still come of what the last read saw already.
            while waits and news == News(position or "", ()) and self._is_told(ends):
                news = self._ask(position)
            return news

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        if self._process != os.getpid():  # the connection is the parent's
            return
        self._closed = True
        waker = self._waker
        if waker is not None:
            with suppress(OSError):
                waker[1].send(b"\0")
        with self._reading:  # who reads is on the way out
            self._hang_up()
            waker, self._waker = self._waker, None
            for end in waker or ():
                end.close()

    def _listen(self) -> None:
        if self._waker is None:
            self._waker = socket.socketpair()
        if self._driver is not None:
            return
        with ExitStack() as stack:
            if remaining() is None:
                stack.enter_context(within(ASKING))
            self._driver = self._store.perform(listen())

    def _is_told(self, ends: float) -> bool:
        left = remaining()
        if left is not None:
            ends = min(ends, time.monotonic() + left)
        assert self._waker is not None  # noqa: S101 - for type checkers; _listen made it
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._driver.pgconn.socket, selectors.EVENT_READ)
                selector.register(self._waker[0], selectors.EVENT_READ)
                while not self._closed:
                    if _was_told(self._driver):
                        return True
                    left = ends - time.monotonic()
                    if left <= 0:
                        return False
                    selector.select(left)
        except Exception as failure:
            self._hang_up()
            raise unavailable(self._store.place) from failure
        return False

    def _hang_up(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()


class AsyncListeningFeed(AsyncSqlFeed):
    """The same for code on asyncio.

    Args:
        store: Where the audit trail is.
    """

    def __init__(self, store: AsyncSqlStore) -> None:
        super().__init__(store.perform)
        self._store = store
        self._process = os.getpid()
        self._reads = False
        self._closed = False
        self._driver: Any = None
        self._wake: asyncio.Event | None = None

    async def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        ends = time.monotonic() + patience
        waits = position is not None and patience > 0 and not self._closed
        self._reads = True
        try:
            if waits:
                await self._listen()  # first, so that what is not seen now will be told
            news = await self._ask(position)
            # Word may still come of what the last read saw already.
            while waits and news == News(position or "", ()) and await self._is_told(ends):
                news = await self._ask(position)
            return news
        finally:
            self._reads = False
            if self._closed:
                await self._hang_up()

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        if self._process != os.getpid():  # the connection is the parent's
            return
        self._closed = True
        if self._wake is not None:
            self._wake.set()
        if not self._reads:  # else who reads is on the way out, and does it
            await self._hang_up()

    async def _listen(self) -> None:
        if self._driver is not None and not self._driver.closed:
            return
        if remaining() is not None:
            self._driver = await self._store.perform(listen())
            return
        try:
            async with awithin(ASKING):
                self._driver = await self._store.perform(listen())
        except TimeoutError as late:
            raise unavailable(self._store.place) from late

    async def _is_told(self, ends: float) -> bool:
        loop = asyncio.get_running_loop()
        wake = self._wake = asyncio.Event()
        try:
            watched = self._driver.pgconn.socket
            loop.add_reader(watched, wake.set)
            try:
                while not self._closed:
                    wake.clear()
                    if _was_told(self._driver):
                        return True
                    async with asyncio.timeout(ends - time.monotonic()):
                        await wake.wait()
            finally:
                loop.remove_reader(watched)
                self._wake = None
        except TimeoutError:
            return False
        except Exception as failure:
            await self._hang_up()
            raise unavailable(self._store.place) from failure
        return False

    async def _hang_up(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()


def _was_told(driver: Any) -> bool:
    # Below psycopg's notifies(), which looks ten times a second whether something else happened,
    # and can't be ended from elsewhere.
    told = False
    driver.pgconn.consume_input()
    while driver.pgconn.notifies() is not None:
        told = True
    return told
