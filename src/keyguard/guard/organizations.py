"""Organizations, for sync code.

Each method runs an operation of :mod:`keyguard.core.management`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from keyguard.core.keys.audit import Actor
from keyguard.core.keys.records import Organization
from keyguard.core.keys.results import DamagedOrganization
from keyguard.core.limits.limit import Limits
from keyguard.core.management.organizations import AsyncOrganizations
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.values import UNCHANGED, Page, Unchanged
from keyguard.runtime.sync import run_sync


class Organizations:
    """The organizations of one guard."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncOrganizations(ports)

    def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        limits: Limits = (),
        scopes: Iterable[str] | None = None,
        max_key_lifetime: timedelta | None = None,
        max_keys: int | None = None,
        time_zone: str = "UTC",
        plan: str | None = None,
        metadata: Mapping[str, str] | None = None,
        actor: Actor = None,
    ) -> Organization:
        """Create an organization.

        Args:
            slug: Its short name, unique: lower-case letters, digits and inner ``-``.
            name: Its display name; by default the slug.
            limits: The limits of its keys. A rate without a name applies to all its keys together.
            scopes: The most that its keys may do, whatever they are granted; None for no ceiling.
            max_key_lifetime: How long its keys may work; None for no bound.
            max_keys: How many keys it may have at a time; None for no bound. Keys that have ended
                do not count. A key and those that it was rotated from and to count as one.
            time_zone: The zone whose days its usage is kept in, by its IANA name, such as
                ``Europe/Berlin``.
            plan: The name of its plan among those of the setting ``plans``, which gives other rates
                to limits of the service; None for no plan.
            metadata: The service's own notes, strings to strings. They are not secret.
            actor: Who creates it, for the audit trail. A principal can't create one.

        Returns:
            The organization, with its new id.

        Raises:
            InvalidValueError: The slug, the name, a scope, a limit, the lifetime or the zone is not
                valid, or no such plan is known.
            RefusedError: An organization has that slug already, or the actor is a principal.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.create(
                slug,
                name=name,
                limits=limits,
                scopes=scopes,
                max_key_lifetime=max_key_lifetime,
                max_keys=max_keys,
                time_zone=time_zone,
                plan=plan,
                metadata=metadata,
                actor=actor,
            )
        )

    def get(self, organization: str) -> Organization:
        """Return an organization.

        Args:
            organization: Its id or slug.

        Raises:
            NotFoundError: No organization has that id or slug.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.get(organization))

    def list(self, *, after: str | None = None, limit: int = 100) -> Page[Organization]:
        """Return one page of organizations, oldest first.

        Args:
            after: The ``next`` of the page before, or None for the first.
            limit: How many at most, 1 to 1000.

        Raises:
            InvalidValueError: The limit is out of range.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.list(after=after, limit=limit))

    def update(
        self,
        organization: str,
        *,
        name: str | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged | None = UNCHANGED,
        max_key_lifetime: timedelta | Unchanged | None = UNCHANGED,
        max_keys: int | Unchanged | None = UNCHANGED,
        time_zone: str | Unchanged = UNCHANGED,
        plan: str | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        version: int | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Organization:
        """Change an organization. Arguments that are left out change nothing.

        Args:
            organization: Its id or slug.
            name: Its new display name.
            limits: The limits that replace the old ones.
            scopes: The most that its keys may do from now on, whatever they were granted; None for
                no ceiling.
            max_key_lifetime: How long keys that are issued from now on may work; None for no bound.
            max_keys: How many keys it may have at a time; None for no bound. Keys beyond a new
                bound go on working.
            time_zone: The zone whose days its usage is kept in from now on, by its IANA name.
            plan: The name of its plan from now on; None for no plan.
            metadata: The notes that replace the old ones.
            version: The version that the caller has read. Another version is not changed.
            force: Whether to leave the organization without a key that has ``admin``.
            actor: Who changes it, for the audit trail. A principal can change only its own
                organization, and raise nothing that its keys may do.

        Returns:
            The organization after the change.

        Raises:
            InvalidValueError: A value is not valid, or no such plan is known.
            NotFoundError: No organization has that id or slug.
            OutdatedError: The organization does not have that version.
            RefusedError: The actor is a principal and would raise the scopes, the limits or the
                lifetime or change the plan or the metadata, the organization would lose its last
                key that has ``admin``, or the actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.update(
                organization,
                name=name,
                limits=limits,
                scopes=scopes,
                max_key_lifetime=max_key_lifetime,
                max_keys=max_keys,
                time_zone=time_zone,
                plan=plan,
                metadata=metadata,
                version=version,
                force=force,
                actor=actor,
            )
        )

    def disable(
        self, organization: str, *, actor: Actor = None
    ) -> Organization | DamagedOrganization:
        """Disable an organization: none of its keys works until it is enabled again.

        Args:
            organization: Its id or slug. Use the id if the record is damaged.
            actor: Who disables it, for the audit trail. A principal can disable only its own.

        Returns:
            The organization after the call. Disabling a disabled organization changes nothing. If
            its record can't be read, it holds what is known.

        Raises:
            NotFoundError: No organization has that id or slug.
            RefusedError: The actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.disable(organization, actor=actor))

    def enable(self, organization: str, *, actor: Actor = None) -> Organization:
        """Enable an organization that was disabled.

        Args:
            organization: Its id or slug.
            actor: Who enables it, for the audit trail. A principal can't: while its organization is
                disabled, its key does not work.

        Returns:
            The organization after the call. Enabling an enabled organization changes nothing.

        Raises:
            NotFoundError: No organization has that id or slug.
            RefusedError: The actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.enable(organization, actor=actor))
