"""Lists the records of the SQL store, a page at a time, without the rows that can't be read.

Each operation returns what the store's method of the same name returns.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Table,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import ENDS_AS, OPEN, KeyRequest, RequestFilter
from keyguard.core.texts import fits
from keyguard.core.values import Page
from keyguard.exceptions import CorruptDataError
from keyguard.stores.base import page_of, read_listed
from keyguard.stores.deletions import place_of_deleted
from keyguard.stores.sql.queries import NAME, ORGANIZATION, read_rows
from keyguard.stores.sql.rows import (
    ENTRY_COLUMNS,
    KEY_COLUMNS,
    REQUEST_COLUMNS,
    digest_from,
    entry_from,
    instant_in,
    key_from,
    organization_from,
    request_from,
)
from keyguard.stores.sql.session import AnyRow, Query, Session
from keyguard.stores.sql.tables import AUDIT, KEYS, ORGANIZATIONS, REQUESTS

Listed = TypeVar("Listed", AuditEntry, Key, KeyDigest, KeyRequest, Organization)
Aged = TypeVar("Aged", Key, KeyRequest, Organization)
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_LAST_CHARACTER = chr(sys.maxunicode)  # which no name has
_KEY = select(*KEY_COLUMNS)
_REQUEST = select(*REQUEST_COLUMNS)
_DIGEST = select(*[KEYS.c.id, KEYS.c.digest])
_ENTRY = select(*ENTRY_COLUMNS)


async def list_organizations(session: Session, after: str | None, limit: int) -> Page[Organization]:
    """List organizations by the time of their creation."""
    return await _aged(session, ORGANIZATION, [], ORGANIZATIONS, organization_from, after, limit)


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
    owner = wanted.organization
    return await _aged(session, keys, conditions, KEYS, key_from, after, limit, owner, few=few)


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
            name = (await session.execute(last)).scalar() if NAME.match(after) else None
            if name is None:
                deleted = await _place_of_deleted(session, wanted.organization, after)
                if deleted is None:
                    return Page(())
                name = deleted[1]
            conditions += (KEYS.c.name >= name, or_(KEYS.c.name > name, KEYS.c.id > after))
        named = keys.where(*conditions).order_by(KEYS.c.name, KEYS.c.id)
        rows = [*rows, *await read_rows(session, named.limit(limit + 1 - len(rows)))]
    return page_of([read_listed(str(row[0]), key_from, row) for row in rows], limit)


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
    revoked = KEYS.c.revoked_at
    # An expression, so that MariaDB goes by the id and not through all keys that are not revoked.
    digests = _DIGEST.where(func.coalesce(revoked, revoked).is_(None))
    if after is not None:
        if not NAME.match(after):
            return Page(())
        digests = digests.where(KEYS.c.id > after)
    return await _page(session, digests.order_by(KEYS.c.id), digest_from, limit, _has_name)


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


def _of(statement: Query, names: dict[Column[str], str | None]) -> Query | None:
    """Return a query of the rows with certain names, or None if a name can't be in any row."""
    for column, name in names.items():
        if name is not None:
            if not NAME.match(name):
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
    if wanted.ended_before is not None:
        stops = (KEYS.c.revoked_at, *ends)
        conditions.append(or_(*(stop < wanted.ended_before for stop in stops)))
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


def _exactly(column: Column[str], text: str) -> tuple[ColumnElement[bool], ...]:
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
    owner: str | None = None,
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
        after: The id after which to start, or None.
        limit: How many rows a page has.
        owner: The id of the organization whose keys are listed, or None.
        few: Whether the conditions have an index that leads to few records.
    """
    created = table.c.created_at
    # An expression, so that no database takes the index of the order instead.
    order = (func.coalesce(created, created) if few else created, table.c.id)
    if after is not None:
        if not NAME.match(after):
            return Page(())
        # The last record of the page before need not meet the conditions any longer.
        last = records.with_only_columns(*order[::-1]).where(table.c.id == after)
        rows = await read_rows(session, last)
        if rows:
            at = instant_in(rows[0], 1) or await _created_by_trail(session, after)
        elif deleted := await _place_of_deleted(session, owner, after):
            at = deleted[0]
        else:
            return Page(())
        behind = (literal(at, created.type), literal(after, table.c.id.type))
        records = records.where(tuple_(*order) > tuple_(*behind))
    wanted = records.where(*conditions).order_by(*order)
    names = [column.name for column in wanted.selected_columns]
    place = next(n for n, name in enumerate(names) if name.endswith("created_at"))

    def begins(row: AnyRow) -> bool:
        return _has_name(row) and instant_in(row, place) is not None

    return await _page(session, wanted, decode, limit, begins)


async def _place_of_deleted(
    session: Session, owner: str | None, key_id: str
) -> tuple[datetime, str] | None:
    """Return the creation time and the name of a key, if it was deleted."""
    return place_of_deleted(await list_audit(session, owner, key_id, None, 1))


async def _created_by_trail(session: Session, record_id: str) -> datetime:
    """Return when a record was created, by the audit trail: the record itself is damaged."""
    first = _ENTRY.where(AUDIT.c.subject == record_id).order_by(AUDIT.c.id).limit(1)
    for row in await read_rows(session, first):
        with suppress(CorruptDataError, KeyError, ValueError):
            return datetime.fromisoformat(str(entry_from(row).after["created_at"]))
    raise CorruptDataError(
        f"the list can't go on after {record_id!r}, whose record is damaged; begin anew"
    )


def _has_name(row: AnyRow) -> bool:
    return NAME.match(str(row[0])) is not None


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
        begins: Returns whether another page can begin after a row. A page goes on until it ends
            with such a row.
    """
    rows = await read_rows(session, wanted.limit(limit + 1))
    while len(rows) > limit and not begins(rows[limit - 1]):
        if (limit := limit + 1) == len(rows):
            rows = await read_rows(session, wanted.limit(2 * limit))
    return page_of([read_listed(str(row[0]), decode, row) for row in rows], limit)
