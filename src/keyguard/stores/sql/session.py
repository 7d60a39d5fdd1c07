"""The port of the SQL room: one connection, as an operation uses it.

An operation is an ``async def`` whose first argument is a :class:`Session`. Code on asyncio runs it
in an :class:`AsyncSession`; sync code runs it in a :class:`SyncSession`, which never suspends.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Engine, Executable, Row, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import PoolProxiedConnection

from keyguard.stores.sql import sqlite
from keyguard.stores.sql.turns import FreeTurns

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Answer: TypeAlias = CursorResult[Any]
"""What the database answers to a statement."""

Values: TypeAlias = Mapping[str, object]
"""Values by the names of columns or parameters."""

AnyRow: TypeAlias = Sequence[Any]
"""A row, as the database gave it."""

NamedRow: TypeAlias = Row[Any]
"""A row whose values have the names of their columns."""

Query: TypeAlias = Select[Any]
"""A statement that finds rows."""

DIRECT = "keyguard_direct"
"""The execution option of engines whose driver a look-up asks without SQLAlchemy."""

DriverConnection: TypeAlias = Any
"""A connection of the driver's own class; only code for that driver uses it."""


class Session(ABC):
    """A connection that one operation has to itself.

    Attributes:
        dialect: SQLAlchemy's dialect of the database.
    """

    dialect: Dialect
    _is_detached = False

    @abstractmethod
    async def call(self, function: Callable[..., Result], *args: object) -> Result:
        """Call a function with SQLAlchemy's connection and further arguments."""

    async def execute(
        self, statement: Executable, values: Values | Sequence[Values] | None = None
    ) -> Answer:
        """Execute a statement once, or once for each item of a sequence of values."""
        return await self.call(Connection.execute, statement, values)

    async def look_up(self, statement: Query, values: Values) -> AnyRow | None:
        """Return the one row of a look-up, or None.

        On keyguard's own engines the driver is asked itself, which takes half the time: SQLAlchemy
        would describe each column of each answer. A host's engine may translate or trace
        statements.
        """
        return await self.call(_look_up, statement, values)

    async def commit(self) -> None:
        """Commit the transaction."""
        await self.call(Connection.commit)

    async def rollback(self) -> None:
        """Roll the transaction back."""
        await self.call(Connection.rollback)

    async def detach(self) -> DriverConnection:
        """Take the connection out of the pool and return the driver's own, which must be closed."""
        driver = await self.call(_detach)
        self._is_detached = True
        return driver

    @abstractmethod
    async def close(self) -> None:
        """Return the connection to its pool, unless it was detached."""


Operation: TypeAlias = Callable[Concatenate[Session, Parameters], Awaitable[Result]]
"""What a store does in one session. It may run a second time, on a new connection."""


class SyncSession(Session):
    """A session whose methods never suspend.

    Args:
        connection: The connection.
        turns: The turns, to which one is given back when the session is closed.
    """

    def __init__(self, connection: Connection, turns: FreeTurns | None) -> None:
        self._connection = connection
        self._turns = turns
        self.dialect = connection.dialect

    async def call(self, function: Callable[..., Result], *args: object) -> Result:
        return function(self._connection, *args)

    async def close(self) -> None:
        try:
            if not self._is_detached:
                self._connection.close()
        finally:
            if self._turns is not None:
                self._turns.release()


class FileSession(Session):
    """A session that looks things up in an SQLite file of keyguard's own, and never suspends.

    The connection stays as the engine's pool lends it: SQLAlchemy's object around it, which takes
    half as long again to make and close, is made once an operation calls for it.

    Args:
        engine: The engine.
        turns: The turns, to which one is given back when the session is closed.
    """

    def __init__(self, engine: Engine, turns: FreeTurns) -> None:
        self.dialect = engine.dialect
        self._engine = engine
        self._turns = turns
        self._made: Connection | None = None
        try:
            self._lent = engine.raw_connection()
        except sqlite3.Error as failure:
            raise _wrapped(None, failure, self.dialect) from failure

    async def call(self, function: Callable[..., Result], *args: object) -> Result:
        return function(self._made or self._make(), *args)

    async def look_up(self, statement: Query, values: Values) -> AnyRow | None:
        return _ask(self._lent, self.dialect, self._make, statement, values)

    async def close(self) -> None:
        try:
            if not self._is_detached:
                (self._made or self._lent).close()
        finally:
            self._turns.release()

    def _make(self) -> Connection:
        self._made = Connection(self._engine, self._lent)
        return self._made


