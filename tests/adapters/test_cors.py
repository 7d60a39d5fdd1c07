"""A CORS layer stands outside keyguard; no view of an application ever answers a preflight."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask_cors import CORS
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from keyguard import Rule
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from tests.world import World

ORIGIN = "https://app.example"
ASKED = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "DELETE",
    "Access-Control-Request-Headers": "authorization",
}
GRANTED = "Access-Control-Allow-Origin"
METHODS = ["GET", "DELETE", "OPTIONS"]
OUTSIDE = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_methods=["DELETE"])
HIDDEN = "stands behind keyguard's middleware: browsers can't read refusals"


@pytest.fixture
def world() -> World:
    return World(options={"rules": [Rule("/admin/{x:path}", scopes=["admin"], limits="1/hour")]})


@pytest.fixture
def ran() -> list[str]:
    """What ran of an application."""
    return []


def starlette(ran: list[str], *middleware: Middleware) -> Starlette:
    async def view(request: Request) -> PlainTextResponse:
        ran.append(request.method)
        return PlainTextResponse("all data")

    return Starlette(
        routes=[Route("/admin/delete", view, methods=METHODS)], middleware=list(middleware)
    )


def flask(ran: list[str], world: World) -> Flask:
    app = Flask("app")

    def view() -> str:
        ran.append("view")
        return "all data"

    app.add_url_rule("/admin/delete", "view", view, methods=METHODS)
    FlaskKeyguard(app, world.guard)
    return app


def test_a_layer_outside_answers_preflights_and_lets_browsers_read_refusals(
    world: World, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Middleware(KeyguardMiddleware, guard=world.async_guard)
    client = TestClient(starlette(ran, OUTSIDE, guarded))

    for _ in range(3):
        assert client.options("/admin/delete", headers=ASKED).headers[GRANTED] == ORIGIN
    refused = client.delete("/admin/delete", headers={"Origin": ORIGIN})

    assert (refused.status_code, refused.headers[GRANTED]) == (401, ORIGIN)
    assert ran == []
    assert HIDDEN not in caplog.text


def test_flask_cors_answers_preflights_without_a_view_and_lets_browsers_read_refusals(
    world: World, ran: list[str]
) -> None:
    app = flask(ran, world)
    CORS(app, origins=[ORIGIN])
    client = app.test_client()

    for _ in range(3):
        answer = client.options("/admin/delete", headers=ASKED)
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers[GRANTED] == ORIGIN
        assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    refused = client.delete("/admin/delete", headers={"Origin": ORIGIN})

    assert (refused.status_code, refused.headers[GRANTED]) == (401, ORIGIN)
    assert ran == []
    assert len(world.events) == 1  # the refusal; a preflight is none


@pytest.mark.parametrize(
    "fields",
    [{}, {"Origin": ORIGIN}, {**ASKED, "Authorization": "Bearer x"}],
    ids=["no field", "an origin alone", "credentials"],
)
def test_flask_cors_answers_only_what_a_browser_asks(
    world: World, ran: list[str], fields: dict[str, str]
) -> None:
    app = flask(ran, world)
    CORS(app, origins=[ORIGIN])

    assert app.test_client().options("/admin/delete", headers=fields).status_code == 401
    assert ran == []


def test_without_flask_cors_a_preflight_gets_401(world: World, ran: list[str]) -> None:
    assert (
        flask(ran, world).test_client().options("/admin/delete", headers=ASKED).status_code == 401
    )
    assert ran == []


def litestar() -> Any:
    from litestar import Litestar
    from litestar.config.cors import CORSConfig

    return Litestar(cors_config=CORSConfig(allow_origins=[ORIGIN]), logging_config=None)


def falcon_over_wsgi() -> Any:
    import falcon

    return falcon.App(cors_enable=True)


def falcon_over_asgi() -> Any:
    import falcon.asgi

    return falcon.asgi.App(middleware=[falcon.CORSMiddleware(allow_origins=ORIGIN)])


def flask_with_cors() -> Any:
    app = Flask("inner")
    CORS(app)
    return app


def quart() -> Any:
    from quart import Quart

    app = Quart("inner")
    with_quart_cors(app)
    return app.asgi_app


def with_quart_cors(app: Any) -> None:
    """Do to an application what Quart-CORS 0.8 does."""

    async def after_request(response: Any, *, allow_origin: str) -> Any: ...

    after_request.__module__ = "quart_cors"
    app.after_request(partial(after_request, allow_origin=ORIGIN))


def django() -> Any:
    from django.core.handlers.wsgi import WSGIHandler

    from tests.adapters.django_site import changed

    security = "django.middleware.security.SecurityMiddleware"
    with changed(MIDDLEWARE=[security, "corsheaders.middleware.CorsMiddleware"]):
        return WSGIHandler()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: starlette([], OUTSIDE), "CORSMiddleware"),
        (lambda: CORSMiddleware(starlette([])), "CORSMiddleware"),
        (lambda: Starlette(routes=[Mount("/v1", starlette([], OUTSIDE))]), "CORSMiddleware"),
        (litestar, "the CORS support of Litestar"),
        (quart, "the CORS extension of Quart"),
        (falcon_over_wsgi, "CORSMiddleware"),
        (falcon_over_asgi, "CORSMiddleware"),
        (flask_with_cors, "the CORS extension of Flask"),
        (django, "CorsMiddleware"),
    ],
    ids=[
        *("starlette", "a layer", "a mount", "litestar", "quart"),
        *("falcon over WSGI", "falcon over ASGI", "flask", "django"),
    ],
)
def test_a_cors_layer_behind_the_guard_is_reported_at_the_start(
    make: Callable[[], Any], name: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    with caplog.at_level(logging.WARNING, "keyguard"):
        if make in (falcon_over_wsgi, flask_with_cors, django):
            wsgi.KeyguardMiddleware(app, world.guard)
        else:
            asgi.KeyguardMiddleware(app, world.async_guard)

    (message,) = caplog.messages
    assert message.startswith(f"{name} {HIDDEN}")


def with_starlette_s(app: Starlette) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])


@pytest.mark.parametrize("framework", ["starlette", "quart"])
def test_a_cors_layer_that_comes_after_the_guard_is_reported_once_it_is_served(
    framework: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    from quart import Quart

    app: Any = Quart("inner") if framework == "quart" else starlette([])
    inner = app.asgi_app if framework == "quart" else app
    guarded = asgi.KeyguardMiddleware(inner, world.async_guard)
    (with_quart_cors if framework == "quart" else with_starlette_s)(app)
    with caplog.at_level(logging.WARNING, "keyguard"), TestClient(guarded):
        pass

    assert [HIDDEN in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("last", [True, False])
def test_fastapi_s_middleware_that_is_added_last_stands_outside(
    last: bool, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    from fastapi import FastAPI

    app = FastAPI()
    cors = partial(app.add_middleware, CORSMiddleware, allow_origins=[ORIGIN])
    if not last:
        cors()
    app.add_middleware(KeyguardMiddleware, guard=world.async_guard)
    if last:
        cors()
    with caplog.at_level(logging.WARNING, "keyguard"), TestClient(app) as client:
        client.get("/")

    assert [HIDDEN in message for message in caplog.messages] == ([] if last else [True])


def test_flask_cors_is_in_order_wherever_the_extension_is(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = flask_with_cors()
    with caplog.at_level(logging.WARNING, "keyguard"):
        FlaskKeyguard(app, world.guard)

    assert caplog.messages == []


def test_a_wrong_order_among_starlette_s_middleware_is_reported_once_it_is_served(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = starlette([], Middleware(KeyguardMiddleware, guard=world.async_guard), OUTSIDE)
    with caplog.at_level(logging.WARNING, "keyguard"):
        assert TestClient(app).options("/admin/delete", headers=ASKED).status_code == 401

    assert [HIDDEN in message for message in caplog.messages].count(True) == 1


def test_a_plain_application_gets_no_preflight_without_a_key(world: World, ran: list[str]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        ran.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"all data"]

    client = Client(wsgi.KeyguardMiddleware(app, world.guard))
    for path in ("/", "/admin/delete", "/nowhere"):
        assert client.options(path, headers=ASKED).status_code == 401
    assert ran == []
