"""Statements that make rows or change existing ones, for each kind of database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from keyguard.stores.sql.column_types import MYSQL

Given: TypeAlias = ReadOnlyColumnCollection[str, Any]
"""The values of the rows that can't be made, by column."""

Upsert: TypeAlias = mysql.Insert | postgresql.Insert | sqlite.Insert


def upserted(
    dialect: str, table: Table, changes: Callable[[Given], dict[str, ColumnElement[Any]]]
) -> Upsert:
    """Return the statement that makes rows, or changes existing ones.

    Args:
        dialect: SQLAlchemy's name for the kind of database.
        table: The table.
        changes: Returns the changes of an existing row; if there are none, it stays as it is.
    """
    if dialect in MYSQL:
        into = mysql.insert(table)
        # IGNORE would take shared locks, which then wait for each other.
        first = into.inserted[table.primary_key.columns[0].name]
        return into.on_duplicate_key_update(changes(into.inserted) or {first.name: first})
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    upsert: sqlite.Insert | postgresql.Insert = insert(table)
    changed = changes(upsert.excluded)
    if not changed:
        return upsert.on_conflict_do_nothing()
    return upsert.on_conflict_do_update(index_elements=[*table.primary_key], set_=changed)
