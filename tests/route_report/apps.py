"""Applications whose routes are read; each with a guard that is never opened."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Security
from flask import Blueprint, Flask
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute

from keyguard import (
    AsyncKeyguard,
    Keyguard,
    Principal,
    Rule,
    ScopeCatalogue,
    rate_limit,
    require_scopes,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.fastapi import KeyguardPrincipal, keyguard_principal
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.admin import Console

RULES = [
    Rule("/internal/{rest:path}", public=True),
    Rule("/v1/models/{model}", methods=["GET"], any_of=["a:b", "c:d"], limits="100/minute"),
]
OPTIONS: dict[str, Any] = {"public": ["/healthz"], "rules": RULES}
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"  # a connection to it would be refused


async def endpoint(request: Any) -> PlainTextResponse:
    return PlainTextResponse("x")


@rate_limit("60/minute", name="inference")
@require_scopes("inference:write")
async def inference(request: Any) -> PlainTextResponse:
    return PlainTextResponse("x")


class Reports(HTTPEndpoint):
    async def get(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    @require_scopes("admin")
    async def delete(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")


def routes() -> list[Any]:
    return [
        Route("/healthz", endpoint),
        Route("/v1/inference", inference, methods=["POST"]),
        Route("/v1/models/{model_id}", endpoint, methods=["GET", "PUT"]),
        Route("/reports/{id:int}", Reports),
        WebSocketRoute("/ws", endpoint),
    ]


def async_guard(**options: Any) -> AsyncKeyguard:
    return AsyncKeyguard(NOWHERE, **{**OPTIONS, **options})


starlette_app = Starlette(
    routes=routes(), middleware=[Middleware(KeyguardMiddleware, guard=async_guard())]
)
unguarded = Starlette(routes=routes())
OWN: dict[str, Any] = {
    "prefix": "own_live",
    "peppers": ["C-nYNgT8c2Cft6u4Gkjyo3e60taoTDzGMiByS2vsJ9316t2TEjh2FIMqE5QEUu1K"],
    "catalogue": ScopeCatalogue(
        {"inference:write": "Infer", "admin": "All"}, implies={"admin": ["inference:write"]}
    ),
    "plans": {"pro": {"inference": "600/minute"}},
}
with_settings = asgi.KeyguardMiddleware(
    Starlette(routes=routes()), async_guard(rules=[], read_url=NOWHERE, **OWN)
)
wrapped = asgi.KeyguardMiddleware(Starlette(routes=routes()), async_guard())

_inside = async_guard(public=[], rules=[])
with_console = Starlette(
    routes=[Mount("/keys", Console(_inside, key_sign_in=True))],
    middleware=[Middleware(KeyguardMiddleware, guard=_inside)],
)


class Closed:
    """An application whose routes can't be read."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


shut = asgi.KeyguardMiddleware(Closed(), async_guard())
partly = Starlette(routes=[Mount("/api", app=starlette_app), Route("/other", endpoint)])
wide = Starlette(
    routes=[Route("/internal/reset", endpoint, methods=["POST"]), Route("/internal/ok", inference)],
    middleware=[Middleware(KeyguardMiddleware, guard=async_guard(rules=RULES[:1]))],
)
_both = [Rule("/app/{p:path}", scopes=["app"], also="session", limits="9/minute")]
_page = Route("/page", endpoint, methods=["GET"])
_keys_only = Middleware(KeyguardMiddleware, guard=async_guard(rules=[]))
beside_a_login = Starlette(
    routes=[
        Mount("/app", routes=[_page, Route("/inference", inference, methods=["POST"])]),
        Mount("/twice", routes=[_page], middleware=[_keys_only]),
    ],
    middleware=[
        Middleware(
            KeyguardMiddleware,
            guard=async_guard(rules=[*_both, Rule("/twice/{p:path}", also="session")]),
        )
    ],
)
of_one_route = Starlette(
    routes=[
        Route("/a", endpoint, middleware=[Middleware(KeyguardMiddleware, guard=async_guard())]),
        Host("api.example", app=starlette_app),
        Mount(
            "/b",
            routes=[Route("/x", endpoint)],
            middleware=[Middleware(KeyguardMiddleware, guard=async_guard())],
        ),
    ]
)


def fastapi_app() -> Any:
    router = APIRouter(prefix="/items")

    @router.get("/{item}")
    @require_scopes("items:read")
    async def read(item: int) -> int:
        return item

    @router.put("/{item}")
    async def write(
        item: int,
        principal: Annotated[Principal, Security(keyguard_principal, scopes=["items:write"])],
    ) -> int:
        return item

    app = FastAPI(openapi_url=None)

    @app.get("/internal/who")
    async def who(principal: Annotated[Principal, Depends(keyguard_principal)]) -> str:
        return principal.key_id

    @app.get("/internal/anybody")
    async def anybody(
        principal: Annotated[
            Principal | None, Security(KeyguardPrincipal(auto_error=False), scopes=["a:b"])
        ],
    ) -> str:
        return "hello"

    app.include_router(router, prefix="/v1")
    app.add_middleware(KeyguardMiddleware, guard=async_guard())
    return app


class Views(MethodView):
    def get(self, name: str) -> str:
        return name

    @require_scopes("admin")
    def put(self, name: str) -> str:
        return name


def bare_flask() -> Flask:
    app = Flask("app", static_folder=None)
    inner, outer = Blueprint("inner", "inner"), Blueprint("outer", "outer")
    inner.add_url_rule("/<name>", view_func=Views.as_view("views"))
    inner.add_url_rule("/<int(min=1):id>/<path:rest>", "rest", lambda id, rest: "x")
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    app.add_url_rule("/healthz", "health", lambda: "x")
    return app


def flask_app() -> Flask:
    app = bare_flask()
    FlaskKeyguard(app, Keyguard(NOWHERE, **OPTIONS | {"rules": RULES[:1]}))
    return app


def flask_in_wsgi() -> Any:
    return wsgi.KeyguardMiddleware(bare_flask(), Keyguard(NOWHERE, **OPTIONS))


class Split:
    """An unknown wrapper, which may pass a request on to anything that it keeps."""

    def __init__(self, app: Any = None, **others: Any) -> None:
        vars(self).update(others)
        if app is not None:
            self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


split = Starlette(routes=[Mount("/x", app=Split(starlette_app, admin=unguarded))])
by_tenant = Starlette(
    routes=[Mount("/{tenant}", routes=[Route("/reset", endpoint)])],
    middleware=[Middleware(KeyguardMiddleware, guard=async_guard())],
)


def overridden(by: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    router = APIRouter()

    @app.get("/internal/own")
    async def own(principal: Annotated[Any, Security(keyguard_principal)]) -> str:
        return "hello"

    @router.get("/internal/included")
    async def included(principal: Annotated[Any, Security(keyguard_principal)]) -> str:
        return "hello"

    app.include_router(router)
    app.dependency_overrides[keyguard_principal] = by
    app.add_middleware(KeyguardMiddleware, guard=async_guard())
    return app


async def opaque(scope: Any, receive: Any, send: Any) -> None: ...
