"""The operations of the key store in Redis, over a port that runs scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import floor
from typing import TypeVar

from keyguard.core.keys.audit import TRAIL, AuditEntry
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.keys.requests import OPEN, KeyRequest, RequestFilter, RequestRecord
from keyguard.core.keys.temporary import Temporary, unexpired
from keyguard.core.texts import fits
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.values import (
    FAMILY_ID,
    ORGANIZATION_ID,
    ORGANIZATION_NAME,
    REQUEST_ID,
    Page,
)
from keyguard.exceptions import RefusedError
from keyguard.stores.base import (
    AsyncChangeFeed,
    Damaged,
    page_of,
    read_listed,
    storable_address,
)
from keyguard.stores.deletions import place_of_deleted, too_early
from keyguard.stores.redis import scripts
from keyguard.stores.redis.commit_call import commit_call, ending_call, record_key
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.hashes import (
    digest_from,
    entry_from,
    is_entry,
    key_from,
    organization_from,
    own,
    record_from,
    request_from,
    request_record_from,
    temporary_from,
    temporary_text,
    time_text,
)
from keyguard.stores.redis.listed import Listed
from keyguard.stores.redis.ports import ScriptPort
from keyguard.stores.redis.scripts import DONE, Reply, list_of, store_call, text_of, texts_of
from keyguard.stores.redis.trail import delete_old

Found = TypeVar("Found", Key, KeyRequest, Organization)

_SUBJECTS = (ORGANIZATION_ID, KEY_ID, REQUEST_ID)
_STREAM_ID = re.compile(r"(\d{1,20})-(\d{1,20})\Z", re.ASCII)
_STREAM_NUMBERS = 2**64
_FEWEST_DIGESTS = 200
_MILLISECOND = timedelta(milliseconds=1)
_LOOKED_AT = 2000
"""Keys that one script looks at for a filter. It takes milliseconds, and Redis does nothing else
meanwhile."""


class RedisKeys:
    """Keys, organizations and their audit trail in Redis.

    Args:
        port: Runs the scripts.
        feed: Makes a reader of the audit trail.
        replicas: How many replicas must have a change before it is acknowledged.
    """

    system_name = "redis"

    def __init__(
        self, port: ScriptPort, feed: Callable[[], AsyncChangeFeed], replicas: int
    ) -> None:
        self._port = port
        self._feed = feed
        self._durability = Durability(replicas, port.place) if replicas else None

    def feed(self) -> AsyncChangeFeed:
        return self._feed()

    async def aclose(self) -> None:
        await self._port.aclose()

    async def migrate(self) -> None:
        await self._run(scripts.MIGRATE, keys=("audit",))

    async def commit(self, commit: Commit) -> bool:
        reply = await self._port.run(commit_call(commit), self._durability)
        outcome, *taken = texts_of(reply)
        if outcome in (DONE, "conflict"):
            return outcome == DONE
        if outcome == "early":
            raise too_early(taken[0])
        raise RefusedError(f"{outcome} {taken[0]!r} exists already")

    async def end(self, ending: Ending) -> tuple[str, ...] | None:
        call = ending_call(ending, waits=self._durability is not None)
        reply = await self._port.run(call, self._durability)
        outcome, *ended = texts_of(reply)
        return tuple(ended) if outcome == DONE else None

    async def find_organization(self, name: str) -> Organization | None:
        if not ORGANIZATION_NAME.match(name):
            return None
        if "_" not in name:  # an id has an underscore, a slug never has
            name = text_of(await self._run(scripts.FIND_SLUG, name, keys=("slugs",)))
            if not name:
                return None
        row = await self._run(scripts.FIND_RECORD, keys=(record_key(name),))
        return own(name, organization_from(row)) if row else None

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        if not _may_be(ORGANIZATION_ID, after):
            return Page(())
        listed = Listed("organization", "organizations")
        return page_of(*await self._found(organization_from, listed, after, limit))

    async def find_key(self, key_id: str) -> KeyRecord | None:
        if not KEY_ID.match(key_id):
            return None
        rows = await self._run(scripts.FIND_KEY, keys=(record_key(key_id),))
        if rows is None:
            return None
        record = record_from(rows)
        own(key_id, record.key)
        return record

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        possible = [key_id for key_id in dict.fromkeys(key_ids) if KEY_ID.match(key_id)]
        if not possible:
            return frozenset()
        reply = await self._run(scripts.FIND_EXISTING, keys=tuple(map(record_key, possible)))
        return frozenset(possible[int(position)] for position in texts_of(reply))

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        if not (
            _may_be(ORGANIZATION_ID, wanted.organization)
            and _may_be(FAMILY_ID, wanted.family)
            and _may_be(KEY_ID, after)
            and fits(wanted.owner or "")
        ):
            return Page(())
        index = "keys"
        if wanted.organization is not None:
            index = f"keys:{wanted.organization}"
        if wanted.owner is not None:
            index = f"owner:{wanted.owner}"
        if wanted.family is not None:
            index = f"family:{wanted.family}"
        times = (wanted.ends_before, wanted.unused_since, wanted.alive_at, wanted.ended_before)
        listed = Listed("key", index, wanted.organization, tuple(map(time_text, times)))
        if wanted.search is not None:
            return await self._search(wanted, wanted.search, listed, after, limit)
        return page_of(*await self._found(key_from, listed, after, limit, wanted.admits))

    async def _search(
        self, wanted: KeyFilter, search: str, listed: Listed, after: str | None, limit: int
    ) -> Page[Key]:
        """List the keys that a search finds: those whose id begins with it, then those by name."""
        if not fits(search):
            return Page(())
        items: list[Key | Damaged] = []
        left = limit
        if wanted.finds_id(search) and (after is None or after.startswith(search)):
            ids = listed._replace(by="ids", search=search, order="id")
            items, left = await self._found(key_from, ids, after, limit, wanted.admits)
            after = None
        if len(items) <= left:
            names = listed._replace(by=f"names:{wanted.organization}", search=search, order="name")
            named, rest = await self._found(
                key_from,
                names,
                after,
                left - len(items),
                lambda key: wanted.admits(key) and not wanted.finds_id(key.id),
            )
            items, left = [*items, *named], len(items) + rest
        return page_of(items, left)

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        if not _may_be(KEY_ID, after):
            return Page(())
        digests: list[KeyDigest | Damaged] = []
        last = after or ""
        while True:
            look = max(limit + 1 - len(digests), _FEWEST_DIGESTS)
            reply = await self._run(scripts.LIST_DIGESTS, last, str(look), keys=("ids",))
            end, rows = list_of(reply)
            digests += [
                read_listed(text_of(list_of(row)[0]), digest_from, row) for row in list_of(rows)
            ]
            last = text_of(end)
            if len(digests) > limit or not last:
                return page_of(digests, limit)

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        if KEY_ID.match(key_id):
            await self._run(scripts.REHASH_KEY, old, new, keys=(record_key(key_id),))

    async def mark_used(self, uses: Sequence[Use]) -> None:
        possible = [use for use in uses if KEY_ID.match(use.key_id)]
        if possible:
            await self._run(
                scripts.MARK_USED,
                *(
                    text
                    for use in possible
                    for text in (time_text(use.at), storable_address(use.address) or "")
                ),
                keys=tuple(record_key(use.key_id) for use in possible),
            )

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        if not _can_exist(organization, subject, after):
            return Page(())
        # A record's and an organization's entries have an index of their own each, so that no
        # look-up searches the entries of others.
        script, keys = scripts.LIST_AUDIT, ["audit"]
        if subject is not None or organization is not None:
            script = scripts.LIST_TRAIL
            keys.append(f"owned:{organization}" if subject is None else f"trail:{subject}")
        entries: list[AuditEntry | Damaged] = []
        last = after or ""
        while True:
            asked = limit + 1 - len(entries)
            rows = list_of(await self._run(script, last, str(asked), keys=tuple(keys)))
            read = [
                read_listed(text_of(list_of(row)[0]), entry_from, row)
                for row in rows
                if is_entry(row)
            ]
            entries += [
                entry
                for entry in read
                if isinstance(entry, Damaged) or organization in (None, entry.organization)
            ]
            if len(entries) > limit or len(rows) < asked:
                return page_of(entries, limit)
            last = text_of(list_of(rows[-1])[0])

    async def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        return await delete_old(self._port, self._durability, deletion)

    async def find_request(self, request_id: str) -> RequestRecord | None:
        if not REQUEST_ID.match(request_id):
            return None
        row = await self._run(scripts.FIND_RECORD, keys=(record_key(request_id),))
        if not row:
            return None
        record = request_record_from(row)
        own(request_id, record.request)
        return record

    async def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        owner = wanted.organization
        if not (
            _may_be(ORGANIZATION_ID, owner)
            and _may_be(REQUEST_ID, after)
            and fits(wanted.requester or "")
        ):
            return Page(())
        open_at, index = "", "requests"
        if wanted.statuses and wanted.statuses <= OPEN:
            open_at, index = str(floor(wanted.at.timestamp())), "open"
        if owner is not None:
            index = f"{index}:{owner}"
        if wanted.requester is not None:
            open_at, index = "", f"requester:{wanted.requester}"
        listed = Listed("request", index, owner, open_at=open_at)
        return page_of(*await self._found(request_from, listed, after, limit, wanted.admits))

    async def put_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self._keep(record, now, "put")

    async def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self._keep(record, now, "replace")

    async def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        found = await self._run(scripts.FIND_TEMPORARY, keys=(_temporary_key(kind, digest),))
        return unexpired(temporary_from(kind, digest, found), now)

    async def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        call = store_call(scripts.TAKE_TEMPORARY, keys=(_temporary_key(kind, digest),))
        found = list_of(await self._port.run(call, self._durability))[1]
        return unexpired(temporary_from(kind, digest, found), now)

    async def _keep(self, record: Temporary, now: datetime, way: str) -> bool:
        # The server's clock may be wrong, and only counts the milliseconds.
        left = max(1, -((now - record.expires_at) // _MILLISECOND))
        call = store_call(
            scripts.PUT_TEMPORARY,
            *(time_text(now), temporary_text(record), str(left), way),
            keys=(_temporary_key(record.kind, record.digest),),
        )
        return texts_of(await self._port.run(call, self._durability)) == [DONE]

    async def _run(self, script: scripts.Script, *arguments: str, keys: tuple[str, ...]) -> Reply:
        return await self._port.run(store_call(script, *arguments, keys=keys))

    async def _found(
        self,
        decode: Callable[[Reply], Found],
        listed: Listed,
        after: str | None,
        limit: int,
        admits: Callable[[Found], bool] = bool,
    ) -> tuple[list[Found | Damaged], int]:
        """Return one item more than a page has, if there are so many, and the page's size.

        That grows where another page could not begin behind the last item.
        """
        items: list[Found | Damaged] = []
        last, keys = "", (listed.by,) if after is None else (listed.by, record_key(after))
        while True:
            asked = limit + 1 - len(items)
            look = max(asked, _LOOKED_AT) if any(listed.times) else asked
            arguments = (str(asked), str(look), last, listed.owner or "", *listed.times)
            more = (listed.open_at, listed.search, listed.order)
            reply = await self._run(scripts.LIST_RECORDS, listed.kind, *arguments, *more, keys=keys)
            end, rows = list_of(reply)
            for row in list_of(rows):
                record_id, fields = list_of(row)
                if not fields:
                    continue  # a crash may leave an index entry without a record
                item = read_listed(text_of(record_id), decode, fields)
                if isinstance(item, Damaged) or admits(item):
                    items.append(item)
            may_be_deleted = len(keys) > 1 and not list_of(rows)  # the record of "after"
            last, keys = text_of(end), (listed.by,)
            if after is not None and may_be_deleted and not last:
                last = await self._place_of_deleted(listed, after)
                if last:
                    continue
            # The next page begins behind a record whose time of creation can be read.
            while 0 < limit <= len(items) and isinstance(items[limit - 1], Damaged):
                limit += 1
            if len(items) > limit or not last:
                return items, limit

    async def _place_of_deleted(self, listed: Listed, key_id: str) -> str:
        """Return the entry that a key had in an index before it was deleted, or ""."""
        if listed.kind != "key":
            return ""
        newest = await self.list_audit(
            organization=listed.owner, subject=key_id, after=None, limit=1
        )
        place = place_of_deleted(newest)
        return "" if place is None else listed.entry(key_id, *place)


def _temporary_key(kind: str, digest: str) -> str:
    return f"temporary:{kind}:{digest}"


def _may_be(pattern: re.Pattern[str], text: str | None) -> bool:
    """Return whether a text can be an id of a kind. None stands for any."""
    return text is None or pattern.match(text) is not None


def _can_exist(organization: str | None, subject: str | None, after: str | None) -> bool:
    """Return whether ids can be those of an organization, of a record, and of an entry."""
    if organization not in (None, TRAIL) and not ORGANIZATION_ID.match(organization):
        return False
    if subject not in (None, TRAIL) and not any(known.match(subject) for known in _SUBJECTS):
        return False
    found = None if after is None else _STREAM_ID.match(after)
    if found is None:
        return after is None
    return all(int(part) < _STREAM_NUMBERS for part in found.groups())
