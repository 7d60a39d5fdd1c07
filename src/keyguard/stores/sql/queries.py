"""What the SQL store asks, and the two small changes that are no commit.

Each operation returns what the store's method of the same name returns. A change is one conditional
statement or a commit (:mod:`~keyguard.stores.sql.commits`), so two concurrent changes can't both
win, and no record that was read is written back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    Table,
    and_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.exc import DBAPIError

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.core.keys.requests import (
    ENDS_AS,
    OPEN,
    KeyRequest,
    RequestFilter,
    RequestRecord,
)
from keyguard.core.keys.texts import fits
from keyguard.core.keys.values import Page
from keyguard.exceptions import CorruptDataError
from keyguard.stores.base import News, Reading, page_of, read_listed, storable_address
from keyguard.stores.sql.errors import is_unreadable
from keyguard.stores.sql.rows import (
    ENTRY_COLUMNS,
    KEY_COLUMNS,
    ORGANIZATION_COLUMNS,
    RECORD_COLUMNS,
    REQUEST_COLUMNS,
    digest_from,
    entry_from,
    instant,
    key_from,
    organization_from,
    record_from,
    request_from,
    request_record_from,
)
from keyguard.stores.sql.session import AnyRow, Query, Session, begin_hastily, look_up
from keyguard.stores.sql.tables import AUDIT, FEED, KEYS, ORGANIZATIONS, REQUESTS

Listed = TypeVar("Listed", AuditEntry, Key, KeyDigest, KeyRequest, Organization)
Aged = TypeVar("Aged", Key, KeyRequest, Organization)

_MOST_NEWS = 1000
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_POSITION = re.compile(r"([0-9]{1,18})-([0-9a-f]*)\Z")

# What an id or a slug is made of. Databases treat anything else differently: trailing spaces, NUL,
# characters that the column's character set lacks.
_NAME = re.compile(r"[0-9A-Za-z_-]{1,63}\Z")

_LAST_CHARACTER = chr(sys.maxunicode)  # which no name has

_ORGANIZATION = select(*ORGANIZATION_COLUMNS)
_KEY = select(*KEY_COLUMNS)
_REQUEST = select(*REQUEST_COLUMNS)
_DIGEST = select(*[KEYS.c.id, KEYS.c.digest])
_ENTRY = select(*ENTRY_COLUMNS)
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
    if not _NAME.match(name):
        return None
    # An id has an underscore, a slug has none.
    column = ORGANIZATIONS.c.id if "_" in name else ORGANIZATIONS.c.slug
    row = (await session.execute(_ORGANIZATION.where(column == name))).one_or_none()
    return None if row is None else organization_from(row)


async def list_organizations(session: Session, after: str | None, limit: int) -> Page[Organization]:
    """List organizations by the time of their creation."""
    return await _aged(session, _ORGANIZATION, [], ORGANIZATIONS, organization_from, after, limit)


async def find_key(session: Session, key_id: str) -> KeyRecord | None:
    """Find a key with its organization."""
    if not _NAME.match(key_id):
        return None
    row = await session.call(look_up, _RECORD, {"which": key_id})
    return None if row is None else record_from(row)


async def read_key(session: Session, key_id: str) -> Reading:
    """Find a key with its organization on a replica, and where the replica stands in the feed."""
    row = None
    if _NAME.match(key_id):
        row = await session.call(look_up, _READING, {"which": key_id})
    if row is None:
        return Reading(None, "")
    last, mark, *record = row
    return Reading(None if record[0] is None else record_from(record), f"{last}-{mark}")


async def find_existing(session: Session, key_ids: Sequence[str]) -> frozenset[str]:
    """Find which ids belong to keys."""
    possible = sorted({key_id for key_id in key_ids if _NAME.match(key_id)})
    if not possible:
        return frozenset()
    found = await session.execute(select(KEYS.c.id).where(KEYS.c.id.in_(possible)))
    return frozenset(found.scalars())


async def list_keys(
    session: Session, wanted: KeyFilter, after: str | None, limit: int
) -> Page[Key]:
    """List the keys that a filter admits, by the time of their creation."""
    keys = _of(_KEY, {KEYS.c.organization_id: wanted.organization, KEYS.c.family: wanted.family})
    if keys is None or not fits(f"{wanted.owner}{wanted.search}"):
        return Page(())
    if wanted.search is not None:
        return await _search(session, keys, wanted, wanted.search, after, limit)
    few, conditions = wanted.owner is not None, _conditions(wanted)
    return await _aged(session, keys, conditions, KEYS, key_from, after, limit, few=few)


async def _search(
    session: Session, keys: Query, wanted: KeyFilter, search: str, after: str | None, limit: int
) -> Page[Key]:
    """List the keys that a search finds: those whose id begins with it, then those by name."""
    rows: Sequence[AnyRow] = ()
    conditions = _conditions(wanted)
    is_id = KEYS.c.id.between(search, f"{search}~")  # no id has a "~"
    finds_ids = wanted.finds_id(search)
    if finds_ids and (after is None or after.startswith(search)):
        found = keys.where(*conditions, is_id).order_by(KEYS.c.id).limit(limit + 1)
        rows = await read_rows(session, found if after is None else found.where(KEYS.c.id > after))
        after = None
    if len(rows) <= limit:
        # The range is for the index. MySQL ignores spaces at its ends, which LIKE does not; but of
        # a bare column, LIKE would make a range there that lacks some characters.
        conditions += (KEYS.c.name >= search, KEYS.c.name < f"{search}{_LAST_CHARACTER}")
        conditions.append(func.substr(KEYS.c.name, 1).startswith(search, autoescape=True))
        if finds_ids:
            conditions.append(~is_id)
        if after is not None:
            last = keys.with_only_columns(KEYS.c.name).where(KEYS.c.id == after)
            name = (await session.execute(last)).scalar() if _NAME.match(after) else None
            if name is None:
                return Page(())
            conditions += (KEYS.c.name >= name, or_(KEYS.c.name > name, KEYS.c.id > after))
        named = keys.where(*conditions).order_by(KEYS.c.name, KEYS.c.id)
        rows = [*rows, *await read_rows(session, named.limit(limit + 1 - len(rows)))]
    return page_of([read_listed(str(row[0]), key_from, row) for row in rows], limit)


async def find_request(session: Session, request_id: str) -> RequestRecord | None:
    """Find a request for a key."""
    if not _NAME.match(request_id):
        return None
    found = select(*REQUEST_COLUMNS, REQUESTS.c.digest).where(REQUESTS.c.id == request_id)
    row = (await session.execute(found)).one_or_none()
    return None if row is None else request_record_from(row)


async def list_requests(
    session: Session, wanted: RequestFilter, after: str | None, limit: int
) -> Page[KeyRequest]:
    """List the requests that a filter admits, by the time of their creation."""
    requests = _of(_REQUEST, {REQUESTS.c.organization_id: wanted.organization})
    if requests is None or not fits(wanted.requester or ""):
        return Page(())
    few = wanted.requester is not None or _are_open(wanted)
    conditions = _request_conditions(wanted)
    return await _aged(session, requests, conditions, REQUESTS, request_from, after, limit, few=few)


def _are_open(wanted: RequestFilter) -> bool:
    return bool(wanted.statuses) and wanted.statuses <= OPEN


async def list_digests(session: Session, after: str | None, limit: int) -> Page[KeyDigest]:
    """List the stored forms of tokens by key id."""
    digests = _DIGEST.where(KEYS.c.revoked_at.is_(None))
    if after is not None:
        if not _NAME.match(after):
            return Page(())
        digests = digests.where(KEYS.c.id > after)
    return await _page(session, digests.order_by(KEYS.c.id), digest_from, limit, _has_name)


async def rehash_key(session: Session, key_id: str, old: str, new: str) -> None:
    """Replace the stored form of a token, if it is still the old one."""
    if _NAME.match(key_id):
        await session.execute(
            update(KEYS).where(KEYS.c.id == key_id, KEYS.c.digest == old).values(digest=new)
        )


async def mark_used(session: Session, uses: Sequence[Use]) -> None:
    """Note when keys were last used, where that is later than what is stored."""
    latest: dict[str, Use] = {}
    for use in uses:
        known = latest.get(use.key_id)
        if _NAME.match(use.key_id) and (known is None or known.at < use.at):
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


async def list_audit(
    session: Session, organization: str | None, subject: str | None, after: str | None, limit: int
) -> Page[AuditEntry]:
    """List entries of the audit trail, newest first."""
    entries = _of(_ENTRY, {AUDIT.c.organization: organization, AUDIT.c.subject: subject})
    if entries is None:
        return Page(())
    if after is not None:
        if not _NUMBER.match(after):
            return Page(())
        entries = entries.where(AUDIT.c.id < int(after))
    newest_first = entries.order_by(AUDIT.c.id.desc())
    return await _page(session, newest_first, entry_from, limit, _has_number)


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


def _of(statement: Query, names: dict[Column[Any], str | None]) -> Query | None:
    """Return a query of the rows with certain names, or None if a name can't be in any row."""
    for column, name in names.items():
        if name is not None:
            if not _NAME.match(name):
                return None
            statement = statement.where(column == name)
    return statement


