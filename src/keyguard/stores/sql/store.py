"""The SQL store in both flavours.

All that is particular to a flavour is how one operation is carried to the database; what is done
about a lost connection, an unfit schema or a failure is ``_SqlStore._course``, and
the operations themselves are in :mod:`~keyguard.stores.sql.operations`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool

from keyguard.exceptions import ConfigurationError, KeyguardError, SchemaError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.drivers import arun, run
from keyguard.runtime.frames import frameless
from keyguard.runtime.process import around_fork
from keyguard.stores.base import AsyncChangeFeed, ChangeFeed
from keyguard.stores.methods import AsyncMethods, Methods
from keyguard.stores.sql import operations, schema, sqlite
from keyguard.stores.sql.errors import (
    explained,
    may_be_the_schema,
    no_connection_free,
    place_of,
)
from keyguard.stores.sql.feeds import AsyncSqlFeed, SqlFeed
from keyguard.stores.sql.flows import ConnectionLost, Operation, Step

__all__ = ["MOST_READS", "MOST_WRITES", "AsyncSqlStore", "SqlStore"]

AnyEngine = TypeVar("AnyEngine", Engine, AsyncEngine)
Result = TypeVar("Result")

MOST_READS = 10
"""How many connections keyguard itself opens at most to look things up."""

MOST_WRITES = 5
"""How many it opens at most to change things."""

_LONGEST_WAIT_TO_FORK = 6.0
"""Seconds: more than a change waits for another process's lock where it has no deadline."""

_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")


class _SqlStore(Generic[AnyEngine]):
    """What both flavours share: everything but carrying an operation to the database."""

    operations: ClassVar[Any] = operations

    def __init__(self, engine: AnyEngine, writes: AnyEngine | None, *, owned: bool) -> None:
        dialect = engine.dialect.name
        if dialect not in _DIALECTS:
            raise ConfigurationError(
                f"keyguard does not know the database {dialect!r}; it works with SQLite, "
                "PostgreSQL, MySQL and MariaDB"
            )
        self.dialect: str = dialect
        self._reads: AnyEngine = engine
        self._writes: AnyEngine = writes or engine
        if writes is None and dialect == "postgresql":
            # Without BEGIN and ROLLBACK around it a look-up is one round trip. The levels above
            # READ COMMITTED, which a host may have chosen, would refuse a change that waited for
            # another. Neither takes a round trip of its own here, as it would on MySQL.
            self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
            self._writes = engine.execution_options(isolation_level="READ COMMITTED")
        self._owned = owned
        # On an engine of the host's that commits each statement, a lost answer may hide a change
        # that was made; on PostgreSQL keyguard chooses the level itself.
        self._tries_writes_again: bool = owned or dialect == "postgresql"
        self.place = place_of(engine.url)
        self._checked = False
        self._home: tuple[object, ...] | None = None
        self._left_behind: list[Pool] = []
        self._turns = _turns()

    @property
    def _can_listen(self) -> bool:
        return self.dialect == "postgresql" and self._reads.dialect.driver == "psycopg"

    def _course(
        self, operation: Operation[Result], *, check: bool = True
    ) -> Generator[Operation[Any], Any, Result]:
        """Take an operation from a schema that may be unfit to a result or an error that says why.

        Like an operation, this is a generator that does no I/O; it yields the operations to carry.
        """
        try:
            if check and not self._checked:
                yield from _persistently(schema.check())
                self._checked = True
            if operation.writes and not self._tries_writes_again:
                return (yield operation)  # type: ignore[no-any-return]  # its result is sent back
            return (yield from _persistently(operation))
        except KeyguardError:
            raise
        except Exception as failure:  # noqa: BLE001 - a driver that trips over nonsense, too
            lost = isinstance(failure, ConnectionLost)
            cause = (failure.__cause__ or failure) if lost else failure
            if check and may_be_the_schema(cause):
                self._checked = False
                yield from self._look_at_schema(cause)
            raise explained(cause, self.place) from cause

    def _look_at_schema(self, cause: BaseException) -> Generator[Operation[Any], Any, None]:
        try:
            yield schema.check_all()
        except SchemaError as unfit:
            raise unfit from cause
        except Exception:  # noqa: BLE001 - then the cause says more than this does
            return

    def _settle(self, *home: object) -> None:
        """Start with new connections in a process or an event loop that was not there before.

        One that was opened elsewhere belongs to a socket shared with another process, or waits for
        an event loop that no longer runs. After a fork the old pool is kept: to free its
        connections could send the server a farewell on the other process's behalf. Those of a loop
        that is gone can't be closed without it, and end when they are freed.
        """
        home = (os.getpid(), *home)
        if home == self._home:
            return
        if self._home is not None and self._owned:
            for engine in (self._reads, self._writes):
                core = engine if isinstance(engine, Engine) else engine.sync_engine
                if self._home[0] != os.getpid():
                    self._left_behind.append(core.pool)
                core.dispose(close=False)
            self._turns = _turns()
        self._home = home


