"""Starlette: request.user, request.auth, its own @requires, endpoint classes, mounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from keyguard import AccessDenied, InvalidValueError, Rule, require_scopes
from keyguard.adapters.starlette import KeyguardMiddleware, KeyguardUser
from tests.adapters.stacks import Request as RawRequest
from tests.adapters.stacks import call_asgi
from tests.world import World


@pytest.fixture
def world() -> World:
    return World()


def client(world: World, *routes: Any, **options: Any) -> TestClient:
    app = Starlette(
        routes=routes,
        middleware=[Middleware(KeyguardMiddleware, guard=world.async_guard)],
        **options,
    )
    return TestClient(app)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "authenticated": request.user.is_authenticated,
            "name": request.user.display_name,
            "scopes": list(request.auth.scopes),
        }
    )


def test_user_and_auth_are_filled(world: World) -> None:
    issued = world.issue("inference:*", "admin")

    answer = client(world, Route("/", whoami)).get("/", headers=bearer(issued.token.reveal()))

    assert answer.json() == {
        "authenticated": True,
        "name": issued.key.id,
        "scopes": ["admin", "inference:*"],
    }


def test_the_user_is_the_key(world: World) -> None:
    issued = world.issue()
    seen: list[Any] = []

    async def endpoint(request: Request) -> PlainTextResponse:
        seen.append(request.user)
        return PlainTextResponse("")

    client(world, Route("/", endpoint)).get("/", headers=bearer(issued.token.reveal()))

    (user,) = seen
    assert isinstance(user, KeyguardUser)
    assert user.identity == issued.key.id
    assert user.principal.organization == world.acme.id


def test_on_a_public_path_nobody_is_authenticated(world: World) -> None:
    answer = client(world, Route("/open", whoami)).get("/open")

    assert answer.json() == {"authenticated": False, "name": "", "scopes": []}


@pytest.mark.parametrize(
    ("granted", "status"), [("inference:write", 200), ("inference:*", 200), ("admin", 403)]
)
def test_starlette_s_own_requires_works_with_wildcards(
    world: World, granted: str, status: int
) -> None:
    @requires("inference:write")
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    answer = client(world, Route("/", endpoint)).get("/", headers=bearer(world.token(granted)))

    assert answer.status_code == status


@require_scopes("admin")
class Guarded(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("get")


class PerMethod(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("get")

    @require_scopes("admin")
    async def post(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("post")


@require_scopes("admin")
def sync_endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("in a thread")


@require_scopes("admin")
async def async_endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("on the loop")


@pytest.mark.parametrize("endpoint", [Guarded, sync_endpoint, async_endpoint])
@pytest.mark.parametrize(("granted", "status"), [("admin", 200), ("inference:read", 403)])
def test_every_kind_of_endpoint_can_be_decorated(
    world: World, endpoint: Any, granted: str, status: int
) -> None:
    app = client(world, Mount("/v1", routes=[Route("/", endpoint)]))

    answer = app.get("/v1/", headers=bearer(world.token(granted)))

    assert answer.status_code == status


def test_methods_of_a_class_can_be_guarded_apart(world: World) -> None:
    app = client(world, Route("/", PerMethod))
    headers = bearer(world.token("inference:read"))

    assert app.get("/", headers=headers).status_code == 200
    assert app.post("/", headers=headers).status_code == 403


def test_an_application_may_handle_refusals_itself(world: World) -> None:
    async def handle(request: Request, refusal: Exception) -> PlainTextResponse:
        assert isinstance(refusal, AccessDenied)
        return PlainTextResponse(refusal.decision.reason, status_code=418)

    app = client(world, Route("/", async_endpoint), exception_handlers={AccessDenied: handle})
    answer = app.get("/", headers=bearer(world.token()))

    assert (answer.status_code, answer.text) == (418, "scope_missing")


@require_scopes("admin")
class Socket(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)
        await websocket.close()


async def socket_function(websocket: WebSocket) -> None:
    require_scopes("admin")(lambda: None)()
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    await websocket.close()


@pytest.mark.parametrize("endpoint", [Socket, socket_function])
def test_websockets_are_guarded_before_accept(world: World, endpoint: Any) -> None:
    app = client(world, WebSocketRoute("/", endpoint))
    issued = world.issue("admin")

    with app.websocket_connect("/", headers=bearer(issued.token.reveal())) as socket:
        assert socket.receive_text() == issued.key.id
    attempts: list[Callable[[], Any]] = [
        lambda: app.websocket_connect("/").__enter__(),
        lambda: app.websocket_connect("/", headers=bearer(world.token())).__enter__(),
    ]
    for attempt in attempts:
        with pytest.raises((WebSocketDisconnect, Exception)) as refused:
            attempt()
        assert getattr(refused.value, "status_code", None) in (401, 403)


def test_a_scope_outside_the_catalogue_stops_the_start(world: World) -> None:
    @require_scopes("inference:reed")
    async def endpoint(request: Request) -> None: ...

    app = client(world, Mount("/v1", routes=[Route("/", endpoint)]))

    with pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"), app:
        pass


class Whoami(HTTPEndpoint):
    async def get(self, request: Request) -> JSONResponse:
        return await whoami(request)


def whoami_in_a_thread(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "authenticated": request.user.is_authenticated,
            "name": request.user.display_name,
            "scopes": list(request.auth.scopes),
        }
    )


class WhoamiSocket(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await whoami_socket(websocket)


async def whoami_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(
        {
            "authenticated": websocket.user.is_authenticated,
            "name": websocket.user.display_name,
            "scopes": list(websocket.auth.scopes),
        }
    )
    await websocket.close()


@pytest.mark.parametrize(
    "route",
    [
        Route("/x", whoami),
        Route("/x", whoami_in_a_thread),
        Route("/x", Whoami),
        WebSocketRoute("/x", whoami_socket),
        WebSocketRoute("/x", WhoamiSocket),
    ],
    ids=["coroutine", "function", "class", "websocket function", "websocket class"],
)
@pytest.mark.parametrize("mounts", [0, 1, 2])
def test_user_and_auth_reach_every_kind_of_endpoint_under_mounts(
    world: World, route: Route | WebSocketRoute, mounts: int
) -> None:
    issued = world.issue("inference:read")
    headers = bearer(issued.token.reveal())
    routes, path = [route], "/x"
    for number in range(mounts):
        routes, path = [Mount(f"/m{number}", routes=routes)], f"/m{number}{path}"  # type: ignore[list-item]
    app = client(world, *routes)

    if isinstance(route, WebSocketRoute):
        with app.websocket_connect(path, headers=headers) as socket:
            found = socket.receive_json()
    else:
        found = app.get(path, headers=headers).json()

    assert found == {"authenticated": True, "name": issued.key.id, "scopes": ["inference:read"]}


RULES = [
    Rule("/models/open", public=True),
    Rule("/models/{model}", methods=["GET"], scopes=["inference:read"]),
    Rule("/models/{model}", methods=["DELETE"], scopes=["admin"]),
]


async def path_seen(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["model"])


def models() -> list[Route]:
    return [Route("/models/{model}", path_seen, methods=["GET", "DELETE"])]


def inside_a_mount(world: World) -> Any:
    guard = Middleware(KeyguardMiddleware, guard=world.async_guard, rules=RULES)
    return Starlette(routes=[Mount("/v1", routes=models(), middleware=[guard])])


def in_a_sub_application(world: World) -> Any:
    guard = Middleware(KeyguardMiddleware, guard=world.async_guard, rules=RULES)
    return Starlette(routes=[Mount("/v1", app=Starlette(routes=models(), middleware=[guard]))])


def around_a_sub_application(world: World) -> Any:
    guarded = KeyguardMiddleware(Starlette(routes=models()), world.async_guard, rules=RULES)
    return Starlette(routes=[Mount("/outer", routes=[Mount("/v1", app=guarded)])])


@pytest.mark.parametrize(
    ("make", "root"),
    [
        (inside_a_mount, "/v1"),
        (in_a_sub_application, "/v1"),
        (around_a_sub_application, "/outer/v1"),
    ],
)
@pytest.mark.parametrize("server_root", ["", "/behind/a/proxy"])
def test_rules_inside_a_mount_are_for_the_path_that_its_router_sees(
    world: World, make: Callable[[World], Any], root: str, server_root: str
) -> None:
    app = TestClient(make(world), root_path=server_root)
    reader, admin = bearer(world.token("inference:read")), bearer(world.token("admin"))
    base = server_root + root

    assert app.get(f"{base}/models/open").text == "open"
    assert app.get(f"{base}/models/large").status_code == 401
    assert app.get(f"{base}/models/large", headers=reader).text == "large"
    assert app.get(f"{base}/models/large", headers=admin).status_code == 403
    assert app.delete(f"{base}/models/large", headers=reader).status_code == 403
    assert app.delete(f"{base}/models/large", headers=admin).text == "large"
    assert app.get("/models/open").status_code == 404  # nobody's, outside the mount


def test_rules_outside_a_mount_are_for_the_whole_path(world: World) -> None:
    rules = [Rule("/v1/models/open", public=True), Rule("/models/{model}", public=True)]
    app = TestClient(
        Starlette(
            routes=[Mount("/v1", routes=models())],
            middleware=[Middleware(KeyguardMiddleware, guard=world.async_guard, rules=rules)],
        )
    )

    assert app.get("/v1/models/open").status_code == 200
    assert app.get("/v1/models/large").status_code == 401
    assert app.get("/v1/models/large", headers=bearer(world.token())).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1//models/open", "/v1/x/../models/open", "/v1/models%2fopen", "/v1/models/open%00"]
)
def test_an_ambiguous_path_under_a_mount_is_never_public(world: World, path: str) -> None:
    rules = [Rule("/{path:path}", public=True), Rule("/models/secret", scopes=["admin"])]
    guarded = KeyguardMiddleware(Starlette(routes=models()), world.async_guard, rules=rules)
    app = Starlette(routes=[Mount("/v1", app=guarded)])
    raw = path.encode()
    decoded = path.replace("%2f", "/").replace("%00", "\x00")

    answer = call_asgi(app, RawRequest(decoded, raw_path=raw))

    assert answer.status == (401 if path == "/v1/models%2fopen" else 400)  # by all its readings


def test_one_guard_may_stand_outside_and_inside_a_mount(world: World) -> None:
    inner = Middleware(
        KeyguardMiddleware,
        guard=world.async_guard,
        rules=[Rule("/models/{model}", scopes=["admin"])],
    )
    app = client(world, Mount("/v1", routes=models(), middleware=[inner]))

    assert app.get("/v1/models/large").status_code == 401
    assert app.get("/v1/models/large", headers=bearer(world.token())).status_code == 403
    assert app.get("/v1/models/large", headers=bearer(world.token("admin"))).text == "large"
