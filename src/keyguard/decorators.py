"""``require_scopes``: one decorator for every framework, sync and async, functions and classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from keyguard.context import ACCESS, present_access
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.sansio.authenticate import authorize
from keyguard.sansio.decisions import Deny
from keyguard.sansio.scopes import Requirement, ScopeCatalogue

__all__ = ["check_declared", "require_scopes"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_MARK = "__keyguard_requirements__"
_HTTP_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_DISPATCHERS = ("dispatch_request", "dispatch")  # Flask's views, Starlette's and Django's


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

    def decorate(target: Decorated) -> Decorated:
        if isinstance(target, type):
            return _guard_class(target, requirement)  # type: ignore[return-value]
        if isinstance(target, staticmethod | classmethod):
            method = cast("Any", target)
            return cast("Decorated", type(method)(_guard_function(method.__func__, requirement)))
        if not callable(target):
            raise ConfigurationError(f"require_scopes decorates callables, not {target!r}")
        return _guard_function(target, requirement)

    return decorate


def check_declared(target: object, catalogue: ScopeCatalogue) -> None:
    """Refuse a decorated endpoint whose scopes the catalogue does not know.

    Args:
        target: A callable, a class with decorated methods, or a view function made of one.
        catalogue: The scopes of the service.

    Raises:
        InvalidValueError: One is unknown.
    """
    view = getattr(target, "view_class", target)  # Flask keeps the class on its function
    methods = [getattr(view, name) for name in _HTTP_METHODS if hasattr(view, name)]
    for declared in (target, view, *methods):
        for requirement in getattr(declared, _MARK, ()):
            catalogue.check_required(requirement.scopes)


def _check(requirement: Requirement) -> None:
    access = ACCESS.get() or present_access()
    if access.allow is not None and requirement.met_by(access.allow.principal.grant):
        return  # what authorize would say, without the call: the warm path
    decision = authorize(access.admitted(), requirement)
    if isinstance(decision, Deny):
        raise access.deny(decision)


def _guard_function(function: Decorated, requirement: Requirement) -> Decorated:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance whose call is a coroutine
    ):

        @functools.wraps(function)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            _check(requirement)
            return await function(*args, **kwargs)

        guarded: Callable[..., Any] = guarded_coroutine

    else:

        @functools.wraps(function)
        def guarded_function(*args: Any, **kwargs: Any) -> Any:
            _check(requirement)
            return function(*args, **kwargs)

        guarded = guarded_function

    _mark(guarded, requirement)
    return cast("Decorated", guarded)


def _guard_class(target: type, requirement: Requirement) -> type:
    if not any(callable(getattr(target, name, None)) for name in _DISPATCHERS):
        raise ConfigurationError(
            f"require_scopes can't guard the class {target.__name__}: it has neither dispatch nor "
            "dispatch_request. Decorate its methods instead"
        )
    for name in _DISPATCHERS:  # all of them: only the framework knows which it calls
        if callable(getattr(target, name, None)):
            setattr(target, name, _guard_function(getattr(target, name), requirement))
    _guard_subclasses(target, requirement)
    _mark(target, requirement)
    return target


def _guard_subclasses(target: Any, requirement: Requirement) -> None:
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
                setattr(cls, name, _guard_function(cast("Any", vars(owner)[name]), requirement))

    target.__init_subclass__ = classmethod(init_subclass)


def _mark(target: Any, requirement: Requirement) -> None:
    setattr(target, _MARK, (*getattr(target, _MARK, ()), requirement))
