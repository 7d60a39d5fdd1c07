"""The routes of applications, and what is found to guard them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from keyguard import ConfigurationError
from keyguard.adapters import asgi
from keyguard.adapters.fastapi import KeyguardPrincipal
from keyguard.cli.route_report.reading import read_application
from keyguard.cli.route_report.survey import Finding, survey
from tests.route_report import apps

UNGUARDED = "no keyguard middleware"


def guards(app: Any) -> list[str]:
    return [spelled(finding) for finding in survey(read_application(app))]


def spelled(finding: Finding) -> str:
    """Spell a finding in a line, as short as it goes."""
    methods = "WS" if finding.is_websocket else "+".join(finding.methods) or "any"
    words = [methods, finding.path if finding.part is None else f"{finding.path}@{finding.part}"]
    if finding.is_public:
        words.append("public")
    words += [scope for one in finding.requirements for scope in sorted(one.all_of)]
    words += ["|".join(sorted(one.any_of)) for one in finding.requirements if one.any_of]
    words += [limit.limit.rate for limit in finding.limits]
    if finding.problem is not None:
        words.append("!")
    return " ".join(words)


GUARDED = [
    "GET /healthz public",
    "POST /v1/inference inference:write 60/minute",
    "GET /v1/models/{model_id} a:b|c:d 100/minute",
    "PUT /v1/models/{model_id}",
    "DELETE /reports/{id:int} admin",
    "GET /reports/{id:int}",
    "WS /ws",
]


@pytest.mark.parametrize("app", [apps.starlette_app, apps.wrapped])
def test_starlette_s_routes_are_found_with_what_guards_them(app: Any) -> None:
    assert guards(app) == GUARDED


def test_what_no_middleware_stands_before_is_a_problem_each() -> None:
    findings = survey(read_application(apps.unguarded))

    assert {finding.problem is not None for finding in findings} == {True}
    assert all(UNGUARDED in str(finding.problem) for finding in findings)
    assert not any(finding.lets_preflight for finding in findings)


def test_a_guard_below_a_mount_sees_the_path_from_there_on_and_nothing_beside_it() -> None:
    assert guards(apps.partly) == [
        *(line.replace(" /", " /api/", 1) for line in GUARDED),
        "GET /other public !",
    ]


def test_a_route_that_only_a_wider_rule_opens_is_a_problem_unless_it_asks_itself() -> None:
    reset, asking = survey(read_application(apps.wide))

    assert spelled(reset) == "POST /internal/reset public !"
    assert "only because the wider rule '/internal/{rest:path}' is" in str(reset.problem)
    assert spelled(asking) == "GET /internal/ok inference:write 60/minute"


def test_whether_preflights_pass_is_told() -> None:
    assert not any(finding.lets_preflight for finding in survey(read_application(apps.wide)))
    for finding in survey(read_application(apps.starlette_app)):
        assert finding.lets_preflight is not finding.is_websocket


def test_guards_of_one_route_or_mount_and_applications_by_host_are_found() -> None:
    assert guards(apps.of_one_route) == ["GET /a", *GUARDED, "GET /b/x"]


def test_fastapi_s_included_routers_and_security_scopes_are_read() -> None:
    assert guards(apps.fastapi_app()) == [
        "GET /internal/who",
        "GET /internal/anybody public !",
        "GET /v1/items/{item} items:read",
        "PUT /v1/items/{item} items:write",
    ]


def test_a_dependency_that_is_overridden_asks_for_nothing() -> None:
    assert guards(apps.overridden(lambda: None)) == [
        "GET /internal/own public !",
        "GET /internal/included public !",
    ]
    assert guards(apps.overridden(KeyguardPrincipal())) == [
        "GET /internal/own",
        "GET /internal/included",
    ]


@pytest.mark.parametrize(
    "inside",
    [
        {"app": apps.starlette_app, "admin": apps.unguarded},
        {"app": apps.wrapped, "inner": apps.wrapped.app},
        {"app": apps.starlette_app, "others": [apps.unguarded]},
        {"one": apps.Split(apps.starlette_app), "by_path": {"/admin": apps.unguarded}},
    ],
)
def test_a_wrapper_that_leads_to_several_applications_is_refused(inside: dict[str, Any]) -> None:
    for app in (apps.Split(**inside), Starlette(routes=[Mount("/x", apps.Split(**inside))])):
        with pytest.raises(ConfigurationError, match="a Split leads to several applications"):
            read_application(app)


def test_middleware_that_is_given_another_application_is_refused() -> None:
    app = Starlette(middleware=[Middleware(apps.Split, admin=apps.unguarded)])

    with pytest.raises(ConfigurationError, match=r"several applications \(admin, app\)"):
        read_application(app)


@pytest.mark.parametrize(
    "wrapper",
    [
        apps.Split(inner=apps.starlette_app),
        apps.Split(apps.Split(apps.starlette_app), same=apps.starlette_app, guard=3),
    ],
)
def test_a_wrapper_that_leads_to_one_application_is_looked_through(wrapper: Any) -> None:
    assert guards(wrapper) == GUARDED


def test_a_guard_before_what_can_t_be_read_is_seen_through_a_wrapper() -> None:
    guarded = apps.Split(asgi.KeyguardMiddleware(apps.opaque, apps.async_guard()))

    assert guards(Starlette(routes=[Mount("/x", guarded)])) == [
        "any /x/{path:path}",
        "any /x/{path:path}@/healthz public",
        "any /x/{path:path}@/internal/{path:path} public",
        "GET /x/{path:path}@/v1/models/{name} a:b|c:d 100/minute",
    ]


FLASK = [
    "GET /outer/inner/<name>",
    "PUT /outer/inner/<name> admin",
    "GET /outer/inner/<int(min=1):id>/<path:rest>",
    "GET /healthz public",
]


@pytest.mark.parametrize("make", [apps.flask_app, apps.flask_in_wsgi])
def test_flask_s_routes_are_found_with_what_guards_them(make: Any) -> None:
    assert guards(make()) == FLASK


def test_middleware_around_flask_s_wsgi_app_is_looked_through() -> None:
    app = apps.flask_app()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]

    assert guards(app) == FLASK


def test_flask_without_its_extension_is_a_problem() -> None:
    assert all(line.endswith("public !") or "admin" in line for line in guards(apps.bare_flask()))
    assert all("!" in line for line in guards(apps.bare_flask()))


def test_applications_that_werkzeug_dispatches_to_are_read() -> None:
    app = DispatcherMiddleware(apps.bare_flask(), {"/api": apps.flask_app()})

    found = guards(app)

    assert found[:4] == [line.replace(" /", " /api/", 1) for line in FLASK]
    assert all("!" in line for line in found[4:])


@pytest.mark.parametrize("app", [apps.opaque, object(), 3])
def test_an_application_of_another_kind_is_refused(app: Any) -> None:
    with pytest.raises(ConfigurationError, match="only those of Starlette, FastAPI, Flask and Dja"):
        read_application(app)
