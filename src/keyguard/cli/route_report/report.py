"""What guards each route, and which routes are open although no public rule names them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from keyguard.cli.route_report.route import PathRules, Route
from keyguard.core.http.coverage import Coverage, coverage, is_for
from keyguard.core.http.rules import Rule
from keyguard.core.http.spellings import find_escapes
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import RouteLimit

OTHER = "OTHER"
"""Stands for the methods that neither a route nor a rule names."""

_UNGUARDED = (
    "public, as no keyguard middleware stands before it (wrap the application, and not only a part "
    "of it, in keyguard's middleware)"
)
_NOT_READ = (
    "unknown: keyguard can't read what serves it, and sees no keyguard middleware before it (wrap "
    "the application in keyguard's middleware)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedRoute:
    """What guards a route, or a part of it.

    Args:
        path: The route's template.
        is_websocket: Whether it accepts WebSockets.
        is_public: Whether no key is needed; None if that is not known.
        part: The template of the part, or None for all that no other part covers.
        methods: Its methods; empty for all.
        also: The application's own login, which is accepted beside keys; None for only keys.
        requirements: The scopes that are needed.
        limits: The limits that are charged, besides those of the key.
        problem: Why the route is open or not known, and what to do; None if there is no problem.
        by_itself: Whether the console or the management API is there, and decides by itself who may
            come in.
    """

    path: str
    is_websocket: bool
    is_public: bool | None
    part: str | None = None
    methods: tuple[str, ...] = ()
    also: str | None = None
    requirements: tuple[Requirement, ...] = ()
    limits: tuple[RouteLimit, ...] = ()
    problem: str | None = None
    by_itself: bool = False


def report(routes: Iterable[Route], accepted: Container[str] = ()) -> list[GuardedRoute]:
    """Return what guards each of the routes of an application.

    Args:
        routes: The routes.
        accepted: The paths of public rules that may open more routes than their own.
    """
    return [guarded for route in routes for guarded in _report_route(route, accepted)]


def unknown_paths(routes: Iterable[Route], accepted: Iterable[str]) -> list[str]:
    """Return the accepted paths for which there is no public rule."""
    public = {
        rule.path
        for route in routes
        for guard in route.place.guards
        for rule in guard.rule_book.rules
        if rule.public
    }
    return [path for path in accepted if path not in public]


def report_rules(routes: Iterable[Route]) -> list[str]:
    """Return the problems of the rules for some routes: rules for no route, and escapes."""
    behind: dict[int, list[tuple[PathRules, Route]]] = {}
    for route in routes:
        for guard in route.place.guards:
            behind.setdefault(id(guard.rule_book), []).append((guard, route))
    problems: dict[str, None] = {}
    for found in behind.values():
        book = found[0][0].rule_book
        if all(route.is_app_read or route.is_management for _, route in found):
            problems |= dict.fromkeys(
                f"the rule {rule.path!r} is for no route: mend its path or methods, or delete it"
                for rule in book.rules
                if not (rule.public or any(_is_for(rule, *each) for each in found))
            )
        for router in {router for guard, _ in found for router in guard.routers}:
            escapes = find_escapes(book, router, found[0][0].samples)
            problems |= dict.fromkeys(map(str, escapes))
    return list(problems)


def _is_for(rule: Rule, guard: PathRules, route: Route) -> bool:
    methods = frozenset(rule.methods or ())
    has_methods = not methods or route.methods is None or not methods.isdisjoint(route.methods)
    return has_methods and is_for(rule, guard.rule_book, (*guard.seen_below, *route.segments))


def _report_route(route: Route, accepted: Container[str]) -> Iterator[GuardedRoute]:
    rules = [rule for guard in route.place.guards for rule in guard.rule_book.rules]
    of_rules = {"GET", OTHER}.union(*(rule.methods or () for rule in rules))
    methods = sorted(route.methods or of_rules)
    found: dict[GuardedRoute, list[str]] = {}
    for method in methods:
        for guarded in _report_method(route, method, accepted):
            found.setdefault(guarded, []).append(method)
    for guarded, its_methods in found.items():
        everything = route.methods is None and len(its_methods) == len(methods)
        yield replace(guarded, methods=() if everything else tuple(its_methods))


def _report_method(route: Route, method: str, accepted: Container[str]) -> Iterator[GuardedRoute]:
    declared, guards = route.protection(method), route.place.guards
    described = partial(GuardedRoute, path=route.whole_path, is_websocket=route.is_websocket)
    passes = route.is_management and all(guard.passes_management for guard in guards)
    if passes and not guards:
        yield described(is_public=False, by_itself=True)
        return
    if not guards:
        yield described(
            is_public=True if route.is_app_read else None,
            requirements=declared.requirements,
            limits=declared.limits,
            problem=_UNGUARDED if route.is_app_read else _NOT_READ,
        )
        return
    covered = [
        coverage(guard.rule_book, (*guard.seen_below, *route.segments), method) for guard in guards
    ]
    # A request passes every guard, so the strictest one decides.
    strictest = min(covered, key=lambda parts: max(map(_openness, parts)))
    others = [parts[0] for parts in covered if parts is not strictest]
    for part in strictest:
        rules = [each.rule for each in (part, *others) if each.rule is not None]
        asks_for_key = route.needs_key or declared.asks_for_key
        is_open = part.is_public and not asks_for_key
        if passes and (part.rule is None or is_open):
            yield described(part=part.part, is_public=False, by_itself=True)
            continue
        is_accepted = part.rule is not None and part.rule.path in accepted
        problem = _problem(route, part) if is_open and not is_accepted else None
        yield described(
            part=part.part,
            is_public=None if problem is not None and not route.is_path_read else is_open,
            also=None if asks_for_key else part.also,
            requirements=(
                *(rule.requirement for rule in rules if rule.requirement is not None),
                *(() if is_open else route.needs),
                *declared.requirements,
            ),
            limits=(*(limit for rule in rules for limit in rule.charged), *declared.limits),
            problem=problem,
        )


def _openness(part: Coverage) -> int:
    return 2 if part.is_public else int(part.also is not None)


def _problem(route: Route, part: Coverage) -> str | None:
    """Return the problem of a part that needs no key, or None."""
    rule = part.rule
    if rule is None or (part.is_named and (route.is_path_read or "{" not in rule.path)):
        return None
    where = "" if part.part is None else f" at {part.part}"
    if route.is_path_read:
        return (
            f"public{where} only because the wider rule {rule.path!r} is (name it in a public rule "
            "of its own if it is meant to be public, else in one that is not public)"
        )
    return (
        f"unknown{where}: its path can't be read, and the public rule {rule.path!r} may open it "
        "(write it with path(), or ask for a scope)"
    )
