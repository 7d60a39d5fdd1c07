"""The port of the SQL room: one connection, as an operation uses it.

An operation is an ``async def`` whose first argument is a :class:`Session`. Code on asyncio runs it
in an :class:`AsyncSession`; sync code runs it in a :class:`SyncSession`, which never suspends.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Executable, Row, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from keyguard.stores.sql import sqlite

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
"""The execution option of engines whose driver :func:`look_up` asks without SQLAlchemy."""

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
        turns: What gets a turn back when the session is closed.
    """

    def __init__(self, connection: Connection, turns: threading.Semaphore | None) -> None:
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


def look_up(connection: Connection, statement: Query, values: Values) -> AnyRow | None:
    """Return the one row of a look-up, or None.

    On keyguard's own engines the driver is asked itself, which takes half the time: SQLAlchemy
    would describe each column of each answer. A host's engine may translate or trace statements.
    """
    if not connection.get_execution_options().get(DIRECT):
        return connection.execute(statement, values).one_or_none()
    dialect = connection.dialect
    text = _text(statement, dialect)
    driver = connection.connection
    cursor = driver.cursor()
    try:
        cursor.execute(text, [*values.values()] if dialect.positional else values)
        row: AnyRow | None = cursor.fetchone()
        cursor.close()
    except dialect.loaded_dbapi.Error as failure:
        if dialect.is_disconnect(failure, driver, cursor):
            # It fails here at once. SQLAlchemy then gives up the pool's other connections, too.
            return connection.execute(statement, values).one_or_none()
        # On SQLite an open cursor would keep the connection at what the file holds at this moment.
        cursor.close()
        raise DBAPIError.instance(
            text, None, failure, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
        ) from failure
    except BaseException as failure:  # a cancellation: the answer would meet the next question
        connection.invalidate(failure)
        raise
    return row


@lru_cache(16)
def _text(statement: Query, dialect: Dialect) -> str:
    return statement.compile(dialect=dialect).string
