"""The async flavour where the driver can only be called: one thread hop for each operation.

A hop for each statement, as aiosqlite does it, costs a look-up three times as much.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from keyguard.backends.sql.backend import SqlBackend
from keyguard.backends.sql.methods import AsyncMethods
from keyguard.backends.sql.operations import Operation

__all__ = ["ThreadedSqlBackend"]

Result = TypeVar("Result")

_MOST_THREADS = 4


class ThreadedSqlBackend(AsyncMethods):
    """A key store in an SQLite database, for code on asyncio.

    Cancelling an operation ends the wait for it. The operation itself is finished or rolled back on
    its thread.

    Args:
        backend: The store, for sync code; it is closed with this one.
    """

    def __init__(self, backend: SqlBackend) -> None:
        self._backend = backend
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0

    async def migrate(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self._hop(self._backend.migrate)

    async def aclose(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self._hop(self._backend.close)
        self._executor().shutdown(wait=False)
        self._threads = None

    async def perform(self, operation: Operation[Result]) -> Result:
        """Run one operation."""
        return await self._hop(partial(self._backend.perform, operation))

    async def _hop(self, call: Callable[[], Result]) -> Result:
        # The deadline is a context variable.
        here = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._executor(), lambda: here.run(call)
        )

    def _executor(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork, and the executor would never know.
        if self._threads is None or self._process != os.getpid():
            self._process = os.getpid()
            self._threads = ThreadPoolExecutor(_MOST_THREADS, "keyguard-sql")
        return self._threads