def _conditions(wanted: KeyFilter) -> list[ColumnElement[bool]]:
    """Return a filter's conditions on times, the same as those of :meth:`KeyFilter.admits`."""
    ends = (KEYS.c.expires_at, KEYS.c.grace_ends_at)
    conditions: list[ColumnElement[bool]] = []
    if wanted.alive_at is not None:
        conditions.append(KEYS.c.revoked_at.is_(None))
        conditions += [or_(end.is_(None), end > wanted.alive_at) for end in ends]
    if wanted.owner is not None:
        conditions += _exactly(KEYS.c.owner, wanted.owner)
    if wanted.ends_before is not None:
        conditions.append(or_(*(end < wanted.ends_before for end in ends)))
    if wanted.unused_since is not None:
        used = func.coalesce(KEYS.c.last_used_at, KEYS.c.created_at)
        conditions.append(used < wanted.unused_since)
    return conditions


def _request_conditions(wanted: RequestFilter) -> list[ColumnElement[bool]]:
    """Return a filter's conditions, the same as those of :meth:`RequestFilter.admits`."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.requester is not None:
        conditions += _exactly(REQUESTS.c.requester, wanted.requester)
    is_open, state = REQUESTS.c.open_until > wanted.at, REQUESTS.c.state
    if wanted.statuses:
        over = {ends_as: state for state, ends_as in ENDS_AS.items()}
        conditions.append(
            or_(
                *(and_(state == status, is_open) for status in wanted.statuses & OPEN),
                *(and_(state == over[s], ~is_open) for s in wanted.statuses & over.keys()),
                state.in_(sorted(wanted.statuses - OPEN - over.keys())),
            )
        )
    if _are_open(wanted) and wanted.requester is None:  # whose requests have an index too
        conditions.append(is_open)  # again, so that the index is used
    return conditions


def _exactly(column: Column[Any], text: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a column holds a text, on MySQL without spaces behind it."""
    pattern = re.sub(r"[/%_]", r"/\g<0>", text)
    return column == text, column.like(pattern, escape="/")


