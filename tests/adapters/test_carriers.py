"""Keys in other carriers, and fields that the application does not see, through every adapter."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from keyguard import Limit, Rule
from keyguard.adapters import asgi, fastapi, wsgi
from tests.adapters.stacks import Request, Stack, call_asgi, call_wsgi, stacks
from tests.adapters.test_websockets import Socket, seen_by
from tests.core.test_another_login import JWT
from tests.world import World

CARRIERS = ("bearer", "basic", "scheme:Api-Key", "header:X-API-Key")


def served(name: str, **options: object) -> tuple[World, Stack]:
    world = World(options={"carriers": CARRIERS} | options)
    return world, next(found for found in stacks(world) if found.name == name)


def sent(token: str, path: str = "/any") -> list[Request]:
    """Return one request for each carrier."""
    password = b64encode(b"user:" + token.encode())
    fields = (b"Bearer " + token.encode(), b"Basic " + password, b"Api-Key " + token.encode())
    return [
        *(Request(path, authorization=(field,)) for field in fields),
        Request(path, headers=((b"x-api-key", token.encode()),)),
    ]


def test_a_key_is_taken_from_each_carrier_and_never_from_two(name: str) -> None:
    world, here = served(name)
    live = world.token("inference:write")
    for _ in range(2):  # remembered the second time
        for request in sent(live):
            assert here.call(request).body.decode() == live[11:27]
    for request in sent(live[:-1]):
        answer = here.call(request)
        assert answer.status == 401
        assert answer.header("www-authenticate") == (
            'Bearer realm="AIaaS", error="invalid_token", Basic realm="AIaaS", '
            'Api-Key realm="AIaaS"'
        )
    bearer, basic, scheme, header = sent(live)
    for other in (bearer, basic, scheme):
        both = Request(authorization=other.authorization, headers=header.headers)
        assert here.call(both).status == 400


def test_what_is_no_carrier_carries_nothing(name: str) -> None:
    world, here = served(name, carriers=["header:X-API-Key"])
    live = world.token()
    statuses = [here.call(request).status for request in sent(live)]
    assert statuses == [401, 401, 401, 200]


def test_the_header_of_keys_is_keyguard_s_where_another_login_is_taken(name: str) -> None:
    world, here = served(name, rules=[Rule("/settled/{cost}", also="session")])
    statuses = [here.call(request).status for request in sent(JWT, "/settled/1")]
    assert statuses == [200, 200, 200, 401]
    assert here.call(sent(world.token(), "/settled/1")[3]).status == 200


def test_a_limit_s_function_sees_no_key() -> None:
    seen: list[Any] = []

    def per(_: object, request: Any) -> str:
        seen.append(request.headers)
        return "all"

    limits = [Limit("all", "9/minute", per=per)]
    for name in ("asgi", "wsgi"):
        world, here = served(name, rules=[Rule("/any", limits=limits)])
        live = world.token()
        for request in sent(live):
            assert here.call(request).status == 200
        assert live not in repr(seen)
    assert len(seen) == 8


def test_a_field_for_keys_that_is_empty_is_no_other_login(name: str) -> None:
    _, here = served(name, rules=[Rule("/any", also="session")])
    assert here.call(Request("/any", headers=((b"x-api-key", b""),))).status == 401
    assert here.reads == []


def stripped(**options: object) -> World:
    settings = {"carriers": CARRIERS, "strip_credentials": True, "public": ["/open"]}
    return World(options=settings | options)


@pytest.mark.parametrize("path", ["/any", "/open"])
def test_the_application_does_not_see_the_key(path: str) -> None:
    world = stripped()
    live = world.token()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        seen.append(dict(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    guarded = asgi.KeyguardMiddleware(app, world.async_guard)
    for _ in range(2):
        for request in sent(live, path):
            assert call_asgi(guarded, request).status == 200
            assert call_wsgi(wsgi.KeyguardMiddleware(wsgi_app, world.guard), request).status == 200
    assert len(seen) == 16
    for scope in seen:
        assert live not in repr(scope)
        assert b64encode(b"user:" + live.encode()).decode() not in repr(scope)


@pytest.mark.parametrize("scheme", ["Bearer", "Digest"])
@pytest.mark.parametrize("carriers", [["header:X-API-Key"], ["basic"]])
def test_a_key_in_a_field_that_is_no_carrier_is_refused_beside_another_login_and_never_passed_on(
    carriers: list[str], scheme: str
) -> None:
    rules = [Rule("/any", also="JWT")]
    world = World(options={"carriers": carriers, "strip_credentials": True, "public": ["/open"],
                           "rules": rules})  # fmt: skip
    field = f"{scheme} {world.token()}"
    seen: list[str | None] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ.get("HTTP_AUTHORIZATION"))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    served = wsgi.KeyguardMiddleware(app, world.guard)
    answers = [
        call_wsgi(served, Request(path, authorization=(sent.encode(),))).status
        for path, sent in (("/any", field), ("/open", field), ("/any", f"Bearer {JWT}"))
    ]
    assert answers == [401, 200, 200]
    assert seen == [None, f"Bearer {JWT}"]
    assert not world.guard.admit([field], path="/any")


def test_another_login_s_credentials_are_not_stripped() -> None:
    world = stripped(rules=[Rule("/any", also="JWT")])
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]).get(b"authorization"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guarded = asgi.KeyguardMiddleware(app, world.async_guard)
    for path in ("/any", "/open"):
        call_asgi(guarded, Request(path, authorization=(b"Bearer " + JWT.encode(),)))
    assert seen == [b"Bearer " + JWT.encode()] * 2


def test_a_websocket_s_key_may_be_in_a_header() -> None:
    world = stripped()
    live = world.token()
    scope = seen_by(world, Socket(headers=[(b"x-api-key", live.encode())]))
    assert scope["keyguard.principal"].key_id == live[11:27]
    assert live not in repr(scope["headers"])


def test_the_document_names_the_carriers() -> None:
    world = World(options={"carriers": ["basic", "header:X-API-Key"]})
    app = FastAPI()
    app.get("/", dependencies=[Depends(fastapi.keyguard_principal)])(lambda: "")
    app.add_middleware(fastapi.KeyguardMiddleware, guard=world.async_guard)
    fastapi.describe(app)

    document = app.openapi()
    assert document["components"]["securitySchemes"] == {
        "KeyguardBasic": {"type": "http", "scheme": "basic"},
        "Keyguard-X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    ways = document["paths"]["/"]["get"]["security"]
    assert ways == [{"KeyguardBasic": []}, {"Keyguard-X-API-Key": []}]
