"""Finding the decorated endpoints of an application, to check them and to charge for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.request.decorators import Protection, check_declared, is_declared

__all__ = [
    "UNKNOWN",
    "check_endpoints",
    "each_node",
    "each_route",
    "find_protection",
    "find_root_path",
    "find_router",
]

_FULL_MATCH = 2  # Starlette's Match.FULL
UNKNOWN = Protection()
_NO_SUCH_NAME = "keyguard_no_such_name"  # what has it answers to every name, and leads nowhere


def check_endpoints(app: Any, catalogue: ScopeCatalogue | None) -> None:
    """Refuse an application whose endpoints require scopes that the catalogue does not know.

    Follows ``app``, ``routes`` and ``endpoint`` as Starlette and its kin name them; what has none
    of these is checked itself.

    Args:
        app: An application, middleware, router, route or endpoint.
        catalogue: The scopes of the service, or None where any may be used.

    Raises:
        InvalidValueError: A scope is unknown.
    """
    if catalogue is not None:
        for node in each_node(app):
            check_declared(node, catalogue)


def find_root_path(app: Any) -> str:
    """Return the mount that an application says itself that it lies under, or an empty text.

    FastAPI's ``root_path`` is put into the scope only inside of it, where its router takes it off
    the path.

    Args:
        app: An application or middleware.
    """
    for layer in _layers(app):
        # Elsewhere the name means other things, such as the folder of a Quart application.
        root_path = getattr(layer, "root_path", "") if hasattr(layer, "routes") else ""
        if isinstance(root_path, str) and root_path:
            return root_path  # as it stands: it is taken off as it stands
    return ""


def find_router(app: Any, guarded: Callable[[Any], bool] = is_declared) -> Any:
    """Return the router of an application whose endpoints are decorated, or None.

    Only where there are such is it worth the time to ask the router, before the application does,
    where a request leads to.

    Args:
        app: An application or middleware of Starlette's kind.
        guarded: What tells whether an endpoint is decorated, or a route says as much.
    """
    if not any(map(guarded, each_node(app))):
        return None
    return next((layer for layer in _layers(app) if hasattr(layer, "routes")), None)


def find_protection(
    router: Any,
    scope: MutableMapping[str, Any],
    declared: Callable[[Any, Any, str], Protection],
) -> Protection:
    """Return what stands before the endpoint that a request leads to, as far as a router says.

    Args:
        router: What :func:`find_router` found.
        scope: The connection.
        declared: What tells of a route, its endpoint and a method what stands before it.
    """
    for route in each_route(router.routes):
        if not hasattr(route, "matches"):
            return UNKNOWN  # routes of another kind
        match, child = route.matches(scope)
        if match.value == _FULL_MATCH:
            endpoint = child.get("endpoint")
            mounted = getattr(route, "app", None)
            if hasattr(mounted, "routes") and not hasattr(mounted, _NO_SUCH_NAME):
                return find_protection(mounted, {**scope, **child}, declared)
            return declared(route, endpoint, scope.get("method", "GET"))
    return UNKNOWN


def _layers(app: Any) -> Iterator[Any]:
    """Give an application's layers, the outermost first, as far as each names the next ``app``."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen and not hasattr(app, _NO_SUCH_NAME):
        seen.add(id(app))
        yield app
        app = getattr(app, "app", None)


def each_node(app: Any) -> Iterator[Any]:
    """Give an application and all that can be found in it: middleware, routers, routes, endpoints.

    Args:
        app: An application, middleware, router, route or endpoint.
    """
    open_ends: list[Any] = [app]
    seen: dict[int, Any] = {}  # held, for the id of an object that is gone may be given again
    while open_ends:
        node = open_ends.pop()
        if node is None or id(node) in seen or hasattr(node, _NO_SUCH_NAME):
            continue
        seen[id(node)] = node
        yield node
        open_ends += [getattr(node, "app", None), getattr(node, "endpoint", None)]
        routes: Iterable[Any] | None = getattr(node, "routes", None)
        if isinstance(routes, Iterable):
            open_ends += each_route(routes)


def each_route(routes: Iterable[Any]) -> Iterator[Any]:
    """Give the routes of a router, and those of the routers that FastAPI includes in it.

    Args:
        routes: What the router calls its routes.
    """
    for route in routes:
        included = None
        if not hasattr(route, _NO_SUCH_NAME):
            included = getattr(route, "effective_route_contexts", None)
        if included is None:
            yield route
        else:
            for one in included():
                # FastAPI makes another of a route that is not its own, for the path it is now at.
                yield getattr(one, "starlette_route", None) or one
