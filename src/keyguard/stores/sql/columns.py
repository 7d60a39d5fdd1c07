"""Column types that mean the same on every database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import TIMESTAMP, DateTime, Dialect, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["Digest", "UtcDateTime", "ascii_string", "ascii_text", "unicode_string"]

# SQLAlchemy calls one database by two names, depending on the URL.
MYSQL = ("mysql", "mariadb")


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
    """Return the type of a string of any characters, compared exactly."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), *MYSQL
    )


class UtcDateTime(TypeDecorator[Any]):
    """An instant with microseconds: aware datetimes in, aware datetimes in UTC out.

    A value in the database that is no instant comes out as it is, for the models to refuse: only
    who decodes the row knows whose it is.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of a database."""
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        if dialect.name == "sqlite":
            return String(32)
        return TIMESTAMP(timezone=True)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return an instant in the database's own form."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        instant = value.astimezone(UTC)
        if dialect.name in MYSQL:
            return instant.replace(tzinfo=None)
        if dialect.name == "sqlite":
            # One width for all, so that the texts sort as the instants do.
            return instant.isoformat(timespec="microseconds")
        return instant

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the instant that the database holds."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                return value
        elif isinstance(value, datetime) and dialect.name in MYSQL:
            return value.replace(tzinfo=UTC)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        return value


class _Unprinted(str):
    """A string that a log of statements and their parameters does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Digest(TypeDecorator[str]):
    """The stored form of a token, which SQL echo shows as ``***``."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of a database."""
        return dialect.type_descriptor(ascii_string(255))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the same string, unprinted."""
        return None if value is None else _Unprinted(value)
