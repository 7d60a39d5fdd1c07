"""SQLite under asyncio: its driver blocks, so each operation runs on a thread.

One hop for each statement, as aiosqlite does it, makes a look-up three times as expensive.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import ParamSpec, TypeVar

from keyguard.runtime.pool import Pool
from keyguard.runtime.sync import run_sync
from keyguard.stores.loops import running_loop
from keyguard.stores.sql.database import Database, SyncDatabase
from keyguard.stores.sql.session import Operation

P = ParamSpec("P")
R = TypeVar("R")

_READERS = 4
_WRITERS = 2


class ThreadedDatabase(Database):
    """A database whose driver blocks, for code on asyncio.

    Changes have threads of their own, so a change that waits for the lock of another process delays
    no look-up. A change that is cancelled never begins, or its thread finishes it or rolls it back
    before the cancellation goes on. So the caller's next call sees its result.

    Args:
        database: The same database for sync code; it is closed with this one.
    """

    def __init__(self, database: SyncDatabase) -> None:
        self.database = database
        self.dialect = database.dialect
        self.place = database.place
        self.can_listen = self.can_swap = False
        self._readers = Pool("keyguard-sql-reads", most=_READERS)
        self._writers = Pool("keyguard-sql-writes", most=_WRITERS)

    def read(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        return _begun(self._readers, lambda: self.database.read(operation, *args, **kwargs))[1]

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._settled(lambda: self.database.write(operation, *args, **kwargs))

    async def swap(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.write(operation, *args, **kwargs)

    async def migrate(self) -> None:
        await self._settled(self.database.migrate)

    async def tend(self) -> None:
        pass  # a file is opened at once

    async def aclose(self) -> None:
        await self._settled(self.database.aclose)
        self._readers.close()
        self._writers.close()

    async def _settled(self, change: Callable[[], Coroutine[object, None, R]]) -> R:
        """Make a change on a thread; if it is cancelled, wait until it is made or undone.

        If it fails meanwhile, as where another connection holds the file's lock, the cancellation
        has that failure as its cause: it says more than that the deadline has passed.
        """
        job, future = _begun(self._writers, change)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError as cancelled:
            if job.cancel():  # it had not begun
                raise
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            # To retrieve the failure also keeps asyncio from warning of it.
            if not future.cancelled() and (failure := future.exception()):
                raise cancelled from failure
            raise


def _begun(
    pool: Pool, call: Callable[[], Coroutine[object, None, R]]
) -> tuple[Future[R], asyncio.Future[R]]:
    """Begin a call on a thread, with the present context variables: the deadline is one."""
    loop, here = running_loop("SQL"), contextvars.copy_context()
    job = pool.submit(lambda: here.run(run_sync, call()))
    return job, asyncio.wrap_future(job, loop=loop)
