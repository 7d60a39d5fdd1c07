"""Reads the audit trail, and deletes its old entries."""

from __future__ import annotations

from datetime import timedelta

from keyguard.core.keys.audit import Actor, AuditEntry, actor_name
from keyguard.core.keys.audit_deletion import AuditDeletion
from keyguard.core.keys.results import DeletedAudit
from keyguard.core.management.authority import authority_of
from keyguard.core.management.common import Operations, earlier, listed_organization, page_size
from keyguard.core.management.deletion import kept_for, refuse_bounded
from keyguard.core.values import Page
from keyguard.exceptions import InvalidValueError

_LEAST_KEPT = timedelta(days=30)


class AsyncAuditTrail(Operations):
    """The audit trail of one guard's key store, for async code."""

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
        size = page_size(limit)
        if subject is not None and not isinstance(subject, str):
            raise InvalidValueError("the subject is the id of a key or organization")
        if organization is not None:
            organization = await listed_organization(self._ports, organization)
        return await self._ports.store.list_audit(
            organization=organization, subject=subject, after=after, limit=size
        )

    async def delete(
        self,
        *,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        actor: Actor = None,
    ) -> DeletedAudit:
        """Delete the entries of the audit trail that are older than a span.

        See :meth:`~keyguard.guard.audit_trail.AuditTrail.delete`.
        """
        ports = self._ports
        name = actor_name(actor)
        kept = kept_for(
            ports, {"older_than": older_than, "keep_audit": ports.keep_audit}, _LEAST_KEPT
        )
        before = earlier(ports.now(), kept)
        count, after = 0, None
        while True:
            refuse_bounded(await authority_of(ports, actor))
            deletion = AuditDeletion(
                at=ports.now(), kept=kept, actor=name, dry_run=dry_run, after=after
            )
            deleted, after = await ports.store.delete_audit(deletion)
            count += deleted
            if after is None:
                return DeletedAudit(count=count, before=before)
