"""What guards each route, and which routes are public though nobody has said so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from keyguard.adapters._admission import Admission
from keyguard.cli.route_report.table import Route, Segments
from keyguard.core.http.coverage import Coverage, coverage
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import RouteLimit
from keyguard.request.decorators import Protection

__all__ = ["Finding", "survey"]

OTHER = "OTHER"
"""Stands for the methods that neither a route nor a rule names."""

_UNGUARDED = (
    "public, as no keyguard middleware stands before it (wrap the application, and not only a part "
    "of it, in keyguard's middleware)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What guards a route, or a part of it.

    Args:
        path: The route's template.
        part: The template of the part, or None for all that no other finding is about.
        methods: Its methods; none for all.
        is_websocket: Whether it is a WebSocket's.
        is_public: Whether no key is needed.
        requirements: The scopes that are needed.
        limits: The limits that are charged, besides those of the key.
        lets_preflight: Whether a CORS preflight reaches the application without a key.
        problem: Why it should not be public, and what to do; None where all is well.
    """

    path: str
    part: str | None
    methods: tuple[str, ...]
    is_websocket: bool
    is_public: bool
    requirements: tuple[Requirement, ...] = ()
    limits: tuple[RouteLimit, ...] = ()
    lets_preflight: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Guarding:
    """What guards one method of a route, or of a part of it."""

    part: str | None
    is_public: bool
    requirements: tuple[Requirement, ...]
    limits: tuple[RouteLimit, ...] = field(default=())
    problem: str | None = None


def survey(routes: Iterable[Route]) -> list[Finding]:
    """Return what guards each of these routes.

    Args:
        routes: The routes of an application.
    """
    return [finding for route in routes for finding in _of_route(route)]


def _of_route(route: Route) -> Iterator[Finding]:
    guards = [(middleware, (*before, *route.segments)) for middleware, before in route.place.guards]
    methods = sorted(route.methods or _methods_of_rules(guard for guard, _ in guards))
    found: dict[_Guarding, list[str]] = {}
    for method in methods:
        for guarding in _of_method(route, guards, method):
            found.setdefault(guarding, []).append(method)
    for guarding, its_methods in found.items():
        everything = route.methods is None and len(its_methods) == len(methods)
        yield Finding(
            path=route.whole_path,
            part=guarding.part,
            methods=() if everything else tuple(its_methods),
            is_websocket=route.is_websocket,
            is_public=guarding.is_public,
            requirements=guarding.requirements,
            limits=guarding.limits,
            lets_preflight=not route.is_websocket
            and bool(guards)
            and all(guard.allows_preflight for guard, _ in guards),
            problem=guarding.problem,
        )


def _methods_of_rules(guards: Iterable[Admission]) -> set[str]:
    named = {
        method
        for guard in guards
        for rule in guard.rule_book.rules
        for method in rule.methods or ()
    }
    return {*named, "GET", OTHER}


def _of_method(
    route: Route, guards: list[tuple[Admission, Segments]], method: str
) -> Iterator[_Guarding]:
    declared = route.protection(method)
    if not guards:
        yield _Guarding(None, True, declared.requirements, declared.limits, _UNGUARDED)
        return
    covered = [
        coverage(guard.rule_book, segments, method, is_exact=route.is_exact)
        for guard, segments in guards
    ]
    # Several guards let nobody in whom one of them refuses: the strictest is the one to look at.
    strictest = min(covered, key=lambda parts: any(one.is_public for one in parts))
    for one in strictest:
        others = [parts[0] for parts in covered if parts is not strictest]
        yield _guarding(route, declared, one, others)


def _guarding(
    route: Route, declared: Protection, decisive: Coverage, others: list[Coverage]
) -> _Guarding:
    rules = [one.rule for one in (decisive, *others) if one.rule is not None]
    requirements = [rule.requirement for rule in rules if rule.requirement is not None]
    limits = (*(limit for rule in rules for limit in rule.charged), *declared.limits)
    is_public = decisive.is_public and not (route.asks_for_key or declared.asks_for_key)
    if not is_public:
        requirements += route.asked
    problem = None
    if is_public and not decisive.is_named and decisive.rule is not None:
        where = "" if decisive.part is None else f" at {decisive.part}"
        problem = (
            f"public{where} only because the wider rule {decisive.rule.path!r} is (name it in a "
            "public rule of its own if it is meant to be, else in one that is not public)"
        )
    return _Guarding(
        decisive.part, is_public, (*requirements, *declared.requirements), limits, problem
    )
