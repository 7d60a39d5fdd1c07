"""Explains one request: the route that it leads to, and the rules on its way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from keyguard.cli.route_report.report import GuardedRoute, report
from keyguard.cli.route_report.route import PathRules, Place, Route
from keyguard.core.access.decisions import Deny
from keyguard.core.http.coverage import Segments, matches
from keyguard.core.http.rules import Rule
from keyguard.core.limits.limit import RouteLimit
from keyguard.core.limits.plans import on_plan_anyhow
from keyguard.settings.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What decides on one request.

    Args:
        method: Its method.
        path: Its path, decoded.
        is_read: Whether the routes of the application are known.
        route: The route that it leads to, or None.
        taken: The methods that the route takes, if it does not take this one; else empty.
        rules: What the rules of each keyguard middleware on its way say, the outermost first: a
            rule, None where only a key is needed, or the refusal of an ambiguous path.
        guarded: What it needs in all.
        guards: The keyguard middleware on its way, the outermost first.
    """

    method: str
    path: str
    is_read: bool
    route: Route | None
    taken: tuple[str, ...]
    rules: tuple[Rule | Deny | None, ...]
    guarded: GuardedRoute
    guards: tuple[PathRules, ...]

    @property
    def all_of(self) -> list[str]:
        """The scopes that are all needed."""
        return sorted({scope for each in self.guarded.requirements for scope in each.all_of})

    @property
    def any_of(self) -> list[frozenset[str]]:
        """The scopes of which one is needed."""
        return [each.any_of for each in self.guarded.requirements if each.any_of]

    @property
    def plans(self) -> list[str]:
        """The names of the plans that change a limit of the request, if a key makes it."""
        if self.guarded.is_public:
            return []
        limits = {charged.limit.name for charged in self.guarded.limits}
        return sorted(name for name, rates in self._plans.items() if not limits.isdisjoint(rates))

    def on(self, plan: str | None) -> tuple[RouteLimit, ...]:
        """Return the limits of the request as a plan changes them."""
        rates: Mapping[str, str] = {}
        if plan is not None and not self.guarded.is_public:
            rates = self._plans.get(plan, rates)
        return tuple(
            replace(charged, limit=on_plan_anyhow(charged.limit, rates))
            for charged in self.guarded.limits
        )

    @property
    def settings(self) -> Settings | None:
        """The settings by which a key is judged; None if no keyguard middleware is on the way."""
        # The innermost guard is the one whose principal the application sees.
        every = [settings for guard in self.guards for settings in guard.settings]
        return every[-1] if every else None

    def knows(self, plan: str) -> bool:
        """Return whether a keyguard middleware on the way of the request knows a plan."""
        return plan in self._plans

    @property
    def _plans(self) -> dict[str, Mapping[str, str]]:
        # The innermost guard is the one whose principal the limits of the route see.
        return {
            name: rates
            for guard in self.guards
            for settings in guard.settings
            for name, rates in settings.policy.plans.items()
        }


def of_settings(settings: Settings) -> list[Route]:
    """Return the one route of an application that is not known: any path behind some rules."""
    rules = PathRules(settings.rule_book(), settings=(settings,))
    return [Route(place=Place("", (rules,)), is_app_read=False)]


def explain_request(routes: Sequence[Route], method: str, raw_path: str) -> Explanation:
    """Return what decides on a request.

    Args:
        routes: The routes of the application, in the order in which it tries them.
        method: The request method, in upper case.
        raw_path: The path as it is sent; a query is left out.
    """
    raw_path = raw_path.partition("?")[0]
    path = unquote(raw_path)
    segments: Segments = tuple(path.split("/")[1:])
    asked = "GET" if method == "HEAD" else method
    leading = [route for route in routes if _leads_to(route, segments)]
    fitting = [route for route in leading if route.methods is None or asked in route.methods]
    route = next(iter(fitting or leading), None)
    if route is None:
        guards = next((each.place.guards for each in routes if not each.place.path), ())
        place = Place("", guards)
    else:
        place = route.place
    mounts = _mounts(place)
    ways = [(guard, len(mounts) - len(guard.seen_below)) for guard in place.guards]
    rules = tuple(
        guard.rule_book.find(
            "/" + "/".join(segments[cut:]), method, None if cut else raw_path.encode()
        )
        for guard, cut in ways
    )
    below = replace(
        route or Route(place=place),
        segments=segments[len(mounts) :],
        methods=frozenset({asked}),
        place=Place(
            place.path,
            tuple(replace(guard, seen_below=segments[cut : len(mounts)]) for guard, cut in ways),
        ),
    )
    return Explanation(
        method=method,
        path=path,
        is_read=all(each.is_app_read for each in leading or routes),
        route=None if route is None or not route.is_app_read else route,
        taken=() if fitting or asked == "OPTIONS" else _taken(leading),
        rules=rules,
        guarded=report([below])[0],
        guards=place.guards,
    )


def _taken(leading: Sequence[Route]) -> tuple[str, ...]:
    """Return the methods that the first route takes; frameworks declare a path once a method.

    OPTIONS is not for here: frameworks and CORS middleware answer it beside the routes.
    """
    methods = {
        method
        for route in leading
        if route.is_app_read and route.whole_path == leading[0].whole_path
        for method in (("WebSocket",) if route.is_websocket else route.methods or ())
    }
    return tuple(sorted(methods))


def _mounts(place: Place) -> Segments:
    """Return the segments of the mounts around a place, in the notation of rules if known."""
    plain = tuple(place.path.split("/")[1:])
    known = place.guards[0].seen_below if place.guards else ()
    return (*plain[: len(plain) - len(known)], *known)


def _leads_to(route: Route, path: Segments) -> bool:
    template = (*_mounts(route.place), *route.segments)
    plain = path[:-1] if path[-1:] == ("",) else path  # routers differ about a slash at the end
    return matches(template, path) or matches(template, plain)
