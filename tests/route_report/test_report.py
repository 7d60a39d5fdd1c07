"""The routes of applications, and what guards them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from keyguard import ConfigurationError, Keyguard, Rule
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.fastapi import KeyguardPrincipal
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.admin import Console, ManagementAPI
from keyguard.cli.route_report.applications import read_application
from keyguard.cli.route_report.report import GuardedRoute, report, report_rules
from tests.route_report import apps

UNGUARDED = "no keyguard middleware"


def guards(app: Any) -> list[str]:
    return [in_one_line(route) for route in report(read_application(app))]


def in_one_line(route: GuardedRoute) -> str:
    """Return what is reported of a route, in one short line."""
    methods = "WS" if route.is_websocket else "+".join(route.methods) or "any"
    words = [methods, route.path if route.part is None else f"{route.path}@{route.part}"]
    words += {True: ["public"], None: ["untold"], False: []}[route.is_public]
    words += [scope for each in route.requirements for scope in sorted(each.all_of)]
    words += ["|".join(sorted(each.any_of)) for each in route.requirements if each.any_of]
    words += [] if route.also is None else [f"or {route.also}"]
    words += [limit.limit.rate for limit in route.limits]
    words += ["itself"] if route.by_itself else []
    if route.problem is not None:
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


def test_each_route_without_middleware_before_it_is_a_problem() -> None:
    found = report(read_application(apps.unguarded))

    assert {route.problem is not None for route in found} == {True}
    assert all(UNGUARDED in str(route.problem) for route in found)


def test_a_guard_below_a_mount_sees_the_path_from_there_on_and_nothing_beside_it() -> None:
    assert guards(apps.partly) == [
        *(line.replace(" /", " /api/", 1) for line in GUARDED),
        "GET /other public !",
    ]


def test_a_route_that_only_a_wider_rule_opens_is_a_problem_unless_it_asks_itself() -> None:
    reset, asking = report(read_application(apps.wide))

    assert in_one_line(reset) == "POST /internal/reset public !"
    assert "only because the wider rule '/internal/{rest:path}' is" in str(reset.problem)
    assert in_one_line(asking) == "GET /internal/ok inference:write 60/minute"


def test_a_route_that_takes_another_login_names_it_unless_it_asks_for_a_key_itself() -> None:
    assert guards(apps.beside_a_login) == [
        "GET /app/page app or session 9/minute",
        "POST /app/inference app inference:write 9/minute 60/minute",
        "GET /twice/page",
    ]


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
    "wrapper",
    [
        apps.Split(apps.starlette_app, admin=apps.unguarded),
        apps.Split(apps.wrapped, inner=apps.wrapped.app),
        apps.Split(apps.starlette_app, others=[apps.unguarded]),
        apps.Split(apps.starlette_app, by_path={"/admin": apps.Split(apps.unguarded)}),
        apps.Split(apps.flask_app().wsgi_app, other=apps.bare_flask().wsgi_app),
        apps.Split(inner=apps.starlette_app),
    ],
)
def test_a_wrapper_that_may_lead_elsewhere_is_not_told(wrapper: Any) -> None:
    mounted = Starlette(routes=[Mount("/x", wrapper)])
    (found,) = report(read_application(mounted))

    assert in_one_line(found) == "any /x/{path:path} untold !"
    assert "keyguard can't read what serves it" in str(found.problem)
    guarded = asgi.KeyguardMiddleware(mounted, apps.async_guard(rules=[], public=[]))
    assert guards(guarded) == ["any /x/{path:path}"]
    with pytest.raises(ConfigurationError, match="a Split, whose routes can't be read"):
        read_application(wrapper)


def test_another_application_given_to_middleware_is_not_told() -> None:
    app = Starlette(
        routes=[Mount("/api", apps.starlette_app)],
        middleware=[Middleware(apps.Split, admin=apps.unguarded)],
    )

    assert guards(app)[0] == "any /{path:path} untold !"
    assert guards(app)[1:] == [line.replace(" /", " /api/", 1) for line in GUARDED]


def test_a_wrapper_that_keeps_one_application_is_looked_through() -> None:
    assert guards(apps.Split(apps.Split(apps.starlette_app), guard=3)) == GUARDED


def test_a_guard_before_an_unreadable_application_is_seen_through_a_wrapper() -> None:
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


# The console and the management API


def with_console(*layers: Middleware, rules: Sequence[Rule] = ()) -> Starlette:
    guard = apps.async_guard(rules=rules, public=[])
    return Starlette(
        routes=[
            Route("/keys/{id}/export", apps.endpoint),
            Mount("/keys", Console(guard, key_sign_in=True), middleware=layers),
        ],
        middleware=[Middleware(KeyguardMiddleware, guard=guard)],
    )


@pytest.mark.parametrize("layers", [(), (Middleware(GZipMiddleware),)])
def test_a_mounted_console_decides_by_itself(layers: tuple[Middleware, ...]) -> None:
    assert guards(with_console(*layers)) == [
        "GET /keys/{id}/export",
        "any /keys/{path:path} itself",
    ]


def test_a_rule_comes_before_a_mounted_console_and_is_for_it() -> None:
    rules = [Rule("/keys/api/{rest:path}", scopes=["admin"]), Rule("/kyes", scopes=["admin"])]
    app = with_console(rules=rules)

    assert guards(app)[-2:] == [
        "any /keys/{path:path} itself",
        "any /keys/{path:path}@/keys/api/{path:path} admin",
    ]
    [problem] = report_rules(read_application(app))
    assert problem.startswith("the rule '/kyes' is for no route")


def test_a_console_that_no_middleware_knows_is_behind_a_key_or_by_itself() -> None:
    guard = Keyguard(apps.NOWHERE)
    api: Any = ManagementAPI(guard)
    behind = wsgi.KeyguardMiddleware(api, guard)
    beside = DispatcherMiddleware(apps.flask_app(), {"/keys": api})

    assert guards(behind) == ["any /{path:path}"]
    assert "any /keys/{path:path} itself" in guards(beside)
    assert guards(api) == ["any /{path:path} itself"]
