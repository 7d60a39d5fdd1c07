"""Decisions: a request is let in, or it is refused for a reason."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from keyguard.core.identity.principal import Principal
from keyguard.core.limits.charges import NO_LIMITS, AppliedLimits, Bill, Charge
from keyguard.core.limits.limit import RouteLimit
from keyguard.core.limits.windows import Tally
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError, KeyguardError, shown

__all__ = ["AccessDenied", "Allow", "Decision", "Deny", "Reason"]


class Reason(enum.StrEnum):
    """Why a request is refused. It is for logs, events and metrics: a client learns less."""

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


# To copy these is quick. To call set[...] takes ten times as long, as that tries to note its type.
_NO_NEEDS: set[frozenset[str]] = set()
_NO_BILLS: dict[tuple[Sequence[RouteLimit], bool], Bill] = {}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Allow(Value):
    """The request may pass.

    Args:
        principal: Who made the request.
        limits: The limits that apply to its key, wherever they were set.
        networks: The networks from which the key works, checked on every request; empty for any.
        retires: When the key ends, as an HTTP date (RFC 9110, section 5.6.7), if it has a
            successor; None for a key without one.
        rates: The rates that its organization's plan gives to the service's limits, by their names;
            None without a plan that the settings know.
    """

    principal: Principal
    limits: AppliedLimits = field(default=NO_LIMITS, repr=False, compare=False)
    networks: tuple[str, ...] = field(default=(), repr=False, compare=False)
    retires: str | None = field(default=None, repr=False, compare=False)
    rates: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    # The scopes that requests needed and had, until freshness/entry.py takes them.
    needed: set[frozenset[str]] = field(
        default_factory=_NO_NEEDS.copy, init=False, repr=False, compare=False
    )
    # What requests are charged, remembered by bill_of in core/access/bills.py.
    bills: dict[tuple[Sequence[RouteLimit], bool], Bill] = field(
        default_factory=_NO_BILLS.copy,
        init=False,
        repr=False,
        compare=False,
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Deny(Value):
    """The request must not pass.

    Args:
        reason: Why the request is refused.
        key_id: The key that a well-formed token named; safe to log. It does not prove that the key
            exists, unless only a live key can be refused for the reason.
        organization: The organization of that key, if the token was genuine.
        scopes: All scopes that were required, if one was missing.
        charges: All charges of the request, if a limit had no room.
        tallies: The state of each charge's bucket.
        retry_after: Seconds after which the client may try again, if that is known.
        revoked: Whether keyguard revoked the key because of this request.
        cause: The error that caused the refusal, if there was one.
        family: The family of the key, if the request was refused at once and the token genuine.
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
    family: str | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Return False, so that ``if decision:`` lets nobody in by mistake."""
        return False

    @property
    def violated(self) -> tuple[str, ...]:
        """The names of the policies that had no room."""
        return tuple(charge.name for charge, _ in self.violations())

    def violations(self) -> list[tuple[Charge, Tally]]:
        """Return the enforced charges without room, each with the state of its bucket."""
        pairs = zip(self.charges, self.tallies, strict=True)
        return [(charge, tally) for charge, tally in pairs if charge.enforce and not tally.fits]


Decision: TypeAlias = Allow | Deny


class AccessDenied(KeyguardError):  # noqa: N818 - it is a decision, not a fault
    """The present request is refused. The middleware turns this exception into the answer.

    Args:
        decision: The refusal.
    """

    def __init__(self, decision: Deny) -> None:
        if not isinstance(decision, Deny):
            raise InvalidValueError(f"AccessDenied takes a Deny, not {shown(decision)}")
        super().__init__(decision.reason.value)
        self.decision = decision
