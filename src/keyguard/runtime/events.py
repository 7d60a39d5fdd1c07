"""What a guard tells the service that runs it.

A hook is any callable that takes one event. Hooks run where the event arises, so they must be
quick; what they raise is logged and changes no decision. Events hold key ids, never tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from keyguard.core.access.decisions import Deny, Reason

__all__ = [
    "AccessRefused",
    "Event",
    "FeedFailed",
    "FeedRecovered",
    "Hook",
    "KeyExposed",
    "LimitExceeded",
    "LimiterFailed",
    "LimiterRecovered",
    "events_of",
    "log_event",
    "tell",
]

_logger = logging.getLogger("keyguard")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused:
    """A request was refused.

    Args:
        at: When.
        reason: Why; the client sees less.
        key_id: The key that the token named, if it was well-formed.
        organization: The organization of that key, if the token was genuine.
        scopes: All scopes that were required, where one was missing.
        limits: The policies that had no room, where it was over a limit.
        address: The client's address, where it is known.
        cause: The failure behind it, where there was one.
    """

    at: datetime
    reason: Reason
    key_id: str | None = None
    organization: str | None = None
    scopes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    address: str | None = None
    cause: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExposed:
    """A live key came over plain HTTP: others may have read it. Revoke it, if it is not yet.

    Args:
        at: When.
        key_id: The key.
        organization: The organization that owns it.
        address: The client's address, where it is known.
        revoked: Whether keyguard has revoked it (``revoke_exposed``).
    """

    at: datetime
    key_id: str
    organization: str
    address: str | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitExceeded:
    """A request passed that a limit in shadow mode (``enforce=False``) would have refused.

    Args:
        at: When.
        limits: The policies that had no room.
        key_id: The key, or None on a public path.
        organization: The organization that owns it.
        address: The client's address, where it is known.
    """

    at: datetime
    limits: tuple[str, ...]
    key_id: str | None = None
    organization: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterFailed:
    """The store of the counters does not answer. Told once, however many requests it meets.

    Args:
        at: When.
        fails_open: Whether requests go on, counted in this process; else they get 503.
        cause: The failure.
    """

    at: datetime
    fails_open: bool
    cause: BaseException = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterRecovered:
    """The store of the counters answers again.

    Args:
        at: When.
        lasted: Seconds since it failed.
        decisions: How often it was done without meanwhile.
    """

    at: datetime
    lasted: float
    decisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFailed:
    """The change feed does not answer. Told once; meanwhile keys are looked up anew more often.

    Args:
        at: When.
        cause: The failure.
    """

    at: datetime
    cause: BaseException = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRecovered:
    """The change feed answers again.

    Args:
        at: When.
        lasted: Seconds since it failed.
    """

    at: datetime
    lasted: float


Event: TypeAlias = (
    AccessRefused
    | KeyExposed
    | LimitExceeded
    | LimiterFailed
    | LimiterRecovered
    | FeedFailed
    | FeedRecovered
)
Hook: TypeAlias = Callable[[Event], object]


def events_of(deny: Deny, at: datetime, address: str | None) -> Iterable[Event]:
    """Return what a refusal is to be told as."""
    yield AccessRefused(
        at=at,
        reason=deny.reason,
        key_id=deny.key_id,
        organization=deny.organization,
        scopes=deny.scopes,
        limits=deny.violated,
        address=address,
        cause=deny.cause,
    )
    if deny.reason is Reason.TRANSPORT_INSECURE and deny.key_id and deny.organization:
        yield KeyExposed(
            at=at,
            key_id=deny.key_id,
            organization=deny.organization,
            address=address,
            revoked=deny.revoked,
        )


def tell(hooks: Iterable[Hook], event: Event) -> None:
    """Call every hook with an event; a hook that fails is logged and stops nothing."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            _logger.exception("a keyguard hook failed on %s", type(event).__name__)


def log_event(event: Event) -> None:
    """Log an event to the logger ``keyguard``: the default hook.

    A refused request is INFO, and so is one that passed over a limit in shadow mode; an exposed key
    and a limiter that answers again or a change feed
    that answers again are WARNING, a store or feed that fails is ERROR.
    """
    match event:
        case KeyExposed():
            _logger.warning(
                "key %s of %s came over plain HTTP from %s and counts as exposed: %s",
                event.key_id,
                event.organization,
                event.address,
                "it was revoked" if event.revoked else "revoke it",
            )
        case AccessRefused(reason=Reason.STORE_UNAVAILABLE):
            _logger.error(
                "request from %s refused: the key store failed on key %s: %s",
                event.address,
                event.key_id,
                event.cause or "the key changed under every look",
            )
        case AccessRefused(reason=Reason.RATE_LIMITED):
            _logger.info(
                "request from %s refused: over the limit %s (key %s)",
                event.address,
                ", ".join(event.limits),
                event.key_id,
            )
        case LimitExceeded():
            _logger.info(
                "request from %s passed, over the limit %s, which is not enforced (key %s)",
                event.address,
                ", ".join(event.limits),
                event.key_id,
            )
        case LimiterFailed():
            _logger.error(
                "the limiter does not answer (%s); until it does, %s",
                event.cause,
                "requests are counted in this process"
                if event.fails_open
                else "requests with limits get 503",
            )
        case LimiterRecovered():
            _logger.warning(
                "the limiter answers again, after %.1f seconds and %d decisions without it",
                event.lasted,
                event.decisions,
            )
        case FeedFailed():
            _logger.error(
                "the change feed does not answer (%s); until it does, keys are looked up anew",
                event.cause,
            )
        case FeedRecovered():
            _logger.warning("the change feed answers again, after %.1f seconds", event.lasted)
        case AccessRefused():
            _logger.info(
                "request from %s refused: %s (key %s)", event.address, event.reason, event.key_id
            )
