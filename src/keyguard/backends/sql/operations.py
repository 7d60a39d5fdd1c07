"""What the SQL backend does, written once for both flavours.

An operation is a generator. It yields statements, or functions of the connection where a statement
will not do, is sent their results, and returns what the backend's method returns. It does no I/O:
:mod:`~keyguard.backends.sql.backend` carries its statements to the database.

Every change is one conditional statement, so that two at a time can't both win, and nothing that
was read is ever written back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import (
    Connection,
    Executable,
    Row,
    Select,
    Table,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from keyguard.backends.sql.rows import (
    KEY_COLUMNS,
    ORGANIZATION_COLUMNS,
    key_columns,
    key_from,
    organization_columns,
    organization_from,
    record_from,
    with_limits,
)
from keyguard.backends.sql.tables import KEYS, ORGANIZATIONS
from keyguard.exceptions import RefusedError
from keyguard.sansio.models import (
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)

__all__ = [
    "ConnectionLost",
    "Flow",
    "Operation",
    "Step",
    "add_key",
    "add_organization",
    "change_key",
    "change_organization",
    "find_key",
    "find_organization",
    "list_keys",
    "list_organizations",
    "reading",
    "revoke_key",
    "set_organization_disabled",
    "writing",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Listed = TypeVar("Listed", Key, Organization)

Step: TypeAlias = Executable | Callable[[Connection], Any]
Flow: TypeAlias = Generator[Step, Any, Result]

# What an id or a slug can be made of. Databases differ on anything else: trailing spaces, NUL,
# characters outside the column's character set.
_NAME = re.compile(r"[0-9A-Za-z_-]{1,63}\Z")


class ConnectionLost(Exception):  # noqa: N818 - it never leaves the backend
    """The connection broke before anything was committed; the same on a new one is safe."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """An operation that is ready to run.

    Args:
        flow: Starts it; may be called again for a second try.
        writes: Whether it needs a transaction.
    """

    flow: Callable[[], Flow[Result]]
    writes: bool


def _in_one_piece(flow: Flow[Result], *, commit: bool) -> Flow[Result]:
    try:
        result = yield from flow
    except DBAPIError as failure:
        if failure.connection_invalidated:
            raise ConnectionLost from failure
        raise
    if commit:
        # Outside the try: whether a commit that failed took place is known to nobody.
        yield Connection.commit
    return result


def reading(
    function: Callable[Parameters, Flow[Result]],
) -> Callable[Parameters, Operation[Result]]:
    """Make an operation that needs no transaction of a generator function."""

    @wraps(function)
    def operation(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Operation[Result]:
        return Operation(
            lambda: _in_one_piece(function(*args, **kwargs), commit=False), writes=False
        )

    return operation


def writing(
    function: Callable[Parameters, Flow[Result]],
) -> Callable[Parameters, Operation[Result]]:
    """Make an operation that is one transaction of a generator function."""

    @wraps(function)
    def operation(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Operation[Result]:
        return Operation(lambda: _in_one_piece(function(*args, **kwargs), commit=True), writes=True)

    return operation


_ORGANIZATION = select(*ORGANIZATION_COLUMNS)
_KEY = select(*KEY_COLUMNS)
_RECORD = select(*KEY_COLUMNS, KEYS.c.digest, *ORGANIZATION_COLUMNS).outerjoin_from(
    KEYS, ORGANIZATIONS
)


@writing
def add_organization(organization: Organization) -> Flow[None]:
    """Store a new organization."""
    try:
        yield insert(ORGANIZATIONS).values(organization_columns(organization))
    except IntegrityError:
        yield Connection.rollback
        for name in (organization.slug, organization.id):
            if (yield from _organization(name)) is not None:
                raise RefusedError(f"organization {name!r} exists already") from None
        raise


@reading
def find_organization(name: str) -> Flow[Organization | None]:
    """Find an organization by id or slug."""
    return (yield from _organization(name))


@reading
def list_organizations(after: str | None, limit: int) -> Flow[Page[Organization]]:
    """List organizations."""
    return (yield from _page(_ORGANIZATION, ORGANIZATIONS, organization_from, after, limit))


@writing
def change_organization(
    organization: str, changes: OrganizationChanges
) -> Flow[Organization | None]:
    """Set columns of an organization."""
    if not _NAME.match(organization):
        return None
    columns = with_limits(changes.columns())
    if columns:
        yield update(ORGANIZATIONS).where(ORGANIZATIONS.c.id == organization).values(columns)
    row = (yield _ORGANIZATION.where(ORGANIZATIONS.c.id == organization)).one_or_none()
    return None if row is None else organization_from(row)


@writing
def set_organization_disabled(organization: str, at: datetime | None) -> Flow[Organization | None]:
    """Disable an organization, or enable it."""
    if not _NAME.match(organization):
        return None
    change = update(ORGANIZATIONS).where(ORGANIZATIONS.c.id == organization)
    if at is not None:
        change = change.where(ORGANIZATIONS.c.disabled_at.is_(None))
    yield change.values(disabled_at=at)
    row = (yield _ORGANIZATION.where(ORGANIZATIONS.c.id == organization)).one_or_none()
    return None if row is None else organization_from(row)


@writing
def add_key(record: KeyRecord) -> Flow[None]:
    """Store a new key."""
    key = record.key
    fields = {name: getattr(key, name) for name in Key.__slots__}
    columns = key_columns(fields) | {"digest": record.digest}
    # Selected from its organization's row: without one there is nothing to insert, even where the
    # database does not watch over foreign keys, as SQLite by default.
    values = select(*(literal(value, KEYS.c[name].type) for name, value in columns.items())).where(
        ORGANIZATIONS.c.id == key.organization
    )
    try:
        added = yield (
            insert(KEYS)
            .from_select(list(columns), values)
            .execution_options(preserve_rowcount=True)
        )
    except IntegrityError:
        yield Connection.rollback
        if (yield _KEY.where(KEYS.c.id == key.id)).one_or_none() is not None:
            raise RefusedError(f"key {key.id!r} exists already") from None
        raise
    if added.rowcount == 0:
        raise RefusedError(f"there is no organization {key.organization!r}")


@reading
def find_key(key_id: str) -> Flow[KeyRecord | None]:
    """Find a key with its organization."""
    if not _NAME.match(key_id):
        return None
    row = (yield _RECORD.where(KEYS.c.id == key_id)).one_or_none()
    return None if row is None else record_from(row)


@reading
def list_keys(organization: str | None, after: str | None, limit: int) -> Flow[Page[Key]]:
    """List keys, of one organization or of all."""
    if organization is None:
        return (yield from _page(_KEY, KEYS, key_from, after, limit))
    if not _NAME.match(organization):
        return Page(())
    keys = _KEY.where(KEYS.c.organization_id == organization)
    return (yield from _page(keys, KEYS, key_from, after, limit))


@writing
def change_key(key_id: str, changes: KeyChanges) -> Flow[Key | None]:
    """Set columns of a key that is not revoked."""
    return (yield from _change(key_id, key_columns(changes.columns())))


@writing
def revoke_key(key_id: str, at: datetime, reason: str | None) -> Flow[Key | None]:
    """Revoke a key that is not revoked."""
    return (yield from _change(key_id, {"revoked_at": at, "revoked_reason": reason}))


def _change(key_id: str, columns: dict[str, Any]) -> Flow[Key | None]:
    if not _NAME.match(key_id):
        return None
    if columns:
        yield (update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked_at.is_(None)).values(columns))
    row = (yield _KEY.where(KEYS.c.id == key_id)).one_or_none()
    return None if row is None else key_from(row)


def _organization(name: str) -> Flow[Organization | None]:
    if not _NAME.match(name):
        return None
    # An id has an underscore, a slug never has.
    column = ORGANIZATIONS.c.id if "_" in name else ORGANIZATIONS.c.slug
    row = (yield _ORGANIZATION.where(column == name)).one_or_none()
    return None if row is None else organization_from(row)


def _page(
    records: Select[Any],
    table: Table,
    decode: Callable[[Row[Any]], Listed],
    after: str | None,
    limit: int,
) -> Flow[Page[Listed]]:
    order = (table.c.created_at, table.c.id)
    if after is not None:
        if not _NAME.match(after):
            return Page(())
        # Looked up among the listed, by the same statement: an unknown one joins with nothing.
        last = records.with_only_columns(*order).where(table.c.id == after).subquery()
        records = records.join(last, tuple_(*order) > tuple_(*last.c))
    rows = (yield records.order_by(*order).limit(limit + 1)).all()
    items = tuple(decode(row) for row in rows[:limit])
    return Page(items, items[-1].id if len(rows) > limit else None)
