"""What the Redis store does, written once for both flavours.

An operation is a generator. It yields calls of scripts, is sent their replies, and returns what the
store's method returns. It does no I/O: :mod:`~keyguard.stores.redis.store` carries its calls
to the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.core.keys.values import FAMILY_ID, ORGANIZATION_ID, ORGANIZATION_NAME, Page
from keyguard.core.tokens.format import KEY_ID
from keyguard.exceptions import RefusedError
from keyguard.stores.base import News
from keyguard.stores.redis import scripts
from keyguard.stores.redis.committing import commit_call
from keyguard.stores.redis.migrating import VERSION, migrate
from keyguard.stores.redis.records import (
    entry_from,
    key_from,
    organization_from,
    record_from,
    text_of,
    time_text,
)
from keyguard.stores.redis.scripts import STORE, Call, Script

__all__ = [
    "Flow",
    "commit",
    "find_existing",
    "find_key",
    "find_organization",
    "list_audit",
    "list_digests",
    "list_keys",
    "list_organizations",
    "mark_used",
    "migrate",
    "news",
    "rehash_key",
]

Result = TypeVar("Result")
Listed = TypeVar("Listed", Key, Organization)

Flow: TypeAlias = Generator[Call, Any, Result]

_STREAM_ID = re.compile(r"(\d{1,20})-(\d{1,20})\Z", re.ASCII)
_LARGEST = 2**64
_MOST_NEWS = 1000
_FEWEST_DIGESTS = 200
_LOOKED_AT = 2000
"""Keys that one script looks at for a filter; it takes milliseconds, for which Redis stands."""


def commit(commit: Commit) -> Flow[bool]:
    """Make all changes of a commit, or none."""
    outcome, *taken = yield commit_call(commit, VERSION)
    match text_of(outcome):
        case "done":
            return True
        case "conflict":
            return False
        case kind:
            raise RefusedError(f"{kind} {text_of(taken[0])!r} exists already")


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
    if after is not None and not ORGANIZATION_ID.match(after):
        return Page(())
    return (
        yield from _page(
            organization_from, "organization", "organizations", KeyFilter(), after, limit
        )
    )


def find_key(key_id: str) -> Flow[KeyRecord | None]:
    """Find a key with its organization."""
    if not KEY_ID.match(key_id):
        return None
    rows = yield _call(scripts.FIND_KEY, keys=(_record(key_id),))
    return None if rows is None else record_from(rows)


def find_existing(key_ids: Sequence[str]) -> Flow[frozenset[str]]:
    """Tell which ids are those of keys."""
    possible = [key_id for key_id in dict.fromkeys(key_ids) if KEY_ID.match(key_id)]
    if not possible:
        return frozenset()
    reply = yield _call(scripts.FIND_EXISTING, keys=tuple(map(_record, possible)))
    there: list[int] = reply
    return frozenset(possible[place] for place in there)


def list_keys(wanted: KeyFilter, after: str | None, limit: int) -> Flow[Page[Key]]:
    """List the keys that a filter admits."""
    index = "keys"
    if wanted.organization is not None:
        index = f"keys:{wanted.organization}"
        if not ORGANIZATION_ID.match(wanted.organization):
            return Page(())
    if wanted.family is not None:
        index = f"family:{wanted.family}"
        if not FAMILY_ID.match(wanted.family):
            return Page(())
    if after is not None and not KEY_ID.match(after):
        return Page(())

    def decode(row: Any) -> Key | None:
        key = key_from(row)
        return key if key is not None and wanted.admits(key) else None

    return (yield from _page(decode, "key", index, wanted, after, limit))


def list_digests(after: str | None, limit: int) -> Flow[Page[KeyDigest]]:
    """List stored forms of tokens."""
    if after is not None and not KEY_ID.match(after):
        return Page(())
    items: list[KeyDigest] = []
    last = after or ""
    while True:
        look = max(limit + 1 - len(items), _FEWEST_DIGESTS)
        end, rows = yield _call(scripts.LIST_DIGESTS, last, str(look), keys=("ids",))
        items += [KeyDigest(text_of(key_id), text_of(digest)) for key_id, digest in rows]
        last = text_of(end)
        if len(items) > limit or not last:
            page = tuple(items[:limit])
            return Page(page, page[-1].id if len(items) > limit else None)


def rehash_key(key_id: str, old: str, new: str) -> Flow[None]:
    """Replace the stored form of a token."""
    if KEY_ID.match(key_id):
        yield _call(scripts.REHASH_KEY, old, new, keys=(_record(key_id),))


def mark_used(uses: Sequence[Use]) -> Flow[None]:
    """Set when keys were last used."""
    possible = [use for use in uses if KEY_ID.match(use.key_id)]
    if possible:
        yield _call(
            scripts.MARK_USED,
            *(part for use in possible for part in (time_text(use.at), use.address or "")),
            keys=tuple(_record(use.key_id) for use in possible),
        )


def list_audit(
    organization: str | None, subject: str | None, after: str | None, limit: int
) -> Flow[Page[AuditEntry]]:
    """List entries of the audit trail.

    Those of one record, and those of one organization, are listed by themselves, so that nobody's
    trail is searched through for another's.
    """
    if organization is not None and not ORGANIZATION_ID.match(organization):
        return Page(())
    if subject is not None and not (ORGANIZATION_ID.match(subject) or KEY_ID.match(subject)):
        return Page(())
    if after is not None and not _is_stream_id(after):
        return Page(())
    script, keys = scripts.LIST_AUDIT, ["audit"]
    if subject is not None or organization is not None:
        script = scripts.LIST_TRAIL
        keys.append(f"owned:{organization}" if subject is None else f"trail:{subject}")
    items: list[AuditEntry] = []
    last = after or ""
    while True:
        asked = limit + 1 - len(items)
        rows = yield _call(script, last, str(asked), keys=tuple(keys))
        entries = [entry for row in rows if (entry := entry_from(row)) is not None]
        items += [entry for entry in entries if organization in (None, entry.organization)]
        if len(items) > limit or len(rows) < asked:
            page = tuple(items[:limit])
            return Page(page, page[-1].id if len(items) > limit else None)
        last = text_of(rows[-1][0])


def news(position: str | None) -> Flow[News]:
    """Tell what changed behind a position in the trail."""
    reply = yield _call(scripts.NEWS, position or "", str(_MOST_NEWS), keys=("audit",))
    end, subjects, whole = reply
    told = None if subjects is None else tuple(text_of(subject) for subject in subjects)
    return News(text_of(end), told, whole=bool(whole))


def _page(
    decode: Callable[[Any], Listed | None],
    kind: str,
    index: str,
    wanted: KeyFilter,
    after: str | None,
    limit: int,
) -> Flow[Page[Listed]]:
    times: list[str] = [
        time_text(at) for at in (wanted.ends_before, wanted.unused_since, wanted.alive_at)
    ]
    items: list[Listed] = []
    last, keys = "", (index,) if after is None else (index, _record(after))
    while True:
        asked = limit + 1 - len(items)
        look = max(asked, _LOOKED_AT) if any(times) else asked
        end, rows = yield _call(
            scripts.LIST,
            *(kind, str(asked), str(look), last, wanted.organization or "", *times),
            keys=keys,
        )
        # What a crash left in an index without a record is passed over.
        items += [item for row in rows if (item := decode(row)) is not None]
        last, keys = text_of(end), (index,)
        if len(items) > limit or not last:
            page = tuple(items[:limit])
            return Page(page, page[-1].id if len(items) > limit else None)


def _is_stream_id(text: str) -> bool:
    found = _STREAM_ID.match(text)
    return found is not None and all(int(part) < _LARGEST for part in found.groups())


def _record(record_id: str) -> str:
    return f"{'organization' if '_' in record_id else 'key'}:{record_id}"


def _call(script: Script, *arguments: str, keys: tuple[str, ...] = ()) -> Call:
    names = tuple(f"{STORE}{key}" for key in ("schema", *keys))
    return Call(script, names, (VERSION, *arguments))
