"""Opens the store of a database URL, with keyguard's own engines, or that of a host's engine."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.stores.base import AsyncReplica, Replica
from keyguard.stores.facade import SyncReplica
from keyguard.stores.sql import options, sqlite
from keyguard.stores.sql.async_database import AsyncDatabase
from keyguard.stores.sql.database import Database, SyncDatabase
from keyguard.stores.sql.engines import READS, WRITES, Engines, engines
from keyguard.stores.sql.store import AsyncSqlStore, SqlReplica, SqlStore
from keyguard.stores.sql.threaded import ThreadedDatabase
from keyguard.stores.urls import ESCAPES, EXTRAS

_DRIVERS = {
    "sqlite": "pysqlite",
    "postgresql": "psycopg",
    "mysql": "pymysql",
    "mariadb": "pymysql",
}
_ASYNC_DRIVERS = _DRIVERS | {"mysql": "asyncmy", "mariadb": "asyncmy"}


def open_store(target: str | Engine, patience: Patience = PATIENCE) -> SqlStore:
    """Return the store of a database, for sync code.

    Args:
        target: ``sqlite:///keys.db``, ``postgresql://...``, ``mysql://...``, ``mariadb://...``, or
            an engine, which the store does not dispose of.
        patience: How long connecting to the server of a URL may take, and how long its connections
            last.

    Raises:
        ConfigurationError: keyguard can't use the URL or the engine.
        MissingExtraError: The driver is not installed.
    """
    return SqlStore(_database(target, patience, is_replica=False))


def open_async_store(target: str | AsyncEngine, patience: Patience = PATIENCE) -> AsyncSqlStore:
    """Return the store of a database, for code on asyncio. See :func:`open_store`."""
    return AsyncSqlStore(_async_database(target, patience, is_replica=False))


def open_replica(target: str | Engine, patience: Patience = PATIENCE) -> Replica:
    """Return a read replica of a database, for sync code.

    Args:
        target: ``postgresql://...``, ``mysql://...``, ``mariadb://...``, or an engine, which the
            replica does not dispose of.
        patience: As for :func:`open_store`.

    Raises:
        ConfigurationError: keyguard can't use the URL or the engine, or it is for SQLite.
        MissingExtraError: The driver is not installed.
    """
    return SyncReplica(SqlReplica(_database(target, patience, is_replica=True)))


def open_async_replica(target: str | AsyncEngine, patience: Patience = PATIENCE) -> AsyncReplica:
    """Return a read replica for code on asyncio. See :func:`open_replica`."""
    return SqlReplica(_async_database(target, patience, is_replica=True))


def _database(target: str | Engine, patience: Patience, *, is_replica: bool) -> SyncDatabase:
    if isinstance(target, Engine):
        if not is_replica:
            sqlite.refuse_shared(target)
        return SyncDatabase(target, is_replica=is_replica)
    url = _parse(target, _DRIVERS)
    if url.get_backend_name() == "sqlite":
        return _open_file(url, is_replica=is_replica)
    with _options_are_refused_clearly(url):
        made = engines(url, patience, create_engine)
    return SyncDatabase(made, prepares=options.PREPARE in url.query, is_replica=is_replica)


def _async_database(target: str | AsyncEngine, patience: Patience, *, is_replica: bool) -> Database:
    if isinstance(target, AsyncEngine):
        if not is_replica:
            sqlite.refuse_shared(target.sync_engine)
        return AsyncDatabase(target, is_replica=is_replica)
    url = _parse(target, _ASYNC_DRIVERS)
    if url.get_backend_name() == "sqlite":
        return ThreadedDatabase(_open_file(url, is_replica=is_replica))
    make = partial(engines, url, patience, create_async_engine)
    with _options_are_refused_clearly(url):
        made = make()
    prepares = options.PREPARE in url.query
    return AsyncDatabase(made, make, prepares=prepares, is_replica=is_replica)


def _open_file(url: URL, *, is_replica: bool) -> SyncDatabase:
    _check_file(url)
    with _options_are_refused_clearly(url):
        # A look-up begins no transaction, so none is rolled back when its connection comes back.
        reads = create_engine(url, pool_reset_on_return=None, **READS)
        writes = create_engine(url, **WRITES)
    sqlite.prepare(reads, writes=False)
    sqlite.prepare(writes, writes=True)
    return SyncDatabase(Engines(reads, writes), is_replica=is_replica)


@contextmanager
def _options_are_refused_clearly(url: URL) -> Generator[None]:
    try:
        yield
    except (ArgumentError, TypeError, ValueError):
        if not url.query:  # so it is an option of keyguard's own
            raise ConfigurationError(
                f"SQLAlchemy {sqlalchemy.__version__} is not a version that keyguard can use: "
                "pip install --upgrade 'keyguard[sql]'"
            ) from None
        raise ConfigurationError(
            "what follows the ? in the database URL can't be used; see the driver's options"
        ) from None


def _parse(url: str, drivers: dict[str, str]) -> URL:
    # SQLAlchemy's errors may quote the URL, from the middle of a password.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "the database URL can't be read; one looks like sqlite:///keys.db or "
            f"postgresql://user:password@host:5432/database, where {ESCAPES}"
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
    if database in EXTRAS:
        try:
            importlib.import_module(wanted)
        except ImportError as failure:
            raise MissingExtraError(*EXTRAS[database]) from failure
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
