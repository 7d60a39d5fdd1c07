"""Finding the decorated endpoints of an application, to check them at start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keyguard.decorators import check_declared
from keyguard.sansio.scopes import ScopeCatalogue

__all__ = ["check_endpoints"]

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
    if catalogue is None:
        return
    open_ends: list[Any] = [app]
    seen: dict[int, Any] = {}  # held, for the id of an object that is gone may be given again
    while open_ends:
        node = open_ends.pop()
        if node is None or id(node) in seen or hasattr(node, _NO_SUCH_NAME):
            continue
        seen[id(node)] = node
        check_declared(node, catalogue)
        open_ends += [getattr(node, "app", None), getattr(node, "endpoint", None)]
        routes = getattr(node, "routes", ())
        if isinstance(routes, Iterable):
            open_ends += routes
