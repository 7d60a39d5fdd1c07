"""Flask: the extension, factories, error handlers, view classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Blueprint, Flask, has_app_context
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView, View
from werkzeug.exceptions import Forbidden, NotFound, Unauthorized

from keyguard import (
    AccessDenied,
    ConfigurationError,
    InvalidValueError,
    Limit,
    Rule,
    current_principal,
    require_scopes,
)
from keyguard.adapters.flask import MIDDLEWARE, FlaskKeyguard
from tests.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def app(world: World) -> Flask:
    app = Flask("app")
    FlaskKeyguard(app, world.guard)
    return app


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_view_reads_its_principal(world: World, app: Flask) -> None:
    app.add_url_rule("/", "view", lambda: current_principal().key_id)
    issued = world.issue()

    answer = app.test_client().get("/", headers=bearer(issued.token.reveal()))

    assert answer.text == issued.key.id


def test_every_path_needs_a_key_static_files_and_unknown_ones_too(app: Flask) -> None:
    client = app.test_client()

    for path in ("/", "/static/x.js", "/nowhere"):
        assert client.get(path).status_code == 401


def test_a_factory_may_guard_its_application_later(world: World) -> None:
    keyguard = FlaskKeyguard(guard=world.guard, public=["/mine"])
    app = Flask("app")
    keyguard.init_app(app)
    app.add_url_rule("/mine", "view", lambda: "open")

    assert app.test_client().get("/mine").text == "open"
    assert app.test_client().get("/open").status_code == 401
    assert app.extensions["keyguard"] is keyguard


def test_a_guard_may_be_given_to_init_app(world: World) -> None:
    app = Flask("app")
    FlaskKeyguard().init_app(app, world.guard)

    assert app.test_client().get("/").status_code == 401


def test_an_application_is_guarded_once_and_by_somebody(world: World, app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        FlaskKeyguard(app, world.guard)
    with pytest.raises(ConfigurationError, match="needs a guard"):
        FlaskKeyguard(Flask("other"))


def test_a_refusal_goes_through_the_application_s_error_handler(world: World, app: Flask) -> None:
    @app.errorhandler(401)
    def unauthorized(error: Unauthorized) -> Any:
        return f"custom {error.code}", 401

    @app.errorhandler(403)
    def forbidden(error: Forbidden) -> Any:
        return f"custom {error.code}", 403

    app.add_url_rule("/", "view", require_scopes("admin")(lambda: "secret"))
    client = app.test_client()

    assert client.get("/").text == "custom 401"
    answer = client.get("/", headers=bearer(world.token()))
    assert (answer.status_code, answer.text) == (403, "custom 403")


@pytest.mark.parametrize("testing", [False, True])
@pytest.mark.parametrize("failure", [ZeroDivisionError(), NotFound()])
def test_an_error_handler_that_fails_leaves_the_refusal_as_it_is(
    world: World, app: Flask, caplog: pytest.LogCaptureFixture, failure: Exception, testing: bool
) -> None:
    app.add_url_rule("/", "view", require_scopes("admin")(lambda: "secret"))
    app.testing = testing
    failures: list[Exception] = []

    def handler(error: Exception) -> Any:
        if failures:
            raise failures[0]
        return error

    app.register_error_handler(401, handler)
    app.register_error_handler(403, handler)
    client = app.test_client()
    token = world.token()
    plain = [client.get("/"), client.get("/", headers=bearer(token))]
    failures.append(failure)

    for before, headers in zip(plain, ({}, bearer(token)), strict=True):
        caplog.clear()
        answer = client.get("/", headers=headers)
        assert (answer.status_code, answer.data) == (before.status_code, before.data)
        assert answer.headers == before.headers
        (record,) = [entry for entry in caplog.records if entry.name == app.logger.name]
        assert "error handler failed on a refused request" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is failure


def test_a_session_that_can_t_be_opened_leaves_the_refusal_as_it_is(app: Flask) -> None:
    class Broken(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: Any) -> Any:
            raise ZeroDivisionError

    app.session_interface = Broken()

    answer = app.test_client().get("/")

    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
    assert not has_app_context()


def test_a_teardown_that_fails_replaces_no_refusal(app: Flask) -> None:
    @app.teardown_request
    def fail(error: BaseException | None) -> None:
        raise ZeroDivisionError

    answer = app.test_client().get("/")

    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
    assert not has_app_context()


def test_what_is_kept_of_methods_that_clients_make_up_has_a_bound() -> None:
    rule = Rule("/view", public=True, limits=[Limit("front", "9000/minute", per="address")])
    app = Flask("app")
    FlaskKeyguard(app, World({"rules": [rule]}).guard)
    app.add_url_rule("/view", "view", require_scopes("admin")(lambda: "secret"))
    client = app.test_client()

    for number in range(1100):
        assert client.open("/view", method=f"MADE{number}").status_code == 405

    assert app.extensions[MIDDLEWARE]._protection.cache_info().currsize <= 1024


def test_after_request_sees_refusals(world: World, app: Flask) -> None:
    @app.after_request
    def add_header(response: flask.Response) -> flask.Response:
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    assert app.test_client().get("/").headers["Access-Control-Allow-Origin"] == "*"


def test_before_request_is_not_reached_without_a_key(world: World, app: Flask) -> None:
    reached: list[str] = []
    app.before_request(lambda: reached.append("reached"))

    app.test_client().get("/")

    assert reached == []


@pytest.mark.parametrize("careful", [True, False])
def test_after_request_may_ask_for_what_before_request_did_not_make(
    world: World, app: Flask, caplog: pytest.LogCaptureFixture, *, careful: bool
) -> None:
    def start() -> None:
        flask.g.started = "started"

    def say(response: flask.Response) -> flask.Response:
        started = flask.g.get("started") if careful else flask.g.started
        response.headers["X-Started"] = str(started)
        return response

    app.before_request(start)
    app.after_request(say)
    client = app.test_client()
    key = {"Authorization": f"Bearer {world.token()}"}

    assert client.get("/nowhere", headers=key).headers["X-Started"] == "started"
    refused = client.get("/nowhere")
    assert refused.status_code == 401
    assert refused.headers.get("X-Started") == ("None" if careful else None)
    assert bool(caplog.records) is not careful


class Methods(MethodView):
    def get(self) -> str:
        return "get"

    @require_scopes("admin")
    def post(self) -> str:
        return "post"


@require_scopes("admin")
class Guarded(MethodView):
    def get(self) -> str:
        return "get"


@require_scopes("admin")
class Dispatching(View):
    init_every_request = False

    def dispatch_request(self) -> str:
        return "dispatched"


def test_methods_of_a_class_can_be_guarded_apart(world: World, app: Flask) -> None:
    app.add_url_rule("/", view_func=Methods.as_view("methods"))
    headers = bearer(world.token())

    assert app.test_client().get("/", headers=headers).text == "get"
    assert app.test_client().post("/", headers=headers).status_code == 403


@pytest.mark.parametrize("view", [Guarded, Dispatching])
@pytest.mark.parametrize(("granted", "status"), [("admin", 200), ("inference:read", 403)])
def test_view_classes_can_be_decorated(
    world: World, app: Flask, view: Any, granted: str, status: int
) -> None:
    app.add_url_rule("/", view_func=view.as_view("view"))

    answer = app.test_client().get("/", headers=bearer(world.token(granted)))

    assert answer.status_code == status


def test_blueprints_are_guarded_like_everything(world: World, app: Flask) -> None:
    inner, outer = Blueprint("inner", "inner"), Blueprint("outer", "outer")
    inner.add_url_rule("/x", "view", require_scopes("admin")(lambda: "x"))
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    client = app.test_client()

    assert client.get("/outer/inner/x").status_code == 401
    assert client.get("/outer/inner/x", headers=bearer(world.token())).status_code == 403
    assert client.get("/outer/inner/x", headers=bearer(world.token("admin"))).text == "x"


def test_a_streamed_answer_keeps_its_principal(world: World, app: Flask) -> None:
    def stream() -> Iterator[str]:
        yield "key "
        yield current_principal().key_id

    app.add_url_rule("/", "view", lambda: flask.Response(stream()))
    issued = world.issue()

    answer = app.test_client().get("/", headers=bearer(issued.token.reveal()))

    assert answer.text == f"key {issued.key.id}"


def test_the_test_client_keeps_flask_s_context(world: World, app: Flask) -> None:
    app.add_url_rule("/<name>", "view", lambda name: name)

    with app.test_client() as client:
        client.get("/x", headers=bearer(world.token()))
        assert flask.request.view_args == {"name": "x"}


@pytest.mark.parametrize("before", [True, False])
def test_a_scope_outside_the_catalogue_stops_the_start(world: World, *, before: bool) -> None:
    view = require_scopes("inference:reed")(lambda: "x")
    app = Flask("app")
    if before:
        app.add_url_rule("/", "view", view)
        with pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"):
            FlaskKeyguard(app, world.guard)
    else:
        FlaskKeyguard(app, world.guard)
        with pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"):
            app.add_url_rule("/", "view", view)


def test_a_method_s_scope_outside_the_catalogue_stops_the_start(world: World, app: Flask) -> None:
    class Late(MethodView):
        @require_scopes("inference:reed")
        def get(self) -> str:
            return ""

    blueprint = Blueprint("b", "b")
    blueprint.add_url_rule("/", view_func=Late.as_view("late"))
    with pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"):
        app.register_blueprint(blueprint)


def test_a_refusal_that_the_application_catches_is_its_own(world: World, app: Flask) -> None:
    def view() -> str:
        try:
            require_scopes("admin")(lambda: None)()
        except AccessDenied:
            return "reduced"
        return "full"

    app.add_url_rule("/", "view", view)

    assert app.test_client().get("/", headers=bearer(world.token())).text == "reduced"


@pytest.mark.parametrize("trap", ["TRAP_HTTP_EXCEPTIONS", "TRAP_BAD_REQUEST_ERRORS"])
def test_flask_s_traps_leave_refusals_alone(app: Flask, trap: str) -> None:
    app.config[trap] = True
    client = app.test_client()

    assert client.get("/").status_code == 401
    assert client.get("/", headers={"Authorization": "Bearer"}).status_code == 400


def test_an_error_handler_that_asks_for_the_principal_gets_none(app: Flask) -> None:
    @app.errorhandler(401)
    def unauthorized(error: Unauthorized) -> Any:
        return current_principal().key_id

    answer = app.test_client().get("/")

    assert answer.status_code == 401
    assert b"needs an API key" in answer.data


def test_add_url_rule_keeps_its_arguments(app: Flask) -> None:
    app.add_url_rule("/p", "p", lambda: "x", False)

    assert "OPTIONS" not in next(r for r in app.url_map.iter_rules() if r.rule == "/p").methods


def test_the_reason_phrase_is_the_standard_s(app: Flask) -> None:
    assert app.test_client().get("/").status == "401 Unauthorized"


def test_looking_at_the_principal_outside_a_request_is_a_runtime_error_as_for_flask_s_proxies() -> (
    None
):
    """``flask --app service`` asks isinstance of every name of a module, this one included."""
    from keyguard.adapters.flask import current_principal

    assert not isinstance(current_principal, Flask)
    with pytest.raises(RuntimeError, match="outside keyguard's middleware"):
        current_principal.key_id  # noqa: B018 - looking is the point
