"""Error handlers of the frameworks: whatever they make of a refusal, nobody is let in."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi
import pytest
import quart
from litestar import Litestar, Response, get
from litestar import Request as LitestarRequest
from starlette.testclient import TestClient
from werkzeug.test import Client

from keyguard import require_scopes
from keyguard.adapters import asgi, wsgi
from tests.world import World

reached: list[str] = []


def litestar_app() -> Any:
    @get("/")
    @require_scopes("admin")
    async def view() -> str:
        reached.append("litestar")
        return "secret"

    def swallow(_: LitestarRequest[Any, Any, Any], error: Exception) -> Response[str]:
        return Response("swallowed", status_code=418)

    return Litestar([view], exception_handlers={Exception: swallow}, logging_config=None)


def quart_app() -> Any:
    app = quart.Quart("app")

    @app.get("/")
    @require_scopes("admin")
    async def view() -> str:
        reached.append("quart")
        return "secret"

    @app.errorhandler(Exception)
    async def swallow(error: Exception) -> Any:
        return "swallowed", 418

    return app


class Resource:
    @require_scopes("admin")
    def on_get(self, req: Any, resp: Any) -> None:
        reached.append("falcon")
        resp.text = "secret"


class AsyncResource:
    @require_scopes("admin")
    async def on_get(self, req: Any, resp: Any) -> None:
        reached.append("falcon")
        resp.text = "secret"


def falcon_app() -> Any:
    def swallow(req: Any, resp: Any, error: Any, params: Any) -> None:
        resp.status, resp.text = 418, "swallowed"

    app = falcon.App()
    app.add_route("/", Resource())
    app.add_error_handler(Exception, swallow)
    return app


def falcon_asgi_app() -> Any:
    async def swallow(req: Any, resp: Any, error: Any, params: Any) -> None:
        resp.status, resp.text = 418, "swallowed"

    app = falcon.asgi.App()
    app.add_route("/", AsyncResource())
    app.add_error_handler(Exception, swallow)
    return app


@pytest.mark.parametrize("make", [litestar_app, quart_app, falcon_app, falcon_asgi_app])
@pytest.mark.parametrize(
    ("scopes", "answer"),
    [(None, (401, None)), ([], (418, "swallowed")), (["admin"], (200, "secret"))],
)
def test_a_handler_of_every_exception_answers_and_lets_nobody_in(
    make: Any, scopes: list[str] | None, answer: tuple[int, str | None]
) -> None:
    world = World()
    reached.clear()
    if make is falcon_app:
        client: Any = Client(wsgi.KeyguardMiddleware(make(), world.guard))
    else:
        client = TestClient(asgi.KeyguardMiddleware(make(), world.async_guard))
    headers = {} if scopes is None else {"Authorization": f"Bearer {world.token(*scopes)}"}

    got = client.get("/", headers=headers)

    status, text = answer
    assert got.status_code == status
    assert text is None or got.text == text
    assert bool(reached) is (status == 200)
