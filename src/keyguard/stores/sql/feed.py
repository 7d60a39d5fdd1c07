"""The change feed: it asks the database, and on PostgreSQL waits for notifications (LISTEN).

The connection that listens leaves the pool, so nobody else waits for it. It is opened as the
host's engine opens its own. The feed then asks through the pool what changed. Behind a pooler it
asks and does not wait: a connection that several clients share can't listen.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ParamSpec, TypeVar

from sqlalchemy import text

from keyguard.runtime.deadlines import remaining
from keyguard.stores.base import AsyncChangeFeed, News
from keyguard.stores.sql import queries, schema
from keyguard.stores.sql.commits import CHANNEL
from keyguard.stores.sql.database import Database, ended_after
from keyguard.stores.sql.errors import unavailable
from keyguard.stores.sql.poolers import is_pooled
from keyguard.stores.sql.session import DriverConnection, Operation, Session

P = ParamSpec("P")
R = TypeVar("R")

ASKING = 5.0
"""Seconds that a question or a connection takes at most, where no deadline is set."""


class SqlFeed(AsyncChangeFeed):
    """A reader of the audit trail that asks and does not wait.

    Args:
        database: The database of the audit trail.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, position: str | None, patience: float) -> News:
        del patience
        return await self._ask(position)

    async def aclose(self) -> None:
        pass

    async def _ask(self, position: str | None) -> News:
        await self._database.tend()
        return await self._read_in_time(_news, position)

    async def _read_in_time(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if remaining() is not None:
            return await self._database.read(operation, *args, **kwargs)
        async with ended_after(ASKING, self._database):
            return await self._database.read(operation, *args, **kwargs)


class ListeningFeed(SqlFeed, ABC):
    """A reader of the audit trail that waits for news.

    Args:
        database: The database of the audit trail.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._process = os.getpid()
        self._is_closed = False
        self._is_pooled = False
        self._driver: DriverConnection = None

    @abstractmethod
    async def _is_told(self, ends: float) -> bool:
        """Wait until the server notifies of a commit, or until a time or the feed's end."""

    async def _hang_up(self) -> None:
        """Close the connection that listens."""
        driver, self._driver = self._driver, None
        closing = None if driver is None else driver.close()
        if closing is not None:  # on asyncio
            await closing

    async def _read(self, position: str | None, patience: float) -> News:
        ends = time.monotonic() + patience
        waits = position is not None and patience > 0 and not self._is_closed
        if waits:
            waits = await self._listens()  # first: a commit that the query misses is notified
        news = await self._ask(position)
        # A notification may still be of what the last read saw already.
        while waits and news == News(position or "", ()):
            try:
                is_told = await self._is_told(ends)
            except Exception as failure:
                await self._hang_up()
                raise unavailable(self._database.place) from failure
            if not is_told:
                break
            news = await self._ask(position)
        return news

    async def _listens(self) -> bool:
        """Let a connection listen, if none does; return whether one can."""
        if not self._is_pooled and (self._driver is None or self._driver.closed):
            self._driver = await self._read_in_time(_listen)
            self._is_pooled = self._driver is None
        return not self._is_pooled

    def _was_told(self) -> bool:
        # psycopg's own notifies() wakes up ten times a second, and can't be ended from elsewhere.
        is_told = False
        self._driver.pgconn.consume_input()
        while self._driver.pgconn.notifies() is not None:
            is_told = True
        return is_told


class SyncListeningFeed(ListeningFeed):
    """A feed that blocks the thread which reads it, and that any thread may close."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._reading = threading.Semaphore(1)
        self._waker: tuple[socket.socket, socket.socket] | None = None

    async def read(self, position: str | None, patience: float) -> News:
        with self._reading:
            try:
                return await self._read(position, patience)
            finally:
                if self._is_closed:
                    await self._leave()

    async def aclose(self) -> None:
        if self._process != os.getpid():  # the connection belongs to the parent
            return
        self._is_closed = True
        waker = self._waker
        if waker is not None:
            with suppress(OSError):
                waker[1].send(b"\0")
        # The reader is about to leave. If it is still asking, it hangs up when it leaves.
        if self._reading.acquire(timeout=ASKING):
            try:
                await self._leave()
            finally:
                self._reading.release()

    async def _leave(self) -> None:
        await self._hang_up()
        waker, self._waker = self._waker, None
        for end in waker or ():
            end.close()

    async def _is_told(self, ends: float) -> bool:
        if self._waker is None:
            self._waker = socket.socketpair()
        left = remaining()
        if left is not None:
            ends = min(ends, time.monotonic() + left)
        with selectors.DefaultSelector() as selector:
            selector.register(self._driver.pgconn.socket, selectors.EVENT_READ)
            selector.register(self._waker[0], selectors.EVENT_READ)
            while not self._is_closed:
                if self._was_told():
                    return True
                left = ends - time.monotonic()
                if left <= 0:
                    return False
                selector.select(left)
        return False


class AsyncListeningFeed(ListeningFeed):
    """A feed that one task reads, and that any task may close."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._is_reading = False
        self._wake: asyncio.Event | None = None

    async def read(self, position: str | None, patience: float) -> News:
        self._is_reading = True
        try:
            return await self._read(position, patience)
        finally:
            self._is_reading = False
            if self._is_closed:
                await self._hang_up()

    async def aclose(self) -> None:
        if self._process != os.getpid():  # the connection belongs to the parent
            return
        self._is_closed = True
        if self._wake is not None:
            self._wake.set()
        if not self._is_reading:  # otherwise the reader is about to leave, and hangs up
            await self._hang_up()

    async def _is_told(self, ends: float) -> bool:
        loop = asyncio.get_running_loop()
        wake = self._wake = asyncio.Event()
        watched = self._driver.pgconn.socket
        loop.add_reader(watched, wake.set)
        try:
            while not self._is_closed:
                wake.clear()
                if self._was_told():
                    return True
                async with asyncio.timeout(ends - time.monotonic()):
                    await wake.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(watched)
            self._wake = None
        return False


async def _news(session: Session, position: str | None) -> News:
    """Read what changed; refuse a former primary, which no longer hears of changes."""
    await schema.check(session)
    return await queries.read_feed(session, position)


async def _listen(session: Session) -> DriverConnection:
    """Let a connection listen, and take it out of the pool; return None behind a pooler."""
    if await is_pooled(session):
        return None
    await session.execute(text(f"LISTEN {CHANNEL}"))
    return await session.detach()
