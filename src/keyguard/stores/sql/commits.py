"""How a commit is made: one transaction, behind all others.

The first statement takes the lock of the one row of ``keyguard_feed``, and it is held to the end.
So commits follow one another: what is checked stays as it is, and the ids of entries rise in the
order in which they can be seen, with no gap between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from keyguard.core.keys.commit import Change, Commit
from keyguard.core.keys.records import Organization
from keyguard.exceptions import CorruptDataError, RefusedError
from keyguard.stores.sql.flows import Flow, begin, many, writing
from keyguard.stores.sql.rows import (
    changed_columns,
    entry_columns,
    organization_columns,
    record_columns,
)
from keyguard.stores.sql.tables import AUDIT, FEED, KEYS, ORGANIZATIONS

__all__ = ["CHANNEL", "commit"]

CHANNEL = "keyguard"
"""On which PostgreSQL tells of commits; each database has its own."""


@writing
def commit(commit: Commit) -> Flow[bool]:
    """Make all changes of a commit, or none."""
    try:
        done = yield from _made(commit)
    except IntegrityError:
        yield Connection.rollback
        yield from _refuse_what_is_taken(commit)
        raise
    if not done:
        yield Connection.rollback
    return done


def _made(commit: Commit) -> Flow[bool]:
    yield begin
    last = yield partial(_claimed, count=len(commit.entries))
    organizations, keys = _by_table(commit.changes)
    expected: dict[Table, dict[str, int]] = {ORGANIZATIONS: {}, KEYS: {}}
    for record in (*commit.unchanged, *(change.before for change in commit.changes)):
        table = ORGANIZATIONS if isinstance(record, Organization) else KEYS
        expected[table][record.id] = record.version
    for table, versions in expected.items():
        if versions and not (yield from _still_stand(table, versions)):
            return False
    if commit.organizations:
        yield many(insert(ORGANIZATIONS), [organization_columns(o) for o in commit.organizations])
    if commit.keys:
        yield many(insert(KEYS), [record_columns(record) for record in commit.keys])
    for table, changes in ((ORGANIZATIONS, organizations), (KEYS, keys)):
        if not (yield from _changed(table, changes)):
            return False
    if commit.entries:
        first = last - len(commit.entries) + 1
        entries = [entry_columns(entry, first + n) for n, entry in enumerate(commit.entries)]
        yield many(insert(AUDIT), entries)
        yield partial(_notify, last=last)
    return True


def _claimed(connection: Connection, count: int) -> int:
    """Wait for those before, and return the id of the last of so many entries."""
    claim = update(FEED).where(FEED.c.id == 1).values(last=FEED.c.last + count)
    if connection.dialect.update_returning:
        last = connection.execute(claim.returning(FEED.c.last)).scalar_one_or_none()
    else:
        # On MySQL too the snapshot is of after the wait: it is taken at the first plain SELECT.
        connection.execute(claim)
        last = connection.execute(select(FEED.c.last).where(FEED.c.id == 1)).scalar_one_or_none()
    if last is None:
        raise CorruptDataError(
            "the table keyguard_feed has lost its row; restore it from a backup, or insert one "
            "with id 1 and, as last, the largest id of keyguard_audit, or 0"
        )
    return int(last)


def _still_stand(table: Table, versions: Mapping[str, int]) -> Flow[bool]:
    # Keys are locked in one order here and where their use is noted, so that no two wait in a ring.
    found = select(table.c.id, table.c.version).where(table.c.id.in_(sorted(versions)))
    rows = (yield found.order_by(table.c.id).with_for_update()).all()
    return {row.id: row.version for row in rows} == versions


def _changed(table: Table, changes: Iterable[Change]) -> Flow[bool]:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for change in changes:
        columns = changed_columns(change.columns())
        new = {f"new_{name}": value for name, value in columns.items()}
        row = {"which": change.id, "old_version": change.before.version, **new}
        groups.setdefault(tuple(sorted(columns)), []).append(row)
    for names, rows in groups.items():
        statement = (
            update(table)
            .where(
                table.c.id == bindparam("which", type_=table.c.id.type),
                table.c.version == bindparam("old_version", type_=table.c.version.type),
            )
            .values({name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names})
        )
        done = yield many(statement, rows)
        if done.rowcount not in (len(rows), -1):  # -1: the driver can't tell
            return False
    return True


def _notify(connection: Connection, last: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, str(last))))


def _refuse_what_is_taken(commit: Commit) -> Flow[None]:
    for organization in commit.organizations:
        for column, name in (("slug", organization.slug), ("id", organization.id)):
            found = select(ORGANIZATIONS.c.id).where(ORGANIZATIONS.c[column] == name)
            if (yield found).first() is not None:
                raise RefusedError(f"organization {name!r} exists already") from None
    ids = [record.key.id for record in commit.keys]
    if ids:
        taken = set((yield select(KEYS.c.id).where(KEYS.c.id.in_(ids))).scalars())
        for key_id in ids:
            if key_id in taken:
                raise RefusedError(f"key {key_id!r} exists already") from None


def _by_table(changes: Iterable[Change]) -> tuple[list[Change], list[Change]]:
    organizations: list[Change] = []
    keys: list[Change] = []
    for change in changes:
        (organizations if isinstance(change.before, Organization) else keys).append(change)
    return organizations, keys
