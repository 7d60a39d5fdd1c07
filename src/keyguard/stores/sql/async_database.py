"""The database as code on asyncio uses it. Each event loop has engines of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from keyguard.runtime.frames import drop_frames
from keyguard.runtime.process import after_fork
from keyguard.stores.loops import PerLoop, closed_with_loop, running_loop
from keyguard.stores.sql.database import EngineDatabase
from keyguard.stores.sql.engines import Engines, Way
from keyguard.stores.sql.session import AsyncSession


class AsyncDatabase(EngineDatabase[AsyncEngine]):
    """A database for code on asyncio. Each event loop has engines of its own.

    Args:
        engines: The engines of the first event loop that comes, or the host's engine.
        make: Makes the engines of another; None for a host's engine.
        prepares: As for :class:`EngineDatabase`.
        is_replica: As for :class:`EngineDatabase`.
    """

    def __init__(
        self,
        engines: Engines[AsyncEngine] | AsyncEngine,
        make: Callable[[], Engines[AsyncEngine]] | None = None,
        *,
        prepares: bool = False,
        is_replica: bool = False,
    ) -> None:
        super().__init__(engines, prepares=prepares, is_replica=is_replica)
        self._make = make
        self._inherited: list[object] = []
        self._has_settled = False
        self._start_afresh()
        after_fork(self._leave_parent)

    def _start_afresh(self) -> None:
        self._loops = PerLoop("SQL", self._settle)
        self._lock = threading.Lock()

    def _leave_parent(self) -> None:
        """Begin with new connections; those of the parent belong to sockets shared with it."""
        self._inherited.append(self._loops)
        self._start_afresh()

    async def _open(self, way: Way) -> AsyncSession:
        running_loop("SQL")
        engines = self._here()
        handled = sys.exception()
        try:
            # Not by "async with", which waits for a silent server however often it is cancelled.
            connection = await engines.by_way[way].connect()
        except BaseException as failure:
            engines.note_loss()
            drop_frames(failure, handled)
            raise
        return AsyncSession(connection)

    def _here(self) -> Engines[AsyncEngine]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._engines
        if self._make is None:
            return self._engines
        return (self._loops.made.get(loop) or self._loops.here()).engines

    def _settle(self) -> _OnLoop:
        """Make the engines of an event loop; those that are there already are the first one's."""
        with self._lock:
            if self._has_settled and self._make is not None:
                self._engines = self._make()
            self._has_settled = True
            return _OnLoop(self._engines)

    async def aclose(self) -> None:
        if self._make is None:
            return
        here = self._loops.made.pop(running_loop("SQL"), None)
        if here is not None:
            await here.open.aclose()


class _OnLoop:
    """The engines of one event loop.

    Args:
        engines: The engines.

    Attributes:
        open: A generator that closes their connections when it is closed.
    """

    def __init__(self, engines: Engines[AsyncEngine]) -> None:
        self.engines = engines
        self.open = closed_with_loop(partial(_close, engines))


async def _close(engines: Engines[AsyncEngine]) -> None:
    for connector in engines.connectors:
        await connector.aclose()
    for engine in engines.pools:
        await engine.dispose()
