"""What a key store must be able to do, in both flavours.

A backend decides nothing. Every method is whole or did not happen, and raises a
:class:`~keyguard.exceptions.BackendError` (with the driver's error as ``__cause__``) where the
store fails. A store of your own needs these methods and nothing else; honour
:func:`keyguard.deadlines.remaining` as the driver's timeout where the store is across a network.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, runtime_checkable

from keyguard.sansio.models import (
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)

__all__ = ["AsyncBackend", "Backend"]


@runtime_checkable
class Backend(Protocol):
    """A key store for sync code."""

    def migrate(self) -> None:
        """Create the store's tables or bring them up to date; safe to call at every start.

        Raises:
            SchemaError: They are newer than this version of keyguard.
        """

    def close(self) -> None:
        """Give back what the backend opened itself; calling it twice is fine."""

    def add_organization(self, organization: Organization) -> None:
        """Store a new organization.

        Raises:
            RefusedError: Its slug or id is taken.
        """

    def find_organization(self, name: str) -> Organization | None:
        """Return the organization whose id or slug is ``name``; an exact, case-sensitive match."""
        ...

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """Return up to ``limit`` organizations, by time of creation and then id.

        Args:
            after: The id behind which to start, or None. An unknown one gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """Set the given columns of an organization, and only those.

        Args:
            organization: Its id.
            changes: The columns.

        Returns:
            The organization as it stands after, or None where there is none.
        """
        ...

    def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """Disable an organization that is enabled, or enable it.

        Args:
            organization: Its id.
            at: Since when it is disabled; one that is disabled already keeps its time. None to
                enable it.

        Returns:
            The organization as it stands after, or None where there is none.
        """
        ...

    def add_key(self, record: KeyRecord) -> None:
        """Store a new key.

        Raises:
            RefusedError: Its id is taken, or its organization does not exist.
        """

    def find_key(self, key_id: str) -> KeyRecord | None:
        """Return a key with its organization as both stand now; an exact, case-sensitive match."""
        ...

    def list_keys(self, *, organization: str | None, after: str | None, limit: int) -> Page[Key]:
        """Return up to ``limit`` keys, dead ones included, by time of creation and then id.

        Args:
            organization: The id of the only organization whose keys are wanted, or None for all.
            after: The id behind which to start, or None. An unknown one gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """Set the given columns of a key, and only those, unless it is revoked.

        Returns:
            The key as it stands after, or None where there is none.
        """
        ...

    def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """Revoke a key that is not revoked; one that is keeps its time and reason.

        Returns:
            The key as it stands after, or None where there is none.
        """
        ...


@runtime_checkable
class AsyncBackend(Protocol):
    """A key store for async code: :class:`Backend`, awaited."""

    async def migrate(self) -> None:
        """See :meth:`Backend.migrate`."""

    async def aclose(self) -> None:
        """See :meth:`Backend.close`."""

    async def add_organization(self, organization: Organization) -> None:
        """See :meth:`Backend.add_organization`."""

    async def find_organization(self, name: str) -> Organization | None:
        """See :meth:`Backend.find_organization`."""
        ...

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :meth:`Backend.list_organizations`."""
        ...

    async def change_organization(
        self, organization: str, changes: OrganizationChanges
    ) -> Organization | None:
        """See :meth:`Backend.change_organization`."""
        ...

    async def set_organization_disabled(
        self, organization: str, at: datetime | None
    ) -> Organization | None:
        """See :meth:`Backend.set_organization_disabled`."""
        ...

    async def add_key(self, record: KeyRecord) -> None:
        """See :meth:`Backend.add_key`."""

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :meth:`Backend.find_key`."""
        ...

    async def list_keys(
        self, *, organization: str | None, after: str | None, limit: int
    ) -> Page[Key]:
        """See :meth:`Backend.list_keys`."""
        ...

    async def change_key(self, key_id: str, changes: KeyChanges) -> Key | None:
        """See :meth:`Backend.change_key`."""
        ...

    async def revoke_key(self, key_id: str, at: datetime, reason: str | None) -> Key | None:
        """See :meth:`Backend.revoke_key`."""
        ...
