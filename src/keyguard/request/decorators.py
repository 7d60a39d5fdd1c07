"""``require_scopes`` and ``rate_limit``: one pair for every framework, functions and classes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from keyguard.core.access.authenticate import authorize
from keyguard.core.access.decisions import Allow, Deny
from keyguard.core.identity.principal import Request
from keyguard.core.identity.scopes import Requirement, ScopeCatalogue
from keyguard.core.limits.limit import Limit, Per, RouteLimit, Strategy, check_cost
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.request.context import ACCESS, Access, present_access

__all__ = [
    "Protection",
    "check_declared",
    "declare",
    "is_declared",
    "protection_of",
    "rate_limit",
    "require_scopes",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_MARK = "__keyguard_protection__"
_HTTP_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_DISPATCHERS = ("dispatch_request", "dispatch")  # Flask's views, Starlette's and Django's
_NOT_IN_A_NAME = r"[^A-Za-z0-9._-]+"


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands before an endpoint.

    Args:
        requirements: The scopes that are needed.
        limits: The limits that it is charged to.
    """

    requirements: tuple[Requirement, ...] = ()
    limits: tuple[RouteLimit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements or self.limits)

    @property
    def plain(self) -> frozenset[str] | None:
        """The scopes, where all are needed: most keys have them to the letter."""
        if any(requirement.any_of for requirement in self.requirements):
            return None
        return frozenset[str]().union(*(one.all_of for one in self.requirements))

    @property
    def asks_for_key(self) -> bool:
        """Whether nobody is let in without a key, on a public path either."""
        return bool(self.requirements) or any(one.limit.per in _NEEDS_KEY for one in self.limits)

    def and_(self, inner: Protection) -> Protection:
        """Return this and what stands further inside, as one."""
        return Protection((*self.requirements, *inner.requirements), (*self.limits, *inner.limits))

    def refuses(self, allow: Allow) -> Deny | None:
        """Return the refusal of a principal that lacks a scope, or None."""
        for requirement in self.requirements:
            decision = authorize(allow, requirement)
            if isinstance(decision, Deny):
                every = {scope for one in self.requirements for scope in one.scopes}
                return replace(decision, scopes=tuple(sorted(every)))
        return None

    def checked(self, access: Access) -> Deny | None:
        """Return the refusal of the present request for a scope that it lacks, or None.

        Raises:
            AccessDenied: The path is public, and a key is needed.
        """
        allow = access.allow
        if allow is None:
            if self.asks_for_key:
                access.admitted()
            return None
        return self.refuses(allow)


_NEEDS_KEY = ("key", "organization")
_NOTHING = Protection()


