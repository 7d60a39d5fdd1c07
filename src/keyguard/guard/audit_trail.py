"""The audit trail, for sync code."""

from __future__ import annotations

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.values import Page
from keyguard.core.management.audit_trail import AsyncAuditTrail
from keyguard.core.management.ports import ManagementPorts
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