async def _aged(
    session: Session,
    records: Query,
    conditions: Sequence[ColumnElement[bool]],
    table: Table,
    decode: Callable[[AnyRow], Aged],
    after: str | None,
    limit: int,
    *,
    few: bool = False,
) -> Page[Aged]:
    """Return a page of records in the order of their creation.

    Args:
        session: The session.
        records: Finds the records.
        conditions: Which of them.
        table: Their table.
        decode: Returns the record in a row.
        after: The id behind which to start, or None.
        limit: How many rows a page has.
        few: Whether the conditions have an index that leads to few.
    """
    created = table.c.created_at
    # An expression, so that no database takes the index of the order instead.
    order = (func.coalesce(created, created) if few else created, table.c.id)
    if after is not None:
        if not _NAME.match(after):
            return Page(())
        # The last record of the page before need not meet the conditions any longer.
        last = records.with_only_columns(*order[::-1]).where(table.c.id == after)
        rows = await read_rows(session, last)
        if not rows:
            return Page(())
        at = _created(rows[0], 1) or await _created_by_trail(session, after)
        behind = (literal(at, created.type), literal(after, table.c.id.type))
        records = records.where(tuple_(*order) > tuple_(*behind))
    wanted = records.where(*conditions).order_by(*order)
    names = [column.name for column in wanted.selected_columns]
    place = next(n for n, name in enumerate(names) if name.endswith("created_at"))

    def begins(row: AnyRow) -> bool:
        return _has_name(row) and _created(row, place) is not None

    return await _page(session, wanted, decode, limit, begins)


def _created(row: AnyRow, place: int) -> datetime | None:
    """Return when a record was created, by that column of its row; None if nobody can read it."""
    try:
        at = instant(row[place])
    except (AttributeError, IndexError, ValueError):  # a row that can't be decoded has its id alone
        return None
    return at if at.tzinfo else None


async def _created_by_trail(session: Session, record_id: str) -> datetime:
    """Return when a record was created, by the audit trail: the record itself is damaged."""
    first = _ENTRY.where(AUDIT.c.subject == record_id).order_by(AUDIT.c.id).limit(1)
    for row in await read_rows(session, first):
        with suppress(CorruptDataError, KeyError, ValueError):
            return datetime.fromisoformat(str(entry_from(row).after["created_at"]))
    raise CorruptDataError(
        f"the list can't go on behind {record_id!r}, whose record is damaged; begin it anew"
    )


def _has_name(row: AnyRow) -> bool:
    return _NAME.match(str(row[0])) is not None


def _has_number(row: AnyRow) -> bool:
    return _NUMBER.match(str(row[0])) is not None


async def _page(
    session: Session,
    wanted: Query,
    decode: Callable[[AnyRow], Listed],
    limit: int,
    begins: Callable[[AnyRow], bool],
) -> Page[Listed]:
    """Return a page, without the rows that can't be read.

    Args:
        session: The session.
        wanted: Finds the rows in order, the id as their first column.
        decode: Returns the record in a row.
        limit: How many rows a page has.
        begins: Tells whether another page can begin behind a row. A page goes on until it ends with
            such a row.
    """
    rows = await read_rows(session, wanted.limit(limit + 1))
    while len(rows) > limit and not begins(rows[limit - 1]):
        if (limit := limit + 1) == len(rows):
            rows = await read_rows(session, wanted.limit(2 * limit))
    return page_of([read_listed(str(row[0]), decode, row) for row in rows], limit)


async def read_rows(session: Session, wanted: Query) -> Sequence[AnyRow]:
    """Return rows; of a row that the driver can't decode, the id alone.

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
    session: Session, columns: Query, row_id: ColumnElement[Any], ids: Sequence[Any]
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