def require_scopes(
    *scopes: str, any_of: Iterable[str] | None = None
) -> Callable[[Decorated], Decorated]:
    """Let a call through only for a principal with these scopes.

    Decorates functions, coroutine functions, methods, Starlette's endpoint classes and Flask's view
    classes; of a generator function the call is guarded, before it starts. It needs no request
    argument: it reads the principal that the middleware found, and refuses with 403, or with 401 on
    a public path. Put it below a framework's own route decorator, which else registers the bare
    function.

    Args:
        scopes: Scopes that are all needed.
        any_of: Scopes of which one is needed.

    Raises:
        InvalidValueError: No scope is given, or one is none; raised at once, not at the first
            request.
        ConfigurationError: What is decorated can't be called, or is a class without ``dispatch``
            or ``dispatch_request``; and at the call, where no keyguard middleware is underneath.
        AccessDenied: At the call: a scope is missing.
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
    """Let a call through only while there is room in a limit of its own.

    ::

        @app.post("/v1/inference")
        @require_scopes("inference:write")
        @rate_limit("60/minute")
        def inference(): ...

    It decorates what :func:`require_scopes` does, above or below it. All limits of a request, those
    of its key included, are tested and counted together, or none is, and only once the scopes are
    there; over one the client gets 429.

    Args:
        rate: One or several rates such as ``"10/minute"``, or a whole :class:`~keyguard.Limit`.
        cost: What a request counts for, at least 1, or a function of the
            :class:`~keyguard.Request`.
        per: Whom it counts: ``"key"`` (its family), ``"organization"``, ``"address"``, or a
            function of the principal and the request.
        name: What clients see it called. Routes that give the same name share one count; by default
            each function has its own, and clients see the function's name.
        strategy: How it counts.
        enforce: False to count and tell, and never refuse.

    Raises:
        InvalidValueError: A value is not as said; raised at once, but for what a function returns.
        ConfigurationError: As :func:`require_scopes`; or a plain function is called on an event
            loop while counters live across a network: make it ``async``.
        AccessDenied: At the call: there is no room.
    """
    if not callable(cost):
        check_cost(cost)
    whole = rate if isinstance(rate, Limit) else None
    if whole is None:
        # A name to check the rest with, at once; the function's own follows.
        Limit(name or "route", rate, per=per, strategy=Strategy(strategy), enforce=enforce)  # type: ignore[arg-type]
    elif name is not None or per != "key" or enforce is not True:
        raise InvalidValueError(
            "a Limit says itself what it is called, whom it counts and whether it is enforced"
        )

    shared = whole.name if whole else name
    one: RouteLimit | None = None
    if shared is not None:
        # The same for all that this decorates, also where that is decorated anew for each call.
        limit = whole or Limit(
            shared,
            cast("str", rate),
            per=per,
            strategy=Strategy(strategy),
            enforce=enforce,
        )
        one = RouteLimit(limit=limit, route=shared, cost=cost)

    def protection(target: Any) -> Protection:
        if one is not None:
            return Protection(limits=(one,))
        own = re.sub(_NOT_IN_A_NAME, "-", getattr(target, "__name__", "route")).strip("-._")
        limit = Limit(
            own[:64] or "route",
            cast("str", rate),
            per=per,
            strategy=Strategy(strategy),
            enforce=enforce,
        )
        where = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', own)}"
        return Protection(limits=(RouteLimit(limit=limit, route=where, cost=cost),))

    return _decorator("rate_limit", protection)


def protection_of(endpoint: Any, method: str = "") -> Protection:
    """Return what stands before an endpoint, as far as it is declared on it.

    Args:
        endpoint: A callable, a class with decorated methods, or a view function made of one.
        method: The request method, for a class's own methods.
    """
    view = getattr(endpoint, "view_class", endpoint)  # Flask keeps the class on its function
    found: Protection = getattr(endpoint, _MARK, _NOTHING)
    if view is not endpoint:
        found = found.and_(getattr(view, _MARK, _NOTHING))
    if isinstance(view, type):
        own = getattr(view, method.lower(), None)
        if own is None and method == "HEAD":
            own = getattr(view, "get", None)
        found = found.and_(getattr(own, _MARK, _NOTHING))
    return found


def declare(target: object, protection: Protection) -> None:
    """Declare on an endpoint what stands before it.

    Args:
        target: What does the guarding itself.
        protection: What it asks for.
    """
    setattr(target, _MARK, protection)


def is_declared(target: object) -> bool:
    """Tell whether anything is declared on an endpoint, or on one of its methods."""
    return any(protection_of(target, method) for method in ("", *_HTTP_METHODS))


def check_declared(target: object, catalogue: ScopeCatalogue) -> None:
    """Refuse a decorated endpoint whose scopes the catalogue does not know.

    Args:
        target: A callable, a class with decorated methods, or a view function made of one.
        catalogue: The scopes of the service.

    Raises:
        InvalidValueError: One is unknown.
    """
    for method in ("", *_HTTP_METHODS):
        for requirement in protection_of(target, method).requirements:
            catalogue.check_required(requirement.scopes)


def _decorator(
    name: str, protection: Callable[[Any], Protection]
) -> Callable[[Decorated], Decorated]:
    def decorate(target: Decorated) -> Decorated:
        if isinstance(target, type):
            return _guard_class(name, target, protection(target))  # type: ignore[return-value]
        if isinstance(target, staticmethod | classmethod):
            method = cast("Any", target)
            function = method.__func__
            return cast("Decorated", type(method)(_guard_function(function, protection(function))))
        if not callable(target):
            raise ConfigurationError(f"{name} decorates callables, not {target!r}")
        return _guard_function(target, protection(target))

    return decorate


def _guard_function(function: Decorated, own: Protection) -> Decorated:
    # All that is declared is done by the outermost, so that the order of decorators is no matter.
    protection = own.and_(getattr(function, _MARK, _NOTHING))
    limits, plain = protection.limits, protection.plain
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance whose call is a coroutine
    ):

        @functools.wraps(function)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            access = ACCESS.get() or present_access()
            allow, deny = access.allow, None
            if allow is None or plain is None or not plain <= allow.principal.grant.exact:
                deny = protection.checked(access)
            if deny is None and (access.due or (limits and access.owes(limits))):
                deny = await access.acharge(limits)
            if deny is not None:
                raise access.deny(deny)
            return await function(*args, **kwargs)

        guarded: Callable[..., Any] = guarded_coroutine

    else:

        @functools.wraps(function)
        def guarded_function(*args: Any, **kwargs: Any) -> Any:
            access = ACCESS.get() or present_access()
            allow, deny = access.allow, None
            if allow is None or plain is None or not plain <= allow.principal.grant.exact:
                deny = protection.checked(access)
            if deny is None and (access.due or (limits and access.owes(limits))):
                deny = access.charge(limits)
            if deny is not None:
                raise access.deny(deny)
            return function(*args, **kwargs)

        guarded = guarded_function

    setattr(guarded, _MARK, protection)
    return cast("Decorated", guarded)


def _guard_class(name: str, target: type, protection: Protection) -> type:
    if not any(callable(getattr(target, one, None)) for one in _DISPATCHERS):
        raise ConfigurationError(
            f"{name} can't guard the class {target.__name__}: it has neither dispatch nor "
            "dispatch_request. Decorate its methods instead"
        )
    for one in _DISPATCHERS:  # all of them: only the framework knows which it calls
        if callable(getattr(target, one, None)):
            setattr(target, one, _guard_function(getattr(target, one), protection))
    _guard_subclasses(target, protection)
    setattr(target, _MARK, protection.and_(getattr(target, _MARK, _NOTHING)))
    return target


def _guard_subclasses(target: Any, protection: Protection) -> None:
    """Guard the dispatchers that subclasses define anew, or inherit from a base before this one."""
    own = target.__dict__.get("__init_subclass__")

    def init_subclass(cls: Any, /, **options: Any) -> None:
        if own is None:
            cast("Any", super(target, cls)).__init_subclass__(**options)
        else:
            own.__func__(cls, **options)
        for name in _DISPATCHERS:
            owner = next((base for base in cls.__mro__ if name in vars(base)), None)
            if owner is not None and (owner is cls or not issubclass(owner, target)):
                setattr(cls, name, _guard_function(cast("Any", vars(owner)[name]), protection))

    target.__init_subclass__ = classmethod(init_subclass)
