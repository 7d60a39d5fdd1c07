"""The same little service behind every adapter, and one way to call them all.

Paths: ``/open`` is public, ``/any`` takes any key, ``/write`` the scope inference:write,
``/either`` one of two scopes, ``/object/<organization>`` belongs to that organization,
``/open/write`` is public to the guard and still asks for a scope inside. ``/infer`` has a limit of
its own and wants a scope, ``/priced`` costs what the request says, ``/settled/<cost>`` what is
known in the end, and ``/open/limited`` is limited for each address.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any
from wsgiref.validate import validator

from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from keyguard import (
    current_limits,
    current_principal,
    rate_limit,
    require_organization,
    require_scopes,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters import starlette as keyguard_starlette
from keyguard.adapters._wsgi_environ import variable_of
from keyguard.adapters.flask import FlaskKeyguard
from tests.adapters.stack_fastapi import fastapi_app
from tests.world import World


@dataclass(frozen=True)
class Request:
    path: str = "/any"
    method: str = "GET"
    authorization: tuple[bytes, ...] = ()
    scheme: str = "http"
    raw_path: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    root_path: str = ""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1
        return found[0] if found else None


@dataclass
class Stack:
    """One adapter around the service."""

    name: str
    caller: Callable[[Any, Request], Answer]
    build: Callable[[list[str]], Any]
    reads: list[str] = field(default_factory=list)

    @cached_property
    def app(self) -> Any:
        """The application, made when it is first asked for."""
        return self.build(self.reads)

    @property
    def is_async(self) -> bool:
        """Whether the world's async guard is in front."""
        return self.caller is call_asgi

    def call(self, request: Request) -> Answer:
        return self.caller(self.app, request)


@require_scopes("inference:write")
def write() -> str:
    return "written by " + current_principal().key_id


@require_scopes(any_of=["analytics:read", "admin"])
def either() -> str:
    return "either"


@rate_limit("2/minute")
@require_scopes("inference:write")
def infer() -> str:
    return "inferred"


@rate_limit("10/minute", cost=lambda request: int(request.headers["x-tokens"]), name="tokens")
def priced() -> str:
    return "priced"


def settled(cost: str) -> str:
    current_limits().settle_sync(int(cost))
    return "settled"


@rate_limit("2/minute", per="address", name="visitor")
def limited() -> str:
    return "limited"


def serve(path: str) -> str | None:
    """The service itself; None where there is nothing."""
    match path.split("/"):
        case ["", "open"]:
            return "open"
        case ["", "any"]:
            return current_principal().key_id
        case ["", "write"] | ["", "open", "write"]:
            return write()
        case ["", "either"]:
            return either()
        case ["", "infer"]:
            return infer()
        case ["", "priced"]:
            return priced()
        case ["", "settled", cost]:
            return settled(cost)
        case ["", "open", "limited"]:
            return limited()
        case ["", "object", organization]:
            require_organization(None if organization == "none" else organization)
            return "object"
    return None


def asgi_app(reads: list[str]) -> asgi.ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        reads.append(scope["path"])
        text = serve(scope["path"]) or "nothing"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


def wsgi_app(reads: list[str]) -> wsgi.WSGIApp:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        reads.append(environ["PATH_INFO"])
        text = serve(environ["PATH_INFO"]) or "nothing"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()]

    return app


PATHS = [
    "/open",
    "/any",
    "/write",
    "/either",
    "/open/write",
    "/object/{organization}",
    "/settled/{cost}",
    "/open/limited",
]
DECORATED = {"/infer": infer, "/priced": priced}


def starlette_app(reads: list[str], **options: Any) -> Starlette:
    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        reads.append(request.url.path)
        return PlainTextResponse(serve(request.url.path))

    def plain(function: Callable[[], str]) -> Any:
        @wraps(function)
        async def decorated(request: StarletteRequest) -> PlainTextResponse:
            reads.append(request.url.path)
            return PlainTextResponse(function())

        return decorated

    routes = [Route(path, endpoint) for path in PATHS]
    routes += [Route(path, plain(function)) for path, function in DECORATED.items()]
    return Starlette(routes=routes, **options)


