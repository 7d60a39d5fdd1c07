"""The schema: check that it is the one this keyguard needs, and bring it up to date."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    func,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from keyguard.exceptions import SchemaError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.stores.sql import migrations
from keyguard.stores.sql.column_types import ascii_string
from keyguard.stores.sql.errors import MIGRATE, is_busy, no_tables, place_of, read_only
from keyguard.stores.sql.server_settings import REFUSALS, refuse_dirty_reads
from keyguard.stores.sql.session import Session
from keyguard.stores.sql.sqlite import in_transaction
from keyguard.stores.sql.tables import TABLES

_VERSION = Table(
    "keyguard_version", MetaData(), Column("version_num", ascii_string(32), primary_key=True)
)
_READ_ONLY: ColumnElement[object] = literal_column("@@read_only")
_ROLES: Mapping[str, ColumnElement[object]] = {
    "sqlite": literal_column("0"),
    "postgresql": func.pg_is_in_recovery(),
    "mysql": _READ_ONLY,
    "mariadb": _READ_ONLY,
}
_CURRENT = {
    dialect: select(_VERSION.c.version_num, role.label("is_replica"))
    for dialect, role in _ROLES.items()
}
_PRIMARY = (0, "OFF")
"""What a primary answers when it is asked whether it is a replica."""

# Any number that no other program locks.
_POSTGRESQL_LOCK = int.from_bytes(b"keyguard", "big") >> 1
_LONGEST_WAIT = 600


async def check(session: Session) -> None:
    """Refuse a schema that is not at this keyguard's revision, and a server that is a replica."""
    await session.call(_check_version, *_PRIMARY)


async def check_replica(session: Session) -> None:
    """Refuse a schema that is not at this keyguard's revision, and sessions with dirty reads."""
    await session.call(refuse_dirty_reads)
    await session.call(_check_version)


async def check_all(session: Session) -> None:
    """Refuse a schema that is not at this keyguard's revision, or lacks a table."""
    await session.call(_check_version)
    await session.call(_check_tables)


async def migrate(session: Session, *, apart: bool) -> None:
    """Bring the schema up to date.

    Args:
        session: The session.
        apart: Whether to close the connection afterwards. A migration is often run on an event loop
            of its own, and a connection must not outlive its loop.
    """
    await session.call(_migrate)
    if apart:
        await session.commit()
        await session.call(Connection.invalidate)


def _schema_of(connection: Connection) -> str | None:
    """Return the schema to which a host's engine translates keyguard's tables, or None."""
    return connection.schema_for_object(_VERSION)


def _check_version(connection: Connection, *roles: object) -> None:
    """Refuse a schema that does not fit.

    Args:
        connection: The connection.
        roles: The roles that the server may report; without any, all are accepted.
    """
    _refuse_settings(connection)
    try:  # usually one query suffices
        row = connection.execute(_CURRENT[connection.dialect.name]).first()
    except (OperationalError, ProgrammingError) as failure:
        if failure.connection_invalidated or _has_version(connection):
            raise
        row = None
    if row is None:
        raise no_tables()
    version, role = row
    if roles and role not in roles:
        raise read_only(place_of(connection.engine.url))
    _refuse_newer(version)
    if version != migrations.HEAD:
        raise SchemaError(
            f"keyguard's tables are at revision {version}, and this keyguard needs "
            f"{migrations.HEAD}; {MIGRATE}"
        )


def _check_tables(connection: Connection) -> None:
    inspector, schema = inspect(connection), _schema_of(connection)
    for table in TABLES.tables:
        if not inspector.has_table(table, schema):
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


def _refuse_settings(connection: Connection) -> None:
    if refuse := REFUSALS.get(connection.dialect.name):
        refuse(connection)


def _has_version(connection: Connection) -> bool:
    return inspect(connection).has_table(_VERSION.name, _schema_of(connection))


def _version(connection: Connection) -> str | None:
    _refuse_settings(connection)
    if not _has_version(connection):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _migrate(connection: Connection) -> None:
    # Only a migration pays for these imports.
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from keyguard.stores.sql.migrations.operations import TranslatedOperations

    schema = _schema_of(connection)
    with _LOCKS[connection.dialect.name](connection):
        version = _version(connection)
        if version is not None:
            _refuse_newer(version)
        scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
        # Alembic would name the primary key, and MySQL warns of such a name.
        _VERSION.create(connection, checkfirst=True)
        context = MigrationContext.configure(
            connection, opts={"version_table": _VERSION.name, "version_table_schema": schema}
        )
        for script in reversed([*scripts.iterate_revisions("head", version)]):
            script.module.upgrade(TranslatedOperations(context, schema))
            context.stamp(scripts, script.revision)


@contextmanager
def _postgresql(connection: Connection) -> Generator[None]:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRESQL_LOCK})
    yield


@contextmanager
def _mysql(connection: Connection) -> Generator[None]:
    # The lock's name counts for the whole server and takes 64 characters: hence the hash.
    name = "CONCAT('keyguard.', MD5(DATABASE()))"
    wait = _LONGEST_WAIT if (left := remaining()) is None else left
    if not connection.scalar(text(f"SELECT GET_LOCK({name}, :wait)"), {"wait": wait}):
        raise StoreUnavailableError(
            "another process has been migrating keyguard's tables for too long; "
            "see what it is doing, then try again"
        )
    try:
        yield
        # The lock belongs to the connection, so commit before the next process gets it.
        connection.commit()
    finally:
        connection.execute(text(f"DO RELEASE_LOCK({name})"))


@contextmanager
def _sqlite(connection: Connection) -> Generator[None]:
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql("PRAGMA busy_timeout = 500")
    try:
        # A host may have begun a transaction already, of a kind that can't wait for a lock.
        if in_transaction(connection):
            connection.exec_driver_sql("COMMIT")
        # Wait in small portions: SQLite does not notice Ctrl-C while it waits.
        for portion in range(2 * _LONGEST_WAIT):
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                break
            except OperationalError as failure:
                if portion + 1 == 2 * _LONGEST_WAIT or not is_busy(failure):
                    raise
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


_LOCKS: Mapping[str, Callable[[Connection], AbstractContextManager[None]]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
    "sqlite": _sqlite,
}
