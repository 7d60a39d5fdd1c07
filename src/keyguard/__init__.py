"""API keys for Python web services: safe by default, at a cost per request that can't be felt.

Decisions live in :mod:`keyguard.sansio`, keys in a backend (:mod:`keyguard.backends`);
:class:`Keyguard` and :class:`AsyncKeyguard` put them together, and the adapters
(:mod:`keyguard.adapters`) stand in front of an application. Importing this package imports no
framework and no driver.
"""

from __future__ import annotations

from keyguard.config import Settings
from keyguard.context import CurrentLimits, current_limits, current_principal, require_organization
from keyguard.decorators import rate_limit, require_scopes
from keyguard.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    CorruptDataError,
    HashTimeoutError,
    InvalidValueError,
    KeyguardError,
    MissingExtraError,
    NotFoundError,
    RefusedError,
    SchemaError,
)
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.sansio.audit import Action, AuditEntry
from keyguard.sansio.charges import LimitStatus
from keyguard.sansio.decisions import AccessDenied, Allow, Decision, Deny, Reason
from keyguard.sansio.limits import Limit, Strategy
from keyguard.sansio.models import (
    ImportReport,
    IssuedKey,
    Key,
    KeyStatus,
    Organization,
    Page,
    RevocationReason,
    RotatedKey,
)
from keyguard.sansio.requests import Principal, Request
from keyguard.sansio.rules import Rule
from keyguard.sansio.scopes import ScopeCatalogue
from keyguard.sansio.secret import Secret

__all__ = [
    "AccessDenied",
    "Action",
    "Allow",
    "AsyncKeyguard",
    "AuditEntry",
    "BackendError",
    "BackendUnavailableError",
    "ConfigurationError",
    "CorruptDataError",
    "CurrentLimits",
    "Decision",
    "Deny",
    "HashTimeoutError",
    "ImportReport",
    "InvalidValueError",
    "IssuedKey",
    "Key",
    "KeyStatus",
    "Keyguard",
    "KeyguardError",
    "Limit",
    "LimitStatus",
    "MissingExtraError",
    "NotFoundError",
    "Organization",
    "Page",
    "Principal",
    "Reason",
    "RefusedError",
    "Request",
    "RevocationReason",
    "RotatedKey",
    "Rule",
    "SchemaError",
    "ScopeCatalogue",
    "Secret",
    "Settings",
    "Strategy",
    "current_limits",
    "current_principal",
    "rate_limit",
    "require_organization",
    "require_scopes",
]
