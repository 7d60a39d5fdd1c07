"""A route as an application has it, whatever its framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keyguard.adapters._admission import Admission
from keyguard.core.http.paths import REST, SEGMENT
from keyguard.core.identity.scopes import Requirement
from keyguard.request.decorators import Protection

__all__ = ["Place", "Route", "Segments", "read_segments"]

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an application a route lies: below which mounts, and behind which guards.

    Args:
        path: The path of the mounts.
        guards: The middlewares that stand before it, each with the segments of the mounts that
            follow: it sees the path from there on.
    """

    path: str = ""
    guards: tuple[tuple[Admission, Segments], ...] = ()

    def behind(self, middleware: Admission) -> Place:
        """Return the place behind one more middleware."""
        return Place(self.path, (*self.guards, (middleware, ())))

    def below(self, path: str, segments: Segments) -> Place:
        """Return the place below a mount.

        Args:
            path: Its path, without a slash at the end.
            segments: The same, read.
        """
        return Place(
            self.path + path, tuple((guard, (*before, *segments)) for guard, before in self.guards)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route.

    Args:
        place: Where it lies.
        path: Its template, below the place, as the framework writes it.
        segments: The same, read.
        is_exact: Whether it matches all that the segments say; a regular expression may match only
            some of that.
        methods: Its methods, or None for all.
        protection: Returns what is declared on its endpoint, by method.
        asks_for_key: Whether it asks who it is by itself, so that nobody is let in without a key.
        asked: The scopes that it asks for by itself, of whoever has a key.
        is_websocket: Whether it is a WebSocket's.
    """

    place: Place
    path: str
    segments: Segments
    methods: frozenset[str] | None
    protection: Callable[[str], Protection] = field(default=lambda _: Protection())
    asks_for_key: bool = False
    asked: tuple[Requirement, ...] = ()
    is_websocket: bool = False
    is_exact: bool = True

    @property
    def whole_path(self) -> str:
        """The template with the mounts before it."""
        return self.place.path + self.path or "/"


def read_segments(
    template: str, parameter: re.Pattern[str], takes_slashes: Callable[[re.Match[str]], Any]
) -> Segments:
    """Return the segments of a framework's template, in the notation of the rules.

    Args:
        template: The template; it starts with ``/``, or is empty.
        parameter: What a parameter looks like in it.
        takes_slashes: Tells whether a parameter stands for more than one segment.
    """
    plain = parameter.sub(lambda found: REST if takes_slashes(found) else SEGMENT, template)
    return tuple(REST if REST in segment else segment for segment in plain.split("/")[1:])
