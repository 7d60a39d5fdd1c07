"""``keyguard routes``: what guards each route of an application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.text import Text

from keyguard.cli.options import Common, Json
from keyguard.cli.output import document, emit, plain
from keyguard.cli.route_report.loading import load_application
from keyguard.cli.route_report.reading import read_application, read_project
from keyguard.cli.route_report.survey import Finding, survey
from keyguard.cli.tables import table
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import RouteLimit

__all__ = ["routes"]


def routes(
    ctx: typer.Context,
    application: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP",
            help="The application, such as service.main:app or service:create_app(); left out for "
            "the Django project of DJANGO_SETTINGS_MODULE.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print every route of an application with what guards it.

    Of Starlette, FastAPI, Flask and Django; flask keyguard prints those of its own application.
    Exit code 1 where a route is public without being named so. The application is imported, and
    neither served nor is the key store opened.
    """
    before: Common = ctx.obj
    as_json = as_json or before.as_json
    if application is not None:
        found = read_application(load_application(application))
    elif before.application is not None:
        found = read_application(before.application)
    else:
        found = read_project()
    findings = survey(found)
    problems = [finding for finding in findings if finding.problem is not None]
    if as_json:
        document({"ok": not problems, "routes": [_as_document(finding) for finding in findings]})
    else:
        emit(_as_text(findings, problems))
    if problems:
        raise typer.Exit(1)


def _as_document(finding: Finding) -> dict[str, Any]:
    return {
        "path": finding.path,
        "part": finding.part,
        "methods": list(finding.methods) or None,
        "websocket": finding.is_websocket,
        "public": finding.is_public,
        "scopes": sorted({scope for one in finding.requirements for scope in one.all_of}),
        "any_of": [sorted(one.any_of) for one in finding.requirements if one.any_of],
        "limits": [_limit(limit) for limit in finding.limits],
        "preflight": finding.lets_preflight,
        "problem": finding.problem,
    }


def _as_text(findings: list[Finding], problems: list[Finding]) -> str:
    if not findings:
        return "The application has no routes.\n"
    rows = [(_methods(one), _path(one), _guards(one)) for one in findings]
    text = table(
        ("Methods", "Path", "Guarded by"),
        rows,
        flexible={"Methods": 7, "Path": 20, "Guarded by": 20},
    )
    if any(finding.lets_preflight for finding in findings):
        text += "\nCORS preflights reach the application without a key (allow_preflight).\n"
    return text + "".join(f"\n{plain(line)}\n" for line in _explained(problems))


def _explained(problems: list[Finding]) -> Iterable[str]:
    """Give a sentence for each problem, and what has it."""
    routes_of: dict[str, list[str]] = {}
    for finding in problems:
        routes_of.setdefault(str(finding.problem), []).append(f"{_methods(finding)} {finding.path}")
    for problem, those in routes_of.items():
        yield f"problem  {problem}: {'; '.join(those)}"


def _methods(finding: Finding) -> str:
    if finding.is_websocket:
        return "WebSocket"
    return ", ".join(finding.methods) or "any"


def _path(finding: Finding) -> Text:
    return _lines(
        [finding.path] if finding.part is None else [finding.path, f"  at {finding.part}"]
    )


def _guards(finding: Finding) -> Text:
    if finding.problem is not None:
        lines = ["public, not named so"]
    elif finding.is_public:
        lines = ["public"]
    else:
        lines = list(_scopes(finding.requirements)) or ["key"]
    lines += [f"limit {_limit(limit)}" for limit in finding.limits]
    style = "red" if finding.problem is not None else "yellow" if finding.is_public else ""
    return _lines(lines, style)


def _lines(lines: Iterable[str], style: str = "") -> Text:
    """Return the lines of one cell, in which what an application says breaks no line."""
    return Text("\n".join(map(plain, lines)), style=style)


def _scopes(requirements: Iterable[Requirement]) -> Iterable[str]:
    all_of = sorted({scope for one in requirements for scope in one.all_of})
    if all_of:
        yield f"scopes {', '.join(all_of)}"
    for one in requirements:
        if one.any_of:
            yield f"any of {', '.join(sorted(one.any_of))}"


def _limit(limit: RouteLimit) -> str:
    per = limit.limit.per if isinstance(limit.limit.per, str) else "function"
    return f"{limit.limit.name} {limit.limit.rate} per {per}"
