"""The kinds of events. A process needs them only at its first refusal or failure.

Services find them in :mod:`keyguard.runtime.events`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Self, TypeAlias

from keyguard.core.access.decisions import Reason

if TYPE_CHECKING:  # only some events have one
    from keyguard.core.access.receipt import Receipt
    from keyguard.core.keys.requests import KeyRequest
    from keyguard.core.usage.hints import Hint


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused:
    """A request was refused.

    Args:
        at: The time.
        reason: The reason; the client sees less.
        key_id: The key that the token named, if the token was well-formed.
        organization: The organization of that key, if the token was genuine.
        scopes: All required scopes, if one was missing.
        limits: The policies that had no room, if the request was over a limit.
        address: The client's address, if it is known.
        cause: The failure behind the refusal, if there was one.
        method: The request method, if the request was HTTP's or stated.
        path: Its path, safe for a log: without the query, with escape sequences for characters that
            could deceive, and with ``...`` for long parts, which might hold a token.
    """

    at: datetime
    reason: Reason
    key_id: str | None = None
    organization: str | None = None
    scopes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    address: str | None = None
    cause: BaseException | None = field(default=None, repr=False, compare=False)
    method: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswered:
    """The application answers a request that was let in. Only hooks that subscribe get this event.

    Args:
        at: The time at which the answer begins.
        method: The request method.
        path: The path, as in :class:`AccessRefused`.
        status: The status code of the answer; 101 for a WebSocket that was accepted.
        key_id: The key, or None on a public path.
        organization: The organization that owns it.
        address: The client's address, if it is known.
    """

    at: datetime
    method: str
    path: str
    status: int
    key_id: str | None = None
    organization: str | None = None
    address: str | None = None

    @property
    def status_class(self) -> str:
        """The class of the status code, such as ``2xx``: few values, for a metric."""
        return f"{self.status // 100}xx"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExposed:
    """A live key came over plain HTTP, where others may have read it. Revoke it.

    Args:
        at: The time.
        key_id: The key.
        organization: The organization that owns it.
        address: The client's address, if it is known.
        revoked: Whether keyguard has revoked the key (``revoke_exposed``).
    """

    at: datetime
    key_id: str
    organization: str
    address: str | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitExceeded:
    """A request passed although a limit in shadow mode (``enforce=False``) had no room.

    Args:
        at: The time.
        limits: The policies that had no room.
        key_id: The key, or None on a public path.
        organization: The organization that owns it.
        address: The client's address, if it is known.
    """

    at: datetime
    limits: tuple[str, ...]
    key_id: str | None = None
    organization: str | None = None
    address: str | None = None

    @classmethod
    def of(cls, receipt: Receipt, at: datetime, address: str | None) -> Self:
        """Return the event of a request.

        Args:
            receipt: The charges of the request.
            at: The time.
            address: The client's address, if it is known.
        """
        principal = receipt.principal
        return cls(
            at=at,
            limits=tuple(
                charge.name
                for charge, tally in zip(receipt.charges, receipt.tallies, strict=True)
                if not tally.fits
            ),
            key_id=principal.key_id if principal else None,
            organization=principal.organization if principal else None,
            address=address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanUnknown:
    """An organization has a plan that the settings of this process do not know.

    Its requests are limited as if it had no plan. keyguard reports this once in a process.

    Args:
        at: The time.
        organization: The organization.
        plan: The name of its plan.
    """

    at: datetime
    organization: str
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterFailed:
    """The store of the counters does not answer. keyguard reports this once for each outage.

    Args:
        at: The time.
        fails_open: Whether this process counts requests meanwhile; otherwise they get 503.
        cause: The failure.
    """

    at: datetime
    fails_open: bool
    cause: BaseException = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterRecovered:
    """The store of the counters answers again.

    Args:
        at: The time.
        lasted: Seconds since the store failed.
        decisions: How many decisions were made without it.
    """

    at: datetime
    lasted: float
    decisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFailed:
    """The change feed does not answer. keyguard reports this once, and looks keys up more often.

    Args:
        at: The time.
        cause: The failure.
    """

    at: datetime
    cause: BaseException = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRecovered:
    """The change feed answers again.

    Args:
        at: The time.
        lasted: Seconds since the feed failed.
    """

    at: datetime
    lasted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFailed:
    """The read replica can't be used. keyguard reports this once, and asks the primary instead.

    Args:
        at: The time.
        cause: The failure: it does not answer, is behind, or belongs to another database.
    """

    at: datetime
    cause: BaseException = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecovered:
    """The read replica can be used again.

    Args:
        at: The time.
        lasted: Seconds since it failed.
    """

    at: datetime
    lasted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCreated:
    """Somebody asks for a key.

    Args:
        at: The time.
        request: The request. A rule may have approved it already.
    """

    at: datetime
    request: KeyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDecided:
    """A request for a key was denied, rescinded, or approved by all approvers that it needs.

    Args:
        at: The time.
        request: The request, as it is decided.
    """

    at: datetime
    request: KeyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaimed:
    """The key of a request was made, and its token shown to the requester.

    Args:
        at: The time.
        request: The request, with the key's id.
    """

    at: datetime
    request: KeyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HintFound:
    """There is something new in an organization's usage that a person should look at.

    Args:
        at: The time.
        hint: The hint, with its evidence.
    """

    at: datetime
    hint: Hint


Event: TypeAlias = (
    AccessRefused
    | RequestAnswered
    | KeyExposed
    | LimitExceeded
    | PlanUnknown
    | LimiterFailed
    | LimiterRecovered
    | FeedFailed
    | FeedRecovered
    | ReplicaFailed
    | ReplicaRecovered
    | RequestCreated
    | RequestDecided
    | KeyClaimed
    | HintFound
)

LEVELS: dict[type[Event], int] = {
    AccessRefused: logging.INFO,
    RequestAnswered: logging.INFO,
    KeyExposed: logging.WARNING,
    LimitExceeded: logging.INFO,
    PlanUnknown: logging.WARNING,
    LimiterFailed: logging.ERROR,
    LimiterRecovered: logging.WARNING,
    FeedFailed: logging.ERROR,
    FeedRecovered: logging.WARNING,
    ReplicaFailed: logging.ERROR,
    ReplicaRecovered: logging.WARNING,
    RequestCreated: logging.INFO,
    RequestDecided: logging.INFO,
    KeyClaimed: logging.INFO,
    HintFound: logging.WARNING,
}
"""The level at which each kind is logged."""
