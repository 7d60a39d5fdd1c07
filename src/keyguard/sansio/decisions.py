"""Decisions: let in, or refused and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from keyguard.exceptions import KeyguardError
from keyguard.sansio.models import Principal

__all__ = ["AccessDenied", "Allow", "Decision", "Deny", "Reason"]


class Reason(enum.StrEnum):
    """Why a request is refused. For logs, events and metrics; a client sees less."""

    CREDENTIALS_MISSING = "credentials_missing"
    SCHEME_UNSUPPORTED = "scheme_unsupported"
    CREDENTIALS_MALFORMED = "credentials_malformed"
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a reason, not a password
    KEY_UNKNOWN = "key_unknown"
    SECRET_WRONG = "secret_wrong"  # noqa: S105 - a reason, not a password
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_NOT_YET_VALID = "key_not_yet_valid"
    ORGANIZATION_DISABLED = "organization_disabled"
    SCOPE_MISSING = "scope_missing"
    TRANSPORT_INSECURE = "transport_insecure"
    OBJECT_NOT_FOUND = "object_not_found"
    STORE_UNAVAILABLE = "store_unavailable"


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass.

    Args:
        principal: Who it is.
    """

    principal: Principal


@dataclass(frozen=True, slots=True)
class Deny:
    """The request must not pass.

    Args:
        reason: Why.
        key_id: The key it named, where the token was well-formed; safe to log. It proves nothing
            unless the reason is one that only a live key meets.
        organization: The organization of that key, where the token was genuine.
        scopes: All scopes that were required, where one was missing.
        cause: The failure behind it, where there was one.
    """

    reason: Reason
    key_id: str | None = None
    organization: str | None = None
    scopes: tuple[str, ...] = ()
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Be false, so that ``if decision:`` lets nobody in by mistake."""
        return False


Decision: TypeAlias = Allow | Deny


class AccessDenied(KeyguardError):  # noqa: N818 - it is a decision, not a fault
    """The present request is refused; the middleware turns it into the answer.

    Args:
        decision: The refusal.
    """

    def __init__(self, decision: Deny) -> None:
        super().__init__(decision.reason.value)
        self.decision = decision
