"""The database as code on asyncio uses it. Each event loop has engines of its own."""

from __future__ import annotations

import asyncio
import sys
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
        prepares: Whether the driver prepares statements; see :class:`EngineDatabase`.
        is_replica: Whether a server that takes no changes may answer; see :class:`EngineDatabase`.
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
        first = self._engines
        self._make = make or (lambda: first)
        self._unclaimed = [first]
        self._inherited: list[object] = []
        self._start_afresh()
        after_fork(self._leave_parent)

    def _start_afresh(self) -> None:
        # Not by a bound method, which would keep a database that is dropped.
        self._loops = PerLoop("SQL", partial(_claim, self._unclaimed, self._make))

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
        if not self._owned:
            return self._engines
        return (self._loops.made.get(loop) or self._loops.here()).engines

    async def aclose(self) -> None:
        if not self._owned:
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


def _claim(
    unclaimed: list[Engines[AsyncEngine]], make: Callable[[], Engines[AsyncEngine]]
) -> _OnLoop:
    """Give an event loop the engines that were made before there was one, or new ones."""
    try:
        return _OnLoop(unclaimed.pop())
    except IndexError:  # another loop has them
        return _OnLoop(make())


async def _close(engines: Engines[AsyncEngine]) -> None:
    for connector in engines.connectors:
        await connector.aclose()
    for engine in engines.pools:
        await engine.dispose()
