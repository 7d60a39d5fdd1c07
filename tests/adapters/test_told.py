"""What hooks are told of requests, refused and let in, the same through every adapter."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from keyguard import Keyguard, Reason
from keyguard.adapters import asgi
from keyguard.runtime.events import (
    AccessRefused,
    Event,
    RequestAnswered,
    log_event,
    subscribed,
)
from tests.adapters.stacks import Request, bearer, stack
from tests.world import World


def lines(events: list[Event]) -> list[tuple[Any, ...]]:
    return [
        (event.method, event.path, event.reason)
        for event in events
        if isinstance(event, AccessRefused)
    ]


def test_a_refusal_tells_the_method_and_the_path(name: str) -> None:
    here = World({"default_limits": ["1/minute"]})
    app, token = stack(here, name), here.token("inference:read")
    for request in (
        Request("/any", "POST"),
        bearer("x" * 30),
        bearer(token, "/write"),
        bearer(token),
        bearer(token),
    ):
        app.call(request)
    assert lines(here.events) == [
        ("POST", "/any", Reason.CREDENTIALS_MISSING),
        ("GET", "/any", Reason.TOKEN_MALFORMED),
        ("GET", "/write", Reason.SCOPE_MISSING),
        ("GET", "/any", Reason.RATE_LIMITED),
    ]


def test_who_subscribes_is_told_of_each_answer_to_a_request_that_was_let_in(name: str) -> None:
    told: list[Event] = []
    here = World({"hooks": [subscribed(told.append, RequestAnswered)]})
    app, issued = stack(here, name), here.issue("inference:read")
    unknown = app.call(bearer(issued.token.reveal(), "/nowhere")).status  # some serve any path
    for request in (
        bearer(issued.token.reveal()),
        Request("/open"),
        bearer(issued.token.reveal(), "/write"),  # refused inside
        Request("/any"),  # refused outside
    ):
        app.call(request)
    assert [
        (event.method, event.path, event.status_class, event.key_id, event.address)
        for event in told
        if isinstance(event, RequestAnswered)
    ] == [
        ("GET", "/nowhere", f"{unknown // 100}xx", issued.key.id, "192.0.2.7"),
        ("GET", "/any", "2xx", issued.key.id, "192.0.2.7"),
        ("GET", "/open", "2xx", None, "192.0.2.7"),
    ]


def test_a_socket_that_is_accepted_is_told() -> None:
    told: list[Any] = []
    here = World({"hooks": [subscribed(told.append, RequestAnswered)]})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    async def nothing(*_: Any) -> None: ...

    scope = {
        "type": "websocket",
        "path": "/talk",
        "headers": [(b"authorization", b"Bearer " + here.token().encode())],
    }
    asyncio.run(asgi.KeyguardMiddleware(app, here.async_guard)(scope, nothing, nothing))  # type: ignore[arg-type]
    assert [(event.method, event.path, event.status) for event in told] == [("GET", "/talk", 101)]


def test_nobody_else_is_told_of_answers_and_nothing_is_made_for_them() -> None:
    here = World({"hooks": [log_event, subscribed(print, AccessRefused)]})
    assert not here.guard.tells_answers
    assert not Keyguard("memory://", hooks=[]).tells_answers
    assert World({"hooks": [subscribed(log_event, RequestAnswered)]}).guard.tells_answers


TOKEN = "aiaas_live_" + "a" * 65


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a\r\nb\x1b[31m", r"/a\r\nb\x1b[31m"),
        ("/\u202emoc.live\u2028/\udcff", r"/\u202emoc.live\u2028/\udcff"),
        ("/v1/models?key=secret", "/v1/models"),
        (f"/v1/{TOKEN}/x", "/v1/.../x"),
        ("/" + "/".join(["part"] * 100), ("/" + "/".join(["part"] * 100))[:200] + "..."),
        ("", ""),
    ],
)
def test_a_path_is_made_fit_for_a_log(
    path: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = World({"hooks": [log_event]})
    with caplog.at_level(logging.INFO, logger="keyguard"):
        here.guard.admit([], method="GET" + "T" * 50, path=path, address="192.0.2.7")
    assert caplog.messages == [f"GET{'T' * 17} {shown} from 192.0.2.7 refused: credentials_missing"]


def test_the_log_may_have_every_answer(caplog: pytest.LogCaptureFixture) -> None:
    here = World({"hooks": [log_event, subscribed(log_event, RequestAnswered)]})
    issued = here.issue()
    app = stack(here, "wsgi")
    with caplog.at_level(logging.INFO, logger="keyguard"):
        app.call(bearer(issued.token.reveal()))
    assert caplog.messages == [f"GET /any from 192.0.2.7 answered with 200 (key {issued.key.id})"]
