"""WebSockets behind real servers: refused before they are accepted, and ended with their key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from keyguard import AsyncKeyguard
from tests.servers.notes import settings, store_url
from tests.servers.running import Running, chosen, running
from tests.services import until

# What each server answers to a close before accept, where it can't send keyguard's own answer.
BARE_REFUSAL = 403


@pytest.fixture(scope="module", params=chosen("asgi", websockets=True))
def served(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as server:
        yield server


@contextmanager
def opened(
    served: Running,
    case: str,
    *authorization: str,
    path: str = "/chat",
    protocols: list[str] | None = None,
) -> Iterator[ClientConnection]:
    options: Any = {"subprotocols": protocols, "proxy": None, "close_timeout": 10}
    fields = [("X-Case", case), *(("Authorization", value) for value in authorization)]
    with connect(
        f"ws://127.0.0.1:{served.port}{path}", additional_headers=fields, **options
    ) as socket:
        yield socket


def refusal(served: Running, case: str, *authorization: str, **options: Any) -> Any:
    with (
        pytest.raises(InvalidStatus) as refused,
        opened(served, case, *authorization, **options),
    ):
        pass
    assert not served.notes("served", case)
    return refused.value.response


def said(socket: ClientConnection, text: str) -> str:
    socket.send(text)
    return str(socket.recv(30))


@pytest.mark.parametrize("name", ["none", "two", "revoked", "unknown", "reader", "ambiguous"])
def test_a_refused_one_gets_the_real_answer_where_the_server_can_send_it(
    served: Running, name: str
) -> None:
    tokens = served.keys.tokens
    live = f"Bearer {tokens['live']}"
    if name == "ambiguous" and served.server.name == "daphne":
        pytest.skip("daphne hands on '//open' as an empty path")
    path, fields, status, challenge = {
        "none": ("/chat", [], 401, 'Bearer realm="AIaaS"'),
        "two": ("/chat", [live, live], 400, 'Bearer realm="AIaaS", error="invalid_request"'),
        "revoked": (
            "/chat",
            [f"Bearer {tokens['revoked']}"],
            401,
            'Bearer realm="AIaaS", error="invalid_token"',
        ),
        "unknown": (
            "/chat",
            [f"Bearer {tokens['unknown']}"],
            401,
            'Bearer realm="AIaaS", error="invalid_token"',
        ),
        "reader": (
            "/write",
            [f"Bearer {tokens['reader']}"],
            403,
            'Bearer realm="AIaaS", error="insufficient_scope", scope="inference:write"',
        ),
        "ambiguous": ("//open", [live], 400, None),
    }[name]

    response = refusal(served, name, *fields, path=path)

    for note in served.notes("delivered", name):
        if note["refusable"]:
            assert response.status_code == status
            assert response.headers.get("WWW-Authenticate") == challenge
            assert response.headers["Cache-Control"] == "no-store"
        else:
            assert response.status_code == BARE_REFUSAL
    assert served.notes("delivered", name) or response.status_code >= 400


def test_a_live_key_is_let_in(served: Running) -> None:
    with opened(served, "live", f"Bearer {served.keys.tokens['live']}") as socket:
        assert said(socket, "hello") == "hello"

    (note,) = served.notes("served", "live")
    assert note["principal"] == served.keys.ids["live"]


def test_a_token_in_a_subprotocol_is_read_and_never_said_back(served: Running) -> None:
    token = served.keys.tokens["live"]
    offered = ["keyguard.bearer", f"keyguard.bearer.{token}"]
    for case, more, chosen_one in (
        ("offered alone", [], "keyguard.bearer"),
        ("offered with another", ["chat"], "chat"),
    ):
        with opened(served, case, protocols=[*offered, *more]) as socket:
            assert socket.subprotocol == chosen_one
            assert said(socket, "subprotocols") == repr(more)
            assert socket.response is not None
            assert token not in repr(socket.response.headers)

        (note,) = served.notes("served", case)
        assert note["principal"] == served.keys.ids["live"]


def test_a_dead_token_in_a_subprotocol_is_refused(served: Running) -> None:
    token = served.keys.tokens["revoked"]

    response = refusal(
        served, "dead offer", protocols=["keyguard.bearer", f"keyguard.bearer.{token}"]
    )

    assert response.status_code in (401, BARE_REFUSAL)
    assert token not in repr(response.headers) + repr(response.body)


def test_an_open_one_is_ended_once_its_key_is_revoked(served: Running) -> None:
    async def issue_and_revoke(key_id: str | None) -> Any:
        async with AsyncKeyguard(store_url(served.keys.folder), settings=settings()) as guard:
            if key_id is None:
                return await guard.keys.issue(organization="acme", name="brief", scopes=[])
            return await guard.keys.revoke(key_id)

    issued = asyncio.run(issue_and_revoke(None))
    with opened(served, "brief", f"Bearer {issued.token.reveal()}") as socket:
        assert said(socket, "hello") == "hello"

        asyncio.run(issue_and_revoke(issued.key.id))

        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)
    assert closed.value.rcvd is not None
    # daphne lets no application say 1008.
    assert closed.value.rcvd.code == (3000 if served.server.name == "daphne" else 1008)
    until(lambda: bool(served.notes("ended", "brief")))
    (note,) = served.notes("ended", "brief")
    assert note["by"] == "websocket.disconnect"


def test_the_application_sees_that_the_client_has_gone(served: Running) -> None:
    with opened(served, "gone", f"Bearer {served.keys.tokens['live']}") as socket:
        assert said(socket, "hello") == "hello"

    until(lambda: bool(served.notes("ended", "gone")))
    (note,) = served.notes("ended", "gone")
    assert note["by"] == "websocket.disconnect"
