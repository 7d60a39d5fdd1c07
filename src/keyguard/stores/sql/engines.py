"""From a URL to a store, with an engine of keyguard's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Dialect, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.stores.sql import sqlite
from keyguard.stores.sql.store import MOST_READS, MOST_WRITES, AsyncSqlStore, SqlStore
from keyguard.stores.sql.threaded import ThreadedSqlStore

__all__ = ["open_async_store", "open_store"]

_DRIVERS = {
    "sqlite": "pysqlite",
    "postgresql": "psycopg",
    "mysql": "pymysql",
    "mariadb": "pymysql",
}
_ASYNC_DRIVERS = _DRIVERS | {"mysql": "asyncmy", "mariadb": "asyncmy"}
_EXTRAS = {
    "psycopg": ("PostgreSQL", "postgresql"),
    "pymysql": ("MySQL", "mysql"),
    "asyncmy": ("MySQL", "mysql"),
}

# Look-ups are one statement each, with no BEGIN before and no ROLLBACK after it. Changes are
# transactions. To switch a pooled connection from one to the other would take round trips, and at
# a point where SQLAlchemy does not notice that the connection is dead.
_READS: dict[str, Any] = {
    "hide_parameters": True,
    "isolation_level": "AUTOCOMMIT",
    "skip_autocommit_rollback": True,
    "pool_size": MOST_READS // 2,
    "max_overflow": MOST_READS - MOST_READS // 2,
}
_WRITES: dict[str, Any] = {
    "hide_parameters": True,
    "pool_size": MOST_WRITES,  # limits are counted through them
    "max_overflow": 0,
    # Each operation ends its transaction itself. To roll back once more as a connection comes back
    # is one more round trip on MySQL, on which a silent server would hold what is done already.
    "pool_reset_on_return": None,
}
# What changes need is to wait for one another. On PostgreSQL a database may be set to refuse that.
_LEVELS = {"postgresql": "READ COMMITTED"}


def open_store(url: str) -> SqlStore:
    """Return the store of a database URL, for sync code.

    Args:
        url: ``sqlite:///keys.db``, ``postgresql://...``, ``mysql://...`` or ``mariadb://...``.

    Raises:
        ConfigurationError: keyguard can't use the URL.
        MissingExtraError: The driver is not installed.
    """
    parsed = _parse(url, _DRIVERS)
    database = parsed.get_backend_name()
    if database == "sqlite":
        _check_file(parsed)
    with _options_are_refused_clearly():
        reads = create_engine(parsed, **_READS)
        writes = create_engine(parsed, isolation_level=_LEVELS.get(database), **_WRITES)
    for engine in (reads, writes):
        if database == "sqlite":
            sqlite.prepare(engine, writes=engine is writes)
        else:
            event.listen(engine, "do_connect", _connector(parsed))
    return SqlStore(reads, writes=writes, owned=True)


def open_async_store(url: str) -> AsyncSqlStore | ThreadedSqlStore:
    """Return the store of a database URL, for code on asyncio; else like :func:`open_store`."""
    parsed = _parse(url, _ASYNC_DRIVERS)
    database = parsed.get_backend_name()
    if database == "sqlite":
        return ThreadedSqlStore(open_store(url))
    arguments: dict[str, Any] = {}
    if parsed.get_driver_name() == "psycopg":
        from keyguard.stores.sql.postgresql import AsyncDeadlineConnection

        arguments["async_creator_fn"] = AsyncDeadlineConnection.connect
    with _options_are_refused_clearly():
        reads = create_async_engine(parsed, connect_args=arguments, **_READS)
        writes = create_async_engine(
            parsed, connect_args=arguments, isolation_level=_LEVELS.get(database), **_WRITES
        )
    return AsyncSqlStore(reads, writes=writes, owned=True)


@contextmanager
def _options_are_refused_clearly() -> Generator[None]:
    try:
        yield
    except (ArgumentError, TypeError, ValueError):
        raise ConfigurationError(
            "what follows the ? in the database URL can't be used; see the driver's options"
        ) from None


def _connector(url: URL) -> Callable[..., Any]:
    if url.get_driver_name() == "psycopg":
        from keyguard.stores.sql.postgresql import DeadlineConnection

        connection: Callable[..., Any] = DeadlineConnection.connect
    else:
        from keyguard.stores.sql.mysql import DeadlineConnection as MySqlConnection

        connection = MySqlConnection

    def connect(
        dialect: Dialect,  # noqa: ARG001 - SQLAlchemy gives it
        entry: object,  # noqa: ARG001 - likewise
        arguments: list[Any],
        options: dict[str, Any],
    ) -> Any:
        return connection(*arguments, **options)

    return connect


def _parse(url: str, drivers: dict[str, str]) -> URL:
    # What SQLAlchemy says of a URL may quote from it, and from the middle of a password.
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):  # the tail of a password
            raise ValueError
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "the database URL can't be read; one looks like "
            "postgresql://user:password@host:5432/database, where the signs @ : / ? # % in a "
            "password are written as %40 %3A %2F %3F %23 %25"
        ) from None
    database, _, driver = parsed.drivername.partition("+")
    if database == "postgres":
        database = "postgresql"
    wanted = drivers.get(database)
    if wanted is None or driver not in ("", wanted):
        known = ", ".join(f"{name}+{driver}://" for name, driver in drivers.items())
        raise ConfigurationError(
            f"keyguard can't use a database URL that begins with {parsed.drivername}://; "
            f"it can use {known}, or without the driver's name, or an engine of your own"
        )
    if wanted in _EXTRAS:
        try:
            importlib.import_module(wanted)
        except ImportError as failure:
            raise MissingExtraError(*_EXTRAS[wanted]) from failure
    return parsed.set(drivername=f"{database}+{wanted}")


def _check_file(url: URL) -> None:
    path = url.database
    if path in (None, "", ":memory:") or "mode" in url.query:
        raise ConfigurationError(
            "an SQLite database in memory would be another one on each connection; use memory:// "
            "for a key store that ends with the process"
        )
    folder = Path(str(path)).absolute().parent
    if "uri" not in url.query and not folder.is_dir():
        raise ConfigurationError(f"there is no directory {folder} for the SQLite database")
