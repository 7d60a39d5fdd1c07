"""The routes of an application of Starlette or FastAPI."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.routing import Host, Mount, WebSocketRoute

from keyguard.adapters import asgi
from keyguard.adapters._endpoints import each_route
from keyguard.cli.route_report.layers import behind, is_readable
from keyguard.cli.route_report.route import Place, Route, read_methods, read_segments
from keyguard.core.identity.scopes import Requirement
from keyguard.request.protection import protection_of

ReadInner: TypeAlias = Callable[[object, Place], Iterator[Route]]

_PARAMETER = re.compile(r"\{(?P<name>[A-Za-z_]\w*)(?::[A-Za-z_]\w*)?\}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def read(app: Any, place: Place, read_inner: ReadInner) -> Iterator[Route]:
    """Give the routes of an application or router; ``read_inner`` reads what is mounted in it."""
    if isinstance(app, Starlette):
        for cls, args, kwargs in app.user_middleware:
            if isinstance(cls, type) and issubclass(cls, asgi.KeyguardMiddleware):
                place = behind(cls(app.router, *args, **kwargs), place)
            elif is_readable([*args, *kwargs.values()]):
                yield Route(place=place, is_app_read=False)  # requests may go there instead
        app = app.router
    # FastAPI keeps apart the routes that it serves when no other matches.
    for route in each_route([*app.routes, *getattr(app, "_low_priority_routes", ())]):
        yield from _read_route(route, place, read_inner)


def _read_route(route: Any, place: Place, read_inner: ReadInner) -> Iterator[Route]:
    # A route context of FastAPI's has the attributes of the route it stands for, not its class.
    original = getattr(route, "original_route", route)
    if isinstance(original, Host):
        yield from read_inner(route.app, place)
        return
    path = getattr(route, "path", None)
    if path is None:
        yield Route(place=place, is_app_read=False)
        return
    segments = read_segments(path, _PARAMETER, partial(_takes_slashes, route))
    if isinstance(original, Mount):
        yield from read_inner(route.app, place.below(path, segments))
        return
    layer: object = getattr(original, "app", None)  # the route's own middleware
    while layer is not None:
        place = behind(layer, place)
        layer = getattr(layer, "app", None)
    is_websocket = isinstance(original, WebSocketRoute)
    dependencies = _dependencies(route)
    yield Route(
        place=place,
        path=path,
        segments=segments,
        methods=frozenset({"GET"}) if is_websocket else _methods_of(route),
        protection=partial(protection_of, getattr(route, "endpoint", None)),
        needs_key=any(refuses for refuses, _ in dependencies),
        needs=tuple(requirement for _, requirement in dependencies if requirement.scopes),
        is_websocket=is_websocket,
    )


def _methods_of(route: object) -> frozenset[str] | None:
    methods: Iterable[str] | None = getattr(route, "methods", None)
    endpoint = getattr(route, "endpoint", None)
    if not methods and inspect.isclass(endpoint):
        methods = [method for method in _METHODS if hasattr(endpoint, method.lower())]
    return read_methods(methods or ())


def _dependencies(route: object) -> list[tuple[bool, Requirement]]:
    """Return whether each ``Security(keyguard_principal, ...)`` needs a key, and its scopes."""
    if "keyguard.adapters._fastapi_dependency" not in sys.modules:
        return []  # the application can't use it then
    from keyguard.adapters._fastapi_dependency import asked_by, overrides_for

    return list(asked_by(getattr(route, "dependant", None), overrides_for(route)))


def _takes_slashes(route: object, found: re.Match[str]) -> bool:
    convertor = getattr(route, "param_convertors", {}).get(found["name"])
    return convertor is not None and re.fullmatch(convertor.regex, "a/b") is not None
