"""SQLite under asyncio: its driver blocks, so each operation runs on a thread.

One hop for each statement, as aiosqlite does it, makes a look-up three times as expensive.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import ParamSpec, TypeVar

from keyguard.runtime.pool import Pool
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql.database import Database, SyncDatabase, ended_after, running_loop
from keyguard.stores.sql.session import Operation

P = ParamSpec("P")
R = TypeVar("R")

_READERS = 4
_WRITERS = 2


class ThreadedDatabase(Database):
    """A database whose driver blocks, for code on asyncio.

    Changes have threads of their own, so a change that waits for the lock of another process
    delays no look-up. A change that is cancelled never begins, or its thread finishes it or rolls
    it back before the cancellation goes on. What the caller does next then finds things settled.

    Args:
        database: The same database for sync code; it is closed with this one.
    """

    def __init__(self, database: SyncDatabase) -> None:
        self.database = database
        self.dialect = database.dialect
        self.place = database.place
        self.can_listen = False
        self._readers = Pool("keyguard-sql-reads", most=_READERS)
        self._writers = Pool("keyguard-sql-writes", most=_WRITERS)

    async def read(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        pass

        def call() -> Coroutine[object, None, R]:
            return self.database.read(operation, *args, **kwargs)

        loop = running_loop()
        return await asyncio.wrap_future(self._readers.submit(_carried(call)), loop=loop)

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        pass

        def call() -> Coroutine[object, None, R]:
            return self.database.write(operation, *args, **kwargs)

        return await self._settled(call)

    async def migrate(self) -> None:
        await self._settled(self.database.migrate)

    async def aclose(self) -> None:
        await self._settled(self.database.aclose)
        self._readers.close()
        self._writers.close()

    def within(self, seconds: float) -> AbstractAsyncContextManager[None]:
        return ended_after(seconds, self.place)

    async def _settled(self, change: Callable[[], Coroutine[object, None, R]]) -> R:
        """Make a change on a thread; if it is cancelled, wait until it is made or undone."""
        loop = running_loop()
        job = self._writers.submit(_carried(change))
        future = asyncio.wrap_future(job, loop=loop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if job.cancel():  # it had not begun
                raise
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # retrieved, so that asyncio does not warn of it
            raise


def _carried(call: Callable[[], Coroutine[object, None, R]]) -> Callable[[], R]:
    """Return what a thread calls. It has the present context variables: the deadline is one."""
    here = contextvars.copy_context()

    def carry() -> R:
        return here.run(run_sync, call())

    return carry
