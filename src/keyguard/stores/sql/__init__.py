"""Keys in an SQL database: SQLite, PostgreSQL, MySQL and MariaDB, in both flavours.

What belongs here: the tables and the migrations that make them; the operations, written once as
generators of statements; the two stores that carry these to a database; and for each driver what
it takes to be back in time. SQLAlchemy and the drivers are imported nowhere else, and their errors
go no further.
"""

from __future__ import annotations

from importlib import import_module

from keyguard.exceptions import MissingExtraError

try:
    from keyguard.stores.sql.engines import open_async_store, open_store
    from keyguard.stores.sql.migrations import HEAD
    from keyguard.stores.sql.store import AsyncSqlStore, SqlStore
    from keyguard.stores.sql.threaded import ThreadedSqlStore
except ModuleNotFoundError as failure:
    if failure.name != "sqlalchemy":
        raise
    raise MissingExtraError("A key store in an SQL database", "sql") from failure

import_module("limits")  # parses the limits of stored keys: not during a request

__all__ = [
    "HEAD",
    "AsyncSqlStore",
    "SqlStore",
    "ThreadedSqlStore",
    "open_async_store",
    "open_store",
]
