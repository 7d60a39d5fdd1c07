"""``require_scopes`` and ``rate_limit``: one pair for every framework, functions and classes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from keyguard.core.identity.principal import Request
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import Limit, Per, RouteLimit, Strategy, check_cost, read_strategy
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown
from keyguard.request.context import current_request, present_request
from keyguard.request.ledger import charge, charge_sync
from keyguard.request.protection import Protection, declare, declared_on

__all__ = ["rate_limit", "require_scopes"]

Decorated = TypeVar("Decorated", bound=Callable[..., object])

_DISPATCHERS = ("dispatch_request", "dispatch")  # Flask's views, Starlette's and Django's
_NOT_IN_A_NAME = r"[^A-Za-z0-9._-]+"
_LONGEST_NAME = 64


def require_scopes(
    *scopes: str, any_of: Iterable[str] | None = None
) -> Callable[[Decorated], Decorated]:
    """Let a call through only for a principal with these scopes.

    Decorates functions, coroutine functions, methods, Starlette's endpoint classes and Flask's view
    classes; the call of a generator function is guarded before it starts. The decorator needs no
    request argument: it reads the principal that the middleware found, and refuses with 403, or
    with 401 on a public path. Put it below a framework's own route decorator; above it, the
    framework would register the bare function.

    Args:
        scopes: Scopes that are all needed.
        any_of: Scopes of which one is needed.

    Raises:
        InvalidValueError: No scope is given, or a scope breaks the grammar of RFC 6749; raised at
            once, not at the first request.
        ConfigurationError: The decorated object can't be called, or is a class without
            ``dispatch`` or ``dispatch_request``. Raised at the call: no keyguard middleware is
            underneath.
        AccessDenied: Raised at the call: the principal lacks a scope.
    """
    requirement = Requirement.of(scopes, any_of)
    if not requirement.scopes:
        raise InvalidValueError("require_scopes takes at least one scope, such as 'inference:read'")
    return _decorator("require_scopes", lambda _: Protection(requirements=(requirement,)))


def rate_limit(
    rate: str | Limit,
    *,
    cost: int | Callable[[Request], int] = 1,
    per: Per = "key",
    name: str | None = None,
    strategy: Strategy | str = Strategy.SLIDING_WINDOW_COUNTER,
    enforce: bool = True,
) -> Callable[[Decorated], Decorated]:
    """Let a call through only while its own limit has room.

    ::

        @app.post("/v1/inference")
        @require_scopes("inference:write")
        @rate_limit("60/minute")
        def inference(): ...

    It decorates the same objects as :func:`require_scopes`, and may stand above or below it. All
    limits of a request, those of its key included, are tested and counted together or not at all,
    and only once the principal has the scopes. A client over a limit gets 429.

    Args:
        rate: One or several rates such as ``"10/minute"``, or a whole :class:`~keyguard.Limit`.
        cost: The units that a request counts for, at least 1, or a function of the
            :class:`~keyguard.Request`.
        per: Whom the limit counts: ``"key"`` (its family), ``"organization"``, ``"address"``, or a
            function of the principal and the request.
        name: The limit's name, which clients see. Routes that give the same name share one count.
            Without a name each function has its own count, and clients see the function's name.
        strategy: How the limit counts.
        enforce: False to count and report, but never refuse.

    Raises:
        InvalidValueError: A rate, cost, name or strategy is malformed; raised at once. A function's
            result is checked at the call.
        ConfigurationError: As :func:`require_scopes`. Raised at the call: a plain function runs on
            an event loop while counters live across a network; make it ``async``.
        AccessDenied: Raised at the call: the limit has no room.
    """
    if not callable(cost):
        check_cost(cost)
    if not isinstance(rate, Limit):
        limit = Limit(
            name or "route", rate, per=per, strategy=read_strategy(strategy), enforce=enforce
        )
    elif name is not None or per != "key" or enforce is not True:
        raise InvalidValueError(
            "a Limit has its own name, per and enforce: set them on the Limit, not here"
        )
    else:
        limit = rate
    if limit is rate or name is not None:
        # One object for all functions that this decorates, even if it decorates one anew at each
        # call.
        shared = Protection(limits=(RouteLimit(limit=limit, route=limit.name, cost=cost),))
        return _decorator("rate_limit", lambda _: shared)

    def protection(target: object) -> Protection:
        own = re.sub(_NOT_IN_A_NAME, "-", getattr(target, "__name__", "route")).strip("-._")
        where = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', own)}"
        named = replace(limit, name=own[:_LONGEST_NAME] or "route")
        return Protection(limits=(RouteLimit(limit=named, route=where, cost=cost),))

    return _decorator("rate_limit", protection)


def _decorator(
    name: str, protection: Callable[[object], Protection]
) -> Callable[[Decorated], Decorated]:
    def decorate(target: Decorated) -> Decorated:
        guarded: Decorated = _guard(name, target, protection)
        return guarded

    return decorate


def _guard(name: str, target: Any, protection: Callable[[object], Protection]) -> Any:
    """Return a guarded object of the target's own kind."""
    if _is_a(target, type):
        _guard_class(name, target, protection(target))
        return target
    if _is_a(target, staticmethod, classmethod):
        function = target.__func__
        return type(target)(_guard_function(function, protection(function)))
    if not callable(target):
        raise ConfigurationError(f"{name} decorates callables, not {shown(target)}")
    return _guard_function(target, protection(target))


