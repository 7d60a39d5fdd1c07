"""Organizations, keys and the audit trail, for async code.

Each method awaits an operation of :mod:`keyguard.core.management`. Its arguments, result and errors
are those of the sync method of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from keyguard.core.keys.audit import Actor, AuditEntry
from keyguard.core.keys.records import (
    ImportReport,
    IssuedKey,
    Key,
    Organization,
    RevocationReason,
    RotatedKey,
)
from keyguard.core.keys.values import UNCHANGED, Page, Unchanged
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limits
from keyguard.core.management.digests import digest_report
from keyguard.core.management.import_rows import ImportRow
from keyguard.core.management.importing import import_tokens
from keyguard.core.management.keys import get_key, issue_key, key_limits, list_keys, update_key
from keyguard.core.management.organizations import (
    create_organization,
    disable_organization,
    enable_organization,
    get_organization,
    list_organizations,
    update_organization,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.revocation import revoke_family, revoke_key, revoke_token
from keyguard.core.management.rotation import DEFAULT_GRACE, rotate_key
from keyguard.core.management.trail import list_audit
from keyguard.core.tokens.secret import Secret

__all__ = ["AsyncAuditTrail", "AsyncKeys", "AsyncOrganizations"]


class AsyncOrganizations:
    """The organizations of one guard, awaited."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._ports = ports

    async def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        limits: Limits = (),
        scopes: Iterable[str] | None = None,
        max_key_lifetime: timedelta | None = None,
        actor: Actor = None,
    ) -> Organization:
        """Create an organization.

        See :meth:`~keyguard.guard.organizations.Organizations.create`.
        """
        return await create_organization(
            self._ports,
            slug,
            name=name,
            limits=limits,
            scopes=scopes,
            max_key_lifetime=max_key_lifetime,
            actor=actor,
        )

    async def get(self, organization: str) -> Organization:
        """Return an organization.

        See :meth:`~keyguard.guard.organizations.Organizations.get`.
        """
        return await get_organization(self._ports, organization)

    async def list(self, *, after: str | None = None, limit: int = 100) -> Page[Organization]:
        """Return one page of organizations, oldest first.

        See :meth:`~keyguard.guard.organizations.Organizations.list`.
        """
        return await list_organizations(self._ports, after=after, limit=limit)

    async def update(
        self,
        organization: str,
        *,
        name: str | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged | None = UNCHANGED,
        max_key_lifetime: timedelta | Unchanged | None = UNCHANGED,
        actor: Actor = None,
    ) -> Organization:
        """Change an organization. What is not given stays.

        See :meth:`~keyguard.guard.organizations.Organizations.update`.
        """
        return await update_organization(
            self._ports,
            organization,
            name=name,
            limits=limits,
            scopes=scopes,
            max_key_lifetime=max_key_lifetime,
            actor=actor,
        )

    async def disable(self, organization: str, *, actor: Actor = None) -> Organization:
        """Pause an organization: none of its keys works until it is enabled.

        See :meth:`~keyguard.guard.organizations.Organizations.disable`.
        """
        return await disable_organization(self._ports, organization, actor=actor)

    async def enable(self, organization: str, *, actor: Actor = None) -> Organization:
        """End an organization's pause.

        See :meth:`~keyguard.guard.organizations.Organizations.enable`.
        """
        return await enable_organization(self._ports, organization, actor=actor)


