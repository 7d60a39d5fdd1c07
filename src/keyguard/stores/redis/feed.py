"""How a process follows the audit trail, in both flavours.

A reader has a connection of its own, on which it may wait: those of requests are lent to nobody who
does. It asks by a script what changed, and only where nothing did does it wait, by XREAD; what that
wakes it for it asks by the script again. So every answer has passed the check of the layout, and
comes from the server that takes changes now.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from keyguard.exceptions import KeyguardError, StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.drivers import arun, run
from keyguard.stores.base import News
from keyguard.stores.redis.addresses import Address
from keyguard.stores.redis.asking import aask, ask
from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.connections import AsyncConnections, Connections, running_loop
from keyguard.stores.redis.errors import explained
from keyguard.stores.redis.operations import news
from keyguard.stores.redis.scripts import STORE, Call

__all__ = ["AsyncRedisFeed", "RedisFeed"]

_STREAM = f"{STORE}audit"
_GRACE = 1.0
"""Seconds beyond its patience after which a server that says nothing is given up."""


class _Wait(NamedTuple):
    """To wait until the trail goes on behind a position.

    Args:
        position: The position.
        patience: Seconds for which to wait at the most.
    """

    position: str
    patience: float

    @property
    def command(self) -> Command:
        # No less than a millisecond, for 0 is for ever.
        limit = max(1, round(self.patience * 1000))
        return Command("XREAD", "COUNT", 1, "BLOCK", limit, "STREAMS", _STREAM, self.position)


Steps: TypeAlias = Generator[Call | _Wait, Any, News]


def _read(position: str | None, patience: float) -> Steps:
    told = yield from news(position)
    if position is None or patience <= 0 or told.subjects is None or told.position != position:
        return told
    if not (yield _Wait(position, patience)):
        return told
    return (yield from news(position))


class _Interruptible(Connections):
    """Connections whose only user can be told, by another thread, to wait no more."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._turn = threading.Lock()
        self._lent: Any = None
        self.is_over = False

    def interrupt(self) -> None:
        """End the wait that is under way, and allow no more."""
        with self._turn:
            self.is_over = True
            waiting: Any = getattr(self._lent, "_sock", None)
            if waiting is not None:
                # Not closed: that is for the thread that reads from it.
                waiting.interrupt()

    def _lend(self, pool: Any) -> Any:
        connection = super()._lend(pool)
        with self._turn:
            self._lent = connection
            is_over = self.is_over
        if is_over:
            self._take_back(pool, connection)
            raise _closed()
        return connection

    def _take_back(self, pool: Any, connection: Any) -> None:
        with self._turn:
            self._lent = None
            is_over = self.is_over
        super()._take_back(pool, connection)
        if is_over:
            pool.drain()  # which nobody holds any more


class RedisFeed:
    """A reader of the audit trail, for one thread.

    Args:
        address: Where the server is.
    """

    def __init__(self, address: Address) -> None:
        self._place = address.place
        self._connections = _Interruptible(address)

    def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        try:
            with within(max(patience, 0) + _GRACE):
                return run(_read(position, patience), self._answer)
        except BaseException as failure:
            # The next read connects anew, and so learns who the primary is by then.
            self._connections.close()
            if self._connections.is_over and isinstance(failure, StoreError):
                raise _closed() from None
            raise

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`; a read that is under way fails."""
        self._connections.interrupt()
        self._connections.close()

    def _answer(self, question: Call | _Wait) -> Any:
        if isinstance(question, Call):
            return ask(self._connections, question, self._place)
        try:
            return self._connections.call(question.command, _STREAM)
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self._place) from failure


class AsyncRedisFeed:
    """A reader of the audit trail, for one task; else like :class:`RedisFeed`.

    Args:
        address: Where the server is.
    """

    def __init__(self, address: Address) -> None:
        self._place = address.place
        self._connections = AsyncConnections(address)
        self._under_way: asyncio.Task[News] | None = None
        self._is_over = False

    async def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.AsyncChangeFeed`."""
        # A task of its own, so that closing can end it without ending whoever waits for it.
        task = running_loop().create_task(self._read(position, patience))
        self._under_way = task
        try:
            return await task
        except asyncio.CancelledError:
            reader = asyncio.current_task()
            if self._is_over and reader is not None and not reader.cancelling():
                raise _closed() from None
            raise
        finally:
            self._under_way = None

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`; a read that is under way fails."""
        self._is_over = True
        task = self._under_way
        if task is not None and task.get_loop() is running_loop():
            task.cancel()
            await asyncio.wait([task])
        await self._connections.aclose()

    async def _read(self, position: str | None, patience: float) -> News:
        try:
            async with awithin(max(patience, 0) + _GRACE):
                return await arun(_read(position, patience), self._answer)
        except TimeoutError as late:
            await self._disconnect()
            raise explained(late, self._place) from late
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        # A server that says nothing does not say goodbye either, for which TLS would wait.
        with suppress(TimeoutError):
            async with awithin(_GRACE):
                await self._connections.aclose()

    async def _answer(self, question: Call | _Wait) -> Any:
        if self._is_over:
            raise _closed()
        if isinstance(question, Call):
            return await aask(self._connections, question, self._place)
        try:
            return await self._connections.call(question.command, _STREAM)
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self._place) from failure


def _closed() -> StoreUnavailableError:
    return StoreUnavailableError("this reader of the audit trail was closed")
