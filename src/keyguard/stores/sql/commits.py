"""Commits: one transaction each, one after the other.

The first statement locks the one row of ``keyguard_feed`` until the transaction ends. So commits
follow one another: what a commit has checked stays as it is, and the ids of entries rise without a
gap, in the order in which commits become visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import NamedTuple

from sqlalchemy import Table, bindparam, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.commit import Change, Commit, Ending
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.exceptions import CorruptDataError, RefusedError
from keyguard.stores.sql.deletions import delete_keys
from keyguard.stores.sql.queries import find_key, read_rows
from keyguard.stores.sql.rows import (
    changed_columns,
    entry_columns,
    organization_columns,
    record_columns,
    request_columns,
    scopes_from,
)
from keyguard.stores.sql.session import Session, Values, begin
from keyguard.stores.sql.tables import AUDIT, FEED, KEYS, ORGANIZATIONS, REQUESTS

CHANNEL = "keyguard"
"""The channel on which PostgreSQL tells of commits; each database has its own."""

_LARGEST_VERSION = 2**31 - 1

_MARK_SIZE = 8
"""The bytes of an entry's mark, by which a reader of the feed knows the trail again."""


async def apply(session: Session, commit: Commit) -> bool:
    """Make all changes of a commit, or none.

    Returns:
        Whether the changes were made. They were not if a record changed since it was read.

    Raises:
        RefusedError: The slug or id of a new organization, or the id of a new key, is taken.
    """
    try:
        done = await _made(session, commit)
    except IntegrityError:
        await session.rollback()
        await _refuse_what_is_taken(session, commit)
        raise
    if not done:
        await session.rollback()
    return done


async def end(session: Session, ending: Ending) -> tuple[str, ...] | None:
    """Revoke keys or disable an organization, even if other changes are made to them meanwhile.

    It waits for earlier commits before it reads, and later ones wait for it. So it checks no
    versions.

    Returns:
        The ids of the records that this call ended; None if the conditions of the ending do not
        hold.
    """
    await session.call(begin)
    await claim(session, 0)
    ended = await _ended(session, ending)
    if not ended:
        await session.rollback()
    return ended


async def _ended(session: Session, ending: Ending) -> tuple[str, ...] | None:
    if ending.authority is not None:
        asking = await find_key(session, ending.authority)
        if asking is None or not asking.works(ending.at):
            return None
    if not await _is_witnessed(session, ending.witnesses):
        return None
    table = ORGANIZATIONS if ending.ends_organization else KEYS
    owner = ORGANIZATIONS.c.id if ending.ends_organization else KEYS.c.organization_id
    named = KEYS.c.family if ending.ends_family else table.c.id
    ends = [named == ending.subject, table.c[ending.ended_at].is_(None)]
    if ending.within is not None:
        ends.append(owner == ending.within)
    columns = [table.c.id, owner.label("owner"), table.c.scopes]
    found = select(*(columns if ending.without else columns[:2])).where(*ends)
    # In the order in which marks of use lock keys, so that the two never wait in a circle.
    rows = await read_rows(session, found.order_by(table.c.id).with_for_update())
    if ending.without and any(ending.without & scopes_from(row[2]) for row in rows):
        return None
    if rows:
        changes = changed_columns(ending.fields)
        # No version keeps a key from being revoked, not even the largest.
        version = table.c.version
        changes["version"] = case((version < _LARGEST_VERSION, version + 1), else_=1)
        await session.execute(update(table).where(*ends).values(changes))
        place = await claim(session, len(rows))
        # Only the id of a row that can't be decoded is known.
        entries = [ending.entry(str(row[0]), str(row[1]) if row[1:] else "") for row in rows]
        await tell(session, entries, place)
    return tuple(str(row[0]) for row in rows)


async def _is_witnessed(session: Session, witnesses: Sequence[Key]) -> bool:
    """Return whether one of several keys still has its version. Only commits change versions."""
    if not witnesses:
        return True
    read = {key.id: key.version for key in witnesses}
    found = select(KEYS.c.id, KEYS.c.version).where(KEYS.c.id.in_(read))
    return any(read[row.id] == row.version for row in await session.execute(found))


