"""The methods of a store whose operations are written once for both flavours.

What a store does is a module of operations; how one is run is its store's ``perform``. These
classes put the two together, so that no store spells the protocol out again. How the change feed
waits for news is each store's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.core.keys.values import Page
from keyguard.stores.base import AsyncChangeFeed, ChangeFeed

__all__ = ["AsyncMethods", "Methods"]


class Methods(ABC):
    """The operations as methods, for sync code."""

    operations: ClassVar[Any]
    """The module of the operations."""

    @abstractmethod
    def perform(self, operation: Any) -> Any:
        """Run one operation."""

    @abstractmethod
    def feed(self) -> ChangeFeed:
        """See :class:`~keyguard.stores.base.Store`."""

    def commit(self, commit: Commit) -> bool:
        """See :class:`~keyguard.stores.base.Store`."""
        result: bool = self.perform(self.operations.commit(commit))
        return result

    def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Organization | None = self.perform(self.operations.find_organization(name))
        return result

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[Organization] = self.perform(self.operations.list_organizations(after, limit))
        return result

    def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.stores.base.Store`."""
        result: KeyRecord | None = self.perform(self.operations.find_key(key_id))
        return result

    def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: frozenset[str] = self.perform(self.operations.find_existing(key_ids))
        return result

    def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[Key] = self.perform(self.operations.list_keys(wanted, after, limit))
        return result

    def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[KeyDigest] = self.perform(self.operations.list_digests(after, limit))
        return result

    def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        self.perform(self.operations.rehash_key(key_id, old, new))

    def mark_used(self, uses: Sequence[Use]) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        self.perform(self.operations.mark_used(uses))

    def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[AuditEntry] = self.perform(
            self.operations.list_audit(organization, subject, after, limit)
        )
        return result


class AsyncMethods(ABC):
    """The operations as methods, for async code."""

    operations: ClassVar[Any]
    """The module of the operations."""

    @abstractmethod
    async def perform(self, operation: Any) -> Any:
        """Run one operation."""

    @abstractmethod
    def feed(self) -> AsyncChangeFeed:
        """See :class:`~keyguard.stores.base.Store`."""

    async def commit(self, commit: Commit) -> bool:
        """See :class:`~keyguard.stores.base.Store`."""
        result: bool = await self.perform(self.operations.commit(commit))
        return result

    async def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Organization | None = await self.perform(self.operations.find_organization(name))
        return result

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[Organization] = await self.perform(
            self.operations.list_organizations(after, limit)
        )
        return result

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.stores.base.Store`."""
        result: KeyRecord | None = await self.perform(self.operations.find_key(key_id))
        return result

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: frozenset[str] = await self.perform(self.operations.find_existing(key_ids))
        return result

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[Key] = await self.perform(self.operations.list_keys(wanted, after, limit))
        return result

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[KeyDigest] = await self.perform(self.operations.list_digests(after, limit))
        return result

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self.perform(self.operations.rehash_key(key_id, old, new))

    async def mark_used(self, uses: Sequence[Use]) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self.perform(self.operations.mark_used(uses))

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """See :class:`~keyguard.stores.base.Store`."""
        result: Page[AuditEntry] = await self.perform(
            self.operations.list_audit(organization, subject, after, limit)
        )
        return result
