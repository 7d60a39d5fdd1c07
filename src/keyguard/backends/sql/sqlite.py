"""How an SQLite connection of keyguard's own is set up."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from keyguard.deadlines import remaining

__all__ = ["prepare"]

# In milliseconds: how long to wait for another's lock where no deadline is set, and the grain of
# the deadline, so that look-ups, whose deadlines are alike, need not set it anew each time.
_PATIENCE = 5_000
_GRAIN = 50


def prepare(engine: Engine) -> None:
    """Let an engine's connections stand several writers, and wait for a lock until the deadline."""
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "checkout", _on_checkout)


def _on_connect(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    _set_patience(connection, entry)
    # So that readers and the one writer need not wait for one another. It is a property of the
    # file: where another process holds that just now, a later connection will set it.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _on_checkout(
    connection: sqlite3.Connection,
    entry: ConnectionPoolEntry,
    proxy: Any,  # noqa: ARG001 - SQLAlchemy gives it
) -> None:
    _set_patience(connection, entry)


def _set_patience(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    left = remaining()
    patience = _PATIENCE if left is None else int(left * 1000) // _GRAIN * _GRAIN
    if entry.info.get("keyguard_patience") != patience:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
        entry.info["keyguard_patience"] = patience
