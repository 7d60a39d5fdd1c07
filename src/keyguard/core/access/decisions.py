"""Decisions: let in, or refused and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from keyguard.core.identity.principal import Principal
from keyguard.core.limits.charges import NO_LIMITS, AppliedLimits, Charge
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import KeyguardError

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
    KEY_ROTATED = "key_rotated"
    KEY_NOT_YET_VALID = "key_not_yet_valid"
    ORGANIZATION_DISABLED = "organization_disabled"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    SCOPE_MISSING = "scope_missing"
    TRANSPORT_INSECURE = "transport_insecure"
    OBJECT_NOT_FOUND = "object_not_found"
    STORE_UNAVAILABLE = "store_unavailable"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_FAILURES = "too_many_failures"
    LIMITER_UNAVAILABLE = "limiter_unavailable"
    PATH_AMBIGUOUS = "path_ambiguous"
    CLIENT_AMBIGUOUS = "client_ambiguous"


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass.

    Args:
        principal: Who it is.
        limits: What it may ask for, wherever that was set.
        networks: The networks that its key works from, which are checked on every request; empty
            for any.
        retires: When its key, which has a successor, ends, as an HTTP date (RFC 9110, section
            5.6.7); None for a key without one.
    """

    principal: Principal
    limits: AppliedLimits = field(default=NO_LIMITS, repr=False, compare=False)
    networks: tuple[str, ...] = field(default=(), repr=False, compare=False)
    retires: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Deny:
    """The request must not pass.

    Args:
        reason: Why.
        key_id: The key it named, where the token was well-formed; safe to log. It proves nothing
            unless the reason is one that only a live key meets.
        organization: The organization of that key, where the token was genuine.
        scopes: All scopes that were required, where one was missing.
        charges: All limits of the request, where one of them had no room.
        tallies: How they stood.
        retry_after: Seconds after which the client may try again, where that is known.
        revoked: Whether its key was revoked over it.
        cause: The failure behind it, where there was one.
    """

    reason: Reason
    key_id: str | None = None
    organization: str | None = None
    scopes: tuple[str, ...] = ()
    charges: tuple[Charge, ...] = field(default=(), repr=False)
    tallies: tuple[Tally, ...] = field(default=(), repr=False)
    retry_after: int | None = None
    revoked: bool = False
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Be false, so that ``if decision:`` lets nobody in by mistake."""
        return False

    @property
    def violated(self) -> tuple[str, ...]:
        """The names of the policies that had no room."""
        return tuple(charge.name for charge, _ in self.violations())

    def violations(self) -> list[tuple[Charge, Tally]]:
        """Return the charges that had no room and are enforced, with how they stood."""
        pairs = zip(self.charges, self.tallies, strict=True)
        return [(charge, tally) for charge, tally in pairs if charge.enforce and not tally.fits]


Decision: TypeAlias = Allow | Deny


class AccessDenied(KeyguardError):  # noqa: N818 - it is a decision, not a fault
    """The present request is refused; the middleware turns it into the answer.

    Args:
        decision: The refusal.
    """

    def __init__(self, decision: Deny) -> None:
        super().__init__(decision.reason.value)
        self.decision = decision
