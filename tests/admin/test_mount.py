"""The console behind the middleware: it alone is reached without a key, whatever lies around it."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from keyguard import ConfigurationError, Rule
from keyguard.adapters import asgi, starlette, wsgi
from keyguard.admin import Console, ManagementAPI
from tests.admin.api.calls import Caller, Sent, call_asgi, call_wsgi
from tests.admin.api.office import identify
from tests.world import World

SIGNED_OUT = "Close this window"


async def export(_: Request) -> PlainTextResponse:
    return PlainTextResponse("the application's own")


def client_of(app: Any) -> TestClient:
    return TestClient(app, base_url="https://keys.example", follow_redirects=False)


def starlette_app(world: World, **options: Any) -> Any:
    console: Any = Console(world.async_guard, key_sign_in=True)
    app = Starlette(
        routes=[
            Route("/keys/{id}/export", export),
            Mount("/keys", console),
            Mount(
                "/inner", routes=[Mount("/keys", console, middleware=[Middleware(GZipMiddleware)])]
            ),
            Route("/keysafe", export),
        ]
    )
    app.add_middleware(starlette.KeyguardMiddleware, guard=world.async_guard, **options)
    return app


def fastapi_app(world: World, **options: Any) -> Any:
    app = FastAPI()
    app.add_api_route("/keys/{id}/export", export)
    app.add_api_route("/keysafe", export)
    inner = FastAPI()
    for each, path in ((app, "/keys"), (inner, "/keys"), (app, "/inner")):
        each.mount(
            path, inner if path == "/inner" else Console(world.async_guard, key_sign_in=True)
        )
    app.add_middleware(asgi.KeyguardMiddleware, guard=world.async_guard, **options)
    return app


@pytest.fixture(params=[starlette_app, fastapi_app])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("mount", ["/keys", "/inner/keys"])
def test_the_console_takes_no_rule(make: Any, mount: str) -> None:
    client = client_of(make(World()))

    assert SIGNED_OUT in client.get(f"{mount}/sign-out").text
    assert client.get(f"{mount}/organizations").status_code == 303
    assert client.get(f"{mount}/api/v1/me").status_code == 401


@pytest.mark.parametrize("path", ["/keys/1/export", "/keysafe", "/keys", "/", "/nothing"])
def test_nothing_else_is_reached_without_a_key(make: Any, path: str) -> None:
    world = World()
    client = client_of(make(world))

    assert client.get(path).status_code == 401
    bearer = {"Authorization": f"Bearer {world.token('admin')}"}
    assert client.get(path, headers=bearer).status_code != 401


def test_a_key_is_decided_on_by_the_api(make: Any) -> None:
    world = World()
    client = client_of(make(world))

    for _ in range(2):
        bearer = {"Authorization": f"Bearer {world.token('admin')}"}
        assert client.get("/keys/api/v1/me", headers=bearer).status_code == 200
    refused = client.get("/keys/api/v1/me", headers={"Authorization": "Bearer nonsense"})
    assert refused.status_code == 401
    assert "content-security-policy" in refused.headers


@pytest.mark.parametrize("rules", [[], [Rule("/keys/{path:path}", scopes=["admin"])]])
@pytest.mark.parametrize("kind", ["routed", "bare", "wsgi"])
def test_a_key_that_the_application_does_not_see_reaches_the_api(
    kind: str, rules: list[Rule]
) -> None:
    world = World(options={"strip_credentials": True, "rules": rules})
    call: Caller = call_asgi
    app: Any = ManagementAPI(world.async_guard)
    if kind == "routed":
        app = asgi.KeyguardMiddleware(Starlette(routes=[Mount("/keys", app)]), world.async_guard)
    elif kind == "bare":
        app = asgi.KeyguardMiddleware(app, world.async_guard)
    else:
        call, app = call_wsgi, wsgi.KeyguardMiddleware(ManagementAPI(world.guard), world.guard)
    path = "/keys/me" if kind == "routed" else "/me"

    assert call(app, Sent("GET", path, token=world.token("admin"))).status == 200
    assert call(app, Sent("GET", path, token="nonsense")).status == 401
    assert call(app, Sent("GET", path)).status == 401


def test_a_call_that_the_application_makes_itself_has_not_its_client_s_key() -> None:
    world = World(options={"strip_credentials": True})
    api: Any = ManagementAPI(world.guard)
    found: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        found.append(call_wsgi(api, Sent("GET", "/me")).status)
        return api(environ, start_response)

    outer = wsgi.KeyguardMiddleware(app, world.guard)
    assert call_wsgi(outer, Sent("GET", "/me", token=world.token("admin"))).status == 200
    assert found == [401]


def test_a_rule_that_names_the_mount_counts(make: Any) -> None:
    client = client_of(make(World(), rules=[Rule("/keys/{path:path}", scopes=["admin"])]))

    assert client.get("/keys/sign-out").status_code == 401


def test_the_api_alone_takes_no_rule_either() -> None:
    world = World()
    api: Any = ManagementAPI(world.async_guard)
    app = asgi.KeyguardMiddleware(Starlette(routes=[Mount("/keys", api)]), world.async_guard)

    refused = client_of(app).get("/keys/me")

    assert refused.status_code == 401
    assert "content-security-policy" in refused.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("keys.example", 401),
        ("KEYS.example:8443", 401),
        ("[::1]:80", 401),
        ("keys.example.evil", 421),
        ("evil.example", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("make", [Console, ManagementAPI])
def test_only_names_that_are_allowed_are_answered(make: Any, host: str, status: int) -> None:
    app = make(World().guard, identify, allowed_hosts=["Keys.example", "[::1]"])
    path = "/api/v1/me" if make is Console else "/me"

    got = call_wsgi(app, Sent("GET", path, headers={"host": host}))
    assert got.status == status
    assert (b"See its allowed_hosts." in got.body) == (status == 421)


@pytest.mark.parametrize("names", ["keys.example", ["https://keys.example"], ["keys.example:80"]])
def test_a_name_that_no_host_has_is_not_allowed(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        Console(World().guard, identify, allowed_hosts=names)


@pytest.mark.parametrize(("mount", "is_open"), [("/keys", True), ("/{tenant}/keys", False)])
def test_the_warm_path_stays_open_beside_the_console(
    mount: str, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    console: Any = Console(world.async_guard, key_sign_in=True)
    routes = [Route("/export", export), Mount(mount, console)]
    middleware = asgi.KeyguardMiddleware(Starlette(routes=routes), world.async_guard)
    client, admit = client_of(middleware), middleware.admission.admit
    client.headers["Authorization"] = f"Bearer {world.token('admin')}"
    assert client.get("/export").status_code == 200
    looked_at: list[str] = []

    def admitting(request: Any) -> Any:
        looked_at.append(request.path)
        return admit(request)

    monkeypatch.setattr(middleware.admission, "admit", admitting)
    path = f"{mount.format(tenant='acme')}/api/v1/me"
    assert [client.get(each).status_code for each in ("/export", path)] == [200, 200]

    assert looked_at == ([path] if is_open else ["/export", path])
