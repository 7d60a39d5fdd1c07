"""What only ASGI has: lifespan, WebSockets, scope types, streams of messages, two event loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from keyguard import (
    AccessDenied,
    AsyncKeyguard,
    ConfigurationError,
    InvalidValueError,
    Keyguard,
    current_principal,
    require_scopes,
)
from keyguard.adapters.asgi import KeyguardMiddleware
from keyguard.request.context import present_request
from tests.adapters.stacks import Request, call_asgi
from tests.world import World

HTTP = {"type": "http", "method": "GET", "path": "/any", "headers": [], "scheme": "http"}
WEBSOCKET = {"type": "websocket", "path": "/any", "headers": [], "scheme": "ws"}
ALLOWED = {"type": "http.response.start", "status": 200, "headers": []}


class Wire:
    """The server's side of one connection."""

    def __init__(self, **scope: Any) -> None:
        self.scope = scope
        self.sent: list[Any] = []
        self.received = 0

    def authorize(self, token: str) -> Wire:
        self.scope["headers"] = [(b"authorization", b"Bearer " + token.encode())]
        return self

    async def receive(self) -> Any:
        self.received += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def run(self, app: Any) -> list[Any]:
        asyncio.run(app(self.scope, self.receive, self.send))
        return self.sent


@pytest.fixture
def world() -> World:
    return World()


def guarded(world: World, app: Any) -> KeyguardMiddleware:
    return KeyguardMiddleware(app, world.async_guard)


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was reached")


async def answer(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"app"})


def test_lifespan_passes_untouched(world: World) -> None:
    seen: list[Any] = []
    message = {"type": "lifespan.startup"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive(), send))

    class Server(Wire):
        async def receive(self) -> Any:
            return message

    wire = Server(type="lifespan")
    wire.run(guarded(world, app))

    ((scope, received, send),) = seen
    assert scope is wire.scope
    assert received is message
    assert send == wire.send


@pytest.mark.parametrize("kind", ["http2", "webtransport", ""])
def test_a_scope_type_that_is_not_known_is_refused(world: World, kind: str) -> None:
    with pytest.raises(ConfigurationError, match="lets no ASGI scope of type"):
        Wire(type=kind, headers=[]).run(guarded(world, never))


def test_the_application_finds_its_principal_in_the_scope_and_the_context(world: World) -> None:
    issued = world.issue()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["keyguard.principal"], current_principal(), receive))
        await answer(send)

    wire = Wire(**HTTP).authorize(issued.token.reveal())
    before = dict(wire.scope)
    wire.run(guarded(world, app))

    ((in_scope, in_context, receive),) = seen
    assert in_scope is in_context
    assert in_scope.key_id == issued.key.id
    assert receive == wire.receive
    assert wire.scope == before
    assert wire.received == 0


def test_on_a_public_path_the_scope_has_no_principal(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["keyguard.principal"] is None
        await answer(send)

    assert Wire(**HTTP | {"path": "/open"}).run(guarded(world, app))[0] == ALLOWED


def test_the_context_is_as_before_afterwards(world: World) -> None:
    async def main() -> None:
        wire = Wire(**HTTP).authorize(world.token())

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert present_request() is not None
            await answer(send)

        async def failing(scope: Any, receive: Any, send: Any) -> None:
            raise ZeroDivisionError

        await guarded(world, app)(wire.scope, wire.receive, wire.send)
        assert present_request() is None
        with pytest.raises(ZeroDivisionError):
            await guarded(world, failing)(wire.scope, wire.receive, wire.send)
        assert present_request() is None

    asyncio.run(main())


def test_concurrent_requests_do_not_see_each_other(world: World) -> None:
    keys = [world.issue() for _ in range(20)]
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        seen[scope["path"]] = current_principal().key_id
        await answer(send)

    async def main() -> None:
        middleware = guarded(world, app)
        wires = [
            Wire(**HTTP | {"path": f"/{n}"}).authorize(issued.token.reveal())
            for n, issued in enumerate(keys)
        ]
        await asyncio.gather(*(middleware(w.scope, w.receive, w.send) for w in wires))

    asyncio.run(main())
    assert seen == {f"/{n}": issued.key.id for n, issued in enumerate(keys)}


def test_it_runs_under_trio(world: World) -> None:
    @require_scopes("inference:read")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        await answer(send)

    good = Wire(**HTTP).authorize(world.token("inference:read"))
    bad = Wire(**HTTP).authorize("garbage")
    poor = Wire(**HTTP).authorize(world.token())

    async def main() -> None:
        for wire in (good, bad, poor, good):
            await guarded(world, app)(wire.scope, wire.receive, wire.send)
        issued = await world.async_guard.keys.issue(organization="acme", name="trio")
        await world.async_guard.keys.revoke(issued.key.id)

    trio.run(main)

    assert [w.sent[0]["status"] for w in (good, bad, poor)] == [200, 401, 403]


def test_under_trio_a_store_that_hangs_is_given_up(world: World) -> None:
    class Hanging:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.async_guard._store, name)

        async def find_key(self, key_id: str) -> Any:
            await trio.sleep_forever()

    wire = Wire(**HTTP).authorize(world.token())
    guard = AsyncKeyguard(Hanging(), settings=world.guard.settings, store_timeout=0.001)

    async def main() -> None:
        await KeyguardMiddleware(never, guard)(wire.scope, wire.receive, wire.send)

    trio.run(main)

    assert wire.sent[0]["status"] == 503


