"""The database: it opens sessions, runs operations in them, and translates errors.

:class:`EngineDatabase` handles, for both flavours, a schema that does not fit, a lost connection
and other failures. Each flavour adds how it opens a session.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Generic, ParamSpec, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import Pool

from keyguard.exceptions import ConfigurationError, KeyguardError, SchemaError
from keyguard.runtime.deadlines import awithin, remaining, within
from keyguard.runtime.frames import drop_frames
from keyguard.runtime.process import after_fork, renew_if_forked
from keyguard.stores.sql import schema
from keyguard.stores.sql.engines import AnyEngine, Engines, Way, engines_of
from keyguard.stores.sql.errors import (
    ReadOnlyError,
    explained,
    is_conflict,
    is_read_only,
    may_be_the_schema,
    no_connection_free,
    place_of,
    unavailable,
)
from keyguard.stores.sql.poolers import refuse_pooler
from keyguard.stores.sql.session import FileSession, Operation, Session, SyncSession
from keyguard.stores.sql.turns import ForkGuard, Turns

P = ParamSpec("P")
R = TypeVar("R")

_MOST_TRIES = 5
"""How often a change is tried where transactions of others get in its way."""

_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")


class Database(Protocol):
    """The database on which the stores of keys and of counters run their operations."""

    dialect: str
    """SQLAlchemy's name for the kind of database."""

    place: str
    """The database's address, without secrets."""

    can_swap: bool
    """Whether it costs no round trip to have a statement stand alone that changes something."""

    can_listen: bool
    """Whether the database can notify of commits, and the driver can listen for them."""

    def read(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        """Run an operation that changes nothing; each of its statements stands alone."""
        ...

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an operation in one transaction, and commit it."""
        ...

    async def swap(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an operation whose statements stand alone; the last one may change something."""
        ...

    async def migrate(self) -> None:
        """Bring the tables up to date."""

    async def tend(self) -> None:
        """Keep a connection ready for each kind of operation, in the background."""

    async def aclose(self) -> None:
        """Close the connections, if keyguard opened them."""


class EngineDatabase(Database, ABC, Generic[AnyEngine]):
    """The part that both flavours share: everything except how a session is opened.

    Args:
        engines: The engines that keyguard made, or an engine of the host.
        prepares: Whether the driver prepares statements. Then no pooler may stand in between.
        is_replica: Whether a server that takes no changes may answer. It is asked only for look-ups
            whose caller knows how old an answer may be.

    Raises:
        ConfigurationError: keyguard can't use this kind of database, or it has no replicas.
    """

    def __init__(
        self, engines: Engines[AnyEngine] | AnyEngine, *, prepares: bool, is_replica: bool
    ) -> None:
        owned = isinstance(engines, Engines)
        self._engines: Engines[AnyEngine] = (
            engines if isinstance(engines, Engines) else engines_of(engines)
        )
        engine = self._engines.by_way[Way.READ]
        dialect = engine.dialect.name
        if dialect not in _DIALECTS:
            raise ConfigurationError(
                f"keyguard does not know the database {dialect!r}; it works with SQLite, "
                "PostgreSQL, MySQL and MariaDB"
            )
        if is_replica and dialect == "sqlite":
            raise ConfigurationError("SQLite has no replicas; leave 'read' (KEYGUARD_READ_URL) out")
        self.dialect: str = dialect
        self.place = place_of(engine.url)
        self.can_swap = dialect == "postgresql"
        self.can_listen = dialect == "postgresql" and engine.dialect.driver == "psycopg"
        self._owned = owned
        self._prepares = prepares
        self._check_schema = schema.check_replica if is_replica else schema.check
        self._is_replica = is_replica
        # A host's engine may commit each statement. Then a change may have been made although its
        # answer got lost. On PostgreSQL keyguard itself chooses the level.
        self._tries_writes_again: bool = owned or dialect == "postgresql"
        self._has_fitting_schema = False

    @property
    def reads(self) -> AnyEngine:
        """The engine that finds things, here."""
        return self._here().by_way[Way.READ]

    @property
    def writes(self) -> AnyEngine:
        """The engine that changes things, here."""
        return self._here().by_way[Way.WRITE]

    def _here(self) -> Engines[AnyEngine]:
        """Return the engines for the present process and event loop."""
        return self._engines

    def read(
        self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, None, R]:
        return self._perform(Way.READ, operation, *args, **kwargs)

    async def write(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._perform(Way.WRITE, operation, *args, **kwargs)

    async def swap(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._perform(Way.SWAP, operation, *args, **kwargs)

    async def migrate(self) -> None:
        try:
            await self._attempt(Way.WRITE, schema.migrate, apart=self._owned)
        except KeyguardError:
            raise
        except Exception as failure:
            raise explained(failure, self.place) from failure

    async def tend(self) -> None:
        connectors = self._here().connectors
        for connector in connectors[:1] if self._is_replica else connectors:  # the first one reads
            connector.keep_ready()

    @abstractmethod
    async def _open(self, way: Way) -> Session:
        """Open a session, within the deadline."""

    async def _perform(
        self, way: Way, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run an operation on a schema that fits, or raise the error that explains the failure."""
        try:
            if not self._has_fitting_schema:
                await self._check()
            return await self._attempt(way, operation, *args, **kwargs)
        except ReadOnlyError:
            self._distrust()
            raise
        except KeyguardError:
            raise
        except Exception as failure:
            raise await self._meaning_of(failure) from failure

    async def _check(self) -> None:
        """Check that the schema fits, that a primary answers, and that no pooler may interfere."""
        try:
            await self._attempt(Way.READ, self._check_schema)
        except ReadOnlyError:
            self._distrust()  # the name may lead to another server by now
            await self._attempt(Way.READ, self._check_schema)
        if self._prepares:
            await self._attempt(Way.READ, refuse_pooler)
        self._has_fitting_schema = True

    async def _attempt(
        self, way: Way, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run an operation in a session, and repeat it if nothing was done.

        It runs once more if its connection was lost. A change is also tried again at once if the
        server undid it, as in a deadlock: the other transaction has gone on by then.
        """
        is_last = way is Way.WRITE and not self._tries_writes_again
        tries = 0
        while True:
            session = await self._open(way)
            is_committing = False
            try:
                result = await operation(session, *args, **kwargs)
                if way is Way.WRITE:
                    is_committing = True
                    await session.commit()
                return result
            except DBAPIError as failure:
                tries += 1
                if is_read_only(failure):
                    self._distrust()
                if remaining() == 0:
                    raise
                if way is Way.WRITE and is_conflict(failure):
                    if tries >= _MOST_TRIES:
                        raise
                # A pooled connection may have died long ago. The next connection is new. After a
                # commit whose answer got lost, nobody knows whether it was made: no second try.
                elif is_last or is_committing or not failure.connection_invalidated:
                    raise
                else:
                    is_last = True
            finally:
                await session.close()

    def _distrust(self) -> None:
        """Make the next calls open new connections, and check that they lead to a primary."""
        self._has_fitting_schema = False
        for connector in self._here().connectors:
            connector.distrust()

    async def _meaning_of(self, failure: Exception) -> KeyguardError:
        if may_be_the_schema(failure):
            self._has_fitting_schema = False
            try:
                await self._attempt(Way.READ, schema.check_all)
            except SchemaError as unfit:
                return unfit
            except Exception:  # noqa: BLE001, S110 - the failure itself says more
                pass
        return explained(failure, self.place)


class SyncDatabase(EngineDatabase[Engine]):
    """A database for sync code; it never suspends."""

    def __init__(
        self,
        engines: Engines[Engine] | Engine,
        *,
        prepares: bool = False,
        is_replica: bool = False,
    ) -> None:
        super().__init__(engines, prepares=prepares, is_replica=is_replica)
        self.turns = Turns()
        self._process = os.getpid()
        self._inherited: list[Pool] = []
        self._is_file = self.dialect == "sqlite"
        if self._owned and self._is_file:
            self._fork_guard = ForkGuard(self._engines.pools, self.turns)
        elif self._owned:
            after_fork(self._leave_parent)  # before threads of the child could meet there

    async def _open(self, way: Way) -> Session:
        if self._process != os.getpid():
            renew_if_forked()
            self._leave_parent()
        turns = None
        handled = sys.exception()
        engine = self._engines.by_way[way]
        if self._owned:
            turns = self.turns.reads if way is Way.READ else self.turns.writes
            try:
                turns.pop()
            except IndexError:
                if not turns.acquire(remaining()):
                    raise no_connection_free(self.place) from None
        try:
            if turns is not None and self._is_file and way is Way.READ:
                return FileSession(engine, turns)
            return SyncSession(engine.connect(), turns)
        except BaseException as failure:
            if turns is not None:
                turns.release()
            self._engines.note_loss()
            drop_frames(failure, handled)
            raise

    def _leave_parent(self) -> None:
        """Begin with new connections; those of the parent belong to sockets shared with it.

        The old pools are kept: to free their connections could say farewell to the server on the
        other process's behalf.
        """
        if self._process == os.getpid():
            return
        if self._owned:
            for engine in self._engines.pools:
                self._inherited.append(engine.pool)
                engine.dispose(close=False)
            for connector in self._engines.connectors:
                connector.leave_parent()
            self.turns.renew()
        self._process = os.getpid()

    async def aclose(self) -> None:
        if self._process != os.getpid():
            self._leave_parent()
        if self._owned:
            for connector in self._engines.connectors:
                await connector.aclose()
            for engine in self._engines.pools:
                engine.dispose()


@asynccontextmanager
async def ended_after(seconds: float, database: Database) -> AsyncGenerator[None]:
    """End the operations inside after a number of seconds.

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
