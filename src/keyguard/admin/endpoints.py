"""The table of endpoints.

Requests are routed by the table, and the OpenAPI document is made from it, so no endpoint can be
in one of them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from keyguard.admin.context import Endpoint, Handler
from keyguard.admin.exchange import Call, Problem
from keyguard.admin.rights import Right
from keyguard.core.access.decisions import AccessDenied, Deny, Reason


class Table:
    """The endpoints of one subject, each declared above its handler.

    Args:
        common: What all of them have, by the names of :class:`Endpoint`.
    """

    def __init__(self, **common: Any) -> None:
        self._common = common
        self._endpoints: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        """Give them in the order in which they were declared."""
        return iter(self._endpoints)

    def add(
        self, method: str, path: str, right: Right | None = None, **more: Any
    ) -> Callable[[Handler], Handler]:
        """Declare the function that follows as an endpoint, which its docstring sums up.

        Args:
            method: The method; see :class:`Endpoint`.
            path: The path below the mount; see :class:`Endpoint`.
            right: The right that the caller needs; see :class:`Endpoint`.
            more: The other arguments of :class:`Endpoint`, by name.
        """

        def declare(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").partition("\n")[0].removesuffix(".")
            own = Endpoint(
                method=method,
                path=path,
                right=right,
                handler=handler,
                summary=summary,
                **self._common | more,
            )
            self._endpoints.append(own)
            return handler

        return declare


class Router:
    """Finds the endpoint of a call.

    Args:
        endpoints: The table.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._map = Map(merge_slashes=False, redirect_defaults=False)
        for endpoint in endpoints:
            path = endpoint.path.replace("{", "<").replace("}", ">")
            self._map.add(Rule(path, methods=[endpoint.method], endpoint=endpoint))

    def find(self, call: Call) -> tuple[Endpoint, Mapping[str, str]] | AccessDenied | Problem:
        """Return the endpoint of a call with the parameters of its path, or its refusal."""
        path, method = call.request.path, call.request.method
        try:
            found: tuple[Endpoint, Mapping[str, str]]
            found = self._map.bind("").match(path, method)
        except MethodNotAllowed as wrong:
            allowed = ", ".join(sorted({*(wrong.valid_methods or ()), "OPTIONS"}))
            fields = (("Allow", allowed),)
            if method == "OPTIONS":
                return Problem(204, "", fields)
            return Problem(405, f"This path takes: {allowed}.", fields)
        except NotFound:
            return AccessDenied(Deny(Reason.OBJECT_NOT_FOUND))
        return found
