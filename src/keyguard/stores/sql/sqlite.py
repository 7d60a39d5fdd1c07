"""How an SQLite connection of keyguard's own is set up."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.stores.sql.errors import no_tables

__all__ = ["begin_durably", "begin_writing", "inherit", "prepare"]

_IS_OURS = "SELECT 1 FROM sqlite_master WHERE name = 'keyguard_version'"

# In milliseconds: how long to wait for another's lock where no deadline is set, and the grain of
# the deadline, so that look-ups, whose deadlines are alike, need not set it anew each time. Short
# deadlines, as of limits, have a finer one.
_PATIENCE = 5_000
_GRAIN = 50
_SHORT, _FINE_GRAIN = 150, 5

# By process, for a fork may find the lock held by a thread that the child has not.
_making: dict[int, threading.Lock] = {}

# The files whose locks SQLite, which keeps one list of them a process, believes to hold here,
# though the parent does.
_inherited: set[str] = set()


def prepare(engine: Engine, *, writes: bool) -> None:
    """Let an engine's connections stand several writers, and wait for a lock until the deadline.

    Args:
        engine: The engine.
        writes: Whether it makes a file that is not there. One that only reads says that there are
            no tables, so that a mistyped path leaves nothing behind.
    """
    file = str(engine.url.database)
    path = None if "uri" in engine.url.query else Path(file)
    event.listen(engine, "do_connect", partial(_refuse_inherited, file))
    if path is not None:
        event.listen(engine, "do_connect", partial(_make if writes else _find, path))
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "checkout", partial(_on_checkout, None if path is None else file))


def inherit(engine: Engine) -> None:
    """Note, in a forked child, that the parent had the engine's file open as it forked.

    What SQLite believes of the file's locks was inherited along, and can't be unlearnt: a
    connection would take none, and lose its changes to the next process that does. So none is made.
    """
    _inherited.add(str(engine.url.database))


def begin_writing(connection: Connection) -> None:
    """Begin a transaction as the one writer, of what a power failure may take back.

    One that reads first can't write once another has. In keyguard's own engine its commit is not
    written through to the disk; the next that is takes it along, and a process that dies loses
    nothing.
    """
    _leave_host_s_transaction(connection)
    if connection.info.get("keyguard_wal"):
        connection.info["keyguard_hasty"] = True
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def begin_durably(connection: Connection) -> None:
    """Begin a transaction as the one writer; once it is committed it is on the disk."""
    _leave_host_s_transaction(connection)
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _leave_host_s_transaction(connection: Connection) -> None:
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # a host may have begun it already, of a kind that reads first
        connection.exec_driver_sql("COMMIT")


def _refuse_inherited(file: str, *_: object) -> None:
    if file in _inherited:
        raise StoreUnavailableError(
            f"this process was forked while its parent was amid a change of {file}, and can't "
            "use it safely; start another, and fork when no thread uses the guard"
        )


def _make(path: Path, dialect: object, entry: ConnectionPoolEntry, *_: object) -> None:
    # SQLite would let others read it. A file that is there is never opened: to close it again would
    # drop the locks of every connection of this process (POSIX), and the next process to leave
    # would take itself for the last, and the log away from under those that stay.
    with _making.setdefault(os.getpid(), threading.Lock()):
        if not path.exists():
            with suppress(OSError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _find(path, dialect, entry)


def _find(
    path: Path,
    dialect: object,  # noqa: ARG001 - SQLAlchemy gives it
    entry: ConnectionPoolEntry,
    *_: object,
) -> None:
    # Before the file is opened: where another takes its place meanwhile, that shows.
    entry.info["keyguard_file"] = file = _file_at(path)
    if file is None:
        raise no_tables()


def _on_connect(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    _set_patience(connection, entry)
    connection.execute("PRAGMA foreign_keys = ON")
    # So that readers and the one writer need not wait for one another. It is a property of the
    # file, and other programs' files are left alone: where another process holds it just now, a
    # later connection will set it.
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
    proxy: Any,  # noqa: ARG001 - SQLAlchemy gives it
) -> None:
    if path is not None and entry.info["keyguard_file"] != _file_at(path):
        # A backup has taken its place, of which a connection to the file before would never hear.
        raise DisconnectionError("the file was replaced")
    _set_patience(connection, entry)
    if entry.info.pop("keyguard_hasty", False):
        connection.execute("PRAGMA synchronous = FULL")


def _set_patience(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    left = remaining()
    patience = _PATIENCE if left is None else int(left * 1000)
    if left is not None:
        grain = _GRAIN if patience > _SHORT else _FINE_GRAIN
        patience = patience // grain * grain
    if entry.info.get("keyguard_patience") != patience:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
        entry.info["keyguard_patience"] = patience
