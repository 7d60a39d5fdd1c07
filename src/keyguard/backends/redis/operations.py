"""What the Redis backend does, written once for both flavours.

An operation is a generator. It yields calls of scripts, is sent their replies, and returns what the
backend's method returns. It does no I/O: :mod:`~keyguard.backends.redis.backend` carries its calls
to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from keyguard.backends.redis import scripts
from keyguard.backends.redis.records import (
    columns_of,
    entry_of,
    key_from,
    organization_from,
    record_from,
    text_of,
)
from keyguard.backends.redis.scripts import STORE, Call, Script
from keyguard.exceptions import RefusedError
from keyguard.sansio.models import (
    ORGANIZATION_NAME,
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)
from keyguard.sansio.tokens import KEY_ID

__all__ = [
    "Flow",
    "add_key",
    "add_organization",
    "change_key",
    "change_organization",
    "find_key",
    "find_organization",
    "list_keys",
    "list_organizations",
    "migrate",
    "revoke_key",
    "set_organization_disabled",
]

Result = TypeVar("Result")
Listed = TypeVar("Listed", Key, Organization)

Flow: TypeAlias = Generator[Call, Any, Result]

_VERSION = "1"


def migrate() -> Flow[None]:
    """Make the store."""
    yield _call(scripts.MIGRATE)


def add_organization(organization: Organization) -> Flow[None]:
    """Add an organization."""
    added = yield _call(
        scripts.ADD_ORGANIZATION,
        *(organization.id, organization.slug, entry_of(organization), *columns_of(organization)),
        keys=(_record(organization.id), "slugs", "organizations"),
    )
    match text_of(added):
        case "slug":
            raise RefusedError(f"organization {organization.slug!r} exists already")
        case "id":
            raise RefusedError(f"organization {organization.id!r} exists already")
        case _:
            return


def find_organization(name: str) -> Flow[Organization | None]:
    """Find an organization by its id or slug."""
    if not ORGANIZATION_NAME.match(name):
        return None
    if "_" not in name:  # an id has an underscore, a slug never has
        name = text_of((yield _call(scripts.FIND_SLUG, name, keys=("slugs",))))
        if not name:
            return None
    return organization_from((yield _call(scripts.FIND_ORGANIZATION, keys=(_record(name),))))


def list_organizations(after: str | None, limit: int) -> Flow[Page[Organization]]:
    """List organizations."""
    return (yield from _page(organization_from, "organization", "organizations", after, limit))


def change_organization(
    organization: str, changes: OrganizationChanges
) -> Flow[Organization | None]:
    """Set columns of an organization."""
    if not ORGANIZATION_NAME.match(organization):
        return None
    columns = columns_of(changes.columns())
    return organization_from(
        (yield _call(scripts.CHANGE_ORGANIZATION, *columns, keys=(_record(organization),)))
    )


def set_organization_disabled(organization: str, at: datetime | None) -> Flow[Organization | None]:
    """Disable an organization that is enabled, or enable it."""
    if not ORGANIZATION_NAME.match(organization):
        return None
    _, since = columns_of({"disabled_at": at})
    return organization_from(
        (yield _call(scripts.DISABLE_ORGANIZATION, since, keys=(_record(organization),)))
    )


def add_key(record: KeyRecord) -> Flow[None]:
    """Add a key."""
    key = record.key
    added = yield _call(
        scripts.ADD_KEY,
        *(entry_of(key), *columns_of(key), "digest", record.digest),
        keys=(_record(key.id), _record(key.organization), "keys", f"keys:{key.organization}"),
    )
    match text_of(added):
        case "id":
            raise RefusedError(f"key {key.id!r} exists already")
        case "organization":
            raise RefusedError(f"there is no organization {key.organization!r}")
        case _:
            return


def find_key(key_id: str) -> Flow[KeyRecord | None]:
    """Find a key with its organization."""
    if not KEY_ID.match(key_id):
        return None
    rows = yield _call(scripts.FIND_KEY, keys=(_record(key_id),))
    return None if rows is None else record_from(rows)


def list_keys(organization: str | None, after: str | None, limit: int) -> Flow[Page[Key]]:
    """List keys, of one organization or of all."""
    if organization is None:
        return (yield from _page(key_from, "key", "keys", after, limit))
    if not ORGANIZATION_NAME.match(organization):
        return Page(())
    return (yield from _page(key_from, "key", f"keys:{organization}", after, limit))


def change_key(key_id: str, changes: KeyChanges) -> Flow[Key | None]:
    """Set columns of a key that is not revoked."""
    return (yield from _change(key_id, columns_of(changes.columns())))


def revoke_key(key_id: str, at: datetime, reason: str | None) -> Flow[Key | None]:
    """Revoke a key that is not revoked."""
    columns = columns_of({"revoked_at": at, "revoked_reason": reason})
    return (yield from _change(key_id, columns))


def _change(key_id: str, columns: tuple[str, ...]) -> Flow[Key | None]:
    if not KEY_ID.match(key_id):
        return None
    return key_from((yield _call(scripts.CHANGE_KEY, *columns, keys=(_record(key_id),))))


def _page(
    decode: Callable[[Any], Listed | None], kind: str, index: str, after: str | None, limit: int
) -> Flow[Page[Listed]]:
    if after is not None and not (KEY_ID.match(after) or ORGANIZATION_NAME.match(after)):
        return Page(())
    items: list[Listed] = []
    last = ""
    while True:
        asked = limit + 1 - len(items)
        rows = yield _call(scripts.LIST, kind, str(asked), after or "", last, keys=(index,))
        # What a crash left in an index without a record is passed over.
        items += [item for _, row in rows if (item := decode(row)) is not None]
        if len(items) > limit or len(rows) < asked:
            break
        after, last = None, text_of(rows[-1][0])
    page = tuple(items[:limit])
    return Page(page, page[-1].id if len(items) > limit else None)


def _record(record_id: str) -> str:
    return f"{'organization' if '_' in record_id else 'key'}:{record_id}"


def _call(script: Script, *arguments: str, keys: tuple[str, ...] = ()) -> Call:
    names = tuple(f"{STORE}{key}" for key in ("schema", *keys))
    return Call(script, names, (_VERSION, *arguments))
