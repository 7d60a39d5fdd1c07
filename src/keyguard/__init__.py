"""API keys for Python web services: safe by default, at a cost per request that can't be felt.

Decisions live in :mod:`keyguard.core`, keys in a store (:mod:`keyguard.stores`);
:class:`Keyguard` and :class:`AsyncKeyguard` combine them, and the adapters
(:mod:`keyguard.adapters`) stand in front of an application. Importing this package imports no
framework and no driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyguard.core.access.decisions import AccessDenied, Allow, Decision, Deny, Reason
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.identity.scopes import ScopeCatalogue, ScopeGrant
from keyguard.core.keys.records import Key, KeyStatus, Organization, RevocationReason
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import Page
from keyguard.exceptions import (
    ConfigurationError,
    CorruptDataError,
    ExceededError,
    HashTimeoutError,
    InvalidValueError,
    KeyguardError,
    MissingExtraError,
    NotDurableError,
    NotFoundError,
    OutdatedError,
    RefusedError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.settings.config import Settings

if TYPE_CHECKING:
    from keyguard.core.http.rules import Rule
    from keyguard.core.identity.person import Person, Role
    from keyguard.core.keys.audit import Action, AuditEntry
    from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
    from keyguard.core.keys.results import (
        CreatedRequest,
        DamagedKey,
        DamagedOrganization,
        DeletedAudit,
        DeletedKeys,
        ImportReport,
        IssuedKey,
        RotatedKey,
    )
    from keyguard.core.management.request_terms import ApprovalRule
    from keyguard.core.usage.hints import Hint
    from keyguard.core.usage.results import OwnUsage, UsageItem, UsageReport
    from keyguard.core.usage.tags import UsageTags
    from keyguard.guard.verdict import Verdict
    from keyguard.request.context import (
        current_limits,
        current_principal,
        require_organization,
    )
    from keyguard.request.decorators import rate_limit, require_scopes
    from keyguard.request.limits import CurrentLimits, Reservation

    __version__: str
    """The version of this package, as installed."""

__all__ = [
    "AccessDenied",
    "Action",
    "Allow",
    "ApprovalRule",
    "AsyncKeyguard",
    "AuditEntry",
    "ConfigurationError",
    "CorruptDataError",
    "CreatedRequest",
    "CurrentLimits",
    "DamagedKey",
    "DamagedOrganization",
    "Decision",
    "DeletedAudit",
    "DeletedKeys",
    "Deny",
    "ExceededError",
    "HashTimeoutError",
    "Hint",
    "ImportReport",
    "InvalidValueError",
    "IssuedKey",
    "Key",
    "KeyRequest",
    "KeyStatus",
    "KeyTerms",
    "Keyguard",
    "KeyguardError",
    "Limit",
    "LimitStatus",
    "MissingExtraError",
    "NotDurableError",
    "NotFoundError",
    "Organization",
    "OutdatedError",
    "OwnUsage",
    "Page",
    "Person",
    "Principal",
    "Reason",
    "RefusedError",
    "Request",
    "RequestStatus",
    "Reservation",
    "RevocationReason",
    "Role",
    "RotatedKey",
    "Rule",
    "SchemaError",
    "ScopeCatalogue",
    "ScopeGrant",
    "Secret",
    "Settings",
    "StoreError",
    "StoreUnavailableError",
    "Strategy",
    "UsageItem",
    "UsageReport",
    "UsageTags",
    "Verdict",
    "current_limits",
    "current_principal",
    "rate_limit",
    "require_organization",
    "require_scopes",
]


_LATER = {
    "Action": "keys.audit",
    "ApprovalRule": "management.request_terms",
    "AuditEntry": "keys.audit",
    "CreatedRequest": "keys.results",
    "CurrentLimits": ".request.limits",
    "DamagedKey": "keys.results",
    "DamagedOrganization": "keys.results",
    "DeletedAudit": "keys.results",
    "DeletedKeys": "keys.results",
    "Hint": "usage.hints",
    "ImportReport": "keys.results",
    "IssuedKey": "keys.results",
    "KeyRequest": "keys.requests",
    "KeyTerms": "keys.requests",
    "OwnUsage": "usage.results",
    "Person": "identity.person",
    "RequestStatus": "keys.requests",
    "Reservation": ".request.limits",
    "Role": "identity.person",
    "RotatedKey": "keys.results",
    "Rule": "http.rules",
    "UsageItem": "usage.results",
    "UsageReport": "usage.results",
    "UsageTags": "usage.tags",
    "Verdict": ".guard.verdict",
    "current_limits": ".request.context",
    "current_principal": ".request.context",
    "rate_limit": ".request.decorators",
    "require_organization": ".request.context",
    "require_scopes": ".request.decorators",
}


def __getattr__(name: str) -> object:
    """Find at its first use what not every process needs: some names, and the version."""
    if name == "__version__":
        from importlib.metadata import version  # takes longer than the rest of the package

        return globals().setdefault(name, version("keyguard"))
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{_LATER[name]}", "keyguard.core"), name)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    """Name what is imported at its first use as well."""
    return sorted({*globals(), *__all__})