class SqlStore(_SqlStore[Engine], Methods):
    """A key store in an SQL database, for sync code.

    Args:
        engine: Where it is; SQLite, PostgreSQL, MySQL or MariaDB.
        writes: Where changes go, if not through the same engine.
        owned: Whether the engines are the store's, to dispose of when it is closed.

    Raises:
        ConfigurationError: It is some other database.
    """

    def __init__(
        self, engine: Engine, *, writes: Engine | None = None, owned: bool = False
    ) -> None:
        super().__init__(engine, writes, owned=owned)
        if owned and self.dialect == "sqlite":
            self._forking = threading.Lock()
            self._fork = threading.local()
            around_fork(self._before_fork, self._fork_is_over, self._start_afresh)

    def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        run(self._course(schema.migrate(apart=self._owned), check=False), self._carry)

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        if self._owned:
            self._settle()
            self._reads.dispose()
            self._writes.dispose()

    def perform(self, operation: Operation[Result]) -> Result:
        """Run one operation."""
        return run(self._course(operation), self._carry)

    def feed(self) -> ChangeFeed:
        """See :class:`~keyguard.stores.base.Store`."""
        if not self._can_listen:
            return SqlFeed(self.perform)
        from keyguard.stores.sql.listening import ListeningFeed

        return ListeningFeed(self)

    def _carry(self, operation: Operation[Result]) -> Result:
        self._settle()
        engine = self._writes if operation.writes else self._reads
        with self._turn(operation):
            with frameless():
                connection = engine.connect()
            try:
                result = run(operation.flow(), partial(_take, connection))
            except BaseException:
                connection.close()
                raise
            if not operation.keeps:
                connection.close()
            return result

    # SQLite may not be taken through a fork: a child that inherits a connection, though it never
    # uses it, takes no locks of its own thereafter, as SQLite believes that the process has them.

    def _before_fork(self) -> None:
        """Let the calls under way end, begin none, and close what is open."""
        # One fork at a time, or two would wait for each other's turns.
        places: list[Any] = [self._forking]
        for writes, most in ((False, MOST_READS), (True, MOST_WRITES)):
            places += [self._turns[writes]] * most
        ends_at = time.monotonic() + _LONGEST_WAIT_TO_FORK
        taken: list[Any] = []
        self._fork.taken = taken
        self._fork.is_clean = False
        for place in places:
            if not place.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                break
            taken.append(place)
        for engine in (self._reads, self._writes):
            engine.dispose()
        self._fork.is_clean = len(taken) == len(places)

    def _fork_is_over(self) -> None:
        for place in self._fork.taken:
            place.release()
        del self._fork.taken

    def _start_afresh(self) -> None:
        if not self._fork.is_clean:
            sqlite.inherit(self._reads)
        self._forking = threading.Lock()
        self._fork = threading.local()
        self._turns = _turns()

    @contextmanager
    def _turn(self, operation: Operation[Any]) -> Generator[None]:
        # SQLAlchemy's pool waits for a fixed time, set when it is made. So the wait is here.
        if not self._owned:
            yield
            return
        turns = self._turns[operation.writes]
        if not turns.acquire(timeout=remaining()):
            raise no_connection_free(self.place)
        try:
            yield
        finally:
            turns.release()


class AsyncSqlStore(_SqlStore[AsyncEngine], AsyncMethods):
    """A key store in an SQL database, for code on asyncio.

    Args:
        engine: Where it is; SQLite, PostgreSQL, MySQL or MariaDB.
        writes: Where changes go, if not through the same engine.
        owned: Whether the engines are the store's, to dispose of when it is closed.

    Raises:
        ConfigurationError: It is some other database.
    """

    def __init__(
        self, engine: AsyncEngine, *, writes: AsyncEngine | None = None, owned: bool = False
    ) -> None:
        super().__init__(engine, writes, owned=owned)

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await arun(self._course(schema.migrate(apart=self._owned), check=False), self._carry)

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        if self._owned:
            self._settle(running_loop())
            await self._reads.dispose()
            await self._writes.dispose()

    async def perform(self, operation: Operation[Result]) -> Result:
        """Run one operation."""
        return await arun(self._course(operation), self._carry)

    def feed(self) -> AsyncChangeFeed:
        """See :class:`~keyguard.stores.base.Store`."""
        if not self._can_listen:
            return AsyncSqlFeed(self.perform)
        from keyguard.stores.sql.listening import AsyncListeningFeed

        return AsyncListeningFeed(self)

    async def _carry(self, operation: Operation[Result]) -> Result:
        self._settle(running_loop())
        engine = self._writes if operation.writes else self._reads
        # Not by "async with", which waits for a silent server however often it is cancelled.
        with frameless():
            connection = await engine.connect()
        try:
            result = await arun(operation.flow(), partial(_atake, connection))
        except BaseException:
            await connection.close()
            raise
        if not operation.keeps:
            await connection.close()
        return result


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop.

    Raises:
        ConfigurationError: It is not asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "SQL stores need asyncio; under trio use memory:// or a store of your own"
        ) from None


def _turns() -> dict[bool, threading.BoundedSemaphore]:
    return {
        False: threading.BoundedSemaphore(MOST_READS),
        True: threading.BoundedSemaphore(MOST_WRITES),
    }


def _persistently(
    operation: Operation[Result],
) -> Generator[Operation[Result], Any, Result]:
    try:
        return (yield operation)  # type: ignore[no-any-return]  # its own result is sent back
    except ConnectionLost:
        # One from the pool may have died long ago. The next is new.
        if remaining() == 0:
            raise
        return (yield operation)  # type: ignore[no-any-return]  # likewise


def _take(connection: Connection, step: Step) -> Any:
    return connection.execute(step) if isinstance(step, Executable) else step(connection)


async def _atake(connection: AsyncConnection, step: Step) -> Any:
    if isinstance(step, Executable):
        return await connection.execute(step)
    return await connection.run_sync(step)
