"""How the audit trail is read."""

from __future__ import annotations

from keyguard.core.access.effects import Flow
from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.values import Page
from keyguard.core.management.common import find_organization, page_size
from keyguard.core.management.effects import ListAudit
from keyguard.exceptions import InvalidValueError

__all__ = ["list_audit"]


def list_audit(
    *,
    organization: str | None = None,
    subject: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> Flow[Page[AuditEntry]]:
    """Return one page of the audit trail, newest first.

    Args:
        organization: Id or slug of the organization whose entries are wanted, or None for all.
        subject: The id of the only key or organization whose entries are wanted.
        after: The ``next`` of the page before, or None for the first.
        limit: How many at most, 1 to 1000.

    Raises:
        InvalidValueError: The limit is out of range, or the subject is no string.
        NotFoundError: There is no such organization.
        StoreError: The key store failed.
    """
    size = page_size(limit)
    if subject is not None and not isinstance(subject, str):
        raise InvalidValueError("the subject is the id of a key or organization")
    if organization is not None:
        organization = (yield from find_organization(organization)).id
    return (yield from ListAudit(organization, subject, after, size))
