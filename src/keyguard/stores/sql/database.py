"""The database: it opens sessions, runs operations in them, and says what a failure means.

:class:`EngineDatabase` holds what both flavours do about a schema that does not fit, a lost
connection and a failure. A flavour adds how it opens a session.
"""

from __future__ import annotations

import asyncio
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from queue import Empty
from typing import Generic, ParamSpec, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool

from keyguard.exceptions import ConfigurationError, KeyguardError, SchemaError
from keyguard.runtime.deadlines import awithin, remaining, within
from keyguard.runtime.frames import drop_frames
from keyguard.stores.sql import schema
from keyguard.stores.sql.errors import (
    explained,
    may_be_the_schema,
    no_connection_free,
    place_of,
    unavailable,
)
from keyguard.stores.sql.poolers import refuse_pooler
from keyguard.stores.sql.session import AsyncSession, Operation, Session, SyncSession
from keyguard.stores.sql.turns import ForkGuard, Turns

AnyEngine = TypeVar("AnyEngine", Engine, AsyncEngine)
P = ParamSpec("P")
R = TypeVar("R")

_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")


class Database(Protocol):
    """What the stores of keys and of counters run their operations on."""

    dialect: str
    """SQLAlchemy's name for the kind of database."""

    place: str
    """The database's address, without secrets."""

    can_listen: bool
    """Whether the database can tell of commits, and the driver can hear of them."""

    def read(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        """Run an operation that changes nothing; each of its statements stands alone."""
        ...

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an operation in one transaction, and commit it."""
        ...

    async def migrate(self) -> None:
        """Bring the tables up to date."""

    async def aclose(self) -> None:
        """Close the connections, if keyguard opened them."""


class EngineDatabase(Database, ABC, Generic[AnyEngine]):
    """What both flavours share: everything but how a session is opened.

    Args:
        engine: The engine that finds things.
        writes: The engine that changes things; None for the same.
        owned: Whether keyguard made the engines, and disposes of them.
        prepares: Whether the driver prepares statements, which no pooler may come between.

    Raises:
        ConfigurationError: keyguard does not work with this kind of database.
    """

    def __init__(
        self, engine: AnyEngine, writes: AnyEngine | None, *, owned: bool, prepares: bool
    ) -> None:
        dialect = engine.dialect.name
        if dialect not in _DIALECTS:
            raise ConfigurationError(
                f"keyguard does not know the database {dialect!r}; it works with SQLite, "
                "PostgreSQL, MySQL and MariaDB"
            )
        self.dialect: str = dialect
        self.place = place_of(engine.url)
        self.can_listen = dialect == "postgresql" and engine.dialect.driver == "psycopg"
        self.reads: AnyEngine = engine
        self.writes: AnyEngine = writes or engine
        if writes is None and dialect == "postgresql":
            # Without BEGIN and ROLLBACK around it a look-up is one round trip. At a level above
            # READ COMMITTED, which a host may have chosen, PostgreSQL refuses a change that waited
            # for another. To set a level costs no round trip here, unlike on MySQL.
            self.reads = engine.execution_options(isolation_level="AUTOCOMMIT")
            self.writes = engine.execution_options(isolation_level="READ COMMITTED")
        self._owned = owned
        self._prepares = prepares
        # A host's engine may commit each statement. Then a change may have been made although its
        # answer got lost. On PostgreSQL keyguard itself chooses the level.
        self._tries_writes_again: bool = owned or dialect == "postgresql"
        self._has_fitting_schema = False
        self._process = os.getpid()
        self._inherited: list[Pool] = []

    async def read(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._perform(False, operation, *args, **kwargs)

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._perform(True, operation, *args, **kwargs)

    async def migrate(self) -> None:
        try:
            await self._attempt(True, schema.migrate, apart=self._owned)
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self.place) from failure

    @abstractmethod
    async def _open(self, writes: bool) -> Session:
        """Open a session, within the deadline."""

    async def _perform(
        self, writes: bool, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run an operation on a schema that fits, or raise what the failure means."""
        try:
            if not self._has_fitting_schema:
                await self._attempt(False, schema.check)
                if self._prepares:
                    await self._attempt(False, refuse_pooler)
                self._has_fitting_schema = True
            return await self._attempt(writes, operation, *args, **kwargs)
        except KeyguardError:
            raise
        except Exception as failure:
            raise await self._meaning_of(failure) from failure

    async def _attempt(
        self, writes: bool, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run an operation in a session, and once more where its connection was lost."""
        is_last = writes and not self._tries_writes_again
        while True:
            session = await self._open(writes)
            try:
                result = await operation(session, *args, **kwargs)
            except DBAPIError as failure:
                # A pooled connection may have died long ago. The next connection is new.
                if is_last or not failure.connection_invalidated or remaining() == 0:
                    raise
                is_last = True
            else:
                if writes:
                    # After a commit that failed, nobody knows whether it was made: no second try.
                    await session.commit()
                return result
            finally:
                await session.close()

    async def _meaning_of(self, failure: Exception) -> KeyguardError:
        if may_be_the_schema(failure):
            self._has_fitting_schema = False
            try:
                await self._attempt(False, schema.check_all)
            except SchemaError as unfit:
                return unfit
            except Exception:  # noqa: BLE001, S110 - the failure itself says more
                pass
        return explained(failure, self.place)

    def _abandon_connections(self) -> None:
        """Start with new connections, and leave those of another process or event loop alone.

        A connection that was opened elsewhere belongs to a socket shared with another process, or
        waits for an event loop that no longer runs. After a fork the old pool is kept: to free its
        connections could say farewell to the server on the other process's behalf. Connections of
        an event loop that is gone can't be closed without it; they end when they are freed.
        """
        for engine in (self.reads, self.writes):
            core = engine if isinstance(engine, Engine) else engine.sync_engine
            if self._process != os.getpid():
                self._inherited.append(core.pool)
            core.dispose(close=False)


class SyncDatabase(EngineDatabase[Engine]):
    """A database for sync code; it never suspends."""

    def __init__(
        self,
        engine: Engine,
        writes: Engine | None = None,
        *,
        owned: bool = False,
        prepares: bool = False,
    ) -> None:
        super().__init__(engine, writes, owned=owned, prepares=prepares)
        self.turns = Turns()
        if owned and self.dialect == "sqlite":
            self._fork_guard = ForkGuard((self.reads, self.writes), self.turns)

    async def _open(self, writes: bool) -> SyncSession:
        if self._process != os.getpid():
            self._leave_parent()
        turns = None
        if self._owned:
            turns = self.turns.writes if writes else self.turns.reads
            try:
                turns.get(timeout=remaining())
            except Empty:
                raise no_connection_free(self.place) from None
        handled = sys.exception()
        try:
            connection = (self.writes if writes else self.reads).connect()
        except BaseException as failure:
            if turns is not None:
                turns.put(None)
            drop_frames(failure, handled)
            raise
        return SyncSession(connection, turns)

    def _leave_parent(self) -> None:
        if self._owned:
            self._abandon_connections()
            self.turns.renew()
        self._process = os.getpid()

    async def aclose(self) -> None:
        if self._process != os.getpid():
            self._leave_parent()
        if self._owned:
            self.reads.dispose()
            self.writes.dispose()


class AsyncDatabase(EngineDatabase[AsyncEngine]):
    """A database for code on asyncio."""

    def __init__(
        self,
        engine: AsyncEngine,
        writes: AsyncEngine | None = None,
        *,
        owned: bool = False,
        prepares: bool = False,
    ) -> None:
        super().__init__(engine, writes, owned=owned, prepares=prepares)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _open(self, writes: bool) -> AsyncSession:
        self._settle()
        handled = sys.exception()
        try:
            # Not by "async with", which waits for a silent server however often it is cancelled.
            connection = await (self.writes if writes else self.reads).connect()
        except BaseException as failure:
            drop_frames(failure, handled)
            raise
        return AsyncSession(connection)

    def _settle(self) -> None:
        loop = running_loop()
        if self._loop is loop and self._process == os.getpid():
            return
        if self._loop is not None and self._owned:
            self._abandon_connections()
        self._loop, self._process = loop, os.getpid()

    async def aclose(self) -> None:
        if self._owned:
            self._settle()
            await self.reads.dispose()
            await self.writes.dispose()


@asynccontextmanager
async def ended_after(seconds: float, database: Database) -> AsyncGenerator[None]:
    """End the operations inside after so many seconds.

    Raises:
        StoreUnavailableError: The time ran out.
    """
    if isinstance(database, SyncDatabase):  # whose drivers end what takes longer
        with within(seconds):
            yield
        return
    try:
        async with awithin(seconds):
            yield
    except TimeoutError as late:
        raise unavailable(database.place) from late


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of asyncio.

    Raises:
        ConfigurationError: No event loop of asyncio runs.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "SQL stores need asyncio; under trio use memory:// or a store of your own"
        ) from None