class AsyncSession(Session):
    """A session on asyncio.

    Args:
        connection: The connection.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def call(self, function: Callable[..., Result], *args: object) -> Result:
        return await self._connection.run_sync(function, *args)

    async def close(self) -> None:
        if not self._is_detached:
            await self._connection.close()


def begin(connection: Connection, *, hastily: bool = False) -> None:
    """Begin a transaction whose first statement may wait for another, on any host's engine.

    Args:
        connection: The connection.
        hastily: Whether a power failure may undo the transaction after its commit.
    """
    if connection.dialect.name == "sqlite":
        sqlite.begin(connection, hastily=hastily)
        return
    # A host's engine may commit each statement. Then no lock would last. On PostgreSQL the
    # statements are one transaction already.
    driver = connection.connection.dbapi_connection
    if (
        connection.dialect.name != "postgresql"
        and driver is not None
        and connection.dialect.detect_autocommit_setting(driver)
    ):
        connection.execution_options(isolation_level="READ COMMITTED")


begin_hastily = partial(begin, hastily=True)


def _detach(connection: Connection) -> DriverConnection:
    driver = connection.connection.driver_connection  # SQLAlchemy forgets it when it detaches
    connection.detach()
    return driver


def _look_up(connection: Connection, statement: Query, values: Values) -> AnyRow | None:
    if not connection.get_execution_options().get(DIRECT):
        return connection.execute(statement, values).one_or_none()
    return _ask(connection.connection, connection.dialect, lambda: connection, statement, values)


def _ask(
    lent: PoolProxiedConnection,
    dialect: Dialect,
    make: Callable[[], Connection],
    statement: Query,
    values: Values,
) -> AnyRow | None:
    """Ask the driver for the one row of a look-up.

    Args:
        lent: The driver's connection, as the pool lends it.
        dialect: SQLAlchemy's dialect of the database.
        make: Returns SQLAlchemy's object around that connection, which a failure needs.
        statement: The look-up.
        values: Its parameters.
    """
    text = _text(statement, dialect)
    try:
        cursor = lent.cursor()
    except dialect.loaded_dbapi.Error:  # SQLAlchemy gives the connection up if it is lost
        return make().execute(statement, values).one_or_none()
    try:
        cursor.execute(text, [*values.values()] if dialect.positional else values)
        row: AnyRow | None = cursor.fetchone()
        cursor.close()
    except dialect.loaded_dbapi.Error as failure:
        if dialect.is_disconnect(failure, lent, cursor):
            # It fails here at once. SQLAlchemy then gives up the pool's other connections, too.
            return make().execute(statement, values).one_or_none()
        # On SQLite an open cursor would keep the connection at what the file holds at this moment.
        cursor.close()
        raise _wrapped(text, failure, dialect) from failure
    except BaseException as failure:  # a cancellation: the answer would meet the next question
        make().invalidate(failure)
        raise
    return row


def _wrapped(text: str | None, failure: Exception, dialect: Dialect) -> Exception:
    """Return a driver's error as SQLAlchemy raises it.

    Args:
        text: The statement; None while a connection is opened.
        failure: The error.
        dialect: SQLAlchemy's dialect of the database.
    """
    return DBAPIError.instance(
        text, None, failure, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
    )


@lru_cache(16)
def _text(statement: Query, dialect: Dialect) -> str:
    return statement.compile(dialect=dialect).string
