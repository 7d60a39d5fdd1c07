"""Events: what a guard tells the service that runs it.

A hook is any callable that takes one event. keyguard calls hooks where the event happens, so they
must be quick. It logs what a hook raises, and changes no decision for it. Events hold key ids,
never tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
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
    "is_wanted",
    "log_event",
    "tell",
    "tell_refusal",
]

_logger = logging.getLogger("keyguard")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterFailed:
    """The store of the counters does not answer. keyguard tells it once for each outage.

    Args:
        at: The time.
        fails_open: Whether this process counts requests meanwhile; else they get 503.
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
    """The change feed does not answer. keyguard tells it once, and looks keys up more often.

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


def is_wanted(hooks: Iterable[Hook], kind: type[Event], reason: Reason | None = None) -> bool:
    """Tell whether any hook wants an event, so that others need not be made.

    Every hook wants all events, except :func:`log_event`: it wants those that the level of the
    logger ``keyguard`` lets through.

    Args:
        hooks: The hooks.
        kind: The class of the event.
        reason: The reason of a refusal.
    """
    for hook in hooks:  # noqa: SIM110 - every refusal asks this, and a generator costs more
        if hook is not log_event or _is_logged(kind, reason):
            return True
    return False


def tell(hooks: Iterable[Hook], event: Event) -> None:
    """Call every hook with an event; log a hook that fails, and go on."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            _logger.exception("a keyguard hook failed on %s", type(event).__name__)


def tell_refusal(
    hooks: Sequence[Hook], deny: Deny, now: Callable[[], datetime], address: str | None
) -> None:
    """Tell hooks of a refusal, and of a key that came over plain HTTP.

    Args:
        hooks: The hooks.
        deny: The refusal.
        now: Returns the time; called only if a hook wants an event.
        address: The client's address, if it is known.
    """
    if is_wanted(hooks, AccessRefused, deny.reason):
        refused = AccessRefused(
            at=now(),
            reason=deny.reason,
            key_id=deny.key_id,
            organization=deny.organization,
            scopes=deny.scopes,
            limits=deny.violated,
            address=address,
            cause=deny.cause,
        )
        tell(hooks, refused)
    if (
        deny.reason is Reason.TRANSPORT_INSECURE
        and deny.key_id
        and deny.organization
        and is_wanted(hooks, KeyExposed)
    ):
        exposed = KeyExposed(
            at=now(),
            key_id=deny.key_id,
            organization=deny.organization,
            address=address,
            revoked=deny.revoked,
        )
        tell(hooks, exposed)


_LEVELS: dict[type[Event], int] = {
    AccessRefused: logging.INFO,
    KeyExposed: logging.WARNING,
    LimitExceeded: logging.INFO,
    LimiterFailed: logging.ERROR,
    LimiterRecovered: logging.WARNING,
    FeedFailed: logging.ERROR,
    FeedRecovered: logging.WARNING,
}


def _is_logged(kind: type[Event], reason: Reason | None) -> bool:
    failed = reason is Reason.STORE_UNAVAILABLE
    return _logger.isEnabledFor(logging.ERROR if failed else _LEVELS[kind])


def log_event(event: Event) -> None:
    """Log an event to the logger ``keyguard``: the default hook.

    INFO: a refused request, and one that passed over a limit in shadow mode. WARNING: an exposed
    key, and a limiter or change feed that answers again. ERROR: a store, limiter or change feed
    that fails.
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
                "request from %s refused: the key store failed%s: %s",
                event.address,
                "" if event.key_id is None else f" on key {event.key_id}",
                event.cause or "the key changed under every look",
            )
        case AccessRefused(reason=Reason.RATE_LIMITED):
            _logger.info(
                "request from %s refused: over the limit %s%s",
                event.address,
                ", ".join(event.limits),
                _of(event.key_id),
            )
        case LimitExceeded():
            _logger.info(
                "request from %s passed, over the limit %s, which is not enforced%s",
                event.address,
                ", ".join(event.limits),
                _of(event.key_id),
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
                "request from %s refused: %s%s", event.address, event.reason, _of(event.key_id)
            )


def _of(key_id: str | None) -> str:
    return "" if key_id is None else f" (key {key_id})"
