"""How many reads of usage take place at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from keyguard.runtime.deadlines import remaining
from keyguard.stores.loops import running_loop
from keyguard.stores.sql.database import Database, SyncDatabase
from keyguard.stores.sql.errors import no_connection_free

MOST_READS = 2
"""How many reads of usage take place at once, in a process or on an event loop."""


class UsageTurns:
    """Turns to read usage, far fewer than there are connections.

    Reports take longer than the look-ups of keys, which share the connections with them.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._renew()

    def _renew(self) -> None:
        self._process = os.getpid()
        self._free = threading.Semaphore(MOST_READS)
        # A loop has connections of its own.
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Have a turn inside.

        Raises:
            StoreUnavailableError: None became free within the deadline.
        """
        if self._process != os.getpid():  # the parent's threads gave none back here
            self._renew()
        if isinstance(self._database, SyncDatabase):
            free = self._free
            if not free.acquire(timeout=remaining()):
                raise no_connection_free(self._database.place)
            try:
                yield
            finally:
                free.release()
            return
        turns = self._of_loops.setdefault(running_loop("SQL"), asyncio.Semaphore(MOST_READS))
        try:
            async with asyncio.timeout(remaining()):
                await turns.acquire()
        except TimeoutError:
            raise no_connection_free(self._database.place) from None
        try:
            yield
        finally:
            turns.release()
