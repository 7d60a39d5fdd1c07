"""``keyguard routes``: what guards each route of an application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from keyguard.cli.options import Common, with_options
from keyguard.cli.terminal import Words, coloured, table
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import RouteLimit
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.texts import escaped
from keyguard.exceptions import InvalidValueError, shown

if TYPE_CHECKING:
    from keyguard.cli.route_report.report import GuardedRoute

MANAGEMENT_DECIDES = "the console or the management API, by itself"


@with_options("as_json")
def routes(
    common: Common,
    name: str | None = typer.Argument(
        None,
        metavar="MODULE:APP",
        help="The application, such as service.main:app or service:create_app(). Without it, the "
        "Django project of DJANGO_SETTINGS_MODULE.",
    ),
    accept: list[str] = typer.Option(
        [],
        "--accept",
        metavar="PATH",
        help="The path of a public rule that is meant to open every route that it covers, such as "
        "/{path:path}. May be repeated.",
    ),
) -> None:
    """Show each route of an application and what guards it.

    Reads Starlette, FastAPI, Flask and Django. The exit code is 1 if a route is open although no
    public rule names it, if it is unknown whether a route is open, if a rule matches no route, or
    if another spelling of a path escapes its rule. The application is imported but not served, and
    its key store is not opened.
    """
    # Other commands need no adapters.
    from keyguard.cli.route_report.applications import read_application, read_project
    from keyguard.cli.route_report.report import report, report_rules, unknown_paths
    from keyguard.runtime.loading import load_application

    application = common.application if name is None else load_application(name)
    found = read_project() if application is None else read_application(application)
    for path in unknown_paths(found, accept):
        raise InvalidValueError(f"--accept {shown(path)}: no public rule has that path")
    guarded = report(found, accept)
    problems = [route for route in guarded if route.problem is not None]
    of_rules = report_rules(found)
    ok = not (problems or of_rules)
    form: JsonObject = {
        "ok": ok,
        "routes": [as_json(route) for route in guarded],
        "rules": list(of_rules),
    }
    common.show(form, _as_text(guarded, problems, of_rules))
    if not ok:
        raise typer.Exit(1)


def as_json(route: GuardedRoute) -> JsonObject:
    """Return what guards a route, in JSON."""
    return {
        "path": route.path,
        "part": route.part,
        "methods": list(route.methods) or None,
        "websocket": route.is_websocket,
        "public": route.is_public,
        "also": route.also,
        "by_itself": route.by_itself,
        "scopes": _all_of(route.requirements),
        "any_of": [sorted(each.any_of) for each in route.requirements if each.any_of],
        "limits": [limit_words(limit) for limit in route.limits],
        "problem": route.problem,
    }


def _as_text(guarded: list[GuardedRoute], problems: list[GuardedRoute], of_rules: list[str]) -> str:
    if not guarded:
        return "The application has no routes.\n"
    text = table(
        ("Methods", "Path", "Guarded by"),
        [(_methods(route), _path(route), _guards(route)) for route in guarded],
        flexible={"Methods": 7, "Path": 20, "Guarded by": 20},
    )
    routes_of: dict[str, list[str]] = {}
    for route in problems:
        routes_of.setdefault(str(route.problem), []).append(f"{_methods(route)} {route.path}")
    for problem, its_routes in routes_of.items():
        line = f"problem  {problem}: {'; '.join(its_routes)}"
        text += f"\n{escaped(line)}\n"
    return text + "".join(f"\nproblem  {escaped(problem)}\n" for problem in of_rules)


def _methods(route: GuardedRoute) -> str:
    return "WebSocket" if route.is_websocket else ", ".join(route.methods) or "any"


def _path(route: GuardedRoute) -> Words:
    return _cell([route.path, *([] if route.part is None else [f"  at {route.part}"])])


def _guards(route: GuardedRoute) -> Words:
    lines = [f"limit {limit_words(limit)}" for limit in route.limits]
    if route.by_itself:
        return _cell([MANAGEMENT_DECIDES])
    if route.is_public is None:
        return _cell(["unknown", *lines], "red")
    if route.problem is not None:
        return _cell(["public, not named so", *lines], "red")
    if route.is_public:
        return _cell(["public", *lines], "yellow")
    login = [] if route.also is None else [f"or {route.also}"]
    return _cell([*(list(_scopes(route.requirements)) or ["key"]), *login, *lines])


def _cell(lines: Iterable[str], style: str = "") -> Words:
    return coloured("\n".join(map(escaped, lines)), style)


def _all_of(requirements: Iterable[Requirement]) -> list[str]:
    return sorted({scope for each in requirements for scope in each.all_of})


def _scopes(requirements: Iterable[Requirement]) -> Iterable[str]:
    if all_of := _all_of(requirements):
        yield f"scopes {', '.join(all_of)}"
    for each in requirements:
        if each.any_of:
            yield f"any of {', '.join(sorted(each.any_of))}"


def limit_words(limit: RouteLimit) -> str:
    """Return a limit as people read it."""
    per = limit.limit.per if isinstance(limit.limit.per, str) else "function"
    return f"{limit.limit.name} {limit.limit.rate} per {per}"
