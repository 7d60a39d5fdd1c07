"""What the SQL store does, written once for both flavours.

Each operation returns what the store's method of its name returns. Every change is one
conditional statement, or a commit (:mod:`~keyguard.stores.sql.commits`), so that two at a time
can't both win, and nothing that was read is ever written back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    bindparam,
    func,
    or_,
    select,
    true,
    tuple_,
    update,
)

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.core.keys.values import Page
from keyguard.stores.base import News
from keyguard.stores.sql.commits import commit
from keyguard.stores.sql.flows import NAME, Flow, begin_hastily, many, reading, writing
from keyguard.stores.sql.rows import (
    KEY_COLUMNS,
    ORGANIZATION_COLUMNS,
    entry_from,
    key_from,
    organization_from,
    record_from,
)
from keyguard.stores.sql.tables import AUDIT, FEED, KEYS, ORGANIZATIONS

__all__ = [
    "commit",
    "find_existing",
    "find_key",
    "find_organization",
    "list_audit",
    "list_digests",
    "list_keys",
    "list_organizations",
    "mark_used",
    "read_feed",
    "rehash_key",
]

Listed = TypeVar("Listed", Key, Organization)

_MOST_NEWS = 1000
_LONGEST_ADDRESS = 64
_NUMBER = re.compile(r"[0-9]{1,18}\Z")

_ORGANIZATION = select(*ORGANIZATION_COLUMNS)
_KEY = select(*KEY_COLUMNS)
_RECORD = select(*KEY_COLUMNS, KEYS.c.digest, *ORGANIZATION_COLUMNS).outerjoin_from(
    KEYS, ORGANIZATIONS
)
_LAST = select(FEED.c.last).where(FEED.c.id == 1)
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


@reading
def find_organization(name: str) -> Flow[Organization | None]:
    """Find an organization by id or slug."""
    if not NAME.match(name):
        return None
    # An id has an underscore, a slug never has.
    column = ORGANIZATIONS.c.id if "_" in name else ORGANIZATIONS.c.slug
    row = (yield _ORGANIZATION.where(column == name)).one_or_none()
    return None if row is None else organization_from(row)


@reading
def list_organizations(after: str | None, limit: int) -> Flow[Page[Organization]]:
    """List organizations."""
    return (yield from _page(_ORGANIZATION, [], ORGANIZATIONS, organization_from, after, limit))


@reading
def find_key(key_id: str) -> Flow[KeyRecord | None]:
    """Find a key with its organization."""
    if not NAME.match(key_id):
        return None
    row = (yield _RECORD.where(KEYS.c.id == key_id)).one_or_none()
    return None if row is None else record_from(row)


@reading
def find_existing(key_ids: Sequence[str]) -> Flow[frozenset[str]]:
    """Tell which ids are those of keys."""
    possible = sorted({key_id for key_id in key_ids if NAME.match(key_id)})
    if not possible:
        return frozenset()
    return frozenset((yield select(KEYS.c.id).where(KEYS.c.id.in_(possible))).scalars())


@reading
def list_keys(wanted: KeyFilter, after: str | None, limit: int) -> Flow[Page[Key]]:
    """List the keys that a filter admits."""
    keys = _KEY
    for column, name in (
        (KEYS.c.organization_id, wanted.organization),
        (KEYS.c.family, wanted.family),
    ):
        if name is not None and not NAME.match(name):
            return Page(())
        if name is not None:
            keys = keys.where(column == name)
    return (yield from _page(keys, _conditions(wanted), KEYS, key_from, after, limit))


@reading
def list_digests(after: str | None, limit: int) -> Flow[Page[KeyDigest]]:
    """List stored forms of tokens."""
    forms = select(KEYS.c.id, KEYS.c.digest).where(KEYS.c.revoked_at.is_(None))
    if after is not None:
        if not NAME.match(after):
            return Page(())
        forms = forms.where(KEYS.c.id > after)
    rows = (yield forms.order_by(KEYS.c.id).limit(limit + 1)).all()
    items = tuple(KeyDigest(row.id, row.digest) for row in rows[:limit])
    return Page(items, items[-1].id if len(rows) > limit else None)


@writing
def rehash_key(key_id: str, old: str, new: str) -> Flow[None]:
    """Replace the stored form of a token, if it is still the old one."""
    if NAME.match(key_id):
        yield update(KEYS).where(KEYS.c.id == key_id, KEYS.c.digest == old).values(digest=new)


@writing
def mark_used(uses: Sequence[Use]) -> Flow[None]:
    """Note when keys were last used, where that is later than what is known."""
    latest: dict[str, Use] = {}
    for use in uses:
        known = latest.get(use.key_id)
        if NAME.match(use.key_id) and (known is None or known.at < use.at):
            latest[use.key_id] = use
    if latest:
        yield begin_hastily
        yield many(
            _MARK,
            [
                {"which": key_id, "at": use.at, "address": _address(use.address)}
                for key_id, use in sorted(latest.items())
            ],
        )


@reading
def list_audit(
    organization: str | None, subject: str | None, after: str | None, limit: int
) -> Flow[Page[AuditEntry]]:
    """List entries of the audit trail, newest first."""
    entries = select(AUDIT)
    for column, name in ((AUDIT.c.organization, organization), (AUDIT.c.subject, subject)):
        if name is not None and not NAME.match(name):
            return Page(())
        if name is not None:
            entries = entries.where(column == name)
    if after is not None:
        if not _NUMBER.match(after):
            return Page(())
        entries = entries.where(AUDIT.c.id < int(after))
    rows = (yield entries.order_by(AUDIT.c.id.desc()).limit(limit + 1)).all()
    items = tuple(entry_from(row) for row in rows[:limit])
    return Page(items, items[-1].id if len(rows) > limit else None)


@reading
def read_feed(position: str | None) -> Flow[News]:
    """Tell what changed after a position, up to 1000 entries at a time."""
    if position is None or not _NUMBER.match(position):
        last = (yield _LAST).scalar_one_or_none() or 0
        return News(str(last), () if position is None else None)
    known = int(position)
    recent = (
        select(AUDIT.c.id, AUDIT.c.subject)
        .where(AUDIT.c.id > known)
        .order_by(AUDIT.c.id)
        .limit(_MOST_NEWS)
        .subquery()
    )
    # In one statement, that is at one instant.
    rows = (
        yield select(FEED.c.last, recent.c.id, recent.c.subject)
        .select_from(FEED.outerjoin(recent, true()))
        .where(FEED.c.id == 1)
        .order_by(recent.c.id)
    ).all()
    last = rows[0].last if rows else 0
    found = [row for row in rows if row.id is not None]
    if last == known and not found:
        return News(position, ())
    if last < known or not found or found[0].id != known + 1:
        # The database was restored from a backup, or its trail cut: ids follow without a gap.
        return News(str(last), None)
    subjects = tuple(row.subject for row in found)
    return News(str(found[-1].id), subjects, whole=found[-1].id == last)


def _conditions(wanted: KeyFilter) -> list[ColumnElement[bool]]:
    """Return a filter's conditions on times, which are those of :meth:`KeyFilter.admits`."""
    ends = (KEYS.c.expires_at, KEYS.c.grace_ends_at)
    conditions: list[ColumnElement[bool]] = []
    if wanted.alive_at is not None:
        conditions.append(KEYS.c.revoked_at.is_(None))
        conditions += [or_(end.is_(None), end > wanted.alive_at) for end in ends]
    if wanted.ends_before is not None:
        conditions.append(or_(*(end < wanted.ends_before for end in ends)))
    if wanted.unused_since is not None:
        used = func.coalesce(KEYS.c.last_used_at, KEYS.c.created_at)
        conditions.append(used < wanted.unused_since)
    return conditions


def _address(address: str | None) -> str | None:
    # It is whatever the server in front calls the client; a database need not take it all.
    if address is None or not address.isprintable():
        return None
    return address[:_LONGEST_ADDRESS]


def _page(
    records: Select[Any],
    conditions: Sequence[ColumnElement[bool]],
    table: Table,
    decode: Callable[[Row[Any]], Listed],
    after: str | None,
    limit: int,
) -> Flow[Page[Listed]]:
    order = (table.c.created_at, table.c.id)
    if after is not None:
        if not NAME.match(after):
            return Page(())
        # Looked up among the listed, by the same statement: an unknown one joins with nothing. It
        # need not meet the conditions any more.
        last = records.with_only_columns(*order).where(table.c.id == after).subquery()
        records = records.join(last, tuple_(*order) > tuple_(*last.c))
    rows = (yield records.where(*conditions).order_by(*order).limit(limit + 1)).all()
    items = tuple(decode(row) for row in rows[:limit])
    return Page(items, items[-1].id if len(rows) > limit else None)
