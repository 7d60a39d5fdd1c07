"""Keys in an SQL database: SQLite, PostgreSQL, MySQL and MariaDB, in both flavours.

What belongs here: the tables and the migrations that make them; the operations, written once as
generators of statements; the two backends that carry these to a database; and for each driver what
it takes to be back in time. SQLAlchemy and the drivers are imported nowhere else, and their errors
go no further.
"""

from __future__ import annotations

from keyguard.exceptions import MissingExtraError

try:
    from keyguard.backends.sql.backend import AsyncSqlBackend, SqlBackend
    from keyguard.backends.sql.engines import open_async_backend, open_backend
    from keyguard.backends.sql.migrations import HEAD
    from keyguard.backends.sql.threaded import ThreadedSqlBackend
except ModuleNotFoundError as failure:
    if failure.name != "sqlalchemy":
        raise
    raise MissingExtraError("A key store in an SQL database", "sql") from failure

__all__ = [
    "HEAD",
    "AsyncSqlBackend",
    "SqlBackend",
    "ThreadedSqlBackend",
    "open_async_backend",
    "open_backend",
]
