"""The protocol's methods, each one operation, whatever carries it to the store.

A kind of store writes its operations once, as functions in a module that are called like the
methods; its two flavours differ in how they perform one.
"""

# mypy: disable-error-code="no-any-return"
# What an operation gives is the business of the module it comes from.

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any, ClassVar

from keyguard.sansio.models import (
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)

__all__ = ["AsyncMethods", "Methods"]


class Methods(ABC):
    """The operations as methods, for sync code."""

    operations: ClassVar[Any]
    """The module of the operations."""

    @abstractmethod
    def perform(self, operation: Any) -> Any:
        """Run one operation."""

    def add_organization(self, organization: Organization) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self.perform(self.operations.add_organization(organization))

    def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.find_organization(name))

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.list_organizations(after, limit))

    def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.change_organization(organization, changes))

    def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.set_organization_disabled(organization, at))

    def add_key(self, record: KeyRecord) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self.perform(self.operations.add_key(record))

    def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.find_key(key_id))

    def list_keys(self, *, organization: str | None, after: str | None, limit: int) -> Page[Key]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.list_keys(organization, after, limit))

    def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.change_key(key_id, changes))

    def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return self.perform(self.operations.revoke_key(key_id, at, reason))


class AsyncMethods(ABC):
    """The operations as methods, for async code."""

    operations: ClassVar[Any]
    """The module of the operations."""

    @abstractmethod
    async def perform(self, operation: Any) -> Any:
        """Run one operation."""

    async def add_organization(self, organization: Organization) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.perform(self.operations.add_organization(organization))

    async def find_organization(self, name: str) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.find_organization(name))

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.list_organizations(after, limit))

    async def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.change_organization(organization, changes))

    async def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.set_organization_disabled(organization, at))

    async def add_key(self, record: KeyRecord) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.perform(self.operations.add_key(record))

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.find_key(key_id))

    async def list_keys(
        self, *, organization: str | None, after: str | None, limit: int
    ) -> Page[Key]:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.list_keys(organization, after, limit))

    async def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.change_key(key_id, changes))

    async def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """See :class:`~keyguard.backends.base.Backend`."""
        return await self.perform(self.operations.revoke_key(key_id, at, reason))
