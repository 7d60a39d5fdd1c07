"""How organizations and keys come to be, change and end: the flows behind a guard's managers.

What belongs here: one module for each phase of a key's life, whose public functions become methods
of the managers (``keyguard.guard.managers``). What a flow refuses is refused before anything is
written, and what it changes is one commit with its entries in the audit trail.
"""

from __future__ import annotations

from keyguard.core.management.digests import digest_report
from keyguard.core.management.keys import get_key, issue_key, key_limits, list_keys, update_key
from keyguard.core.management.organizations import (
    create_organization,
    disable_organization,
    enable_organization,
    get_organization,
    list_organizations,
    update_organization,
)
from keyguard.core.management.revocation import revoke_family, revoke_key, revoke_token
from keyguard.core.management.rotation import rotate_key
from keyguard.core.management.trail import list_audit

__all__ = [
    "create_organization",
    "digest_report",
    "disable_organization",
    "enable_organization",
    "get_key",
    "get_organization",
    "issue_key",
    "key_limits",
    "list_audit",
    "list_keys",
    "list_organizations",
    "revoke_family",
    "revoke_key",
    "revoke_token",
    "rotate_key",
    "update_key",
    "update_organization",
]
