"""Limits over the wire, the same through every adapter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import http_sf
import pytest
from flask import Flask, Response
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from keyguard import AccessDenied, Limit, Reason, current_limits, rate_limit, require_scopes
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.runtime.events import AccessRefused, LimitExceeded
from tests.adapters.stacks import Answer, Request, Stack, call_asgi, call_wsgi, stacks
from tests.world import World

STACKS = {stack.name: stack for stack in stacks(World())}


def world(*limits: Limit | str, **options: Any) -> World:
    made = World(options={"default_limits": limits} | options)
    made.clock.uptime = 86400.0  # where a window of any length begins
    return made


def stack(world: World, name: str) -> Stack:
    return next(stack for stack in stacks(world) if stack.name == name)


def bearer(token: str, path: str = "/any", **options: Any) -> Request:
    return Request(path, authorization=(b"Bearer " + token.encode(),), **options)


def listed(answer: Answer, name: str) -> dict[str, dict[str, Any]]:
    """Parse a field as a structured list of strings with parameters."""
    value = answer.header(name)
    assert value is not None
    members = http_sf.parse(value.encode(), tltype="list")
    return {item: dict(parameters) for item, parameters in members}


def problem(answer: Answer) -> dict[str, Any]:
    assert answer.header("content-type") == "application/problem+json"
    content: dict[str, Any] = json.loads(answer.body)
    return content


@pytest.fixture(params=STACKS)
def name(request: pytest.FixtureRequest) -> str:
    stack: str = request.param
    return stack


# What a client is told


def test_an_accepted_request_is_told_how_its_limits_stand(name: str) -> None:
    here = world("3/minute", Limit("org-day", "100/day", per="organization"))
    answer = stack(here, name).call(bearer(here.token()))
    assert answer.status == 200
    assert listed(answer, "ratelimit-policy") == {
        "key-minute": {"q": 3, "w": 60},
        "org-day": {"q": 100, "w": 86400},
    }
    rate = listed(answer, "ratelimit")
    assert {policy: told["r"] for policy, told in rate.items()} == {"key-minute": 2, "org-day": 99}
    assert all(0 <= told["t"] <= 86400 for told in rate.values())


def test_one_over_the_limit_gets_429(name: str) -> None:
    here = world("2/minute", Limit("org-day", "100/day", per="organization"))
    app, token = stack(here, name), here.token()
    assert [app.call(bearer(token)).status for _ in range(2)] == [200, 200]
    here.clock.advance(timedelta(seconds=10))
    answer = app.call(bearer(token))
    assert answer.status == 429
    assert answer.header("cache-control") == "no-store"
    assert answer.header("www-authenticate") is None
    assert problem(answer) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Rate limit exceeded: key-minute (2 in 60 seconds). Try again in 51 seconds.",
        "violated-policies": ["key-minute"],
    }
    assert set(listed(answer, "ratelimit-policy")) == {"key-minute", "org-day"}
    violated = listed(answer, "ratelimit")
    assert violated["key-minute"]["r"] == 0
    assert set(violated) == {"key-minute"}
    assert int(answer.header("retry-after") or 0) >= violated["key-minute"]["t"]


def test_every_adapter_refuses_with_the_same_bytes() -> None:
    answers = set()
    for name in STACKS:
        here = world("1/minute")
        app, token = stack(here, name), here.token()
        app.call(bearer(token))
        answer = app.call(bearer(token))
        assert answer.status == 429
        answers.add(answer)
    assert len(answers) == 1


def test_a_head_request_over_the_limit_gets_no_body(name: str) -> None:
    here = world("1/minute")
    app, token = stack(here, name), here.token()
    app.call(bearer(token))
    answer = app.call(bearer(token, method="HEAD"))
    assert (answer.status, answer.body) == (429, b"")


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter", "moving-window"])
def test_waiting_out_retry_after_lets_the_next_request_through(strategy: str, name: str) -> None:
    here = world(Limit("burst", "3/10 seconds", strategy=strategy))  # type: ignore[arg-type]
    app, token = stack(here, name), here.token()
    waited = 0
    for _ in range(12):
        here.clock.advance(timedelta(seconds=0.7))
        answer = app.call(bearer(token))
        if answer.status == 429:
            wait = int(answer.header("retry-after") or 0)
            here.clock.advance(timedelta(seconds=wait))
            assert app.call(bearer(token)).status == 200
            waited += 1
    assert waited


def test_the_old_fields_are_sent_where_they_are_wanted(name: str) -> None:
    here = world("5/minute", Limit("org-day", "6/day", per="organization"), legacy_headers=True)
    answer = stack(here, name).call(bearer(here.token()))
    assert answer.header("x-ratelimit-limit") == "5"
    assert answer.header("x-ratelimit-remaining") == "4"
    assert int(answer.header("x-ratelimit-reset") or 0) >= here.clock.time()
    assert stack(world("5/minute"), name).call(bearer("x")).header("x-ratelimit-limit") is None


def test_without_limits_nothing_is_told(name: str) -> None:
    here = world()
    answer = stack(here, name).call(bearer(here.token()))
    assert answer.header("ratelimit") is None
    assert answer.header("ratelimit-policy") is None


# Where limits come from


def test_a_limit_of_the_key_takes_the_place_of_the_default_of_its_name(name: str) -> None:
    here = world("1/minute", "100/day")
    token = here.token(limits=["3/minute"])
    answer = stack(here, name).call(bearer(token))
    assert listed(answer, "ratelimit-policy") == {
        "key-minute": {"q": 3, "w": 60},
        "key-day": {"q": 100, "w": 86400},
    }


def test_keys_of_one_organization_share_its_limit(name: str) -> None:
    here = world()
    here.guard.organizations.update("acme", limits=["2/minute"])
    app = stack(here, name)
    tokens = [here.token() for _ in range(3)]
    assert [app.call(bearer(token)).status for token in tokens] == [200, 200, 429]
    assert app.call(bearer(here.token(organization="other"))).status == 200


def test_a_changed_limit_counts_from_the_next_request_on(name: str) -> None:
    here = world()
    issued = here.issue(limits=["1/minute"])
    app, token = stack(here, name), issued.token.reveal()
    assert [app.call(bearer(token)).status for _ in range(2)] == [200, 429]
    here.guard.keys.update(issued.key.id, limits=["2/minute"])
    assert [app.call(bearer(token)).status for _ in range(2)] == [200, 429]
    here.guard.keys.update(issued.key.id, limits=())
    assert app.call(bearer(token)).status == 200


def test_a_limit_may_count_addresses_or_what_a_function_says(name: str) -> None:
    here = world(
        Limit("by-address", "1/minute", per="address"),
        Limit("by-team", "9/minute", per=lambda who, request: request.headers.get("x-team")),
    )
    app = stack(here, name)
    first = app.call(bearer(here.token(), headers=((b"x-team", b"red"),)))
    assert set(listed(first, "ratelimit")) == {"by-address", "by-team"}
    assert app.call(bearer(here.token())).status == 429


def test_a_limit_does_not_show_credentials_to_its_function(name: str) -> None:
    seen: list[Any] = []
    here = world(Limit("mine", "9/minute", per=lambda who, request: seen.append(request)))
    token = here.token()
    stack(here, name).call(bearer(token, headers=((b"cookie", b"session=1"),)))
    assert len(seen) == 1
    assert seen[0].method == "GET"
    assert seen[0].path == "/any"
    assert seen[0].address == "192.0.2.7"
    assert seen[0].headers["host"] == "localhost"
    assert not {"authorization", "cookie"} & set(seen[0].headers)
    assert token not in repr(seen)


# All together, or none


def test_a_request_refused_by_one_limit_spends_nothing_of_another(name: str) -> None:
    here = world("5/minute", "2/day")
    issued = here.issue()
    app, token = stack(here, name), issued.token.reveal()
    assert [app.call(bearer(token)).status for _ in range(4)] == [200, 200, 429, 429]
    left = {status.name: status.remaining for status in guard_limits(here, name, issued.key.id)}
    assert left == {"key-minute": 3, "key-day": 0}


def guard_limits(here: World, name: str, key_id: str) -> Any:
    """Each guard of the world has counters of its own, in memory."""
    if STACKS[name].is_async:
        return asyncio.run(here.async_guard.keys.limits(key_id))
    return here.guard.keys.limits(key_id)


@pytest.mark.parametrize("refused", ["400", "401", "403", "403 on a route with a limit"])
def test_a_refused_request_spends_nothing(refused: str, name: str) -> None:
    here = world("9/minute")
    issued = here.issue("inference:read")
    token = issued.token.reveal()
    app = stack(here, name)
    app.call(bearer(token))
    request, status = {
        "400": (Request("/any", authorization=(b"Bearer " + token.encode() + b" x",)), 400),
        "401": (bearer(token[:-1] + ("0" if token[-1] != "0" else "1")), 401),
        "403": (bearer(token, "/write"), 403),
        "403 on a route with a limit": (bearer(token, "/infer"), 403),
    }[refused]
    for _ in range(3):
        answer = app.call(request)
        assert answer.status == status
        assert answer.header("ratelimit") is None
    assert [status.remaining for status in guard_limits(here, name, issued.key.id)] == [8]


@pytest.mark.parametrize("name", ["starlette", "fastapi", "asgi around starlette", "flask"])
def test_a_missing_scope_is_answered_before_a_limit(name: str) -> None:
    here = world("1/minute")
    app, token = stack(here, name), here.token("inference:read")

    assert app.call(bearer(token)).status == 200
    assert app.call(bearer(token)).status == 429
    assert app.call(bearer(token, "/infer")).status == 403


def test_a_route_s_limit_counts_with_the_key_s(name: str) -> None:
    here = world("3/minute")
    issued = here.issue("inference:write")
    app, token = stack(here, name), issued.token.reveal()
    first = app.call(bearer(token, "/infer"))
    assert first.status == 200
    assert {name: told["r"] for name, told in listed(first, "ratelimit").items()} == {
        "key-minute": 2,
        "infer": 1,
    }
    assert app.call(bearer(token, "/infer")).status == 200
    refused = app.call(bearer(token, "/infer"))
    assert refused.status == 429
    assert problem(refused)["violated-policies"] == ["infer"]
    # What the route refused was not charged to the key.
    assert [status.remaining for status in guard_limits(here, name, issued.key.id)] == [1]
    assert app.call(bearer(token)).status == 200
    assert app.call(bearer(token)).status == 429


def test_a_key_s_limit_refuses_before_the_route_s_is_spent(name: str) -> None:
    here = world("1/minute")
    app, token = stack(here, name), here.token("inference:write")
    assert app.call(bearer(token)).status == 200
    refused = app.call(bearer(token, "/infer"))
    assert problem(refused)["violated-policies"] == ["key-minute"]
    here.clock.advance(timedelta(minutes=2))
    fresh = app.call(bearer(token, "/infer"))
    assert listed(fresh, "ratelimit")["infer"]["r"] == 1


def test_a_route_is_limited_where_the_key_has_no_limit(name: str) -> None:
    here = world()
    app, token = stack(here, name), here.token("inference:write")
    assert [app.call(bearer(token, "/infer")).status for _ in range(3)] == [200, 200, 429]
    assert app.call(bearer(token)).header("ratelimit") is None


def test_a_request_may_cost_what_it_says(name: str) -> None:
    here = world()
    app, token = stack(here, name), here.token()

    def call(tokens: int) -> Answer:
        return app.call(bearer(token, "/priced", headers=((b"x-tokens", b"%d" % tokens),)))

    assert listed(call(7), "ratelimit")["tokens"]["r"] == 3
    assert call(4).status == 429
    assert listed(call(3), "ratelimit")["tokens"]["r"] == 0
    assert call(11).status == 429


@pytest.mark.parametrize("cost", [0, -1])
def test_a_function_that_gives_a_cost_of_nothing_fails(cost: int, name: str) -> None:
    here = world("5/minute")
    issued = here.issue()
    app = stack(here, name)
    request = bearer(issued.token.reveal(), "/priced", headers=((b"x-tokens", b"%d" % cost),))
    try:
        assert app.call(request).status == 500
    except ValueError as problem:
        assert "a cost is a whole number" in str(problem)  # noqa: PT017 - one of two ways to fail


def test_a_public_path_may_be_limited_for_each_address(name: str) -> None:
    here = world("1/minute")
    app = stack(here, name)
    answers = [app.call(Request("/open/limited")) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert problem(answers[-1])["violated-policies"] == ["visitor"]
    assert app.call(Request("/open")).status == 200


# What it cost in the end


@pytest.mark.parametrize(("cost", "left"), [(0, 10), (1, 9), (4, 6), (30, 0)])
def test_the_cost_can_be_settled_when_the_work_is_done(cost: int, left: int, name: str) -> None:
    here = world("10/minute")
    app, token = stack(here, name), here.token()
    answer = app.call(bearer(token, f"/settled/{cost}"))
    assert answer.status == 200
    assert listed(answer, "ratelimit")["key-minute"]["r"] == left
    assert app.call(bearer(token)).status == (200 if left else 429)


def test_settling_by_less_than_nothing_is_refused(name: str) -> None:
    here = world("10/minute")
    app = stack(here, name)
    try:
        assert app.call(bearer(here.token(), "/settled/-1")).status == 500
    except ValueError as problem:
        assert "a cost is a whole number from 0" in str(problem)  # noqa: PT017 - as above


def test_settling_charges_the_route_s_limit_and_not_the_key_s() -> None:
    here = world("10/minute")

    @rate_limit("1000/day", cost=100, name="tokens")
    async def endpoint(request: Any) -> PlainTextResponse:
        await current_limits().settle(250)
        left = {status.name: status.remaining for status in current_limits()}
        return PlainTextResponse(json.dumps(left))

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(KeyguardMiddleware, guard=here.async_guard)],
    )
    answer = call_asgi(app, bearer(here.token(), "/"))
    assert json.loads(answer.body) == {"key-minute": 9, "tokens": 750}


def test_settling_may_name_the_policy() -> None:
    here = world("10/minute", "100/day")

    async def endpoint(request: Any) -> PlainTextResponse:
        await current_limits().settle(5, "key-day")
        with pytest.raises(ValueError, match="it has: key-minute, key-day"):
            await current_limits().settle(5, "key-hour")
        await current_limits().refund("key-minute")
        return PlainTextResponse(str([status.remaining for status in current_limits()]))

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(KeyguardMiddleware, guard=here.async_guard)],
    )
    assert call_asgi(app, bearer(here.token(), "/")).body == b"[10, 95]"


# Shadow mode


def test_a_limit_that_is_not_enforced_counts_and_tells_and_never_refuses(name: str) -> None:
    here = world(Limit("try", "1/minute", enforce=False))
    app, token = stack(here, name), here.token()
    answers = [app.call(bearer(token)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [listed(answer, "ratelimit")["try"]["r"] for answer in answers] == [0, 0, 0]
    told = [event for event in here.events if isinstance(event, LimitExceeded)]
    assert [event.limits for event in told] == [("try",), ("try",)]
    assert told[0].address == "192.0.2.7"


def test_a_refusal_is_told_with_the_limits_that_had_no_room(name: str) -> None:
    here = world("1/minute", "1/hour", "9/day")
    issued = here.issue()
    app, token = stack(here, name), issued.token.reveal()
    app.call(bearer(token))
    app.call(bearer(token))
    [event] = here.events
    assert isinstance(event, AccessRefused)
    assert event.reason is Reason.RATE_LIMITED
    assert event.limits == ("key-minute", "key-hour")
    assert event.key_id == issued.key.id


# An application with a limiter of its own


def test_fields_that_the_application_sets_are_left_alone() -> None:
    here = world("5/minute")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"RateLimit", b'"mine";r=1;t=1')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = call_asgi(asgi.KeyguardMiddleware(app, here.async_guard), bearer(here.token()))
    assert answer.headers == (("RateLimit", '"mine";r=1;t=1'),)


def test_fields_that_a_wsgi_application_sets_are_left_alone() -> None:
    here = world("5/minute")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-RateLimit-Limit", "1")])
        return [b"ok"]

    answer = call_wsgi(wsgi.KeyguardMiddleware(app, here.guard), bearer(here.token()))
    assert answer.headers == (("content-type", "text/plain"), ("x-ratelimit-limit", "1"))


# Where a route leads to


class Guarded(HTTPEndpoint):
    @require_scopes("inference:write")
    @rate_limit("1/minute", name="post")
    async def post(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("post")

    async def get(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("get")


@rate_limit("5/minute", name="hub")
async def hub(websocket: Any) -> None:
    await websocket.accept()
    await websocket.close()


def routed(here: World) -> Starlette:
    return Starlette(
        routes=[
            Mount("/v1", routes=[Route("/guarded/{id:int}", Guarded), WebSocketRoute("/hub", hub)])
        ],
        middleware=[Middleware(KeyguardMiddleware, guard=here.async_guard)],
    )


def test_a_mounted_class_is_charged_by_the_method_that_is_called() -> None:
    here = world("9/minute")
    issued = here.issue("inference:write")
    app, token = routed(here), issued.token.reveal()
    got = call_asgi(app, bearer(token, "/v1/guarded/1"))
    assert set(listed(got, "ratelimit")) == {"key-minute"}
    posted = call_asgi(app, bearer(token, "/v1/guarded/1", method="POST"))
    assert set(listed(posted, "ratelimit")) == {"key-minute", "post"}
    again = call_asgi(app, bearer(token, "/v1/guarded/2", method="POST"))
    assert problem(again)["violated-policies"] == ["post"]
    assert call_asgi(app, bearer(token, "/v1/nothing")).status == 404
    assert [
        status.remaining for status in asyncio.run(here.async_guard.keys.limits(issued.key.id))
    ] == [6]


def connect(app: Any, token: str) -> list[Any]:
    """Return what is sent to a WebSocket that connects."""
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "path": "/v1/hub",
        "raw_path": b"/v1/hub",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", b"Bearer " + token.encode())],
        "client": ("192.0.2.7", 5555),
        "server": ("localhost", 80),
        "scheme": "ws",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_a_websocket_is_charged_once_and_refused_before_it_is_accepted() -> None:
    here = world("2/minute")
    app, token = routed(here), here.token()

    assert [connect(app, token)[0]["type"] for _ in range(2)] == ["websocket.accept"] * 2
    refused = connect(app, token)
    assert refused[0]["type"] == "websocket.http.response.start"
    assert refused[0]["status"] == 429


def test_a_websocket_whose_refusal_a_handler_closes_spends_nothing() -> None:
    here = world("3/minute")
    issued = here.issue()

    async def endpoint(websocket: Any) -> None:
        _extras()

    async def close(websocket: Any, refusal: Exception) -> None:
        await websocket.close(1008)

    handlers: Any = {AccessDenied: close}
    starlette = Starlette(routes=[WebSocketRoute("/v1/hub", endpoint)], exception_handlers=handlers)
    app = KeyguardMiddleware(starlette, here.async_guard)

    sent = [connect(app, issued.token.reveal()) for _ in range(5)]

    assert {messages[0]["type"] for messages in sent} == {"websocket.close"}
    (standing,) = asyncio.run(here.async_guard.keys.limits(issued.key.id))
    assert standing.remaining == 3


def test_the_work_of_an_error_handler_leaves_the_request_charged() -> None:
    here = world("9/hour")
    token = here.token()
    app = Flask("limits")

    @rate_limit("2/hour")
    def model() -> str:
        return "work"

    def view() -> str:
        model()
        return _extras()

    app.add_url_rule("/any", "any", view)
    app.register_error_handler(403, lambda _: (model(), 200))
    FlaskKeyguard(app, here.guard)

    assert [call_wsgi(app, bearer(token)).status for _ in range(3)] == [200, 200, 429]


def test_an_application_with_routes_of_another_kind_is_charged_in_two_steps() -> None:
    here = world("9/minute")

    @rate_limit("1/minute", name="inner")
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    class Other:
        routes = (endpoint,)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await endpoint(scope, receive, send)

    app = asgi.KeyguardMiddleware(Other(), here.async_guard)
    issued = here.issue()
    request = bearer(issued.token.reveal())
    assert set(listed(call_asgi(app, request), "ratelimit")) == {"key-minute", "inner"}
    assert call_asgi(app, request).status == 429
    assert [
        status.remaining for status in asyncio.run(here.async_guard.keys.limits(issued.key.id))
    ] == [8]


def test_flask_is_charged_by_the_route_before_anything_is_done() -> None:
    here = world("9/minute")
    done: list[str] = []
    app = Flask("limits")

    @app.before_request
    def before() -> None:
        done.append("before")

    @app.post("/spend")
    @rate_limit("1/minute")
    def spend() -> str:
        return "spent"

    FlaskKeyguard(app, here.guard)
    issued = here.issue()
    request = bearer(issued.token.reveal(), "/spend", method="POST")
    assert call_wsgi(app, request).status == 200
    assert call_wsgi(app, request).status == 429
    assert done == ["before"]
    assert [status.remaining for status in here.guard.keys.limits(issued.key.id)] == [8]


def test_flask_handles_429_as_its_own_error() -> None:
    here = world("1/minute")
    app = Flask("limits")
    app.add_url_rule("/any", "any", lambda: "any")

    @app.errorhandler(429)
    def slow_down(error: Any) -> tuple[str, int]:
        return "slow down", 429

    FlaskKeyguard(app, here.guard)
    token = here.token()
    call_wsgi(app, bearer(token))
    answer = call_wsgi(app, bearer(token))
    assert (answer.status, answer.body) == (429, b"slow down")


def test_what_answers_in_front_of_flask_s_routes_is_charged_all_the_same() -> None:
    here = world("1/minute")
    app = Flask("limits")
    app.wsgi_app = Response("down for maintenance", 503)  # type: ignore[method-assign, assignment]
    FlaskKeyguard(app, here.guard)
    token = here.token()
    assert [call_wsgi(app, bearer(token)).status for _ in range(2)] == [503, 429]


# What the application makes of a refusal


@require_scopes("admin")
def _extras() -> str:
    return "extras"


@rate_limit("1/hour")
def _fresh() -> str:
    return "fresh"


def _caught(helper: Callable[[], str]) -> str:
    try:
        return helper()
    except AccessDenied:
        return "without"


def _charging(here: World, name: str, helper: Callable[[], str], status: int = 200) -> Any:
    """Return an application whose view catches what a helper refuses, and what calls it."""
    if name == "flask":
        app = Flask("limits")
        app.add_url_rule("/any", "any", lambda: (_caught(helper), status))
        FlaskKeyguard(app, here.guard)
        return lambda request: call_wsgi(app, request)
    if name == "wsgi":

        def plain(environ: Any, start_response: Any) -> list[bytes]:
            text = _caught(helper)
            start_response(f"{status} Whatever", [("Content-Type", "text/plain")])
            return [text.encode()]

        return lambda request: call_wsgi(wsgi.KeyguardMiddleware(plain, here.guard), request)

    async def view(request: Any) -> PlainTextResponse:
        return PlainTextResponse(_caught(helper), status)

    starlette = KeyguardMiddleware(Starlette(routes=[Route("/any", view)]), here.async_guard)
    return lambda request: call_asgi(starlette, request)


FRAMEWORKS_THAT_CATCH = pytest.mark.parametrize("name", ["starlette", "flask", "wsgi"])


@FRAMEWORKS_THAT_CATCH
@pytest.mark.parametrize("helper", [_extras, _fresh])
@pytest.mark.parametrize("status", [200, 403])  # also an error of its own that has its status
def test_a_view_that_catches_a_refusal_and_goes_on_is_charged(
    helper: Callable[[], str], name: str, status: int
) -> None:
    here = world("3/hour")
    call, token = _charging(here, name, helper, status), here.token()

    answers = [call(bearer(token)) for _ in range(5)]

    assert [answer.status for answer in answers] == [status, status, status, 429, 429]
    assert answers[2].body == b"without"
    assert next(iter(listed(answers[1], "ratelimit").values()))["r"] == 1


@pytest.mark.parametrize(("status", "left"), [(403, 3), (200, 0)])
@pytest.mark.parametrize("name", ["starlette", "flask"])
def test_a_refusal_that_an_error_handler_answers_spends_nothing_and_work_does(
    name: str, status: int, left: int
) -> None:
    here = world("3/hour")
    issued = here.issue()
    request = bearer(issued.token.reveal())
    if name == "flask":
        app = Flask("limits")
        app.add_url_rule("/any", "any", _extras)
        app.register_error_handler(403, lambda _: ("in its own words", status))
        FlaskKeyguard(app, here.guard)
        answers = [call_wsgi(app, request) for _ in range(3)]
        standing: Any = here.guard.keys.limits(issued.key.id)
    else:

        async def handle(request: Any, refusal: Exception) -> PlainTextResponse:
            return PlainTextResponse("in its own words", status)

        async def view(request: Any) -> PlainTextResponse:
            return PlainTextResponse(_extras())

        handlers: Any = {AccessDenied: handle}
        routes = [Route("/any", view)]
        starlette = Starlette(routes=routes, exception_handlers=handlers)
        guarded = KeyguardMiddleware(starlette, here.async_guard)
        answers = [call_asgi(guarded, request) for _ in range(3)]
        standing = asyncio.run(here.async_guard.keys.limits(issued.key.id))

    assert {(answer.status, answer.body) for answer in answers} == {(status, b"in its own words")}
    assert [status.remaining for status in standing] == [left]


def test_a_refusal_while_a_body_is_sent_refunds_nothing() -> None:
    here = world("3/hour")
    issued = here.issue()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"work"
        yield _extras().encode()

    def served() -> list[bytes]:
        sent: list[bytes] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            if exc_info is not None:  # what was sent can't be taken back (PEP 3333)
                raise exc_info[1]

        environ = {"HTTP_AUTHORIZATION": f"Bearer {issued.token.reveal()}"}
        environ |= {"REQUEST_METHOD": "GET", "PATH_INFO": "/any", "wsgi.url_scheme": "http"}
        with pytest.raises(AccessDenied):
            sent.extend(wsgi.KeyguardMiddleware(app, here.guard)(environ, start_response))
        return sent

    served()
    assert [status.remaining for status in here.guard.keys.limits(issued.key.id)] == [2]


def test_a_key_s_limit_is_charged_once_when_decorated_functions_call_each_other(name: str) -> None:
    here = world("9/minute")
    issued = here.issue("inference:write", "admin")
    app = stack(here, name)
    app.call(bearer(issued.token.reveal(), "/either"))
    app.call(bearer(issued.token.reveal(), "/write"))
    assert [status.remaining for status in guard_limits(here, name, issued.key.id)] == [7]
