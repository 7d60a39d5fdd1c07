"""A key store in the memory of one process, for tests and demos."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from keyguard.exceptions import RefusedError
from keyguard.sansio.models import (
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)

__all__ = ["AsyncMemoryBackend", "MemoryBackend"]

Record = TypeVar("Record", Key, Organization)


class MemoryBackend:
    """Keep organizations and keys in dictionaries; what it holds ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._organizations: dict[str, Organization] = {}
        self._keys: dict[str, Key] = {}
        self._digests: dict[str, str] = {}

    def migrate(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""

    def close(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""

    def add_organization(self, organization: Organization) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            if self._organization(organization.slug) is not None:
                raise RefusedError(f"organization {organization.slug!r} exists already")
            if organization.id in self._organizations:
                raise RefusedError(f"organization {organization.id!r} exists already")
            self._organizations[organization.id] = organization

    def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            return self._organizations.get(name) or self._organization(name)

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            return _page(self._organizations.values(), after, limit)

    def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            found = self._organizations.get(organization)
            if found is not None:
                found = self._organizations[organization] = replace(found, **changes.columns())
            return found

    def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            found = self._organizations.get(organization)
            if found is None:
                return None
            if at is None or found.disabled_at is None:
                found = self._organizations[organization] = replace(found, disabled_at=at)
            return found

    def add_key(self, record: KeyRecord) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        key = record.key
        with self._lock:
            if key.id in self._keys:
                raise RefusedError(f"key {key.id!r} exists already")
            if key.organization not in self._organizations:
                raise RefusedError(f"there is no organization {key.organization!r}")
            self._keys[key.id] = key
            self._digests[key.id] = record.digest

    def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            key = self._keys.get(key_id)
            if key is None:
                return None
            return KeyRecord(
                key=key,
                organization=self._organizations[key.organization],
                digest=self._digests[key_id],
            )

    def list_keys(self, *, organization: str | None, after: str | None, limit: int) -> Page[Key]:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            keys = self._keys.values()
            return _page(
                (key for key in keys if organization in (None, key.organization)), after, limit
            )

    def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None and key.revoked_at is None:
                key = self._keys[key_id] = replace(key, **changes.columns())
            return key

    def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None and key.revoked_at is None:
                key = self._keys[key_id] = replace(key, revoked_at=at, revoked_reason=reason)
            return key

    def _organization(self, slug: str) -> Organization | None:
        return next((one for one in self._organizations.values() if one.slug == slug), None)


class AsyncMemoryBackend:
    """The same for async code; it never awaits, so any event loop will do.

    Args:
        store: Where to keep things; None for a new :class:`MemoryBackend`.
    """

    def __init__(self, store: MemoryBackend | None = None) -> None:
        self._store = store or MemoryBackend()

    async def migrate(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""

    async def aclose(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""

    async def add_organization(self, organization: Organization) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self._store.add_organization(organization)

    async def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.find_organization(name)

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.list_organizations(after=after, limit=limit)

    async def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.change_organization(organization, changes)

    async def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.set_organization_disabled(organization, at)

    async def add_key(self, record: KeyRecord) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self._store.add_key(record)

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.find_key(key_id)

    async def list_keys(
        self, *, organization: str | None, after: str | None, limit: int
    ) -> Page[Key]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.list_keys(organization=organization, after=after, limit=limit)

    async def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.change_key(key_id, changes)

    async def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self._store.revoke_key(key_id, at, reason)


def _page(records: Iterable[Record], after: str | None, limit: int) -> Page[Record]:
    ordered = sorted(records, key=lambda record: (record.created_at, record.id))
    if after is not None:
        ids = [record.id for record in ordered]
        ordered = ordered[ids.index(after) + 1 :] if after in ids else []
    items = tuple(ordered[:limit])
    return Page(items, items[-1].id if len(ordered) > limit else None)
