"""The async flavour where the driver can only be called: one thread hop for each operation.

A hop for each statement, as aiosqlite does it, costs a look-up three times as much.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, TypeVar

from keyguard.runtime.pool import Pool
from keyguard.stores.methods import AsyncMethods
from keyguard.stores.sql import operations
from keyguard.stores.sql.feeds import AsyncSqlFeed
from keyguard.stores.sql.flows import Operation
from keyguard.stores.sql.store import SqlStore, running_loop

__all__ = ["ThreadedSqlStore"]

Result = TypeVar("Result")

_READERS = 4
_WRITERS = 2


class ThreadedSqlStore(AsyncMethods):
    """A key store in an SQLite database, for code on asyncio.

    Changes have threads of their own: one that waits for another process's lock keeps no look-up
    waiting. A change whose wait is cancelled never begins, or is finished or rolled back on its
    thread before the cancellation goes on, so that what is done after it knows how things stand.

    Args:
        store: The store, for sync code; it is closed with this one.
    """

    operations: ClassVar[Any] = operations

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.dialect = store.dialect
        self._readers = Pool("keyguard-sql-reads", most=_READERS)
        self._writers = Pool("keyguard-sql-writes", most=_WRITERS)

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self._hop(self._store.migrate, writes=True)

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self._hop(self._store.close, writes=True)
        self._readers.close()
        self._writers.close()

    async def perform(self, operation: Operation[Result]) -> Result:
        """Run one operation."""
        call = partial(self._store.perform, operation)
        return await self._hop(call, writes=operation.writes)

    def feed(self) -> AsyncSqlFeed:
        """See :class:`~keyguard.stores.base.Store`."""
        return AsyncSqlFeed(self.perform)

    async def _hop(self, call: Callable[[], Result], *, writes: bool) -> Result:
        # The deadline is a context variable.
        here = contextvars.copy_context()
        loop = running_loop()
        threads = self._writers if writes else self._readers
        job = threads.submit(partial(here.run, call))
        future = asyncio.wrap_future(job, loop=loop)
        if not writes:
            return await future
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if job.cancel():  # it had not begun
                raise
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen, so that nobody warns of it
            raise
