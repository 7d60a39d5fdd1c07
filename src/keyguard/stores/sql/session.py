"""The port of the SQL room: one connection, as an operation uses it.

An operation is an ``async def`` whose first argument is a :class:`Session`. Code on asyncio runs it
in an :class:`AsyncSession`; sync code runs it in a :class:`SyncSession`, which never suspends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from threading import BoundedSemaphore
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from keyguard.stores.sql import sqlite

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Answer: TypeAlias = CursorResult[Any]
"""What the database answers to a statement."""

Values: TypeAlias = Mapping[str, Any]
"""Values by the names of columns or parameters."""

DriverConnection: TypeAlias = Any
"""A connection of the driver's own class; only code for that driver uses it."""


class Session(Protocol):
    """A connection that one operation has to itself."""

    dialect: Dialect
    """SQLAlchemy's dialect of the database."""

    async def execute(
        self, statement: Executable, values: Values | Sequence[Values] | None = None
    ) -> Answer:
        """Execute a statement once, or once for each item of a sequence of values."""
        ...

    async def call(self, function: Callable[[Connection], Result]) -> Result:
        """Call a function with SQLAlchemy's connection."""
        ...

    async def commit(self) -> None:
        """Commit the transaction."""

    async def rollback(self) -> None:
        """Roll the transaction back."""

    async def detach(self) -> DriverConnection:
        """Take the connection out of the pool and return the driver's own, which must be closed."""
        ...

    async def close(self) -> None:
        """Return the connection to its pool, unless it was detached."""


Operation: TypeAlias = Callable[Concatenate[Session, Parameters], Awaitable[Result]]
"""What a store does in one session. It may run a second time, on a new connection."""


class SyncSession(Session):
    """A session whose methods never suspend.

    Args:
        connection: The connection.
        turn: What to release when the session is closed.
    """

    def __init__(self, connection: Connection, turn: BoundedSemaphore | None) -> None:
        self._connection = connection
        self._turn = turn
        self._is_detached = False
        self.dialect = connection.dialect

    async def execute(
        self, statement: Executable, values: Values | Sequence[Values] | None = None
    ) -> Answer:
        return self._connection.execute(statement, values)

    async def call(self, function: Callable[[Connection], Result]) -> Result:
        return function(self._connection)

    async def commit(self) -> None:
        self._connection.commit()

    async def rollback(self) -> None:
        self._connection.rollback()

    async def detach(self) -> DriverConnection:
        driver = _detach(self._connection)
        self._is_detached = True
        return driver

    async def close(self) -> None:
        try:
            if not self._is_detached:
                self._connection.close()
        finally:
            if self._turn is not None:
                self._turn.release()


class AsyncSession(Session):
    """A session on asyncio.

    Args:
        connection: The connection.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._is_detached = False
        self.dialect = connection.dialect

    async def execute(
        self, statement: Executable, values: Values | Sequence[Values] | None = None
    ) -> Answer:
        return await self._connection.execute(statement, values)

    async def call(self, function: Callable[[Connection], Result]) -> Result:
        return await self._connection.run_sync(function)

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> None:
        await self._connection.rollback()

    async def detach(self) -> DriverConnection:
        driver = await self._connection.run_sync(_detach)
        self._is_detached = True
        return driver

    async def close(self) -> None:
        if not self._is_detached:
            await self._connection.close()


def begin(connection: Connection) -> None:
    """Begin a transaction whose first statement may wait for another, on any host's engine."""
    if connection.dialect.name == "sqlite":
        sqlite.begin_durably(connection)
    else:
        _leave_autocommit(connection)


def begin_hastily(connection: Connection) -> None:
    """Begin a transaction like :func:`begin`, but one that a power failure may undo."""
    if connection.dialect.name == "sqlite":
        sqlite.begin_hastily(connection)
    else:
        _leave_autocommit(connection)


def _leave_autocommit(connection: Connection) -> None:
    """Make one transaction of the statements that follow; on PostgreSQL they are one already."""
    # A host's engine may commit each statement. Then no lock would last.
    driver = connection.connection.dbapi_connection
    if (
        connection.dialect.name != "postgresql"
        and driver is not None
        and connection.dialect.detect_autocommit_setting(driver)
    ):
        connection.execution_options(isolation_level="READ COMMITTED")


def _detach(connection: Connection) -> DriverConnection:
    driver = connection.connection.driver_connection  # SQLAlchemy forgets it when it detaches
    connection.detach()
    return driver
