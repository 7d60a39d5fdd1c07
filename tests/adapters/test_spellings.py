"""Routers that serve one resource under several paths, and the rules that requests escape so."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from keyguard import Rule
from keyguard.adapters._routers import routers_of
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.cli.route_report.applications import read_application
from keyguard.cli.route_report.report import report_rules
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.spellings import find_escapes
from tests.world import World

RULES = [Rule("/users", scopes=["analytics:read"])]


async def users(request: Request) -> PlainTextResponse:
    return PlainTextResponse("users")


async def other(request: Request) -> PlainTextResponse:
    return PlainTextResponse("other")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def escaped(app: Any, *rules: Rule, any_spelling: bool = False) -> list[str]:
    book = RuleBook(rules or RULES, any_spelling=any_spelling)
    return [escape.path for router in routers_of(app) for escape in find_escapes(book, router)]


SUFFIXED = [Route("/users", users), Route("/users.{format}", users)]


def test_a_format_suffix_of_starlette_s_escapes_unless_any_spelling_is_covered() -> None:
    app = Starlette(routes=SUFFIXED)

    assert escaped(app) == ["/users.json"]
    assert escaped(app, any_spelling=True) == []
    assert escaped(app, *RULES, Rule("/{name}", scopes=["analytics:read"])) == []
    assert escaped(app, *RULES, Rule("/{name}", scopes=["inference:write"])) == ["/users.json"]


def test_a_suffix_of_the_path_without_the_rest_escapes_a_rule_for_any_rest() -> None:
    rules = [Rule("/users/{rest:path}", scopes=["analytics:read"])]

    assert escaped(Starlette(routes=SUFFIXED), *rules) == ["/users.json"]
    deeper = [*SUFFIXED, Route("/users/{id}", users)]
    assert escaped(Starlette(routes=deeper), *rules) == ["/users.json"]


def test_a_slash_at_the_end_does_not_escape() -> None:
    assert escaped(Starlette(routes=[Route("/users", users), Route("/users/", users)])) == []


def test_another_endpoint_and_another_argument_are_other_resources() -> None:
    app = Starlette(
        routes=[
            Route("/users", users),
            Route("/users.json", other),
            Route("/files/{name:path}", users),
            Mount("/static", app=StaticFiles(directory="/tmp", check_dir=False)),
        ]
    )

    assert escaped(app) == []
    assert (
        escaped(app, Rule("/files/a", scopes=["admin"]), Rule("/static/a", scopes=["admin"])) == []
    )


def test_what_closes_a_part_of_a_public_rule_may_be_escaped_as_well() -> None:
    app = Starlette(routes=[Mount("/open", routes=SUFFIXED)])

    rules = Rule("/open/{rest:path}", public=True), Rule("/open/users")
    assert escaped(app, *rules) == ["/open/users.json"]
    assert escaped(app, *rules, any_spelling=True) == []


def test_routes_of_a_host_are_seen_and_parameters_filled() -> None:
    inner = [Route("/users/{id:uuid}/posts", users), Route("/users/{id:uuid}/posts.json", users)]
    app = Starlette(routes=[Host("api.example", app=Starlette(routes=inner))])

    (found,) = escaped(app, Rule("/users/{id}/posts", scopes=["admin"], methods=["GET"]))
    assert found == "/users/a1b2c3d4-0000-4000-8000-000000000000/posts.json"


def flask(world: World, *, strict: bool = True) -> Flask:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/users", "users", lambda **_: "users", strict_slashes=strict)
    app.add_url_rule("/users.<format>", "users")
    return app


@pytest.mark.parametrize("strict", [True, False])
def test_flask_s_other_path_of_a_view_is_reported_with_the_first_request(
    strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(options={"rules": RULES})
    client = flask(world, strict=strict).test_client()
    with caplog.at_level(logging.WARNING, "keyguard"):
        for _ in range(2):
            client.get("/users")

    (message,) = [message for message in caplog.messages if "the rule does not match it" in message]
    assert message.startswith("/users.json leads to a resource that the rule '/users' guards")


def test_starlette_s_other_path_is_reported_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    world = World(options={"rules": RULES})
    guarded = Middleware(KeyguardMiddleware, guard=world.async_guard)
    with caplog.at_level(logging.WARNING, "keyguard"):
        TestClient(Starlette(routes=SUFFIXED, middleware=[guarded])).get("/users")

    assert any("/users.json leads to" in message for message in caplog.messages)


def test_with_any_spelling_the_rule_is_asked_for_each_of_them() -> None:
    world = World(options={"rules": RULES, "any_spelling": True})
    client = flask(world).test_client()
    other = bearer(world.token())

    for path in ("/users", "/users/", "/users.json", "/users.XML", "/USERS", "/Users.json/"):
        assert client.get(path, headers=other).status_code == 403
    reader = bearer(world.token("analytics:read"))
    assert client.get("/users.json", headers=reader).text == "users"


def rule_problems(*rules: Rule, **options: Any) -> list[str]:
    world = World(options={"rules": rules, **options})
    app = Starlette(
        routes=[*SUFFIXED, Route("/a/{id}", other), Mount("/m", routes=[Route("/x/", other)])],
        middleware=[Middleware(KeyguardMiddleware, guard=world.async_guard)],
    )
    return report_rules(read_application(app))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/a/{name}", scopes=["admin"]),
        Rule("/a/1", scopes=["admin"]),
        Rule("/a/1/", methods=["GET"], scopes=["admin"]),
        Rule("/a/{rest:path}", scopes=["admin"]),
        Rule("/a/{id}/{rest:path}", scopes=["admin"]),
        Rule("/m/x", scopes=["admin"]),
        Rule("/nowhere", public=True),
    ],
)
def test_a_rule_that_a_route_has_is_no_problem(rule: Rule) -> None:
    assert rule_problems(rule) == []


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/b/{name}", scopes=["admin"]),
        Rule("/a", scopes=["admin"]),
        Rule("/a/{id}", methods=["PATCH"], scopes=["admin"]),
        Rule("/a/{id}/x", scopes=["admin"]),
        Rule("/x", scopes=["admin"]),
        Rule("/A/{id}", scopes=["admin"]),
    ],
)
def test_a_rule_for_no_route_is_a_problem(rule: Rule) -> None:
    (problem,) = rule_problems(rule)
    assert problem.startswith(f"the rule {rule.path!r} is for no route: mend its path or methods")


def test_a_rule_in_another_case_is_for_the_route_if_any_spelling_is_covered() -> None:
    assert rule_problems(Rule("/A/{id}", scopes=["admin"]), any_spelling=True) == []


def test_a_rule_that_another_spelling_escapes_is_a_problem() -> None:
    (problem,) = rule_problems(*RULES)
    assert problem.endswith(
        "but the rule does not match it: set any_spelling=True, or write a rule for that path"
    )
    assert rule_problems(*RULES, any_spelling=True) == []


def test_flask_s_routes_of_a_host_are_seen() -> None:
    app = Flask("app", host_matching=True, static_host="static.example")
    for path in ("/users", "/users.<format>"):
        app.add_url_rule(path, "users", host="api.example")

    assert escaped(app) == ["/users.json"]
    assert escaped(app, Rule("/users", methods=["GET"], scopes=["admin"])) == ["/users.json"]
    assert escaped(app, Rule("/users", methods=["POST"], scopes=["admin"])) == []


def test_a_router_that_can_t_be_asked_is_left_alone() -> None:
    class Odd:
        def matches(self, scope: Any) -> Any:
            raise KeyError("server")

    app = Starlette()
    app.router.routes = [Odd()]  # type: ignore[list-item]

    assert escaped(app) == []
