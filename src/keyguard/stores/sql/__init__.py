"""Keys and counters in an SQL database: SQLite, PostgreSQL, MySQL and MariaDB, in both flavours.

What belongs here: the tables and the migrations that make them; the operations, each one
``async def`` over a :class:`~keyguard.stores.sql.session.Session`; the database, which runs them in
either flavour; the stores of keys and of counters; and for each driver what makes it return in
time. SQLAlchemy and the drivers are imported nowhere else, and their errors go no further.
"""

from __future__ import annotations

from importlib import import_module

from keyguard.exceptions import MissingExtraError

try:
    from keyguard.stores.sql.autogenerate import include_name
    from keyguard.stores.sql.migrations import HEAD
    from keyguard.stores.sql.opening import (
        open_async_replica,
        open_async_store,
        open_replica,
        open_store,
    )
    from keyguard.stores.sql.store import AsyncSqlStore, SqlStore
except ModuleNotFoundError as failure:
    if failure.name != "sqlalchemy":
        raise
    raise MissingExtraError("a key store in an SQL database", "sql") from failure

import_module("limits")  # parses the limits of stored keys: not during a request

__all__ = [
    "HEAD",
    "AsyncSqlStore",
    "SqlStore",
    "include_name",
    "open_async_replica",
    "open_async_store",
    "open_replica",
    "open_store",
]
