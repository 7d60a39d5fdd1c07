"""The audit trail, for sync code."""

from __future__ import annotations

from datetime import timedelta

from keyguard.core.keys.audit import Actor, AuditEntry
from keyguard.core.keys.results import DeletedAudit
from keyguard.core.management.audit_trail import AsyncAuditTrail
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.values import Page
from keyguard.runtime.sync import run_sync


class AuditTrail:
    """The audit trail of one guard's key store."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncAuditTrail(ports)

    def list(
        self,
        *,
        organization: str | None = None,
        subject: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[AuditEntry]:
        """Return one page of the audit trail, newest first.

        Args:
            organization: Id or slug of the organization whose entries are wanted; None for all.
            subject: The id of the only key or organization whose entries are wanted.
            after: The ``next`` of the page before, or None for the first.
            limit: How many at most, 1 to 1000.

        Raises:
            InvalidValueError: The limit is out of range, or the subject is not a string.
            NotFoundError: No organization has that id or slug.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.list(
                organization=organization, subject=subject, after=after, limit=limit
            )
        )

    def delete(
        self,
        *,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        actor: Actor = None,
    ) -> DeletedAudit:
        """Delete the entries of the audit trail that are older than a span.

        Entries are deleted in parts of up to 999. For each part, the trail gets an entry
        ``audit.deleted`` with the actor and the number. The newest of the old entries stays until
        the next one is old as well, because processes that follow the trail read on from there.
        Each part is deleted as a whole or not at all, so this may be run again, and several times
        at once.

        Args:
            older_than: The span; by default the setting ``keep_audit``. It is at least 30 days, and
                at least ``request_lifetime`` plus twice ``claim_lifetime``: a request for a key may
                need the entries that name its requester and approvers for that long.
            dry_run: Whether only to count them.
            actor: Who deletes them, for the audit trail. A principal can't. Of persons, only an
                operator can.

        Returns:
            How many entries were deleted, or would be.

        Raises:
            InvalidValueError: The span is too short, or neither the argument nor the setting gives
                one.
            RefusedError: The actor is a principal, or a person who is not an operator.
            StoreError: The key store failed. What was deleted before stays deleted.
        """
        return run_sync(
            self._operations.delete(older_than=older_than, dry_run=dry_run, actor=actor)
        )
