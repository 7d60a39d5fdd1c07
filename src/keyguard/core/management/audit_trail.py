"""How the audit trail is read."""

from __future__ import annotations

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.values import Page
from keyguard.core.management.common import Operations, listed_organization, page_size
from keyguard.exceptions import InvalidValueError


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