def flask_app(reads: list[str]) -> Flask:
    app = Flask("stack")

    def view(**_: str) -> str:
        from flask import request

        reads.append(request.path)
        return serve(request.path) or "nothing"

    for number, path in enumerate(PATHS):
        rule = path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, f"view{number}", view)
    for path, function in DECORATED.items():
        app.add_url_rule(path, path, function)
    return app


async def _no_body() -> Any:
    raise AssertionError("the body of a refused request was read")


def call_asgi(app: Any, request: Request) -> Answer:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.root_path + request.path,  # as uvicorn joins them
        "raw_path": request.root_path.encode() + (request.raw_path or request.path.encode()),
        "query_string": b"",
        "root_path": request.root_path,
        "headers": [
            (b"host", b"localhost"),
            *((b"authorization", value) for value in request.authorization),
            *request.headers,
        ],
        "client": ("192.0.2.7", 5555),
        "server": ("localhost", 80),
    }
    before = dict(scope)
    asyncio.run(app(scope, _no_body, send))
    if not isinstance(app, Starlette):  # which puts itself into the scope before anything else
        assert scope == before, "the caller's scope was changed"
    start, *bodies = sent
    return Answer(
        start["status"],
        tuple((name.decode(), value.decode()) for name, value in start["headers"]),
        b"".join(body.get("body", b"") for body in bodies),
    )


class _NoBody(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("the body of a refused request was read")


def call_wsgi(app: Any, request: Request) -> Answer:
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "192.0.2.7",
        "RAW_URI": (request.raw_path or request.path.encode()).decode("latin-1"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BufferedReader(_NoBody()),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.authorization:  # a server joins repeated fields, as RFC 9110 lets it
        environ["HTTP_AUTHORIZATION"] = b",".join(request.authorization).decode("latin-1")
    for name, value in request.headers:
        environ[variable_of(name.decode())] = value.decode("latin-1")
    body = validator(app)(environ, start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]  # the validator's iterator has it
    (status, headers), *again = started
    assert not again
    return Answer(int(status[:3]), tuple((name.lower(), value) for name, value in headers), content)


def stacks(world: World) -> list[Stack]:
    """Every adapter around the same service."""
    made = []

    def add(name: str, call: Any, build: Callable[[list[str]], Any]) -> None:
        made.append(Stack(name, call, build))

    add(
        "asgi",
        call_asgi,
        lambda reads: asgi.KeyguardMiddleware(asgi_app(reads), world.async_guard),
    )
    add(
        "wsgi",
        call_wsgi,
        lambda reads: wsgi.KeyguardMiddleware(validator(wsgi_app(reads)), world.guard),
    )
    add(
        "starlette",
        call_asgi,
        lambda reads: starlette_app(
            reads,
            middleware=[Middleware(keyguard_starlette.KeyguardMiddleware, guard=world.async_guard)],
        ),
    )
    add("fastapi", call_asgi, lambda reads: fastapi_app(reads, world))
    add(
        "asgi around starlette",
        call_asgi,
        lambda reads: asgi.KeyguardMiddleware(starlette_app(reads), world.async_guard),
    )

    def flask(reads: list[str]) -> Any:
        app = flask_app(reads)
        FlaskKeyguard(app, world.guard)
        return app

    add("flask", call_wsgi, flask)
    add(
        "wsgi around flask",
        call_wsgi,
        lambda reads: wsgi.KeyguardMiddleware(flask_app(reads), world.guard),
    )
    from tests.adapters.stack_django import django_asgi, django_wsgi  # whose views are these

    add("django over wsgi", call_wsgi, lambda reads: django_wsgi(reads, world))
    add("django over asgi", call_asgi, lambda reads: django_asgi(reads, world))
    return made


def stack(world: World, name: str) -> Stack:
    return next(found for found in stacks(world) if found.name == name)


def bearer(token: str, path: str = "/any", **options: Any) -> Request:
    return Request(path, authorization=(b"Bearer " + token.encode(),), **options)
