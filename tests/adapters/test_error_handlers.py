"""Error handlers of the application: their answers to a refusal keep keyguard's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon
import falcon.asgi
import pytest
import quart
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar, Response, get
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from werkzeug.exceptions import HTTPException

from keyguard import AccessDenied, Limit, rate_limit, require_scopes
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from tests.adapters.stack_django import over_asgi
from tests.adapters.stacks import Answer, Request, call_asgi, call_wsgi
from tests.world import World

STATUSES = {"/admin": 403, "/limited": 429, "/open/own": 401}
limit = Limit("narrow", "1/minute")


@require_scopes("admin")
def admin(*_: Any, **__: Any) -> str:
    return "for administrators"


@rate_limit(limit)
def limited(*_: Any, **__: Any) -> str:
    return "limited"


VIEWS = {"/admin": admin, "/limited": limited, "/open/own": admin}


def status_of(failure: Exception) -> int:
    assert isinstance(failure, AccessDenied)
    reason = failure.decision.reason.value
    return {"scope_missing": 403, "rate_limited": 429}.get(reason, 401)


async def json_of(_: Any, failure: Exception) -> JSONResponse:
    return JSONResponse({"mine": True}, status_of(failure), {"Cache-Control": "private"})


def starlette_app(world: World) -> Any:
    def of(view: Callable[..., str]) -> Any:
        async def endpoint(_: Any) -> JSONResponse:
            return JSONResponse(view())

        return endpoint

    routes = [Route(path, of(view)) for path, view in VIEWS.items()]
    app = Starlette(routes=routes, exception_handlers={AccessDenied: json_of})
    return asgi.KeyguardMiddleware(app, world.async_guard)


def fastapi_app(world: World) -> Any:
    app = FastAPI(exception_handlers={AccessDenied: json_of})
    for path, view in VIEWS.items():
        app.get(path)(lambda view=view: view())
    return asgi.KeyguardMiddleware(app, world.async_guard)


def flask_app(world: World, *, wraps: bool = False) -> Any:
    app = Flask("errors")
    for path, view in VIEWS.items():
        app.add_url_rule(path, path, view)

    def own(failure: Any) -> Any:
        status = status_of(failure) if isinstance(failure, AccessDenied) else failure.code
        return {"mine": True}, status, {"Cache-Control": "private"}

    if wraps:
        app.register_error_handler(AccessDenied, own)
        return wsgi.KeyguardMiddleware(app, world.guard)
    FlaskKeyguard(app, world.guard)
    app.register_error_handler(HTTPException, own)
    return app


def quart_app(world: World) -> Any:
    app = quart.Quart("errors")

    @app.errorhandler(AccessDenied)
    async def own(failure: AccessDenied) -> Any:
        return {"mine": True}, status_of(failure), {"Cache-Control": "private"}

    for path, view in VIEWS.items():
        app.add_url_rule(path, path, view)
    return asgi.KeyguardMiddleware(app, world.async_guard)


def litestar_app(world: World) -> Any:
    def own(_: Any, failure: Exception) -> Response[Any]:
        headers = {"Cache-Control": "private"}
        return Response({"mine": True}, status_code=status_of(failure), headers=headers)

    def handler(path: str, view: Callable[..., str]) -> Any:
        @get(path, sync_to_thread=False)
        def endpoint() -> str:
            return view()

        return endpoint

    handlers = [handler(path, view) for path, view in VIEWS.items()]
    app = Litestar(handlers, exception_handlers={AccessDenied: own}, logging_config=None)
    return asgi.KeyguardMiddleware(app, world.async_guard)


def falcon_app(world: World) -> Any:
    def own(_: Any, resp: Any, failure: Exception, __: Any) -> None:
        resp.status, resp.media = status_of(failure), {"mine": True}
        resp.cache_control = ["private"]

    def resource(view: Callable[..., str]) -> Any:
        class Resource:
            def on_get(self, _: Any, resp: Any) -> None:
                resp.media = view()

        return Resource()

    app = falcon.App()
    app.add_error_handler(AccessDenied, own)
    for path, view in VIEWS.items():
        app.add_route(path, resource(view))
    return wsgi.KeyguardMiddleware(app, world.guard)


def falcon_asgi_app(world: World) -> Any:
    async def own(_: Any, resp: Any, failure: Exception, __: Any) -> None:
        resp.status, resp.media = status_of(failure), {"mine": True}
        resp.cache_control = ["private"]

    def resource(view: Callable[..., str]) -> Any:
        class Resource:
            async def on_get(self, _: Any, resp: Any) -> None:
                resp.media = view()

        return Resource()

    app = falcon.asgi.App()
    app.add_error_handler(AccessDenied, own)
    for path, view in VIEWS.items():
        app.add_route(path, resource(view))
    return asgi.KeyguardMiddleware(app, world.async_guard)


STACKS: dict[str, tuple[Callable[[World], Any], Any]] = {
    "starlette": (starlette_app, call_asgi),
    "fastapi": (fastapi_app, call_asgi),
    "flask": (flask_app, call_wsgi),
    "wsgi around flask": (lambda world: flask_app(world, wraps=True), call_wsgi),
    "quart": (quart_app, call_asgi),
    "litestar": (litestar_app, call_asgi),
    "falcon over wsgi": (falcon_app, call_wsgi),
    "falcon over asgi": (falcon_asgi_app, call_asgi),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("path", STATUSES)
def test_an_application_s_answer_to_a_refusal_keeps_keyguard_s_fields(name: str, path: str) -> None:
    world = World(options={"public": ["/open/own"]})
    world.clock.uptime = 86400.0
    make, call = STACKS[name]
    app = over_asgi(make(world)) if call is call_asgi else make(world)
    key = Request(path, authorization=(b"Bearer " + world.token("inference:read").encode(),))
    if path == "/limited":
        call(app, key)

    check(call(app, key), STATUSES[path])


def check(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.body.replace(b" ", b"").strip() == b'{"mine":true}'
    assert answer.header("cache-control") == "private"  # the application's own stays
    assert answer.header("content-type") != "application/problem+json"
    challenge = {
        401: 'Bearer realm="AIaaS"',
        403: 'Bearer realm="AIaaS", error="insufficient_scope", scope="admin"',
        429: None,
    }
    assert answer.header("www-authenticate") == challenge[status]
    waits = status == 429
    assert (answer.header("retry-after") is not None) is waits
    assert answer.header("ratelimit-policy") == ('"narrow";q=1;w=60' if waits else None)
    assert str(answer.header("ratelimit")).startswith('"narrow";r=0;t=') is waits
