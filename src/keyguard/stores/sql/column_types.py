"""Column types that mean the same on every database.

Migrations use them too. Once one is released, a type here does not change: add another.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    ColumnElement,
    DateTime,
    Dialect,
    String,
    Text,
    func,
    literal_column,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

# SQLAlchemy calls one database by two names, depending on the URL.
MYSQL = ("mysql", "mariadb")

# Not every MySQL server has foreign keys and compares emoji exactly by default.
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in MYSQL
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"))
}
"""The options of each table."""

CLUSTERED: dict[str, Any] = {"sqlite_with_rowid": False, **TABLE_OPTIONS}
"""The options of a table whose rows lie in the order of its primary key, on SQLite too."""


def ascii_string(length: int) -> TypeEngine[str]:
    """Return the type of an ASCII string, compared and ordered byte by byte."""
    return (
        String(length)
        .with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *MYSQL)
        .with_variant(String(length, collation="C"), "postgresql")
    )


def ascii_text() -> TypeEngine[str]:
    """Return the type of a long ASCII text, up to 16 MB."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), *MYSQL)


def unicode_string(length: int) -> TypeEngine[str]:
    """Return the type of a string of any characters, compared and ordered by code points."""
    return (
        String(length)
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), *MYSQL)
        .with_variant(String(length, collation="C"), "postgresql")
    )


class _ReadInUtc(TIMESTAMP):
    """PostgreSQL's type of an instant.

    PostgreSQL would write an instant in the session's time zone, where the last hours of the year
    9999 may lie in the next one, which psycopg can't read.
    """

    cache_ok = True
    render_bind_cast = True  # as SQLAlchemy's own type for psycopg

    def adapt(self, cls: type[Any], **kw: object) -> Any:  # noqa: ARG002 - a driver's own type
        """Return this type, whatever the driver."""
        return _ReadInUtc(timezone=True)

    def column_expression(self, colexpr: ColumnElement[datetime]) -> ColumnElement[datetime]:
        """Return what reads an instant as the time in UTC, without a time zone."""
        return func.timezone(literal_column("'UTC'"), colexpr)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant with microseconds, written in UTC.

    A result holds what the driver returns, which :mod:`~keyguard.stores.sql.rows` decodes: only the
    code that decodes a row can say whose value is wrong.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[str]:
        """Return the column type of a database."""
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        if dialect.name == "sqlite":
            return String(32)
        return _ReadInUtc(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        """Return an instant as the database keeps it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        instant = value.astimezone(UTC)
        if dialect.name in MYSQL:
            return instant.replace(tzinfo=None)
        if dialect.name == "sqlite":
            # All texts have the same width, so they sort as the instants do.
            return instant.isoformat(timespec="microseconds")
        return instant


class _Unprinted(str):
    """A string that logs of statements and their parameters show as ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Digest(TypeDecorator[str]):
    """The stored form of a token, which SQL echo shows as ``***``."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return the column type of a database."""
        return dialect.type_descriptor(ascii_string(255))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the same string, hidden from logs."""
        return None if value is None else _Unprinted(value)
