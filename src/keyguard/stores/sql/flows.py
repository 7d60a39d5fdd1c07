"""What an operation is: a generator that yields statements and is sent their results.

It yields functions of the connection where a statement will not do, and does no I/O itself:
:mod:`~keyguard.stores.sql.store` carries what it yields to the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError

from keyguard.stores.sql.sqlite import begin_durably, begin_writing

__all__ = [
    "NAME",
    "ConnectionLost",
    "Flow",
    "Operation",
    "Step",
    "begin",
    "begin_hastily",
    "keeping",
    "many",
    "reading",
    "writing",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Step: TypeAlias = Executable | Callable[[Connection], Any]
Flow: TypeAlias = Generator[Step, Any, Result]

# What an id or a slug can be made of. Databases differ on anything else: trailing spaces, NUL,
# characters outside the column's character set.
NAME = re.compile(r"[0-9A-Za-z_-]{1,63}\Z")


class ConnectionLost(Exception):  # noqa: N818 - it never leaves the store
    """The connection broke before anything was committed; the same on a new one is safe."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """An operation that is ready to run.

    Args:
        flow: Starts it; may be called again for a second try.
        writes: Whether it needs a transaction.
        keeps: Whether it takes the connection out of the pool, for good.
    """

    flow: Callable[[], Flow[Result]]
    writes: bool
    keeps: bool = False


def _in_one_piece(flow: Flow[Result], *, commit: bool) -> Flow[Result]:
    try:
        result = yield from flow
    except DBAPIError as failure:
        if failure.connection_invalidated:
            raise ConnectionLost from failure
        raise
    if commit:
        # Outside the try: whether a commit that failed took place is known to nobody.
        yield Connection.commit
    return result


def reading(
    function: Callable[Parameters, Flow[Result]],
) -> Callable[Parameters, Operation[Result]]:
    """Make an operation that needs no transaction of a generator function."""

    @wraps(function)
    def operation(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Operation[Result]:
        return Operation(
            lambda: _in_one_piece(function(*args, **kwargs), commit=False), writes=False
        )

    return operation


def keeping(
    function: Callable[Parameters, Flow[Result]],
) -> Callable[Parameters, Operation[Result]]:
    """Make an operation that takes its connection out of the pool of a generator function."""

    @wraps(function)
    def operation(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Operation[Result]:
        return replace(reading(function)(*args, **kwargs), keeps=True)

    return operation


def writing(
    function: Callable[Parameters, Flow[Result]],
) -> Callable[Parameters, Operation[Result]]:
    """Make an operation that is one transaction of a generator function."""

    @wraps(function)
    def operation(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Operation[Result]:
        return Operation(lambda: _in_one_piece(function(*args, **kwargs), commit=True), writes=True)

    return operation


def many(statement: Executable, rows: Sequence[Mapping[str, Any]]) -> Step:
    """Return the step that executes a statement once for each row of parameters."""
    return lambda connection: connection.execute(statement, rows)


def begin(connection: Connection) -> None:
    """Begin a transaction whose first statement may wait for others, on any host's engine."""
    if connection.dialect.name == "sqlite":
        begin_durably(connection)
    else:
        _leave_autocommit(connection)


def begin_hastily(connection: Connection) -> None:
    """The same for what a power failure may take back; on SQLite it need not wait for the disk."""
    if connection.dialect.name == "sqlite":
        begin_writing(connection)
    else:
        _leave_autocommit(connection)


def _leave_autocommit(connection: Connection) -> None:
    """See that statements make one transaction; on PostgreSQL the store has seen to it."""
    # A host may have an engine that commits each statement: its locks would hold nobody.
    driver = connection.connection.dbapi_connection
    if (
        connection.dialect.name != "postgresql"
        and driver is not None
        and connection.dialect.detect_autocommit_setting(driver)
    ):
        connection.execution_options(isolation_level="READ COMMITTED")
