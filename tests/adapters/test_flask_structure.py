"""Flask: how applications are put together - factories, blueprints, classes - and who is asking."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ClassVar

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from werkzeug.exceptions import Forbidden, HTTPException, TooManyRequests

import keyguard.adapters.flask
from keyguard import (
    AccessDenied,
    ConfigurationError,
    Limit,
    Principal,
    Rule,
    rate_limit,
    require_scopes,
)
from keyguard.adapters.flask import FlaskKeyguard, current_principal
from keyguard.request.context import current_request
from tests.world import World


@pytest.fixture
def world() -> World:
    return World()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Reports(MethodView):
    decorators: ClassVar[list[Any]] = [require_scopes("analytics:read")]

    @rate_limit("2/minute", name="reports")
    def get(self, report: int) -> str:
        return f"report {report}"

    @require_scopes("admin")
    def delete(self, report: int) -> str:
        return f"deleted {report}"


def functions(blueprint: Blueprint) -> None:
    @blueprint.get("/<int:report>")
    @require_scopes("analytics:read")
    @rate_limit("2/minute", name="reports")
    def report(report: int) -> str:
        return f"report {report}"

    @blueprint.delete("/<int:report>")
    @require_scopes("analytics:read", "admin")
    def delete(report: int) -> str:
        return f"deleted {report}"


def classes(blueprint: Blueprint) -> None:
    blueprint.add_url_rule("/<int:report>", view_func=Reports.as_view("reports"))


def on_the_application(world: World, register: Callable[[Any], None]) -> tuple[Flask, str]:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    register(app)
    return app, ""


def in_a_factory(world: World, register: Callable[[Any], None]) -> tuple[Flask, str]:
    keyguard = FlaskKeyguard(guard=world.guard)

    def create_app() -> Flask:
        app = Flask("app")
        register(app)
        keyguard.init_app(app)
        return app

    create_app()  # a factory may be called again
    return create_app(), ""


def in_a_blueprint(world: World, register: Callable[[Any], None]) -> tuple[Flask, str]:
    app = Flask("app")
    blueprint = Blueprint("v1", "v1", url_prefix="/v1")
    register(blueprint)
    FlaskKeyguard(app, world.guard)
    app.register_blueprint(blueprint)
    return app, "/v1"


def in_nested_blueprints(world: World, register: Callable[[Any], None]) -> tuple[Flask, str]:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    inner, outer = Blueprint("reports", "reports"), Blueprint("v1", "v1")
    register(inner)
    outer.register_blueprint(inner, url_prefix="/reports")
    app.register_blueprint(outer, url_prefix="/v1")
    return app, "/v1/reports"


@pytest.mark.parametrize("register", [functions, classes])
@pytest.mark.parametrize(
    "place", [on_the_application, in_a_factory, in_a_blueprint, in_nested_blueprints]
)
def test_scopes_and_limits_hold_wherever_a_view_is_registered(
    world: World, place: Any, register: Any
) -> None:
    app, prefix = place(world, register)
    client = app.test_client()
    path = f"{prefix}/7"
    reader = bearer(world.token("analytics:read"))

    assert client.get(path).status_code == 401
    assert client.get(path, headers=bearer(world.token("inference:read"))).status_code == 403
    assert client.delete(path, headers=reader).status_code == 403
    both = bearer(world.token("analytics:read", "admin"))
    assert client.delete(path, headers=both).text == "deleted 7"
    answers = [client.get(path, headers=reader) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"reports";q=2;w=60'


def test_a_whole_class_has_a_limit_of_its_own(world: World) -> None:
    @rate_limit("1/minute")
    class Ping(MethodView):
        def get(self) -> str:
            return "get"

        def post(self) -> str:
            return "post"

    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/ping", view_func=Ping.as_view("ping"))
    headers = bearer(world.token())

    assert app.test_client().get("/ping", headers=headers).text == "get"
    assert app.test_client().post("/ping", headers=headers).status_code == 429


def test_a_rule_guards_a_blueprint_that_can_not_be_edited(world: World) -> None:
    app = Flask("app")
    blueprint = Blueprint("plugin", "plugin")
    blueprint.add_url_rule("/<path:rest>", "view", lambda rest: rest)
    app.register_blueprint(blueprint, url_prefix="/plugin")
    FlaskKeyguard(
        app,
        world.guard,
        rules=[Rule("/plugin/{rest:path}", scopes=["admin"], limits=[Limit("plugin", "1/minute")])],
    )
    client = app.test_client()
    admin = bearer(world.token("admin"))

    assert client.get("/plugin/a/b", headers=bearer(world.token())).status_code == 403
    assert client.get("/plugin/a/b", headers=admin).text == "a/b"
    assert client.get("/plugin/a/b", headers=admin).status_code == 429


def test_a_blueprint_s_own_error_handlers_are_asked_first(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    blueprint = Blueprint("v1", "v1", url_prefix="/v1")
    functions(blueprint)

    @blueprint.errorhandler(403)
    def forbidden(error: Forbidden) -> Any:
        return "the blueprint's", 403

    @blueprint.errorhandler(429)
    def exceeded(error: TooManyRequests) -> Any:
        return "too much for the blueprint", 429

    @app.errorhandler(403)
    def other(error: Forbidden) -> Any:
        return "the application's", 403

    app.register_blueprint(blueprint)
    app.add_url_rule("/admin", "admin", require_scopes("admin")(lambda: "admin"))
    client = app.test_client()
    reader = bearer(world.token("analytics:read"))

    assert client.delete("/v1/7", headers=reader).text == "the blueprint's"
    assert client.get("/admin", headers=reader).text == "the application's"
    assert [client.get("/v1/7", headers=reader).text for _ in range(3)] == [
        "report 7",
        "report 7",
        "too much for the blueprint",
    ]


def test_a_handler_of_every_exception_lets_nobody_in(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)

    @app.errorhandler(Exception)
    def swallow(error: Exception) -> Any:
        return "handled", getattr(error, "code", 500)

    app.add_url_rule("/", "view", require_scopes("admin")(lambda: "secret"))
    client = app.test_client()

    for headers, status in (({}, 401), (bearer(world.token()), 403)):
        answer = client.get("/", headers=headers)
        assert (answer.status_code, answer.text) == (status, "handled")


@pytest.mark.parametrize("limits", [(), (Limit("day", "100/day"),)])
def test_a_scope_is_asked_for_before_anything_around_the_view_answers(
    limits: tuple[Limit, ...],
) -> None:
    world = World({"default_limits": limits})
    app = Flask("app")
    FlaskKeyguard(app, world.guard)

    @app.get("/")
    @answering
    @require_scopes("admin")
    def view() -> str:
        raise AssertionError

    client = app.test_client()

    assert client.get("/", headers=bearer(world.token("admin"))).text == "kept from before"
    assert client.get("/", headers=bearer(world.token())).status_code == 403


def answering(view: Callable[[], str]) -> Callable[[], str]:
    """Put in front of a view what answers in its place, and seems to be it, as a cache does."""
    return wraps(view)(lambda: "kept from before")


@pytest.mark.parametrize("of_blueprint", [False, True])
def test_a_handler_of_every_exception_makes_no_refusal_a_failure(
    world: World, of_blueprint: bool
) -> None:
    app, blueprint = Flask("app"), Blueprint("v1", "v1")
    FlaskKeyguard(app, world.guard)
    blueprint.add_url_rule("/", "view", require_scopes("admin")(lambda: "secret"))
    blueprint.add_url_rule("/broken", "broken", lambda: 1 / 0)  # type: ignore[arg-type,return-value]

    def swallow(error: Exception) -> Any:
        return "something went wrong", 500

    (blueprint if of_blueprint else app).register_error_handler(Exception, swallow)
    app.register_blueprint(blueprint)
    client = app.test_client()
    token = bearer(world.token())

    for headers, status in (({}, 401), (token, 403)):
        answer = client.get("/", headers=headers)
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
        assert "WWW-Authenticate" in answer.headers
    assert client.get("/broken", headers=token).text == "something went wrong"


@pytest.mark.parametrize("handled", [403, Forbidden, HTTPException])
def test_a_handler_of_refusals_may_call_them_failures(world: World, handled: Any) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/", "view", require_scopes("admin")(lambda: "secret"))
    app.register_error_handler(handled, lambda error: ("mine", 500))
    app.register_error_handler(Exception, lambda error: ("everybody's", 500))

    answer = app.test_client().get("/", headers=bearer(world.token()))

    assert (answer.status_code, answer.text) == (500, "mine")


def test_the_proxy_is_the_principal_of_each_request_anew(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/", "view", lambda: current_principal.key_id)
    client = app.test_client()

    for issued in (world.issue(), world.issue()):
        headers = bearer(issued.token.reveal())
        assert client.get("/", headers=headers).text == issued.key.id


def test_the_proxy_is_asked_in_templates_as_well(world: World) -> None:
    from flask import render_template_string

    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.context_processor(lambda: {"principal": current_principal})
    app.add_url_rule("/", "view", lambda: render_template_string("{{ principal.organization }}"))

    answer = app.test_client().get("/", headers=bearer(world.token()))

    assert answer.text == world.acme.id


def test_the_proxy_on_a_public_path_is_401(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)

    def view() -> str:
        try:
            return current_principal.key_id
        except AccessDenied:
            return "anonymous"

    app.add_url_rule("/open", "open", lambda: current_principal.key_id)
    app.add_url_rule("/open/write", "optional", view)

    assert app.test_client().get("/open").status_code == 401
    assert app.test_client().get("/open/write").text == "anonymous"


@pytest.mark.parametrize("path", ["/open", "/nowhere"])
def test_a_request_that_goes_on_after_a_refusal_owes_what_is_due(path: str) -> None:
    limits = [Limit("front", "1/day", per="address")]
    world = World({"rules": [Rule(path, public=True, limits=limits)], "public": []})
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/open", "open", lambda: "open")
    # One that is decorated makes charges wait for the route, which comes after preprocessors.
    app.add_url_rule("/guarded", "guarded", require_scopes("admin")(lambda: "guarded"))

    @app.url_value_preprocessor
    def wonder(endpoint: str | None, values: dict[str, Any] | None) -> None:
        with suppress(AccessDenied):
            assert current_principal.key_id

    client = app.test_client()

    assert client.get(path).status_code in {200, 404}
    assert client.get(path).status_code == 429


def test_the_proxy_outside_of_a_guarded_request_is_an_error(world: World) -> None:
    with pytest.raises(ConfigurationError, match="outside keyguard's middleware"):
        assert current_principal.key_id


LOOKS: dict[str, Callable[[Any], Any]] = {
    "isinstance": lambda proxy: isinstance(proxy, Principal),
    "bool": bool,
    "dir": dir,
    "repr": repr,
    "members": inspect.getmembers,
    "doc": inspect.getdoc,
    "unwrap": inspect.unwrap,
    "doctest": lambda _: len(doctest.DocTestFinder().find(keyguard.adapters.flask)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_who_looks_at_the_proxy_is_told_that_it_is_unbound_and_changes_no_answer(
    world: World, look: Callable[[Any], Any]
) -> None:
    outside = look(current_principal)
    seen: list[Any] = []
    app = Flask("app")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    FlaskKeyguard(app, world.guard)

    def view() -> str:
        seen.append(look(current_principal))
        assert current_request().refusal is None
        raise ValueError("the application's own")

    app.add_url_rule("/open", "open", view)

    assert app.test_client().get("/open").status_code == 500
    assert seen == [outside]


def test_the_proxy_passes_for_a_principal(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    app.add_url_rule("/", "view", lambda: str(isinstance(current_principal, Principal)))

    assert app.test_client().get("/", headers=bearer(world.token())).text == "True"