class AsyncKeys:
    """The keys of one guard, awaited."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._ports = ports

    async def issue(
        self,
        *,
        organization: str,
        name: str,
        scopes: Iterable[str] = (),
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        limits: Limits = (),
        allowed_networks: Iterable[str] = (),
        actor: Actor = None,
    ) -> IssuedKey:
        """Issue a key.

        See :meth:`~keyguard.guard.keys.Keys.issue`.
        """
        return await issue_key(
            self._ports,
            organization=organization,
            name=name,
            scopes=scopes,
            expires_in=expires_in,
            expires_at=expires_at,
            not_before=not_before,
            metadata=metadata,
            limits=limits,
            allowed_networks=allowed_networks,
            actor=actor,
        )

    async def get(self, key_id: str, *, organization: str | None = None) -> Key:
        """Return a key.

        See :meth:`~keyguard.guard.keys.Keys.get`.
        """
        return await get_key(self._ports, key_id, organization=organization)

    async def limits(self, key_id: str) -> tuple[LimitStatus, ...]:
        """Return how the limits of a key stand: its own, its organization's and the defaults.

        See :meth:`~keyguard.guard.keys.Keys.limits`.
        """
        return await key_limits(self._ports, key_id)

    async def list(
        self,
        *,
        organization: str | None = None,
        family: str | None = None,
        expiring_within: timedelta | None = None,
        unused_for: timedelta | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Key]:
        """Return one page of keys, oldest first.

        See :meth:`~keyguard.guard.keys.Keys.list`.
        """
        return await list_keys(
            self._ports,
            organization=organization,
            family=family,
            expiring_within=expiring_within,
            unused_for=unused_for,
            after=after,
            limit=limit,
        )

    async def update(
        self,
        key_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged = UNCHANGED,
        not_before: datetime | Unchanged | None = UNCHANGED,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
        force: bool = False,
        actor: Actor = None,
    ) -> Key:
        """Change a key that is not revoked. What is not given stays.

        See :meth:`~keyguard.guard.keys.Keys.update`.
        """
        return await update_key(
            self._ports,
            key_id,
            name=name,
            scopes=scopes,
            not_before=not_before,
            expires_at=expires_at,
            metadata=metadata,
            limits=limits,
            allowed_networks=allowed_networks,
            force=force,
            actor=actor,
        )

    async def rotate(
        self,
        key_id: str,
        *,
        grace: timedelta = DEFAULT_GRACE,
        expires_in: timedelta | Unchanged | None = UNCHANGED,
        idempotency_key: str | None = None,
        actor: Actor = None,
    ) -> RotatedKey:
        """Give a key a successor in its family, with the same rights.

        See :meth:`~keyguard.guard.keys.Keys.rotate`.
        """
        return await rotate_key(
            self._ports,
            key_id,
            grace=grace,
            expires_in=expires_in,
            idempotency_key=idempotency_key,
            actor=actor,
        )

    async def revoke(
        self,
        key_id: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key:
        """Revoke a key for good. Its successor, if it has one, goes on working.

        See :meth:`~keyguard.guard.keys.Keys.revoke`.
        """
        return await revoke_key(
            self._ports, key_id, reason=reason, note=note, force=force, actor=actor
        )

    async def revoke_family(
        self,
        family: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> tuple[Key, ...]:
        """Revoke all keys that descend from one another by rotation, together.

        See :meth:`~keyguard.guard.keys.Keys.revoke_family`.
        """
        return await revoke_family(
            self._ports, family, reason=reason, note=note, force=force, actor=actor
        )

    async def revoke_token(self, token: Secret | str, *, note: str | None = None) -> Key:
        """Revoke the key of a token that was found where it should not be.

        See :meth:`~keyguard.guard.keys.Keys.revoke_token`.
        """
        operation = revoke_token(self._ports, token, note=note)
        del token  # a traceback that passes here must not show a token
        return await operation

    async def import_tokens(
        self,
        rows: Iterable[str | ImportRow],
        *,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        actor: Actor = None,
    ) -> ImportReport:
        """Import keys of another system. Their tokens keep working.

        See :meth:`~keyguard.guard.keys.Keys.import_tokens`.
        """
        operation = import_tokens(
            self._ports, rows, dry_run=dry_run, progress=progress, actor=actor
        )
        del rows  # a traceback that passes here must not show a token
        return await operation

    async def digests(self) -> Mapping[str, int]:
        """Count the keys that are not revoked by the scheme and pepper of their digests.

        See :meth:`~keyguard.guard.keys.Keys.digests`.
        """
        return await digest_report(self._ports)


class AsyncAuditTrail:
    """The audit trail of one guard's key store, awaited."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._ports = ports

    async def list(
        self,
        *,
        organization: str | None = None,
        subject: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[AuditEntry]:
        """Return one page of the audit trail, newest first.

        See :meth:`~keyguard.guard.audit_trail.AuditTrail.list`.
        """
        return await list_audit(
            self._ports, organization=organization, subject=subject, after=after, limit=limit
        )
