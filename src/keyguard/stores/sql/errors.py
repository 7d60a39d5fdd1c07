"""Say what the errors of SQLAlchemy and the drivers mean to a user of keyguard."""

from __future__ import annotations

from sqlalchemy import URL
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from keyguard.exceptions import (
    CorruptDataError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)

MIGRATE = "run `keyguard migrate` or guard.migrate()"
"""What to do about missing or old tables."""

_NOT_UTF_8 = "Could not decode to UTF-8"
"""How the message of Python's ``sqlite3`` begins where a text is not UTF-8."""


def place_of(url: URL) -> str:
    """Return a database's address without its password and options, which may be secret."""
    return url.set(query={}).render_as_string(hide_password=True)


def no_connection_free(place: str) -> StoreUnavailableError:
    """Return the error for a pool in which no connection became free in time."""
    return StoreUnavailableError(
        f"all connections to {place} are in use; try again later, or see what holds them"
    )


def no_tables() -> SchemaError:
    """Return the error for a database in which keyguard has made no tables yet."""
    return SchemaError(f"the database has no keyguard tables yet; {MIGRATE}")


def may_be_the_schema(failure: BaseException) -> bool:
    """Tell whether a missing table or column may have caused a failure."""
    return (
        isinstance(failure, ProgrammingError | OperationalError)
        and failure.statement is not None
        and not failure.connection_invalidated
    )


def is_unreadable(failure: BaseException) -> bool:
    """Tell whether a driver can't decode a value, such as PostgreSQL's ``infinity`` as a time."""
    return isinstance(failure, DataError) or (
        isinstance(failure, OperationalError) and str(failure.orig).startswith(_NOT_UTF_8)
    )


def explained(failure: BaseException, place: str) -> StoreError:
    """Return the error that says what a failure means, and what to do.

    Args:
        failure: What SQLAlchemy or the driver raised. From now on it hides its parameters.
        place: The database's address, without secrets.
    """
    if isinstance(failure, StatementError):
        failure.hide_parameters = True
    match failure:
        case PoolTimeoutError():
            return no_connection_free(place)
        case _ if is_unreadable(failure):
            return CorruptDataError(
                f"{place} holds or was given a value that keyguard's tables can't hold; the cause "
                "says which"
            )
        case DBAPIError(connection_invalidated=True) | OperationalError() | InterfaceError():
            return unavailable(place)
        case InternalError() | OSError():
            return unavailable(place)
        case _:
            return StoreError(
                f"{place} failed in a way that keyguard does not know; the cause says how"
            )


def unavailable(place: str) -> StoreUnavailableError:
    """Return the error for a database that does not answer."""
    return StoreUnavailableError(
        f"{place} is down, slow or overloaded; see that it runs, can be reached and lets this "
        "user in, then try again"
    )
