"""Events: what a guard tells the service that runs it.

A hook is any callable that takes one event. keyguard calls hooks where the event happens, so they
must be quick. It logs what a hook raises, and changes no decision for it. Events hold key ids,
never tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from keyguard.core.access.decisions import Deny, Reason
from keyguard.runtime.lazy import Lazy

if TYPE_CHECKING:
    from keyguard.core.keys.audit import Action
    from keyguard.core.keys.requests import KeyRequest
    from keyguard.runtime import event_types as types
    from keyguard.runtime.event_types import (
        AccessRefused,
        Event,
        FeedFailed,
        FeedRecovered,
        HintFound,
        KeyClaimed,
        KeyExposed,
        LimiterFailed,
        LimiterRecovered,
        LimitExceeded,
        ReplicaFailed,
        ReplicaRecovered,
        RequestCreated,
        RequestDecided,
    )
else:
    types = Lazy("keyguard.runtime.event_types")

__all__ = [
    "AccessRefused",
    "Event",
    "FeedFailed",
    "FeedRecovered",
    "HintFound",
    "Hook",
    "KeyClaimed",
    "KeyExposed",
    "LimitExceeded",
    "LimiterFailed",
    "LimiterRecovered",
    "ReplicaFailed",
    "ReplicaRecovered",
    "RequestCreated",
    "RequestDecided",
    "is_wanted",
    "log_event",
    "of_request",
    "tell",
    "tell_refusal",
]

_logger = logging.getLogger("keyguard")


Hook: TypeAlias = "Callable[[Event], object]"


def __getattr__(name: str) -> object:
    """Import the kinds of events at their first use."""
    if name in __all__:
        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    if is_wanted(hooks, types.AccessRefused, deny.reason):
        refused = types.AccessRefused(
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
        and is_wanted(hooks, types.KeyExposed)
    ):
        exposed = types.KeyExposed(
            at=now(),
            key_id=deny.key_id,
            organization=deny.organization,
            address=address,
            revoked=deny.revoked,
        )
        tell(hooks, exposed)


def of_request(action: Action, request: KeyRequest, at: datetime) -> Event:
    """Return the event that tells what was done to a request for a key."""
    if action == "request.created":
        return types.RequestCreated(at=at, request=request)
    if request.key is None:
        return types.RequestDecided(at=at, request=request)
    return types.KeyClaimed(at=at, request=request)


def _is_logged(kind: type[Event], reason: Reason | None) -> bool:
    failed = reason is Reason.STORE_UNAVAILABLE
    return _logger.isEnabledFor(logging.ERROR if failed else types.LEVELS[kind])


def log_event(event: Event) -> None:
    """Log an event to the logger ``keyguard``: the default hook.

    INFO: a refused request, one that passed over a limit in shadow mode, and what becomes of
    requests for keys. WARNING: an exposed key, a hint that is new, and a limiter or change feed
    that answers again. ERROR: a store, limiter or change feed that fails.
    """
    match event:
        case types.KeyExposed():
            _logger.warning(
                "key %s of %s came over plain HTTP from %s and counts as exposed: %s",
                event.key_id,
                event.organization,
                event.address,
                "it was revoked" if event.revoked else "revoke it",
            )
        case types.AccessRefused(reason=Reason.STORE_UNAVAILABLE):
            _logger.error(
                "request from %s refused: the key store failed%s: %s",
                event.address,
                "" if event.key_id is None else f" on key {event.key_id}",
                event.cause or "the key changed under every look",
            )
        case types.AccessRefused(reason=Reason.RATE_LIMITED):
            _logger.info(
                "request from %s refused: over the limit %s%s",
                event.address,
                ", ".join(event.limits),
                _of(event.key_id),
            )
        case types.LimitExceeded():
            _logger.info(
                "request from %s passed, over the limit %s, which is not enforced%s",
                event.address,
                ", ".join(event.limits),
                _of(event.key_id),
            )
        case types.LimiterFailed():
            _logger.error(
                "the limiter does not answer (%s); until it does, %s",
                event.cause,
                "requests are counted in this process"
                if event.fails_open
                else "requests with limits get 503",
            )
        case types.LimiterRecovered():
            _logger.warning(
                "the limiter answers again, after %.1f seconds and %d decisions without it",
                event.lasted,
                event.decisions,
            )
        case types.FeedFailed():
            _logger.error(
                "the change feed does not answer (%s); until it does, keys are looked up anew",
                event.cause,
            )
        case types.FeedRecovered():
            _logger.warning("the change feed answers again, after %.1f seconds", event.lasted)
        case types.ReplicaFailed():
            _logger.error(
                "the read replica can't be used (%s); until it can, the primary is asked",
                event.cause,
            )
        case types.ReplicaRecovered():
            _logger.warning("the read replica is used again, after %.1f seconds", event.lasted)
        case types.RequestCreated(request=request):
            _logger.info(
                "%s asks for a key of %s (%s)", request.requester, request.organization, request.id
            )
        case types.RequestDecided(request=request):
            _logger.info(
                "request %s is %s, by %s", request.id, request.state, ", ".join(request.decided_by)
            )
        case types.KeyClaimed(request=request):
            _logger.info("key %s of request %s was claimed", request.key, request.id)
        case types.HintFound():
            _logger.warning("%s: %s", event.hint.id, event.hint.text)
        case types.AccessRefused():
            _logger.info(
                "request from %s refused: %s%s", event.address, event.reason, _of(event.key_id)
            )


def _of(key_id: str | None) -> str:
    return "" if key_id is None else f" (key {key_id})"
