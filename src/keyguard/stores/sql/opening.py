"""Open the store of a database URL, with engines of keyguard's own, or of a host's engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import URL, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.stores.base import CONNECTION_MAX_AGE
from keyguard.stores.sql import options, sqlite
from keyguard.stores.sql.database import AsyncDatabase, SyncDatabase
from keyguard.stores.sql.session import DIRECT
from keyguard.stores.sql.store import AsyncSqlStore, SqlStore
from keyguard.stores.sql.threaded import ThreadedDatabase
from keyguard.stores.sql.turns import MOST_READS, MOST_WRITES

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

# A look-up is one statement, with no BEGIN before and no ROLLBACK after it. A change is a
# transaction. Switching a pooled connection between the two would cost round trips, at a moment
# when SQLAlchemy does not notice that the connection is dead. So each has an engine.
_Options: TypeAlias = dict[str, Any]
_READS: _Options = {
    "hide_parameters": True,
    "isolation_level": "AUTOCOMMIT",
    "skip_autocommit_rollback": True,
    "execution_options": {DIRECT: True},
    "pool_size": MOST_READS // 2,
    "max_overflow": MOST_READS - MOST_READS // 2,
}
_WRITES: _Options = {
    "hide_parameters": True,
    "pool_size": MOST_WRITES,  # limits are counted through them
    "max_overflow": 0,
    # Each operation ends its own transaction. Another rollback when the connection comes back would
    # be one more round trip on MySQL, and a silent server would hold up a change already made.
    "pool_reset_on_return": None,
}
# Changes must be able to wait for one another. A PostgreSQL database may be set to refuse that.
_LEVELS = {"postgresql": "READ COMMITTED"}


def open_store(target: str | Engine, max_age: float = CONNECTION_MAX_AGE) -> SqlStore:
    """Return the store of a database, for sync code.

    Args:
        target: ``sqlite:///keys.db``, ``postgresql://...``, ``mysql://...``, ``mariadb://...``, or
            an engine, which the store does not dispose of.
        max_age: Seconds after which a connection of a URL is replaced by a new one.

    Raises:
        ConfigurationError: keyguard can't use the URL or the engine.
        MissingExtraError: The driver is not installed.
    """
    if isinstance(target, Engine):
        sqlite.refuse_shared(target)
        return SqlStore(SyncDatabase(target))
    return SqlStore(_open_database(_parse(target, _DRIVERS), max_age))


def open_async_store(
    target: str | AsyncEngine, max_age: float = CONNECTION_MAX_AGE
) -> AsyncSqlStore:
    """Return the store of a database, for code on asyncio; else like :func:`open_store`."""
    if isinstance(target, AsyncEngine):
        sqlite.refuse_shared(target.sync_engine)
        return AsyncSqlStore(AsyncDatabase(target))
    url = _parse(target, _ASYNC_DRIVERS)
    kind = url.get_backend_name()
    if kind == "sqlite":
        return AsyncSqlStore(ThreadedDatabase(_open_database(url, max_age)))
    arguments, prepares = _arguments(url), options.PREPARE in url.query
    url = url.difference_update_query([options.PREPARE])
    if url.get_driver_name() == "psycopg":
        from keyguard.stores.sql.postgresql import AsyncPostgresConnection

        arguments["async_creator_fn"] = AsyncPostgresConnection.connect
    with _options_are_refused_clearly():
        reads = create_async_engine(url, connect_args=arguments, pool_recycle=max_age, **_READS)
        writes = create_async_engine(
            url,
            connect_args=arguments,
            pool_recycle=max_age,
            isolation_level=_LEVELS.get(kind),
            **_WRITES,
        )
    return AsyncSqlStore(AsyncDatabase(reads, writes, owned=True, prepares=prepares))


def _open_database(url: URL, max_age: float) -> SyncDatabase:
    kind = url.get_backend_name()
    if kind == "sqlite":
        _check_file(url)
    age = -1 if kind == "sqlite" else max_age
    arguments, prepares = _arguments(url), options.PREPARE in url.query
    url = url.difference_update_query([options.PREPARE])
    with _options_are_refused_clearly():
        reads = create_engine(url, connect_args=arguments, pool_recycle=age, **_READS)
        writes = create_engine(
            url,
            connect_args=arguments,
            pool_recycle=age,
            isolation_level=_LEVELS.get(kind),
            **_WRITES,
        )
    for engine in (reads, writes):
        if kind == "sqlite":
            sqlite.prepare(engine, writes=engine is writes)
        else:
            event.listen(engine, "do_connect", _connector(url))
    return SyncDatabase(reads, writes, owned=True, prepares=prepares)


def _arguments(url: URL) -> _Options:
    """Return what a driver is told beside the URL."""
    if url.get_driver_name() != "psycopg":
        return {}
    # Behind a pooler that shares connections, the name of a prepared statement may be that of
    # another client's statement: the answer would be of another key. So none is prepared.
    return {
        "client_encoding": "utf8",
        options.PREPARE: options.prepare_threshold(url.query),
    }


@contextmanager
def _options_are_refused_clearly() -> Generator[None]:
    try:
        yield
    except (ArgumentError, TypeError, ValueError):
        raise ConfigurationError(
            "what follows the ? in the database URL can't be used; see the driver's options"
        ) from None


def _connection_class(url: URL) -> Callable[..., object]:
    """Return what makes a connection whose every wait has a deadline."""
    if url.get_driver_name() == "psycopg":
        from keyguard.stores.sql.postgresql import PostgresConnection

        return PostgresConnection.connect
    from keyguard.stores.sql.mysql import MySqlConnection

    return MySqlConnection


def _connector(url: URL) -> Callable[..., object]:
    """Return SQLAlchemy's listener that connects, with the deadline of the call."""
    connection = _connection_class(url)

    def connect(
        dialect: Dialect,  # noqa: ARG001 - SQLAlchemy gives it
        entry: object,  # noqa: ARG001 - SQLAlchemy gives it
        arguments: list[object],
        named: dict[str, object],
    ) -> object:
        return connection(*arguments, **named)

    return connect


def _parse(url: str, drivers: dict[str, str]) -> URL:
    # SQLAlchemy's errors may quote the URL, from the middle of a password.
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):  # the host holds the end of a password
            raise ValueError
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "the database URL can't be read; one looks like sqlite:///keys.db or "
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
    used = parsed.set(drivername=f"{database}+{wanted}")
    options.check(used)
    return used


def _check_file(url: URL) -> None:
    path = url.database
    if url.host:
        raise ConfigurationError(
            "the URL of an SQLite file has three slashes before a path from the working directory "
            "(sqlite:///keys.db), and four before a path from the root (sqlite:////srv/keys.db)"
        )
    if path in sqlite.IN_MEMORY or "mode" in url.query:
        raise sqlite.in_memory()
    folder = Path(str(path)).absolute().parent
    if "uri" not in url.query and not folder.is_dir():
        raise ConfigurationError(f"there is no directory {folder} for the SQLite database")
