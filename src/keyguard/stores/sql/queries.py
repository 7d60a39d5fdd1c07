"""The look-ups of the SQL store, and the two small changes that are no commit.

Each operation returns what the store's method of the same name returns. A change is one conditional
statement or a commit (:mod:`~keyguard.stores.sql.commits`), so two concurrent changes can't both
win, and no record that was read is written back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    bindparam,
    cast,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import DBAPIError

from keyguard.core.keys.records import KeyRecord, Organization, Use
from keyguard.core.keys.requests import RequestRecord
from keyguard.stores.base import News, Reading, storable_address
from keyguard.stores.sql.errors import is_unreadable
from keyguard.stores.sql.rows import (
    ORGANIZATION_COLUMNS,
    RECORD_COLUMNS,
    REQUEST_COLUMNS,
    organization_from,
    record_from,
    request_record_from,
)
from keyguard.stores.sql.session import AnyRow, Query, Session, begin_hastily
from keyguard.stores.sql.tables import AUDIT, FEED, KEYS, ORGANIZATIONS, REQUESTS

_MOST_NEWS = 1000
_POSITION = re.compile(r"([0-9]{1,18})-([0-9a-f]*)\Z")

# What an id or a slug is made of. Databases treat anything else differently: trailing spaces, NUL,
# characters that the column's character set lacks.
NAME = re.compile(r"[0-9A-Za-z_-]{1,63}\Z")

ORGANIZATION = select(*ORGANIZATION_COLUMNS)
_RECORD = (
    select(*RECORD_COLUMNS)
    .outerjoin_from(KEYS, ORGANIZATIONS)
    .where(KEYS.c.id == bindparam("which", type_=KEYS.c.id.type))
)
_LAST = select(FEED.c.last, FEED.c.mark).where(FEED.c.id == 1)
# In one statement, so that the record and the position are of the same instant.
_READING = (
    select(FEED.c.last, FEED.c.mark, *RECORD_COLUMNS)
    .select_from(
        FEED.outerjoin(KEYS, KEYS.c.id == bindparam("which", type_=KEYS.c.id.type)).outerjoin(
            ORGANIZATIONS, KEYS.c.organization_id == ORGANIZATIONS.c.id
        )
    )
    .where(FEED.c.id == literal_column("1"))
)
_MARK = (
    update(KEYS)
    .where(
        KEYS.c.id == bindparam("which", type_=KEYS.c.id.type),
        or_(
            KEYS.c.last_used_at.is_(None),
            KEYS.c.last_used_at < bindparam("at", type_=KEYS.c.last_used_at.type),
        ),
    )
    .values(
        last_used_at=bindparam("at", type_=KEYS.c.last_used_at.type),
        last_used_address=bindparam("address", type_=KEYS.c.last_used_address.type),
    )
)


async def find_organization(session: Session, name: str) -> Organization | None:
    """Find an organization by id or slug."""
    if not NAME.match(name):
        return None
    # An id has an underscore, a slug has none.
    column = ORGANIZATIONS.c.id if "_" in name else ORGANIZATIONS.c.slug
    row = (await session.execute(ORGANIZATION.where(column == name))).one_or_none()
    return None if row is None else organization_from(row)


async def find_key(session: Session, key_id: str) -> KeyRecord | None:
    """Find a key with its organization."""
    if not NAME.match(key_id):
        return None
    row = await session.look_up(_RECORD, {"which": key_id})
    return None if row is None else record_from(row)


async def read_key(session: Session, key_id: str) -> Reading:
    """Find a key with its organization on a replica, and the replica's position in the feed."""
    row = None
    if NAME.match(key_id):
        row = await session.look_up(_READING, {"which": key_id})
    if row is None:
        return Reading(None, "")
    last, mark, *record = row
    return Reading(None if record[0] is None else record_from(record), f"{last}-{mark}")


async def find_existing(session: Session, key_ids: Sequence[str]) -> frozenset[str]:
    """Find which ids belong to keys."""
    possible = sorted({key_id for key_id in key_ids if NAME.match(key_id)})
    if not possible:
        return frozenset()
    found = await session.execute(select(KEYS.c.id).where(KEYS.c.id.in_(possible)))
    return frozenset(found.scalars())


async def find_request(session: Session, request_id: str) -> RequestRecord | None:
    """Find a request for a key."""
    if not NAME.match(request_id):
        return None
    found = select(*REQUEST_COLUMNS, REQUESTS.c.digest).where(REQUESTS.c.id == request_id)
    row = (await session.execute(found)).one_or_none()
    return None if row is None else request_record_from(row)