def _is_a(target: object, *kinds: type) -> bool:
    return isinstance(target, kinds)


def _guard_function(function: Callable[..., object], outer: Protection) -> Callable[..., object]:
    # The outermost decorator enforces everything declared, so the order of decorators does not
    # matter.
    protection = outer.and_(declared_on(function))
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance whose call is a coroutine
    )
    wrapper = _guarded_coroutine if is_async else _guarded_function
    guarded = functools.wraps(function)(wrapper(function, protection))
    declare(guarded, protection)
    return guarded


def _guarded_coroutine(
    function: Callable[..., Any], protection: Protection
) -> Callable[..., Awaitable[object]]:
    scopes, limits, check = protection.plain_scopes, protection.limits, protection.check

    async def guarded(*args: object, **kwargs: object) -> object:
        state = present_request() or current_request()
        allow = state.allow
        if allow is None or scopes is None or not scopes <= allow.principal.grant.exact:
            check(state)
        elif scopes:
            allow.needed.add(scopes)
        if limits or state.due:
            refusal = await charge(state, limits)
            if refusal is not None:
                raise state.refuse(refusal)
        return await function(*args, **kwargs)

    return guarded


def _guarded_function(
    function: Callable[..., object], protection: Protection
) -> Callable[..., object]:
    scopes, limits, check = protection.plain_scopes, protection.limits, protection.check

    def guarded(*args: object, **kwargs: object) -> object:
        state = present_request() or current_request()
        allow = state.allow
        if allow is None or scopes is None or not scopes <= allow.principal.grant.exact:
            check(state)
        elif scopes:
            allow.needed.add(scopes)
        if limits or state.due:
            refusal = charge_sync(state, limits)
            if refusal is not None:
                raise state.refuse(refusal)
        return function(*args, **kwargs)

    return guarded


def _guard_class(name: str, target: type, protection: Protection) -> None:
    if not any(callable(getattr(target, dispatcher, None)) for dispatcher in _DISPATCHERS):
        raise ConfigurationError(
            f"{name} can't guard the class {target.__name__}: it has neither dispatch nor "
            "dispatch_request. Decorate its methods instead"
        )
    for dispatcher in _DISPATCHERS:  # guard all: only the framework knows which of them it calls
        function = getattr(target, dispatcher, None)
        if callable(function):
            setattr(target, dispatcher, _guard_function(function, protection))
    _guard_subclasses(target, protection)
    declare(target, protection.and_(declared_on(target)))


def _guard_subclasses(target: Any, protection: Protection) -> None:
    """Guard the dispatchers that subclasses redefine, or inherit from a base before this class."""
    existing = target.__dict__.get("__init_subclass__")

    def init_subclass(cls: type, /, **options: object) -> None:
        if existing is None:
            super(target, cls).__init_subclass__(**options)
        else:
            existing.__func__(cls, **options)
        for name in _DISPATCHERS:
            owner = next((base for base in cls.__mro__ if name in vars(base)), None)
            if owner is not None and (owner is cls or not issubclass(owner, target)):
                setattr(cls, name, _guard_function(vars(owner)[name], protection))

    target.__init_subclass__ = classmethod(init_subclass)
