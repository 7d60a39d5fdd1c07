"""Finds the routers of applications, and what they serve at a path."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from keyguard.adapters._asgi_scope import Scope
from keyguard.adapters._endpoints import Foreign, each_layer, each_route, matching_route
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.spellings import Resolve, Resource, find_escapes

__all__ = ["routers_of", "warn_of_escapes"]

_logger = logging.getLogger("keyguard")


def warn_of_escapes(app: object, book: RuleBook) -> None:
    """Log a warning for each rule that a request can escape by another spelling of its path.

    Args:
        app: The application behind the rules.
        book: The rules.
    """
    if book.everywhere:
        for resolve in routers_of(app):
            for escape in find_escapes(book, resolve):
                _logger.warning("%s", escape)


def routers_of(app: object) -> Iterator[Resolve]:
    """Give the routers of an application of Starlette, FastAPI or Flask, if it has any.

    Rules ignore the host of a request, so each host that an application serves has its own router.
    """
    for layer in each_layer(app):
        url_map: Foreign = getattr(layer, "url_map", None)
        routes: Foreign = getattr(layer, "routes", None)
        if url_map is not None:
            for host in {(rule.host, rule.subdomain) for rule in url_map.iter_rules()}:
                yield partial(_resolve_in_flask, url_map, host)
        elif hasattr(routes, "__iter__"):
            yield partial(_resolve_in_starlette, layer)
            for route in each_route(routes):
                if hasattr(route, "host"):
                    yield from routers_of(route.app)
        else:
            continue
        return


def _resolve_in_flask(
    url_map: Foreign, host: tuple[str | None, str | None], path: str, method: str | None
) -> Resource | None:
    name, subdomain = host
    try:
        adapter = url_map.bind(name) if name else url_map.bind("localhost", subdomain=subdomain)
        methods = [method] if method is not None else [*adapter.allowed_methods(path)]
        found: Resource = adapter.match(path, methods[0])
    except Exception:  # noqa: BLE001 - not found, another method, a redirection
        return None
    return found


def _resolve_in_starlette(router: Foreign, path: str, method: str | None) -> Resource | None:
    scope: Scope = {"type": "http", "method": method or "GET", "path": path, "headers": []}
    try:
        found = matching_route(router, scope, any_method=method is None)
    except Exception:  # noqa: BLE001 - a route of the application's own kind, which asks for more
        return None
    if found is None or "root_path" in found[1]:
        return None  # nothing, or a mounted application that alone knows what it serves
    child = found[1]
    return child.get("endpoint"), child.get("path_params", {})
