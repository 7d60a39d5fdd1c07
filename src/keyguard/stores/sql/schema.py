"""The schema: whether it is the one that this keyguard works with, and how it becomes that."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, Table, inspect, select, text
from sqlalchemy.exc import OperationalError

from keyguard.exceptions import SchemaError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.stores.sql import migrations
from keyguard.stores.sql.columns import ascii_string
from keyguard.stores.sql.errors import MIGRATE, no_tables
from keyguard.stores.sql.flows import Flow, reading, writing
from keyguard.stores.sql.tables import TABLES

__all__ = ["check", "check_all", "migrate"]

_VERSION = Table(
    "keyguard_version", MetaData(), Column("version_num", ascii_string(32), primary_key=True)
)

# Any number will do, as long as no other program locks the same one.
_POSTGRESQL_LOCK = int.from_bytes(b"keyguard", "big") >> 1
_LONGEST_WAIT = 600


@reading
def check() -> Flow[None]:
    """Refuse a schema that is not of this version."""
    yield _check_version


@reading
def check_all() -> Flow[None]:
    """Refuse a schema that is not of this version, or lacks a table."""
    yield _check_version
    yield _check_tables


@writing
def migrate(*, apart: bool) -> Flow[None]:
    """Bring the schema up to date.

    Args:
        apart: Whether to close the connection afterwards: a migration is often run on an event loop
            of its own, on which connections must not stay.
    """
    yield _migrate
    if apart:
        yield Connection.commit
        yield Connection.invalidate


def _check_version(connection: Connection) -> None:
    version = _version(connection)
    if version is None:
        raise no_tables()
    _refuse_newer(version)
    if version != migrations.HEAD:
        raise SchemaError(
            f"keyguard's tables are at revision {version}, and this keyguard needs "
            f"{migrations.HEAD}; {MIGRATE}"
        )


def _check_tables(connection: Connection) -> None:
    inspector = inspect(connection)
    for table in TABLES.tables:
        if not inspector.has_table(table):
            raise SchemaError(
                f"the table {table} is missing, though keyguard made it once; restore it from a "
                f"backup, or drop keyguard_version as well and {MIGRATE}"
            )


def _refuse_newer(version: str) -> None:
    if version not in migrations.REVISIONS:
        raise SchemaError(
            f"keyguard's tables are at revision {version}, which was made by a newer keyguard; "
            "upgrade keyguard"
        )


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _migrate(connection: Connection) -> None:
    # Only who migrates pays for it.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    with _LOCKS[connection.dialect.name](connection):
        version = _version(connection)
        if version is not None:
            _refuse_newer(version)
        scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
        # Made here, for Alembic gives the primary key a name, of which MySQL warns.
        _VERSION.create(connection, checkfirst=True)
        context = MigrationContext.configure(connection, opts={"version_table": _VERSION.name})
        for script in reversed([*scripts.iterate_revisions("head", version)]):
            script.module.upgrade(Operations(context))
            context.stamp(scripts, script.revision)


@contextmanager
def _postgresql(connection: Connection) -> Generator[None]:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRESQL_LOCK})
    yield


@contextmanager
def _mysql(connection: Connection) -> Generator[None]:
    # The lock's name counts for the whole server, and is cut off nowhere: hence the hash.
    name = "CONCAT('keyguard.', MD5(DATABASE()))"
    wait = _LONGEST_WAIT if (left := remaining()) is None else left
    if not connection.scalar(text(f"SELECT GET_LOCK({name}, :wait)"), {"wait": wait}):
        raise StoreUnavailableError(
            "another process has been migrating keyguard's tables for too long; "
            "see what it is doing, then try again"
        )
    try:
        yield
        # Before the next one looks. The lock is the connection's and not the transaction's.
        connection.commit()
    finally:
        connection.execute(text(f"DO RELEASE_LOCK({name})"))


@contextmanager
def _sqlite(connection: Connection) -> Generator[None]:
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql("PRAGMA busy_timeout = 500")
    try:
        # A host may have begun a transaction already, of a kind that can't wait for others.
        if _in_transaction(connection):
            connection.exec_driver_sql("COMMIT")
        # In small portions: SQLite itself does not hear Ctrl-C while it waits.
        for portion in range(2 * _LONGEST_WAIT):
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                break
            except OperationalError:
                if portion + 1 == 2 * _LONGEST_WAIT:
                    raise
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


def _in_transaction(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    return bool(driver is not None and driver.in_transaction)


_LOCKS: Mapping[str, Callable[[Connection], AbstractContextManager[None]]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
    "sqlite": _sqlite,
}
