"""Requests for keys: somebody asks, others approve, and the key is made when it is claimed.

Until the claim there is no token and no digest of one. The status of a request follows from its
state and its times, like that of a key.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keyguard.core.identity.networks import parse_networks
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.limits.limit import Limit, read_limits
from keyguard.core.limits.stored import dump_limits, load_limits
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.values import (
    LONGEST,
    ORGANIZATION_ID,
    REQUEST_ID,
    check_ids,
    check_texts,
    check_version,
    member_of,
    settle_times,
)
from keyguard.exceptions import InvalidValueError, shown

_MICROSECOND = timedelta(microseconds=1)
_TIMES = ("decided_at", "claim_by", "claimed_at")


class RequestStatus(enum.StrEnum):
    """The state of a request at an instant. All but pending and approved are final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    RESCINDED = "rescinded"
    CLAIMED = "claimed"
    EXPIRED = "expired"
    LAPSED = "lapsed"


OPEN = frozenset({RequestStatus.PENDING, RequestStatus.APPROVED})
"""The states from which a request can still become a key."""

ENDS_AS = {
    RequestStatus.PENDING: RequestStatus.EXPIRED,
    RequestStatus.APPROVED: RequestStatus.LAPSED,
}
"""What a request is whose state is one of these, when its time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """What a key may do, and for how long. A request has the terms asked for and those granted.

    Args:
        scopes: Its scopes, perhaps with wildcards.
        expires_in: How long it works from the claim on; None for the longest time that its
            organization allows.
        limits: Its limits.
        allowed_networks: The networks from which it works; empty for any.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    scopes: frozenset[str]
    expires_in: timedelta | None = None
    limits: tuple[Limit, ...] = ()
    allowed_networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", parse_granted(self.scopes))
        object.__setattr__(self, "limits", read_limits(self.limits, "key", stored=True))
        object.__setattr__(self, "allowed_networks", parse_networks(self.allowed_networks))
        span = self.expires_in
        if span is not None and not (
            isinstance(span, timedelta) and timedelta(0) < span <= LONGEST
        ):
            raise InvalidValueError(f"expires_in takes a positive timedelta, not {shown(span)}")

    def dump(self) -> str:
        """Return the terms as JSON in ASCII, for a key store to keep."""
        stored: dict[str, object] = {"scopes": sorted(self.scopes)}
        if self.expires_in is not None:
            stored["expires_in"] = self.expires_in // _MICROSECOND
        if self.limits:
            stored["limits"] = json.loads(dump_limits(self.limits))
        if self.allowed_networks:
            stored["allowed_networks"] = self.allowed_networks
        return json.dumps(stored)

    @classmethod
    def load(cls, text: str) -> KeyTerms:
        """Return the terms of a JSON text.

        Raises:
            ValueError: The text does not have the form that :meth:`dump` writes.
        """
        stored = json.loads(text)
        try:
            if "expires_in" in stored:
                stored["expires_in"] *= _MICROSECOND
            if "limits" in stored:
                stored["limits"] = load_limits(json.dumps(stored["limits"]))
            return cls(**stored)
        except TypeError as failure:
            raise ValueError("the terms of a key are an object with its scopes") from failure


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A request for a key: everything about it that may be shown, without its ticket.

    Args:
        id: ``req_`` and 16 base62 digits.
        organization: The id of the organization that will own the key.
        requester: Who asks. It is a person, as the host names people, even if the person asks with
            a key of its own; or the family of a key that has no owner.
        name: The key's name, at most 200 characters.
        asked: The terms that are asked for.
        created_at: When it was asked for.
        pending_until: When it expires unless it is decided before.
        reason: The requester's reason, at most 1,000 characters, or None.
        state: The state that was stored last; :meth:`status` respects the times as well.
        granted: The terms that the approvers grant, at most those asked for; None before the first
            approval.
        decided_by: Who approved it so far, or decided otherwise, in order. Each is named like a
            requester; ``rule:`` and a name stand for a rule of automatic approval, and ``service``
            for the service itself.
        decided_at: When it was approved, denied, withdrawn or rescinded, or None.
        note: The last decision's note, at most 200 characters, or None.
        claim_by: When it lapses unless the key is claimed before; None before the approval.
        claimed_at: When the key was claimed, or None.
        key: The id of that key, or None.
        version: Counts its changes, from 1.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    id: str
    organization: str
    requester: str
    name: str
    asked: KeyTerms
    created_at: datetime
    pending_until: datetime
    reason: str | None = None
    state: RequestStatus = RequestStatus.PENDING
    granted: KeyTerms | None = None
    decided_by: tuple[str, ...] = ()
    decided_at: datetime | None = None
    note: str | None = None
    claim_by: datetime | None = None
    claimed_at: datetime | None = None
    key: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_ids(
            ("request id", self.id, REQUEST_ID),
            ("organization id", self.organization, ORGANIZATION_ID),
        )
        if self.key is not None:
            check_ids(("key id", self.key, KEY_ID))
        names: object = self.decided_by  # a list, as a store has read it
        if not isinstance(names, list | tuple):
            raise InvalidValueError(f"decided_by takes several names, not {shown(names)}")
        check_texts(
            ("a requester", self.requester),
            ("a key's name", self.name),
            *(("an approver", name) for name in self.decided_by),
            optional=[("a reason", self.reason), ("a note", self.note)],
        )
        check_version(self.version)
        if not isinstance(self.asked, KeyTerms) or not isinstance(self.granted, KeyTerms | None):
            raise InvalidValueError("what is asked for and granted are KeyTerms")
        object.__setattr__(self, "state", member_of(RequestStatus, self.state, "state"))
        object.__setattr__(self, "decided_by", tuple(self.decided_by))
        settle_times(self, "created_at", "pending_until", optional=_TIMES)
        if self.state is RequestStatus.APPROVED and (self.granted is None or not self.claim_by):
            raise InvalidValueError("a request that is approved says what is granted until when")

    @property
    def open_until(self) -> datetime | None:
        """When it stops being open, unless its state changes before; None if its state is final."""
        if self.state is RequestStatus.PENDING:
            return self.pending_until
        return self.claim_by if self.state is RequestStatus.APPROVED else None

    def status(self, now: datetime) -> RequestStatus:
        """Return the state of the request at ``now``."""
        if self.open_until is None or now < self.open_until:
            return self.state
        return ENDS_AS[self.state]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """All that a store keeps of a request.

    Args:
        request: The request.
        digest: The stored form of its ticket, hashed like a token.

    Raises:
        InvalidValueError: The digest is no text.
    """

    request: KeyRequest
    digest: str = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.digest, str) or not self.digest:
            raise InvalidValueError("a request's record has the stored form of its ticket")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests to list; all if only the time is set.

    Args:
        at: The time for which their status is computed.
        organization: The id of the organization that will own the keys.
        requester: Who asks.
        statuses: The statuses that are listed; empty for any.
    """

    at: datetime
    organization: str | None = None
    requester: str | None = None
    statuses: frozenset[RequestStatus] = frozenset()

    def admits(self, request: KeyRequest) -> bool:
        """Return whether the filter admits a request."""
        return (
            self.organization in (None, request.organization)
            and self.requester in (None, request.requester)
            and (not self.statuses or request.status(self.at) in self.statuses)
        )
