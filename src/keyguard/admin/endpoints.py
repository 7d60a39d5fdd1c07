"""The table of endpoints: what each takes, who may call it, and what it answers.

Requests are routed by the table, and the OpenAPI document is made from it, so no endpoint can be
in one of them alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from keyguard.admin.exchange import Answer, Call, Problem
from keyguard.admin.members import NO_MEMBERS, Form
from keyguard.admin.rights import Right
from keyguard.core.access.decisions import AccessDenied, Deny, Reason

if TYPE_CHECKING:
    from keyguard.admin.context import Context

JSON = ("application/json",)

Handler: TypeAlias = "Callable[[Context], Awaitable[Answer]]"
"""Answers a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUp:
    """What makes a call reach so far that it takes a recent sign-in.

    Args:
        reaches_far: Tells it of a call. It refuses a caller who may not make the call at all.
        form: The path below the mount of the page to come back to after the sign-in; "" for an
            endpoint of the API.
    """

    reaches_far: Callable[[Context], Awaitable[bool]]
    form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One method of one path.

    Args:
        method: The method; GET is for HEAD as well.
        path: The path below the mount, with ``{name}`` for a segment.
        handler: Answers a call.
        summary: What it does, in an imperative sentence.
        right: What the caller needs in the organization that it is about; None for any caller.
        own: Whether :attr:`~keyguard.admin.rights.Right.OWN_KEYS` is enough for the caller's own
            keys.
        anonymous: Whether nobody is asked who calls.
        anyone: Whether a caller whom nobody knows may call as well, who shows a ticket.
        step_up: Which calls take a recent sign-in; None if none does.
        form: What the body takes; None where none is read.
        matches: Whether ``If-Match`` has to name the record's version.
        repeats: Whether ``Idempotency-Key`` names a call, so that it can be repeated.
        query: What the query takes; None where the handler reads it for itself.
        media_types: What the answer may be, the first by default.
        answers: The schema of the answer by status, by its name in the OpenAPI document.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    right: Right | None = None
    own: bool = False
    anonymous: bool = False
    anyone: bool = False
    step_up: StepUp | None = None
    form: Form | None = None
    matches: bool = False
    repeats: bool = False
    query: Form | None = NO_MEMBERS
    media_types: tuple[str, ...] = JSON
    answers: Mapping[int, str] = field(default_factory=dict[int, str])


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
            method: As :class:`Endpoint` has it.
            path: Likewise.
            right: Likewise.
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
