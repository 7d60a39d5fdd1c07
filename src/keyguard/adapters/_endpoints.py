"""Finding an application's decorated endpoints, to check them and to charge for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from keyguard.adapters._asgi_scope import Scope
from keyguard.core.access.policy import Policy
from keyguard.request.protection import UNPROTECTED, Protection, check_declared

__all__ = [
    "Foreign",
    "check_endpoints",
    "each_layer",
    "each_node",
    "each_route",
    "find_protection",
    "find_root_path",
    "find_router",
    "lets_in_itself",
    "management_paths",
    "matching_route",
]

Foreign: TypeAlias = Any
"""An object of a framework that this module does not import."""

_FULL_MATCH = 2  # Starlette's Match.FULL
_NO_SUCH_NAME = "keyguard_no_such_name"  # an object that has this name has every name: skip it


def check_endpoints(app: object, policy: Policy) -> None:
    """Refuse an application with an endpoint that the settings contradict.

    Follows ``app``, ``routes`` and ``endpoint``, as Starlette and frameworks like it name them. An
    object without any of these is checked itself.

    Raises:
        InvalidValueError: An endpoint requires a scope that the catalogue does not know, or a plan
            gives its limit a rate that the limit's strategy can't count.
    """
    if policy.checks_endpoints:
        for node in each_node(app):
            check_declared(node, policy)


def find_root_path(app: object) -> str:
    """Return the path under which an application is mounted by its own setting, or an empty string.

    FastAPI puts its ``root_path`` into the scope only inside the application, where its router
    removes it from the path.
    """
    for layer in each_layer(app):
        # Elsewhere the name means other things, such as the folder of a Quart application.
        root_path = getattr(layer, "root_path", "") if hasattr(layer, "routes") else ""
        if isinstance(root_path, str) and root_path:
            return root_path  # not normalized: the router removes it exactly as it is
    return ""


def find_router(app: object) -> Foreign:
    """Return the router of an application, or None."""
    return next((layer for layer in each_layer(app) if hasattr(layer, "routes")), None)


def find_protection(
    router: Foreign,
    scope: Scope,
    declared: Callable[[object, object, str], Protection],
) -> Protection:
    """Return the protection of the endpoint that a request leads to, if the router knows it."""
    found = matching_route(router, scope)
    if found is None:
        return UNPROTECTED
    route, child = found
    return declared(route, child.get("endpoint"), scope.get("method", "GET"))


def lets_in_itself(app: object) -> bool:
    """Return whether an application is the console or the management API, wrapped or not."""
    return any(getattr(layer, "lets_in_itself", False) is True for layer in each_layer(app))


def management_paths(router: Foreign) -> tuple[str, ...] | None:
    """Return the prefixes of the paths that may lead to the console or the management API.

    Returns:
        None if a router does not show them, because something other than a mount at a path without
        parameters leads there.
    """
    found: list[str] = []
    for route in each_route(router.routes):
        if any(map(lets_in_itself, each_node(route))):
            path = getattr(route, "path", "")
            # Of hosts and of routers in it, only a mount has both.
            if not (path and isinstance(path, str)) or "{" in path or not hasattr(route, "app"):
                return None
            found.append(path)
    return tuple(found)


def matching_route(
    router: Foreign, scope: Scope, *, any_method: bool = False
) -> tuple[Foreign, Scope] | None:
    """Return the route that a request leads to, with its part of the scope, if the router knows it.

    A mounted application that is no router counts as a route. With ``any_method``, so does a route
    that takes only other methods.
    """
    for route in each_route(router.routes):
        if not hasattr(route, "matches"):
            return None  # routes of another kind
        match, child = route.matches(scope)
        if match.value == _FULL_MATCH or (any_method and match.value):
            mounted = getattr(route, "app", None)
            if hasattr(mounted, "routes") and not hasattr(mounted, _NO_SUCH_NAME):
                return matching_route(mounted, {**scope, **child}, any_method=any_method)
            return route, child
    return None


def each_layer(app: object) -> Iterator[object]:
    """Yield the layers of an application, outermost first; each names the next one ``app``."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen and not hasattr(app, _NO_SUCH_NAME):
        seen.add(id(app))
        yield app
        app = getattr(app, "app", None)


def each_node(app: object) -> Iterator[object]:
    """Yield an application and what it holds: middleware, routers, routes and endpoints."""
    open_ends: list[object] = [app]
    seen: dict[int, object] = {}  # it keeps the objects alive, so that no id is used twice
    while open_ends:
        node = open_ends.pop()
        if node is None or id(node) in seen or hasattr(node, _NO_SUCH_NAME):
            continue
        seen[id(node)] = node
        yield node
        open_ends += [getattr(node, "app", None), getattr(node, "endpoint", None)]
        routes: Iterable[object] | None = getattr(node, "routes", None)
        if isinstance(routes, Iterable):
            open_ends += each_route(routes)


def each_route(routes: Iterable[Foreign]) -> Iterator[Foreign]:
    """Yield the routes of a router, and those of the routers that FastAPI includes in it."""
    for route in routes:
        included = None
        if not hasattr(route, _NO_SUCH_NAME):
            included = getattr(route, "effective_route_contexts", None)
        if included is None:
            yield route
        else:
            for context in included():
                # For a route that is not its own, FastAPI makes another at the including path.
                yield getattr(context, "starlette_route", None) or context
