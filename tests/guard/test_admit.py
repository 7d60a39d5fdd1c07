"""``guard.admit`` decides, charges and answers as the adapters do, without an adapter."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    AsyncKeyguard,
    ConfigurationError,
    InvalidValueError,
    Keyguard,
    Limit,
    Rule,
    Verdict,
)
from keyguard.adapters import asgi, wsgi
from keyguard.runtime.events import AccessRefused
from tests.adapters.stacks import Answer, Request, call_asgi, call_wsgi
from tests.adapters.test_cases import AsyncBrokenStore, BrokenStore, Cast, cases
from tests.world import World

OPTIONS: dict[str, Any] = {
    "rules": [
        Rule("/write", scopes=["inference:write"]),
        Rule("/either", any_of=["admin", "analytics:read"]),
        Rule("/infer", methods=["POST"], scopes=["inference:write"], limits=["2/minute"]),
        Rule(
            "/priced",
            limits=Limit("tokens", "1000/day"),
            cost=lambda asked: len(asked.query or "1"),
        ),
        Rule("/shared/{rest:path}", methods=["GET"], public=True),
        Rule("/visit", public=True, limits=Limit("visits", "1/minute", per="address")),
    ],
    "default_limits": ["40/minute"],
    "trusted_proxies": ["192.0.2.0/24"],
    "usage_tags": None,
}
ADDRESS = "192.0.2.7"


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


def script(world: World) -> list[Request]:
    """Return requests whose order matters: limits run out, and keys retire."""
    cast = Cast(world)
    forged = (b"x-forwarded-for", b"nonsense")
    infer = Request("/infer", "POST", authorization=(b"Bearer " + cast.live.encode(),))
    rotated = world.issue("inference:write")
    world.guard.keys.rotate(rotated.key.id, grace=timedelta(days=1))
    table = [
        request
        for request, _ in cases(cast).values()
        if request.raw_path is None and not request.path.startswith(("/open/write", "/object"))
    ]
    return [
        *table,
        infer, infer, infer, replace(infer, method="HEAD"), replace(infer, path="/infer/"),
        replace(infer, path="/a//b"),
        replace(infer, path="/any", headers=(forged,)),
        replace(infer, path="/any", headers=((b"x-forwarded-for", b"203.0.113.9"),)),
        Request("/shared/page"), Request("/shared/page", "DELETE"),
        Request("/shared/page", headers=((b"x-http-method-override", b"DELETE"),)),
        Request("/visit"), Request("/visit"),
        Request("/any", authorization=(b"Bearer " + rotated.token.reveal().encode(),)),
        *[replace(infer, path="/any")] * 40,
    ]  # fmt: skip


def kept(answer: Answer) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    fields = answer.headers
    if answer.status == 200:
        fields = tuple(field for field in fields if field[0] != "content-type")
    return answer.status, fields, answer.body


def answer_to(verdict: Verdict, request: Request) -> Answer:
    if verdict:
        return Answer(200, tuple((name.lower(), value) for name, value in verdict.fields()), b"")
    response = verdict.response()
    fields = tuple((name.lower(), value) for name, value in response.headers)
    return Answer(response.status, fields, b"" if request.method == "HEAD" else response.body)


def stated(request: Request) -> dict[str, Any]:
    return {
        "fields": request.authorization,
        "method": request.method,
        "path": request.path,
        "headers": [(name.decode(), value.decode()) for name, value in request.headers],
        "secure": request.scheme == "https",
        "address": ADDRESS,
    }


def admit_sync(world: World, request: Request) -> Answer:
    return answer_to(world.guard.admit(**stated(request)), request)


def admit_async(world: World, request: Request) -> Answer:
    return answer_to(asyncio.run(world.async_guard.admit(**stated(request))), request)


def told(world: World) -> list[Any]:
    return [
        (event.reason, event.limits, event.scopes, event.address)
        for event in world.events
        if isinstance(event, AccessRefused)
    ]


def counted(world: World) -> Counter[str]:
    guards = (world.guard, world.async_guard)
    return sum((Counter(guard.statistics().decisions) for guard in guards), Counter())


WAYS: dict[str, Callable[[World, Request], Answer]] = {
    "admit": admit_sync,
    "async admit": admit_async,
    "wsgi": lambda world, request: call_wsgi(
        wsgi.KeyguardMiddleware(wsgi_app, world.guard),
        replace(request, authorization=(b",".join(request.authorization),))
        if request.authorization
        else request,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_admit_answers_as_an_adapter_byte_for_byte(way: str) -> None:
    by_adapter, by_admit = World(OPTIONS), World(OPTIONS)
    guarded = asgi.KeyguardMiddleware(asgi_app, by_adapter.async_guard)
    expected = [kept(call_asgi(guarded, request)) for request in script(by_adapter)]

    found = [kept(WAYS[way](by_admit, request)) for request in script(by_admit)]

    assert found == expected
    assert {status for status, *_ in found} == {200, 400, 401, 403, 429}
    assert told(by_admit) == told(by_adapter)
    assert counted(by_admit) == counted(by_adapter)


@pytest.mark.parametrize("way", WAYS)
def test_a_key_in_another_carrier_is_read_from_the_headers_and_two_are_refused(way: str) -> None:
    world = World({"carriers": ["bearer", "header:X-API-Key"], "rules": OPTIONS["rules"]})
    key = world.token("inference:write").encode()
    in_header = Request("/write", headers=((b"x-api-key", key),))
    script = [
        in_header,
        replace(in_header, authorization=(b"Bearer " + key,)),
        replace(in_header, headers=((b"x-api-key", key), (b"x-api-key", key))),
        replace(in_header, headers=((b"x-api-key", b"nonsense"),)),
    ]
    guarded = asgi.KeyguardMiddleware(asgi_app, world.async_guard)
    expected = [kept(call_asgi(guarded, request)) for request in script]

    assert [status for status, *_ in expected] == [200, 400, 400, 401]
    # WSGI has one value of a field.
    asked = [request for request in script if way != "wsgi" or len(request.headers) == 1]
    assert [kept(WAYS[way](world, request)) for request in asked] == [
        answer for request, answer in zip(script, expected, strict=True) if request in asked
    ]


def test_a_store_that_fails_is_answered_with_503() -> None:
    world = World()
    request = Request(authorization=(b"Bearer " + world.token().encode(),))
    options: Any = {"settings": world.guard.settings}
    world.guard = Keyguard(BrokenStore(world, OSError), **options)
    world.async_guard = AsyncKeyguard(AsyncBrokenStore(world, OSError), **options)
    for admit in (admit_sync, admit_async):
        assert admit(world, request).status == 503


def test_a_verdict_says_who_asks_and_how_the_limits_stand() -> None:
    world = World(OPTIONS)
    issued = world.issue("inference:read")
    field = f"Bearer {issued.token.reveal()}"

    verdict = world.guard.admit([field], path="/priced", query="12345")

    assert verdict
    assert verdict.principal is not None
    assert verdict.principal.key_id == issued.key.id
    assert {status.name: status.remaining for status in verdict.limits} == {
        "key-minute": 39,
        "tokens": 995,
    }
    verdict.limits.settle_sync(100)
    assert dict(verdict.fields())["RateLimit"].startswith('"key-minute";r=39')
    assert [status.remaining for status in verdict.limits] == [39, 900]
    with pytest.raises(ConfigurationError, match="the service answers it itself"):
        verdict.response()


@pytest.mark.parametrize(("path", "left"), [("/priced", (39, 750)), ("/any", (5,))])
def test_a_cost_counts_in_the_rule_s_limits_or_else_in_all(
    path: str, left: tuple[int, ...]
) -> None:
    world = World(OPTIONS)
    field = f"Bearer {world.token()}"
    cost = 250 if path == "/priced" else 35
    for expected in (left, None):
        verdict = world.guard.admit([field], path=path, cost=cost * (1 if expected else 10))
        if expected:
            assert tuple(status.remaining for status in verdict.limits) == expected
        else:
            assert verdict.response().status == 429


def test_what_the_caller_states_wrongly_is_refused_loudly_and_shows_no_token() -> None:
    world = World(OPTIONS)
    token = world.token()
    calls: list[dict[str, Any]] = [
        {"fields": {f"Bearer {token}"}},
        {"fields": [f"Bearer {token}"], "cost": 0},
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as wrong:
            world.guard.admit(**call)
        assert token not in str(wrong.value)
    assert token not in repr(world.guard.admit([f"Bearer {token}"]))
    assert world.guard.admit(f"Bearer {token}")  # a single string counts as one field