def test_a_refused_websocket_gets_a_real_answer_where_the_server_can(world: World) -> None:
    start, body = Wire(**WEBSOCKET, extensions={"websocket.http.response": {}}).run(
        guarded(world, never)
    )

    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 401
    assert (b"www-authenticate", b'Bearer realm="AIaaS"') in start["headers"]
    assert body["type"] == "websocket.http.response.body"
    assert b"needs an API key" in body["body"]


@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}])
def test_a_refused_websocket_is_closed_before_accept_elsewhere(
    world: World, extensions: Any
) -> None:
    sent = Wire(**WEBSOCKET, extensions=extensions).run(guarded(world, never))

    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


def test_a_websocket_with_a_key_is_let_through(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert current_principal() is scope["keyguard.principal"]
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    sent = Wire(**WEBSOCKET).authorize(world.token()).run(guarded(world, app))

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]


def test_a_websocket_without_the_scope_is_refused_before_accept(world: World) -> None:
    @require_scopes("admin")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    wire = Wire(**WEBSOCKET, extensions={"websocket.http.response": {}})
    start, _ = wire.authorize(world.token()).run(guarded(world, app))

    assert start["status"] == 403


def test_a_websocket_that_is_refused_after_accept_is_closed(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        require_scopes("admin")(lambda: None)()

    sent = Wire(**WEBSOCKET).authorize(world.token()).run(guarded(world, app))

    assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": ""}


def test_a_websocket_is_not_closed_twice(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        refuse()

    wire = Wire(**WEBSOCKET).authorize(world.token())
    with pytest.raises(AccessDenied):
        wire.run(guarded(world, app))

    assert [message.get("code") for message in wire.sent] == [None, 1000]


def test_an_application_may_close_a_websocket_with_its_own_code(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            refuse()
        except AccessDenied:
            await send({"type": "websocket.close", "code": 4403})

    sent = Wire(**WEBSOCKET).authorize(world.token()).run(guarded(world, app))

    assert [message["code"] for message in sent] == [4403]


def test_a_framework_s_close_that_hides_a_refusal_is_replaced(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            require_scopes("admin")(lambda: None)()
        except AccessDenied:
            await send({"type": "websocket.close", "code": 1011})

    wire = Wire(**WEBSOCKET, extensions={"websocket.http.response": {}})
    start, _ = wire.authorize(world.token()).run(guarded(world, app))

    assert start["status"] == 403


def refuse() -> None:
    require_scopes("admin")(lambda: None)()


async def raising(scope: Any, receive: Any, send: Any) -> None:
    refuse()


async def hiding(scope: Any, receive: Any, send: Any) -> None:
    try:
        refuse()
    except AccessDenied:
        await answer(send, 500)
        raise


async def swallowing(scope: Any, receive: Any, send: Any) -> None:
    try:
        refuse()
    except AccessDenied:
        await answer(send, 500)


async def grouping(scope: Any, receive: Any, send: Any) -> None:
    try:
        refuse()
    except AccessDenied as refusal:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [refusal])]) from None


async def in_a_task(scope: Any, receive: Any, send: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raising(scope, receive, send))


async def in_a_thread(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.to_thread(refuse)


@pytest.mark.parametrize(
    "app", [raising, hiding, swallowing, grouping, in_a_task, in_a_thread], ids=lambda a: a.__name__
)
def test_a_refusal_inside_is_answered_once_however_it_comes_out(world: World, app: Any) -> None:
    sent = Wire(**HTTP).authorize(world.token()).run(guarded(world, app))

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 403
    assert len(world.events) == 1


def test_an_application_may_answer_a_refusal_itself(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            refuse()
        except AccessDenied:
            await answer(send, 402)

    sent = Wire(**HTTP).authorize(world.token()).run(guarded(world, app))

    assert [message.get("status") for message in sent] == [402, None]


def test_the_application_s_own_errors_after_a_refusal_are_its_own(world: World) -> None:
    async def unavailable(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(AccessDenied):
            refuse()
        await answer(send, 503)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(AccessDenied):
            refuse()
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            await answer(send, 500)

    for app, status in ((unavailable, 503), (broken, 500)):
        sent = Wire(**HTTP).authorize(world.token()).run(guarded(world, app))
        assert [message.get("status") for message in sent] == [status, None]


def test_a_hint_is_no_answer(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        refuse()

    sent = Wire(**HTTP).authorize(world.token()).run(guarded(world, app))

    assert [message.get("status") for message in sent] == [None, 403, None]


def test_an_application_that_answers_to_every_name_is_no_endless_search(world: World) -> None:
    KeyguardMiddleware(Mock(), world.async_guard)


def test_a_refusal_after_the_answer_began_breaks_the_answer_off(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        refuse()

    wire = Wire(**HTTP).authorize(world.token())
    with pytest.raises(AccessDenied):
        wire.run(guarded(world, app))

    assert len(wire.sent) == 1


def test_other_errors_are_the_application_s_own(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            refuse()
        except AccessDenied as refusal:
            raise ExceptionGroup("both", [refusal, ZeroDivisionError()]) from None

    wire = Wire(**HTTP).authorize(world.token())
    with pytest.raises(ExceptionGroup):
        wire.run(guarded(world, app))
    assert wire.sent == []


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/open", "", 200),
        ("/api/open", "/api", 200),
        ("/open", "/api", 200),
        ("/api/open", "", 401),
        ("/apiopen", "/api", 401),
        ("/open/open", "/open", 200),
        ("/open", "/open", 401),
        ("/api/api/open", "/api", 401),
    ],
)
def test_a_public_path_is_the_one_that_the_router_sees(
    world: World, path: str, root_path: str, status: int
) -> None:
    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("open")

    app = guarded(world, Starlette(routes=[Route("/open", endpoint)]))
    sent = Wire(**HTTP | {"path": path, "root_path": root_path, "query_string": b""}).run(app)

    assert sent[0]["status"] == status


def test_the_middleware_s_own_public_paths_replace_those_of_the_settings(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    middleware = KeyguardMiddleware(app, world.async_guard, public=["/mine"])

    assert Wire(**HTTP | {"path": "/mine"}).run(middleware)[0]["status"] == 200
    assert Wire(**HTTP | {"path": "/open"}).run(middleware)[0]["status"] == 401


def test_only_an_async_guard_stands_in_front_of_asgi() -> None:
    with pytest.raises(ConfigurationError, match="takes an AsyncKeyguard, not Keyguard"):
        KeyguardMiddleware(never, Keyguard("memory://"))  # type: ignore[arg-type]  # the mistake


def test_a_scope_outside_the_catalogue_is_refused_at_start_wherever_it_hides(world: World) -> None:
    @require_scopes("inference:reed")
    async def endpoint(request: Any) -> None: ...

    plain = Starlette(routes=[Mount("/v1", routes=[Route("/models", endpoint)])])
    for app in (endpoint, plain, BaseHTTPMiddleware(plain)):
        with pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"):
            KeyguardMiddleware(app, world.async_guard)


def test_a_refusal_comes_through_other_middleware(world: World) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: StarletteRequest, call_next: Callable[..., Any]) -> Any:
            return await call_next(request)

    @require_scopes("admin")
    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("secret")

    app = Starlette(routes=[Route("/any", endpoint)], middleware=[Middleware(Passing)])
    request = Request(authorization=(b"Bearer " + world.token().encode(),))

    assert call_asgi(_listening(guarded(world, app)), request).status == 403


def _listening(app: Any) -> Any:
    """BaseHTTPMiddleware listens for a disconnect while it answers."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def disconnected() -> Any:
            return {"type": "http.disconnect"}

        await app(scope, disconnected, send)

    return outer


def test_asking_for_the_principal_on_a_public_path_changes_no_answer_of_the_application(
    world: World,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(AccessDenied):
            current_principal()
        await answer(send, 500)

    sent = Wire(**HTTP | {"path": "/open"}).run(guarded(world, app))

    assert [message.get("status") for message in sent] == [500, None]
    assert world.events == []


def test_asking_for_the_principal_on_a_public_path_is_401(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            current_principal()
        except AccessDenied:
            await answer(send, 500)
            raise

    sent = Wire(**HTTP | {"path": "/open"}).run(guarded(world, app))

    assert [message.get("status") for message in sent] == [401, None]
