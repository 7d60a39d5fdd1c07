"""Translates the errors of SQLAlchemy and the drivers for users of keyguard."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

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
    shown_path,
)

MIGRATE = "run `keyguard migrate` or guard.migrate()"
"""What to do about missing or old tables."""

_RESTORE = "restore it from a backup or delete it"

_NOT_UTF_8 = "Could not decode to UTF-8"
"""How the message of Python's ``sqlite3`` begins where a text is not UTF-8."""

_CAN_NOT_WRITE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
# What PostgreSQL, and MySQL and MariaDB, say of a right that the user lacks.
_LACKS_RIGHT = ("42501", 1044, 1142, 1143, 1227)
# The messages for a user who is refused, and for a database that does not exist.
_REFUSED = ("28000", "28P01", 1045, 1130, 1698, 1862, 3118, 4151)
_NO_DATABASE = ("3D000", 1049)
# PostgreSQL's words for these codes, as libpq passes on no code of a connection that failed; also
# those of PgBouncer and Supavisor. A server that speaks another language is not understood.
_CODES = {
    r"permission denied for database": "42501",
    r"authentication failed|no password supplied|pg_hba\.conf (entry|rejects)|auth failed"
    r'|is not permitted to log in|role "[^"]*" does not exist|no such user|Tenant or user not found'
    "": "28000",
    r'database "[^"]*" (does not exist|is not currently accepting)|no such database': "3D000",
}
_IS_READ_ONLY = ("25006", 1290, 1792, 1836)
# What servers say of transactions that got in each other's way and were undone.
_IS_CONFLICT = ("40001", "40P01", 1020, 1205, 1213)


def place_of(url: URL) -> str:
    """Return a database's address without its password and options, which may be secret."""
    return url.set(query={}).render_as_string(hide_password=True)


def no_connection_free(place: str) -> StoreUnavailableError:
    """Return the error for a pool in which no connection became free in time."""
    return StoreUnavailableError(
        f"all connections to {place} are in use; try again later, or find out what holds them"
    )


def no_tables() -> SchemaError:
    """Return the error for a database in which keyguard has made no tables yet."""
    return SchemaError(f"the database has no keyguard tables yet; {MIGRATE}")


def no_file(path: Path) -> SchemaError:
    """Return the error for an SQLite file that does not exist."""
    return SchemaError(
        f"there is no file {shown_path(path.absolute())}: check the URL, or run "
        "`keyguard init` or guard.migrate() to make a new store"
    )


def may_be_the_schema(failure: BaseException) -> bool:
    """Return whether a missing table or column may have caused a failure."""
    return (
        isinstance(failure, ProgrammingError | OperationalError)
        and failure.statement is not None
        and not failure.connection_invalidated
        and not is_busy(failure)
    )


def is_unreadable(failure: BaseException) -> bool:
    """Return whether a driver can't decode a value, such as PostgreSQL's ``infinity`` as a time."""
    return isinstance(failure, DataError) or (
        isinstance(failure, OperationalError) and str(failure.orig).startswith(_NOT_UTF_8)
    )


def is_busy(failure: BaseException) -> bool:
    """Return whether SQLite waited in vain for the lock of another connection."""
    return _told(failure)[0] == sqlite3.SQLITE_BUSY


def is_read_only(failure: BaseException) -> bool:
    """Return whether a server refused a change because it is a replica or read-only."""
    return _told(failure)[0] in _IS_READ_ONLY


def is_conflict(failure: BaseException) -> bool:
    """Return whether a server undid a change because of a conflict, such as a deadlock."""
    return _told(failure)[0] in _IS_CONFLICT


def explained(failure: BaseException, place: str) -> StoreError:
    """Return the error that says what a failure means, and what to do.

    Args:
        failure: The exception of SQLAlchemy or the driver. From now on it hides its parameters.
        place: The database's address, without secrets.
    """
    if isinstance(failure, StatementError):
        failure.hide_parameters = True
    code, words = _told(failure)
    match failure:
        case DBAPIError() if code in _CAN_NOT_WRITE:
            return not_writable(place)
        case DBAPIError() if code == sqlite3.SQLITE_BUSY:
            return StoreUnavailableError(
                f"another connection has been changing {place} for as long as this call may wait; "
                "end that transaction sooner. If it is one of this thread or task, commit it before"
                " you call keyguard, or give the keys a file of their own"
            )
        case DBAPIError() if code in _REFUSED:
            return StoreUnavailableError(
                f"{place} does not let keyguard in; check the user and password of the URL, and "
                "that the server lets this user in from here"
            )
        case DBAPIError() if code in _NO_DATABASE:
            return StoreUnavailableError(
                f"{place} does not let keyguard in, as there is no such database or it is closed; "
                "create it, or check its name in the URL"
            )
        case DBAPIError() if code in _LACKS_RIGHT:
            return StoreUnavailableError(
                f"{place} refuses keyguard's user a right ({words}); grant SELECT, INSERT, UPDATE "
                "and DELETE on the tables keyguard_*, and to migrate those that the page on stores "
                "lists"
            )
        case DBAPIError() if code in _IS_READ_ONLY:
            return read_only(place)
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


def _told(failure: BaseException) -> tuple[object, str]:
    """Return the code and the words of a driver's failure."""
    driver = getattr(failure, "orig", None) or failure
    first, *_, words = driver.args * 2 or ("", "")
    if isinstance(driver, sqlite3.Error):
        return getattr(driver, "sqlite_errorcode", 0) & 0xFF, words  # without its details
    code = first if isinstance(first, int) else getattr(driver, "sqlstate", None)
    if code is None and isinstance(failure, OperationalError) and failure.statement is None:
        for pattern, known in _CODES.items():
            if found := re.search(rf".*({pattern}).*", str(words)):
                return known, found[0].rpartition(":  ")[2]
    return code, str(words).partition("\n")[0]


def corrupt(
    table: str, row_id: object, why: object = "", *, advice: str = _RESTORE
) -> CorruptDataError:
    """Return the error for a row that keyguard did not write."""
    because = f" ({why})" if why else ""
    return CorruptDataError(
        f"row {row_id!r} of table {table} holds something that keyguard did not write{because}; "
        f"{advice}"
    )


def not_writable(place: str) -> StoreUnavailableError:
    """Return the error for an SQLite file that this process can't write."""
    return StoreUnavailableError(
        f"{place} or its directory can't be read and written by this process; give its user both "
        "rights on both, as SQLite keeps a log beside the file"
    )


class ReadOnlyError(StoreUnavailableError):
    """The server is a replica, such as a former primary."""


def read_only(place: str) -> ReadOnlyError:
    """Return the error for a server that takes no changes."""
    return ReadOnlyError(
        f"{place} is a replica, or otherwise read-only, and can't be written to; name the primary"
    )


def unavailable(place: str) -> StoreUnavailableError:
    """Return the error for a database that does not answer."""
    return StoreUnavailableError(
        f"{place} is down, slow or overloaded; check that it runs, can be reached and lets this "
        "user in, then try again"
    )
