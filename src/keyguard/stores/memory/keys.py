"""A key store in the memory of one process, for tests and demos."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeVar

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.core.keys.commit import Commit, Ending, changed
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
from keyguard.core.keys.temporary import Temporary, unexpired
from keyguard.core.values import Page
from keyguard.exceptions import RefusedError
from keyguard.stores.base import Store, SyncUsageStore, page_of
from keyguard.stores.deletions import place_of_deleted
from keyguard.stores.facade import SyncUsage
from keyguard.stores.memory.usage import MemoryUsage

Aged = TypeVar("Aged", Key, Organization, KeyRequest)
P = ParamSpec("P")
R = TypeVar("R")


class MemoryStore(Store):
    """Holds organizations, keys and requests in dictionaries. They end with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._organizations: dict[str, Organization] = {}
        self._keys: dict[str, Key] = {}
        self._digests: dict[str, str] = {}
        self._requests: dict[str, RequestRecord] = {}
        self._trail: list[AuditEntry] = []
        self._told = 0  # the number of the last entry, which the trail may have lost since
        self._temporaries: dict[tuple[str, str], Temporary] = {}
        self.kept_usage = MemoryUsage()

    def migrate(self) -> None: ...

    def close(self) -> None: ...

    def commit(self, commit: Commit) -> bool:
        with self._lock:
            for record_id, version in commit.expected().items():
                record = self._versioned(record_id)
                if record is None or record.version != version:
                    return False
            if not self._is_witnessed(commit.witnesses):
                return False
            if any(self._keys[key.id].stops_at != key.stops_at for key in commit.deleted):
                return False
            for organization in commit.organizations:
                for name in (organization.slug, organization.id):
                    if self._find(name) is not None:
                        raise RefusedError(f"organization {name!r} exists already")
            for new in commit.keys:
                if new.key.id in self._keys:
                    raise RefusedError(f"key {new.key.id!r} exists already")
            for asked in commit.requests:
                if asked.request.id in self._requests:
                    raise RefusedError(f"request {asked.request.id!r} exists already")
            for organization in commit.organizations:
                self._organizations[organization.id] = organization
            for new in commit.keys:
                self._keys[new.key.id], self._digests[new.key.id] = new.key, new.digest
            for asked in commit.requests:
                self._requests[asked.request.id] = asked
            for change in commit.changes:
                if isinstance(change.after, Organization):
                    self._organizations[change.id] = change.after
                elif isinstance(change.after, KeyRequest):
                    self._requests[change.id] = replace(
                        self._requests[change.id], request=change.after
                    )
                else:
                    # a use is not a change of the key, and may be newer than what was read
                    now = self._keys[change.id]
                    self._keys[change.id] = replace(
                        change.after,
                        last_used_at=now.last_used_at,
                        last_used_address=now.last_used_address,
                    )
            for key in commit.deleted:
                del self._keys[key.id], self._digests[key.id]
            for entry in commit.entries:
                self._tell(entry)
            return True

    def end(self, ending: Ending) -> tuple[str, ...] | None:
        with self._lock:
            asking = None if ending.authority is None else self._record(ending.authority)
            if ending.authority is not None and not (asking and asking.works(ending.at)):
                return None
            if not self._is_witnessed(ending.witnesses):
                return None
            ended = [
                record
                for record in self._subjects(ending)
                if getattr(record, ending.ended_at) is None
                and ending.within in (None, _owner(record))
            ]
            if ending.without and any(ending.without & (r.scopes or set()) for r in ended):
                return None
            for record in ended:
                if isinstance(record, Organization):
                    self._organizations[record.id] = changed(record, **ending.fields)
                else:
                    self._keys[record.id] = changed(record, **ending.fields)
                self._tell(ending.entry(record.id, _owner(record)))
            return tuple(record.id for record in ended)

    def find_organization(self, name: str) -> Organization | None:
        with self._lock:
            return self._find(name)

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        with self._lock:
            return page_of(_behind(self._organizations.values(), after), limit)

    def find_key(self, key_id: str) -> KeyRecord | None:
        with self._lock:
            return self._record(key_id)

    def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        with self._lock:
            return frozenset(key_ids) & self._keys.keys()

    def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        with self._lock:
            keys = self._keys.values()
            owned = (key for key in keys if wanted.organization in (None, key.organization))
            # The filter comes after the cursor: the cursor's key may no longer match the filter.
            rest = _behind(owned, after, wanted.place if wanted.search else _age)
            if after is not None and after not in self._keys:
                rest = self._behind_deleted(wanted, after)
        return page_of([key for key in rest if wanted.admits(key)], limit)

    def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        with self._lock:
            live = sorted(key.id for key in self._keys.values() if key.revoked_at is None)
            behind = [key_id for key_id in live if after is None or key_id > after]
            return page_of([KeyDigest(key_id, self._digests[key_id]) for key_id in behind], limit)

    def rehash_key(self, key_id: str, old: str, new: str) -> None:
        with self._lock:
            if self._digests.get(key_id) == old:
                self._digests[key_id] = new

    def mark_used(self, uses: Sequence[Use]) -> None:
        with self._lock:
            for use in uses:
                key = self._keys.get(use.key_id)
                if key is not None and (key.last_used_at is None or key.last_used_at < use.at):
                    self._keys[key.id] = replace(
                        key, last_used_at=use.at, last_used_address=use.address
                    )

    def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        with self._lock:
            entries = [
                entry
                for entry in reversed(self._trail)
                if organization in (None, entry.organization)
                and subject in (None, entry.subject)
                and (after is None or (after.isdecimal() and int(entry.id) < int(after)))
            ]
        return page_of(entries, limit)

    def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        before = deletion.before()
        with self._lock:
            behind = [entry for entry in self._trail if int(entry.id) > int(deletion.after or 0)]
            looked_at = behind[: deletion.limit]
            entries = [(entry.id, entry.at) for entry in looked_at]
            old = {*deletion.old(entries, before)}
            if old and not deletion.dry_run:
                self._trail = [entry for entry in self._trail if entry.id not in old]
                self._tell(deletion.entry(len(old), before))
        return AuditPart(len(old), deletion.go_on(entries, before))

    def find_request(self, request_id: str) -> RequestRecord | None:
        with self._lock:
            return self._requests.get(request_id)

    def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        with self._lock:
            asked = (record.request for record in self._requests.values())
            owned = (a for a in asked if wanted.organization in (None, a.organization))
            rest = _behind(owned, after)
        return page_of([request for request in rest if wanted.admits(request)], limit)

    def put_temporary(self, record: Temporary, now: datetime) -> bool:
        with self._lock:
            kept = self._temporaries.items()
            self._temporaries = {name: known for name, known in kept if unexpired(known, now)}
            if (record.kind, record.digest) in self._temporaries:
                return False
            self._temporaries[record.kind, record.digest] = record
            return True

    def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        with self._lock:
            if unexpired(self._temporaries.get((record.kind, record.digest)), now) is None:
                return False
            self._temporaries[record.kind, record.digest] = record
            return True

    def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        with self._lock:
            return unexpired(self._temporaries.get((kind, digest)), now)

    def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        with self._lock:
            return unexpired(self._temporaries.pop((kind, digest), None), now)

    def feed(self) -> None: ...

    def usage(self) -> SyncUsageStore:
        return SyncUsage(self.kept_usage)

    def _tell(self, entry: AuditEntry) -> None:
        self._told += 1
        self._trail.append(replace(entry, id=str(self._told)))

    def _behind_deleted(self, wanted: KeyFilter, after: str) -> list[Key]:
        """Return the keys after the place of a deleted one; none after an unknown id."""
        told = (entry for entry in reversed(self._trail) if entry.subject == after)
        newest = tuple(islice(told, 1))
        place = place_of_deleted(Page(newest))
        if place is None or wanted.organization not in (None, newest[0].organization):
            return []
        created_at, name = place
        if wanted.search is None:
            return [
                k for k in sorted(self._keys.values(), key=_age) if _age(k) > (created_at, after)
            ]
        is_named = not wanted.finds_id(after)
        behind = (is_named, name if is_named else "", after)
        found = sorted(self._keys.values(), key=wanted.place)
        return [key for key in found if wanted.place(key) > behind]

    def _versioned(self, record_id: str) -> Organization | Key | KeyRequest | None:
        asked = self._requests.get(record_id)
        if asked is not None:
            return asked.request
        return self._organizations.get(record_id) or self._keys.get(record_id)

    def _record(self, key_id: str) -> KeyRecord | None:
        key = self._keys.get(key_id)
        if key is None:
            return None
        return KeyRecord(
            key=key,
            organization=self._organizations[key.organization],
            digest=self._digests[key_id],
        )

    def _subjects(self, ending: Ending) -> list[Key | Organization]:
        if ending.ends_family:
            return [key for key in self._keys.values() if key.family == ending.subject]
        records = self._organizations if ending.ends_organization else self._keys
        record = records.get(ending.subject)
        return [] if record is None else [record]

    def _is_witnessed(self, witnesses: Sequence[Key]) -> bool:
        return not witnesses or any(
            self._keys[key.id].version == key.version for key in witnesses if key.id in self._keys
        )

    def _find(self, name: str) -> Organization | None:
        by_slug = (found for found in self._organizations.values() if found.slug == name)
        return self._organizations.get(name) or next(by_slug, None)


