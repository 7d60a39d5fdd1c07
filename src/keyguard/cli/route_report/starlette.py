"""The routes of an application of Starlette or FastAPI."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.routing import Host, Mount, WebSocketRoute

from keyguard.adapters._admission import Admission
from keyguard.adapters._endpoints import each_route
from keyguard.cli.route_report import reading
from keyguard.cli.route_report.table import Place, Route, read_segments
from keyguard.core.http.paths import REST
from keyguard.core.identity.scopes import Requirement
from keyguard.request.decorators import protection_of

__all__ = ["read"]

_PARAMETER = re.compile(r"\{(?P<name>[A-Za-z_]\w*)(?::[A-Za-z_]\w*)?\}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def read(app: Any, place: Place) -> Iterator[Route]:
    """Give the routes of an application or router.

    Args:
        app: The application or router.
        place: Where it lies, behind the middleware around it.
    """
    if isinstance(app, Starlette):
        for cls, args, kwargs in app.user_middleware:
            if isinstance(cls, type) and issubclass(cls, Admission):
                place = place.behind(cls(app.router, *args, **kwargs))
            else:
                named = {str(number): value for number, value in enumerate(args, 1)}
                name: str = getattr(cast("Any", cls), "__name__", "middleware")
                reading.check_single(name, named | kwargs, app)
        app = app.router
    # What FastAPI serves once no route matches is kept apart.
    for route in each_route([*app.routes, *getattr(app, "_low_priority_routes", ())]):
        yield from _read_route(route, place)


def _read_route(route: Any, place: Place) -> Iterator[Route]:
    # A context of FastAPI's passes for the route that it stands for, but for its class.
    original = getattr(route, "original_route", route)
    if isinstance(original, Host):
        yield from reading.read(route.app, place)
        return
    path = getattr(route, "path", None)
    if path is None:
        yield Route(place=place, path="/{path:path}", segments=(REST,), methods=None)
        return
    segments = read_segments(path, _PARAMETER, partial(_takes_slashes, route))
    if isinstance(original, Mount):
        yield from reading.read(route.app, place.below(path, segments))
        return
    for middleware in _around(getattr(original, "app", None)):
        place = place.behind(middleware)
    websocket = isinstance(original, WebSocketRoute)
    asked = _asked(route)
    yield Route(
        place=place,
        path=path,
        segments=segments,
        methods=frozenset({"GET"}) if websocket else _methods_of(route),
        protection=partial(protection_of, getattr(route, "endpoint", None)),
        asks_for_key=any(needs_key for needs_key, _ in asked),
        asked=tuple(requirement for _, requirement in asked if requirement.scopes),
        is_websocket=websocket,
    )


def _methods_of(route: Any) -> frozenset[str] | None:
    methods: Iterable[str] | None = getattr(route, "methods", None)
    endpoint = getattr(route, "endpoint", None)
    if not methods and inspect.isclass(endpoint):
        methods = [method for method in _METHODS if hasattr(endpoint, method.lower())]
    found = frozenset(methods or ())
    return (found - {"HEAD"} if "GET" in found else found) or None


def _around(app: Any) -> Iterator[Admission]:
    """Give the guards among the middleware of one route."""
    seen: list[Any] = []
    while app is not None and not any(app is one for one in seen):
        seen.append(app)
        if isinstance(app, Admission):
            yield app
        app = getattr(app, "app", None)


def _asked(route: Any) -> list[tuple[bool, Requirement]]:
    """Return what ``Security(keyguard_principal, scopes=[...])`` asks for, and whether of all."""
    if "keyguard.adapters._fastapi_dependency" not in sys.modules:
        return []  # then nobody can have used it
    from keyguard.adapters._fastapi_dependency import asked_by, overrides_for

    return list(asked_by(getattr(route, "dependant", None), overrides_for(route)))


def _takes_slashes(route: Any, found: re.Match[str]) -> bool:
    convertor = getattr(route, "param_convertors", {}).get(found["name"])
    return convertor is not None and re.fullmatch(convertor.regex, "a/b") is not None