async def rehash_key(session: Session, key_id: str, old: str, new: str) -> None:
    """Replace the stored form of a token, if it is still the old one."""
    if NAME.match(key_id):
        await session.execute(
            update(KEYS).where(KEYS.c.id == key_id, KEYS.c.digest == old).values(digest=new)
        )


async def mark_used(session: Session, uses: Sequence[Use]) -> None:
    """Note when keys were last used, if that is later than the stored time."""
    latest: dict[str, Use] = {}
    for use in uses:
        known = latest.get(use.key_id)
        if NAME.match(use.key_id) and (known is None or known.at < use.at):
            latest[use.key_id] = use
    if latest:
        await session.call(begin_hastily)
        await session.execute(
            _MARK,
            [
                {"which": key_id, "at": use.at, "address": storable_address(use.address)}
                for key_id, use in sorted(latest.items())
            ],
        )


async def read_feed(session: Session, position: str | None) -> News:
    """Read what changed after a position, up to 1000 entries at a time.

    A position is the id of an entry and its mark. Ids follow one another without a gap. So if one
    is missing or has another mark, the database was restored from a backup or the trail was cut.
    """
    stood = None if position is None else _POSITION.match(position)
    if position is None or stood is None:
        row = (await session.execute(_LAST)).one_or_none()
        last = "0-" if row is None else f"{row.last}-{row.mark}"
        return News(last, () if position is None else None)
    known, mark = int(stood[1]), stood[2]
    recent = (
        select(AUDIT.c.id, AUDIT.c.subject, AUDIT.c.mark)
        .where(AUDIT.c.id >= known)
        .order_by(AUDIT.c.id)
        .limit(_MOST_NEWS + (known > 0))
        .subquery()
    )
    # In one statement, so that both parts are of the same instant.
    statement = (
        select(FEED.c.last, FEED.c.mark.label("last_mark"), *recent.c)
        .select_from(FEED.outerjoin(recent, true()))
        .where(FEED.c.id == 1)
        .order_by(recent.c.id)
    )
    try:
        rows = (await session.execute(statement)).all()
    except DBAPIError as failure:
        if not is_unreadable(failure):
            raise
        return (await read_feed(session, None))._replace(subjects=None)
    if not rows:
        return News("0-", () if position == "0-" else None)
    end = f"{rows[0].last}-{rows[0].last_mark}"
    if end == position:
        return News(position, ())
    found = [row for row in rows if isinstance(row.id, int)]
    stands = known == 0 or (bool(found) and (found[0].id, found[0].mark) == (known, mark))
    new = [row for row in found if row.id > known]
    subjects = tuple(row.subject for row in new if isinstance(row.subject, str))
    if not stands or not new or new[-1].id != known + len(subjects):
        return News(end, None)
    return News(f"{new[-1].id}-{new[-1].mark}", subjects, whole=new[-1].id == rows[0].last)


async def read_rows(session: Session, wanted: Query) -> Sequence[AnyRow]:
    """Return rows. For a row that the driver can't decode, return only the id.

    Args:
        session: The session.
        wanted: Finds the rows in order, the id as their first column.
    """
    try:
        return (await session.execute(wanted)).all()
    except DBAPIError as failure:
        if not is_unreadable(failure):
            raise
    row_id = wanted.selected_columns[0]
    # On SQLite an id may be what can't be decoded.
    named = cast(row_id, LargeBinary) if session.dialect.name == "sqlite" else row_id
    found = (await session.execute(wanted.with_only_columns(named))).scalars()
    ids = [
        known.decode(errors="backslashreplace") if isinstance(known, bytes) else known
        for known in found
    ]
    rows = await _readable(session, select(*wanted.selected_columns), row_id, ids)
    return [rows.get(str(known), (known,)) for known in ids]


async def _readable(
    session: Session, columns: Query, row_id: ColumnElement[str], ids: Sequence[object]
) -> dict[str, AnyRow]:
    """Return the rows that the driver can decode, by id: it says only that one of several fails."""
    try:
        rows = await session.execute(columns.where(row_id.in_(ids)))
        return {str(row[0]): row for row in rows}
    except DBAPIError as failure:
        if not is_unreadable(failure):
            raise
    if len(ids) == 1:
        return {}
    middle = len(ids) // 2
    parts = [await _readable(session, columns, row_id, p) for p in (ids[:middle], ids[middle:])]
    return parts[0] | parts[1]