def _awaited(
    method: Callable[Concatenate[MemoryStore, P], R],
) -> Callable[Concatenate[AsyncMemoryStore, P], CoroutineType[Any, Any, R]]:
    """Return a method that calls the store's method of the same name, and never suspends."""

    async def call(self: AsyncMemoryStore, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = getattr(self._store, method.__name__)(*args, **kwargs)
        return result

    call.__name__ = method.__name__  # observers of a store are told the names of its methods
    return call  # type: ignore[return-value] # mypy takes what "async def" returns for less


class AsyncMemoryStore:
    """A :class:`MemoryStore` for async code. It never awaits, so any event loop will do.

    Args:
        store: The store; None for a new one.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()

    migrate = _awaited(MemoryStore.migrate)
    aclose = _awaited(MemoryStore.close)
    commit = _awaited(MemoryStore.commit)
    end = _awaited(MemoryStore.end)
    find_organization = _awaited(MemoryStore.find_organization)
    list_organizations = _awaited(MemoryStore.list_organizations)
    find_key = _awaited(MemoryStore.find_key)
    find_existing = _awaited(MemoryStore.find_existing)
    list_keys = _awaited(MemoryStore.list_keys)
    list_digests = _awaited(MemoryStore.list_digests)
    rehash_key = _awaited(MemoryStore.rehash_key)
    mark_used = _awaited(MemoryStore.mark_used)
    list_audit = _awaited(MemoryStore.list_audit)
    delete_audit = _awaited(MemoryStore.delete_audit)
    find_request = _awaited(MemoryStore.find_request)
    list_requests = _awaited(MemoryStore.list_requests)
    put_temporary = _awaited(MemoryStore.put_temporary)
    replace_temporary = _awaited(MemoryStore.replace_temporary)
    find_temporary = _awaited(MemoryStore.find_temporary)
    take_temporary = _awaited(MemoryStore.take_temporary)

    def feed(self) -> None: ...

    def usage(self) -> MemoryUsage:
        return self._store.kept_usage


def _owner(record: Key | Organization) -> str:
    return record.id if isinstance(record, Organization) else record.organization


def open_store(url: str) -> MemoryStore:  # noqa: ARG001 - there is nothing to choose
    """Return a new store."""
    return MemoryStore()


def open_async_store(url: str) -> AsyncMemoryStore:  # noqa: ARG001 - as above
    """Return a new store for async code."""
    return AsyncMemoryStore()


def _age(record: Key | KeyRequest | Organization) -> tuple[object, ...]:
    return record.created_at, record.id


def _behind(
    records: Iterable[Aged],
    after: str | None,
    place: Callable[[Aged], tuple[object, ...]] = _age,
) -> list[Aged]:
    """Return the records in order, by age if no other is given, from the one after a cursor on."""
    ordered = sorted(records, key=place)
    if after is None:
        return ordered
    ids = [record.id for record in ordered]
    return ordered[ids.index(after) + 1 :] if after in ids else []
