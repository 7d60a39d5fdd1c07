"""Events: what a guard reports to its service.

A hook is any callable that takes one event. keyguard calls hooks where the event happens, so they
must be quick. It logs an exception of a hook, and no decision changes because of it. Events hold
key ids, never tokens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.identity.principal import Principal
from keyguard.core.texts import escaped
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
        PlanUnknown,
        ReplicaFailed,
        ReplicaRecovered,
        RequestAnswered,
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
    "PlanUnknown",
    "ReplicaFailed",
    "ReplicaRecovered",
    "RequestAnswered",
    "RequestCreated",
    "RequestDecided",
    "is_wanted",
    "log_event",
    "of_request",
    "subscribed",
    "tell",
    "tell_answer",
    "tell_refusal",
]

_logger = logging.getLogger("keyguard")


Hook: TypeAlias = "Callable[[Event], object]"

_LONGEST_SEGMENT, _LONGEST_PATH, _LONGEST_METHOD = 40, 200, 20
# What may be a token, of keyguard or imported. Ids of keyguard have 16 characters in one run, UUIDs
# have 12, and words seldom have digits.
_RANDOM = re.compile(r"[0-9A-Za-z]{24}|(?=[A-Za-z]*[0-9])[0-9A-Za-z]{17}")


class RequestLine(Protocol):
    """The part of a request that events show."""

    @property
    def method(self) -> str:
        """The request method."""
        ...

    @property
    def path(self) -> str:
        """The path that the router sees, decoded."""
        ...


class _Subscription:
    """A hook that gets only some kinds of events."""

    def __init__(self, hook: Hook, kinds: tuple[type[Event], ...]) -> None:
        self._hook, self.kinds = hook, kinds

    def __call__(self, event: Event) -> None:
        self._hook(event)


def subscribed(hook: Hook, *kinds: type[Event]) -> Hook:
    """Return a hook that gets only some kinds of events.

    Every other hook gets all kinds except :class:`RequestAnswered`. This event would be made for
    each request, so it is made only if a hook subscribes to it::

        guard = Keyguard(url, hooks=[log_event, subscribed(log_event, RequestAnswered)])

    Args:
        hook: The hook.
        kinds: The classes of the events.
    """
    return _Subscription(hook, kinds)


def _takes(hook: Hook, kind: type[Event]) -> bool:
    if isinstance(hook, _Subscription):
        return kind in hook.kinds
    return kind is not types.RequestAnswered


def __getattr__(name: str) -> object:
    """Import the kinds of events at their first use."""
    if name in __all__:
        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_wanted(hooks: Iterable[Hook], kind: type[Event], reason: Reason | None = None) -> bool:
    """Return whether any hook wants an event. If none does, the event need not be made.

    Every hook wants all events but :class:`RequestAnswered`, except those that are
    :func:`subscribed`, and :func:`log_event`: it wants those that the level of the logger
    ``keyguard`` lets through.

    Args:
        hooks: The hooks.
        kind: The class of the event.
        reason: The reason of a refusal.
    """
    for hook in hooks:
        if _takes(hook, kind) and (hook is not log_event or _is_logged(kind, reason)):
            return True
    return False


def tell(hooks: Iterable[Hook], event: Event) -> None:
    """Call every hook with an event; log a hook that fails, and go on."""
    for hook in hooks:
        if not _takes(hook, type(event)):
            continue
        try:
            hook(event)
        except Exception:
            _logger.exception("a keyguard hook failed on %s", type(event).__name__)


def tell_answer(
    hooks: Sequence[Hook],
    request: RequestLine,
    status: int,
    principal: Principal | None,
    at: datetime,
    address: str | None,
) -> None:
    """Report to hooks that the application answers a request that was let in.

    Args:
        hooks: The hooks.
        request: The request.
        status: The status code.
        principal: Who made it, or None on a public path.
        at: The time.
        address: The client's address, if it is known.
    """
    method, path = _line_of(request)
    answered = types.RequestAnswered(
        at=at,
        method=method or "",
        path=path or "",
        status=status,
        key_id=None if principal is None else principal.key_id,
        organization=None if principal is None else principal.organization,
        address=address,
    )
    tell(hooks, answered)


def _line_of(request: RequestLine | None) -> tuple[str | None, str | None]:
    """Return the method and the path of a request as events hold them.

    A segment of a path that is long, or has a long run of letters and digits, may be a token, so it
    is not shown, not even in part.
    """
    if request is None:
        return None, None
    path, _, _ = request.path.partition("?")
    shown = "/".join(
        "..." if len(part) > _LONGEST_SEGMENT or _RANDOM.search(part) else part
        for part in path.split("/")
    )
    if len(shown) > _LONGEST_PATH:
        shown = shown[:_LONGEST_PATH] + "..."
    return escaped(request.method[:_LONGEST_METHOD]), escaped(shown)


def tell_refusal(
    hooks: Sequence[Hook],
    deny: Deny,
    now: Callable[[], datetime],
    address: str | None,
    request: RequestLine | None = None,
) -> None:
    """Report to hooks a refusal, and a key that came over plain HTTP.

    Args:
        hooks: The hooks.
        deny: The refusal.
        now: Returns the time; called only if a hook wants an event.
        address: The client's address, if it is known.
        request: The request, if it is known.
    """
    if is_wanted(hooks, types.AccessRefused, deny.reason):
        method, path = _line_of(request)
        refused = types.AccessRefused(
            at=now(),
            reason=deny.reason,
            key_id=deny.key_id,
            organization=deny.organization,
            scopes=deny.scopes,
            limits=deny.violated,
            address=address,
            cause=deny.cause,
            method=method,
            path=path,
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
    """Return the event for a change of a request for a key."""
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

    INFO: a refused request with its method and path, one that passed over a limit in shadow mode,
    and changes of requests for keys. WARNING: an exposed key, an unknown plan, a new hint, and a
    limiter or change feed that answers again. ERROR: a store, limiter or change feed that fails.
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
                "%s from %s refused: the key store failed%s: %s",
                _asked(event),
                event.address,
                "" if event.key_id is None else f" on key {event.key_id}",
                event.cause or "the key changed during each look-up",
            )
        case types.AccessRefused(reason=Reason.RATE_LIMITED):
            _logger.info(
                "%s from %s refused: over the limit %s%s",
                _asked(event),
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
        case types.PlanUnknown():
            _logger.warning(
                "organization %s has the plan %s, which the setting plans does not name; its "
                "requests are limited as without a plan",
                event.organization,
                event.plan,
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
                "%s from %s refused: %s%s",
                _asked(event),
                event.address,
                event.reason,
                _of(event.key_id),
            )
        case types.RequestAnswered():
            _logger.info(
                "%s %s from %s answered with %d%s",
                event.method,
                event.path,
                event.address,
                event.status,
                _of(event.key_id),
            )


def _asked(event: AccessRefused) -> str:
    return "request" if event.path is None else f"{event.method} {event.path}"


def _of(key_id: str | None) -> str:
    return "" if key_id is None else f" (key {key_id})"
