"""A route as an application declares it, whatever its framework."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from keyguard.core.http.coverage import Segments
from keyguard.core.http.paths import REST, SEGMENT
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.spellings import Resolve
from keyguard.core.identity.scopes import Requirement
from keyguard.request.protection import Protection
from keyguard.settings.config import Settings


@dataclass(frozen=True, slots=True)
class PathRules:
    """What one keyguard middleware says about requests.

    Args:
        rule_book: Its rules.
        routers: The routers behind it, if they can be asked.
        samples: Paths that these serve, if they can name some.
        seen_below: The segments of the mounts inside it; it sees the path from there on.
        settings: The settings of its guard; those of two, where a project has one for ASGI as well.
        passes_management: Whether the console and the management API decide in its place.
    """

    rule_book: RuleBook
    routers: tuple[Resolve, ...] = ()
    samples: tuple[str, ...] = ()
    seen_below: Segments = ()
    settings: tuple[Settings, ...] = field(default=(), compare=False)
    passes_management: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an application a route lies.

    Args:
        path: The path of the mounts around it.
        guards: The keyguard middleware around it, the outermost first.
    """

    path: str = ""
    guards: tuple[PathRules, ...] = ()

    def behind(self, guard: PathRules) -> Place:
        """Return the place behind one more middleware."""
        return Place(self.path, (*self.guards, guard))

    def below(self, path: str, segments: Segments) -> Place:
        """Return the place below a mount, whose path has no slash at its end."""
        guards = [
            replace(guard, seen_below=(*guard.seen_below, *segments)) for guard in self.guards
        ]
        return Place(self.path + path, tuple(guards))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route.

    Args:
        place: Where it lies.
        path: Its template below the place, as the framework writes it.
        segments: The segments of that template. An unread path is a single rest.
        methods: Its methods, or None for all.
        protection: Returns what is declared on its endpoint, by method.
        needs_key: Whether the endpoint itself refuses requests without a key.
        needs: The scopes that the endpoint itself requires of a request with a key.
        is_websocket: Whether it accepts WebSockets.
        is_path_read: Whether ``segments`` say exactly which paths it matches.
        is_app_read: Whether the application that serves it could be read.
        kind: The class of the application that serves it, if it could not.
        is_management: Whether that application is the console or the management API.
    """

    place: Place
    path: str = "/{path:path}"
    segments: Segments = (REST,)
    methods: frozenset[str] | None = None
    protection: Callable[[str], Protection] = field(default=lambda _: Protection())
    needs_key: bool = False
    needs: tuple[Requirement, ...] = ()
    is_websocket: bool = False
    is_path_read: bool = True
    is_app_read: bool = True
    kind: str = ""
    is_management: bool = False

    @property
    def whole_path(self) -> str:
        """The template with the mounts before it."""
        return self.place.path + self.path or "/"


def read_segments(
    template: str, parameter: re.Pattern[str], takes_slashes: Callable[[re.Match[str]], bool]
) -> Segments:
    """Return the segments of a framework's template, in the notation of the rules.

    ``takes_slashes`` tells whether a parameter stands for more than one segment.
    """
    plain = parameter.sub(lambda found: REST if takes_slashes(found) else SEGMENT, template)
    return tuple(REST if REST in segment else segment for segment in plain.split("/")[1:])


def read_methods(methods: Iterable[str], *, answered: Iterable[str] = ()) -> frozenset[str] | None:
    """Return a route's methods, or None for all.

    HEAD belongs to GET. The framework itself answers the methods ``answered``.
    """
    found = frozenset(methods).difference(answered)
    return (found - {"HEAD"} if "GET" in found else found) or None