async def _made(session: Session, commit: Commit) -> bool:
    await session.call(begin)
    place = await claim(session, len(commit.entries))
    for kind, table in _TABLES.items():
        versions = {
            record.id: record.version
            for record in (
                *commit.unchanged,
                *(change.before for change in commit.changes),
                *commit.deleted,
            )
            if isinstance(record, kind)
        }
        if versions and not await _still_stand(session, table, versions):
            return False
    if not await _is_witnessed(session, commit.witnesses):
        return False
    if commit.organizations:
        await session.execute(
            insert(ORGANIZATIONS), [organization_columns(owner) for owner in commit.organizations]
        )
    if commit.keys:
        await session.execute(insert(KEYS), [record_columns(record) for record in commit.keys])
    if commit.requests:
        await session.execute(insert(REQUESTS), [*map(request_columns, commit.requests)])
    for kind, table in _TABLES.items():
        changes = [change for change in commit.changes if isinstance(change.before, kind)]
        if not await _changed(session, table, changes):
            return False
    if commit.deleted and not await delete_keys(session, commit):
        return False
    if commit.entries:
        await tell(session, commit.entries, place)
    return True


class _Place(NamedTuple):
    """The place of new entries in the audit trail: the id of the last, and their mark."""

    last: int
    mark: str


async def claim(session: Session, count: int) -> _Place:
    """Wait for earlier commits, make later ones wait, and claim a place for a number of entries."""
    mark = token_hex(_MARK_SIZE)
    claim = update(FEED).where(FEED.c.id == 1)
    claim = claim.values(last=FEED.c.last + count, mark=mark if count else FEED.c.mark)
    if session.dialect.update_returning:
        claimed = await session.execute(claim.returning(FEED.c.last))
    else:
        # MySQL takes its snapshot at the first plain SELECT, so this too reads what the wait ended
        # with.
        await session.execute(claim)
        claimed = await session.execute(select(FEED.c.last).where(FEED.c.id == 1))
    last: int | None = claimed.scalar_one_or_none()
    if last is None:
        raise CorruptDataError(
            "the table keyguard_feed has lost its row; restore it from a backup, or insert one "
            "with id 1 and, as last and mark, the largest id of keyguard_audit and its mark, or 0 "
            "and ''"
        )
    return _Place(last, mark)


async def tell(session: Session, entries: Sequence[AuditEntry], place: _Place) -> None:
    """Add entries to the audit trail, in the place that was claimed for them."""
    first = place.last - len(entries) + 1
    rows = [entry_columns(entry, first + n, place.mark) for n, entry in enumerate(entries)]
    await session.execute(insert(AUDIT), rows)
    if session.dialect.name == "postgresql":
        await session.execute(select(func.pg_notify(CHANNEL, str(place.last))))


async def _still_stand(session: Session, table: Table, versions: Mapping[str, int]) -> bool:
    # Commits and marks of use lock keys in the same order, so they never wait for each other in a
    # circle.
    found = select(table.c.id, table.c.version).where(table.c.id.in_(sorted(versions)))
    rows = (await session.execute(found.order_by(table.c.id).with_for_update())).all()
    return {row.id: row.version for row in rows} == versions


async def _changed(session: Session, table: Table, changes: Iterable[Change]) -> bool:
    groups: dict[tuple[str, ...], list[Values]] = {}
    for change in changes:
        old = {"which": change.id, "old_version": change.before.version}
        columns = changed_columns(change.columns())
        if isinstance(change.after, KeyRequest):
            columns["open_until"] = change.after.open_until
        new = {f"new_{name}": value for name, value in columns.items()}
        groups.setdefault(tuple(sorted(columns)), []).append(old | new)
    for names, rows in groups.items():
        statement = (
            update(table)
            .where(
                table.c.id == bindparam("which", type_=table.c.id.type),
                table.c.version == bindparam("old_version", type_=table.c.version.type),
            )
            .values({name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names})
        )
        done = await session.execute(statement, rows)
        if done.rowcount not in (len(rows), -1):  # -1: the driver does not know
            return False
    return True


async def _refuse_what_is_taken(session: Session, commit: Commit) -> None:
    for organization in commit.organizations:
        for column, name in (("slug", organization.slug), ("id", organization.id)):
            found = select(ORGANIZATIONS.c.id).where(ORGANIZATIONS.c[column] == name)
            if (await session.execute(found)).first() is not None:
                raise RefusedError(f"organization {name!r} exists already") from None
    for what, table, ids in (
        ("key", KEYS, [record.key.id for record in commit.keys]),
        ("request", REQUESTS, [record.request.id for record in commit.requests]),
    ):
        found = select(table.c.id).where(table.c.id.in_(ids))
        taken: set[str] = {*(await session.execute(found)).scalars()}
        for record_id in ids:
            if record_id in taken:
                raise RefusedError(f"{what} {record_id!r} exists already") from None


_TABLES: Mapping[type, Table] = {Organization: ORGANIZATIONS, Key: KEYS, KeyRequest: REQUESTS}
