"""The applications, and the hand-written middleware that keyguard is measured against."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from flask import Flask
from flask_limiter import Limiter as FlaskLimiter
from slowapi import Limiter as SlowapiLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.calls import PATH
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy

_CHALLENGE = "Bearer"


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:  # noqa: ARG001
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


class HandWrittenAsgi:
    """The floor: the token's SHA-256, and one look-up in a dict. No scopes, no times."""

    def __init__(self, app: Any, known: dict[str, str]) -> None:
        self.app = app
        self.known = known

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for name, value in scope["headers"]:
            if name == b"authorization":
                if value[:7].lower() == b"bearer ":
                    owner = self.known.get(sha256(value[7:]).hexdigest())
                    if owner is not None:
                        scope["state"]["owner"] = owner
                        await self.app(scope, receive, send)
                        return
                break
        headers = [(b"www-authenticate", _CHALLENGE.encode())]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})


class HandWrittenWsgi:
    """The same for WSGI."""

    def __init__(self, app: Any, known: dict[str, str]) -> None:
        self.app = app
        self.known = known

    def __call__(self, environ: Any, start_response: Any) -> Any:
        value = environ.get("HTTP_AUTHORIZATION", "")
        if value[:7].lower() == "bearer ":
            owner = self.known.get(sha256(value[7:].encode()).hexdigest())
            if owner is not None:
                environ["owner"] = owner
                return self.app(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", _CHALLENGE)])
        return [b"no"]


def starlette_app(protect: Any = None, **options: Any) -> Starlette:
    async def models(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(PATH, protect(models) if protect else models)], **options)


def flask_app(protect: Any = None) -> Flask:
    def models() -> str:
        return "ok"

    app = Flask("benchmark")
    app.add_url_rule(PATH, "models", protect(models) if protect else models)
    return app


def slowapi_app(rate: str, *, headers: bool, key_func: Any = None, **options: Any) -> Starlette:
    limiter = SlowapiLimiter(key_func=key_func or _host, headers_enabled=headers)

    async def models(request: Request) -> PlainTextResponse:  # noqa: ARG001 - slowapi wants the name
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route(PATH, limiter.limit(rate)(models))], **options)
    app.state.limiter = limiter
    return app


def flask_limiter_app(rate: str) -> Flask:
    app = flask_app()
    FlaskLimiter(
        lambda: "127.0.0.1",
        app=app,
        default_limits=[rate],
        storage_uri="memory://",
        headers_enabled=True,
    )
    return app


def charge(number: int) -> Charge:
    key = f"keyguard:{{org_1}}:limit:s:3600:key:{number}:a:-"
    return Charge(key, "a", 1_000_000, 3600, Strategy.SLIDING_WINDOW_COUNTER, True, 1)


def _host(request: Request) -> str:
    return request.client.host if request.client else ""
