"""SQLite: how keyguard sets up its own connections, and begins transactions."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, SingletonThreadPool, StaticPool

from keyguard.exceptions import ConfigurationError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.process import forks_unnoticed
from keyguard.stores.sql.errors import no_file, not_writable, place_of

_IS_OURS = "SELECT 1 FROM sqlite_master WHERE name = 'keyguard_version'"

IN_MEMORY = (None, "", ":memory:")
"""The paths of databases in memory."""

# In milliseconds: how long to wait for a lock without a deadline, and the steps to which a deadline
# is rounded down, so that look-ups, whose deadlines are alike, need not set it each time. The short
# deadlines of limits have finer steps.
_PATIENCE = 5_000
_GRAIN = 50
_SHORT, _FINE_GRAIN = 150, 5

# One lock for each process: a fork may happen while a thread, which the child lacks, holds it.
_making: dict[int, threading.Lock] = {}

# The files whose locks SQLite believes this process to hold, although its parent holds them.
_inherited: set[str] = set()


def prepare(engine: Engine, *, writes: bool) -> None:
    """Prepare an engine's connections for other writers, and for waits that end at the deadline.

    Args:
        engine: The engine.
        writes: Whether the engine makes a missing file. An engine that only reads says instead that
            there is no file, so that a mistyped path leaves nothing behind.
    """
    file = str(engine.url.database)
    path = None if "uri" in engine.url.query else Path(file)
    event.listen(engine, "do_connect", partial(_refuse_inherited, file))
    if path is not None:
        find = partial(_make, engine.url) if writes else _find
        event.listen(engine, "do_connect", partial(find, path))
    event.listen(engine, "connect", _on_connect)
    if "uwsgi" in sys.modules:
        event.listen(engine, "checkin", _on_checkin)
    event.listen(engine, "checkout", partial(_on_checkout, None if path is None else file))


def in_memory() -> ConfigurationError:
    """Return the error for a database in memory."""
    return ConfigurationError(
        "an SQLite database in memory would be another one on each connection; use memory:// "
        "for a key store that ends with the process"
    )


def refuse_shared(engine: Engine) -> None:
    """Refuse a host's engine whose connections keyguard would share with the host's transactions.

    Args:
        engine: The engine, of any database.

    Raises:
        ConfigurationError: The engine has only one connection, or one for each thread, or its
            database is in memory.
    """
    path, pool = engine.url.database, engine.pool
    is_shared = isinstance(pool, StaticPool | SingletonThreadPool)
    has_no_file = path in IN_MEMORY or engine.url.query.get("mode") == "memory"
    # An engine whose own function opens a file has no path either.
    if engine.dialect.name == "sqlite" and has_no_file and (is_shared or path):
        raise in_memory()
    if is_shared:
        raise ConfigurationError(
            f"an engine on {type(pool).__name__} gives keyguard the connection of your own "
            "transactions, which it would commit; leave poolclass out"
        )


def inherit(engine: Engine) -> None:
    """Note, in a forked child, that the parent had the engine's file open while it forked.

    SQLite's list of the file's locks was inherited and can't be corrected: a connection would take
    no locks, and other processes would overwrite its changes. So no connection is made.
    """
    _inherited.add(str(engine.url.database))


def begin(connection: Connection, *, hastily: bool) -> None:
    """Begin the one write transaction.

    It begins as IMMEDIATE, because SQLite can't upgrade a transaction that has read after another
    writer has committed.

    Args:
        connection: The connection.
        hastily: Whether a power failure may undo the transaction after its commit. On keyguard's
            own engine that commit is not synced to the disk (WAL, synchronous=NORMAL); the next
            durable commit syncs it too. A process that dies loses nothing.
    """
    if not connection.in_transaction():
        connection.begin()
    # A host may have begun a transaction already, of a kind that reads first.
    if in_transaction(connection):
        connection.exec_driver_sql("COMMIT")
    if hastily and connection.info.get("keyguard_wal"):
        connection.info["keyguard_hasty"] = True
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def in_transaction(connection: Connection) -> bool:
    """Return whether the driver's connection is in a transaction."""
    driver = connection.connection.driver_connection
    return bool(driver is not None and driver.in_transaction)


def _refuse_inherited(file: str, *_: object) -> None:
    if file in _inherited:
        raise StoreUnavailableError(
            f"this process was forked while its parent was changing {file}, and can't use it "
            "safely; start another process, and fork when no thread uses the guard"
        )


def _make(url: URL, path: Path, dialect: object, entry: ConnectionPoolEntry, *_: object) -> None:
    # SQLite would make a file that others can read. An existing file is never opened here: closing
    # it would drop the locks of every connection of this process (POSIX). Another process that ends
    # would then believe that it is the last one, and delete the log that this process still uses.
    with _making.setdefault(os.getpid(), threading.Lock()):
        if not path.exists():
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except PermissionError as failure:
                raise not_writable(place_of(url)) from failure
            except OSError:
                pass  # another process made it, or the connection will fail
    _find(path, dialect, entry)


def _find(
    path: Path,
    dialect: object,  # noqa: ARG001 - SQLAlchemy gives it
    entry: ConnectionPoolEntry,
    *_: object,
) -> None:
    # Before SQLite opens the file, so that a file that takes its place meanwhile is noticed.
    entry.info["keyguard_file"] = file = _file_at(path)
    if file is None:
        raise no_file(path)


def _on_connect(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    _set_patience(connection, entry)
    connection.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log readers and the writer do not wait for each other. The mode belongs to
    # the file, so files of other programs are left alone. If another process holds the file just
    # now, a later connection will set the mode.
    if connection.execute(_IS_OURS).fetchone():
        with suppress(sqlite3.OperationalError):
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            entry.info["keyguard_wal"] = mode == ("wal",)


def _file_at(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _on_checkout(
    path: str | None,
    connection: sqlite3.Connection,
    entry: ConnectionPoolEntry,
    proxy: object,  # noqa: ARG001 - SQLAlchemy gives it
) -> None:
    if path is not None and entry.info["keyguard_file"] != _file_at(path):
        # A backup took its place. A connection to the old file would never notice.
        raise DisconnectionError("the file was replaced")
    _set_patience(connection, entry)
    if entry.info.pop("keyguard_hasty", False):
        connection.execute("PRAGMA synchronous = FULL")


def _on_checkin(connection: object, entry: ConnectionPoolEntry) -> None:  # noqa: ARG001 - as above
    if forks_unnoticed():  # and nobody could close it before the fork
        entry.invalidate()


def _set_patience(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    left = remaining()
    # A tenth of the time is left to say that the lock of another connection held the call up.
    patience = _PATIENCE if left is None else int(left * 900)
    if left is not None:
        grain = _GRAIN if patience > _SHORT else _FINE_GRAIN
        patience = patience // grain * grain
    if entry.info.get("keyguard_patience") != patience:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
        entry.info["keyguard_patience"] = patience
