"""Bounds how many reads of usage run at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from keyguard.runtime.deadlines import remaining
from keyguard.runtime.process import after_fork
from keyguard.stores.loops import PerLoop
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
        after_fork(self._renew)  # the parent's threads give no turn back here

    def _renew(self) -> None:
        self._free = threading.Semaphore(MOST_READS)
        self._of_loops = PerLoop("SQL", partial(asyncio.Semaphore, MOST_READS))

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Hold a turn inside the block.

        Raises:
            StoreUnavailableError: No turn became free within the deadline.
        """
        if isinstance(self._database, SyncDatabase):
            free = self._free
            if not free.acquire(timeout=remaining()):
                raise no_connection_free(self._database.place)
            try:
                yield
            finally:
                free.release()
            return
        turns = self._of_loops.here()
        try:
            async with asyncio.timeout(remaining()):
                await turns.acquire()
        except TimeoutError:
            raise no_connection_free(self._database.place) from None
        try:
            yield
        finally:
            turns.release()
