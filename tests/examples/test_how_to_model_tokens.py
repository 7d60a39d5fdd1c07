"""What docs/how-to/model-tokens.md shows is run as it stands, with streams that break off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keyguard import Keyguard
from tests.examples.pages import blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

PAGE = "docs/how-to/model-tokens.md"
PROMPT = b"one two three four five"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KEYGUARD_URL", f"sqlite:///{tmp_path}/keys.db")
    with Keyguard(f"sqlite:///{tmp_path}/keys.db", prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
        return guard.keys.issue(organization="acme", name="ci").token.reveal()


async def ask(app: Any, token: str, chunks: int) -> bytes:
    """Ask, and leave after some chunks; return the field that says what is left."""
    gone, left, answered = asyncio.Event(), chunks, b""
    requests = [{"type": "http.request", "body": PROMPT, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal left, answered
        if message["type"] == "http.response.start":
            answered = dict(message["headers"])[b"ratelimit"]
        elif message.get("body"):
            left -= 1
            if not left:
                gone.set()

    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat", "query_string": b"",
        "headers": [(b"authorization", b"Bearer " + token.encode())],
        "asgi": {"spec_version": "2.3"},
    }  # fmt: skip
    await app(scope, receive, send)
    return answered.partition(b";t=")[0]


def test_a_stream_costs_what_was_made_of_it(token: str) -> None:
    names = run(PAGE, 0, {"__name__": "model_tokens"})

    async def call() -> list[bytes]:
        answers = [await ask(names["app"], token, chunks) for chunks in (2, 9, 9)]
        await names["guard"].aclose()
        return answers

    # 200 are held while an answer is made. Two tokens of the first are kept, all five of the next.
    assert asyncio.run(call()) == [b'"tokens";r=%d' % left for left in (800, 798, 793)]


def test_a_sync_stream_costs_what_was_made_of_it(token: str) -> None:
    names = run(PAGE, 0, {"__name__": "model_tokens"})
    names = run(PAGE, 1, names)
    client = names["flask_app"].test_client()
    left = []
    for chunks in (2, 9, 9):
        answer = client.post(
            "/v1/chat", data=PROMPT, headers={"Authorization": f"Bearer {token}"}, buffered=False
        )
        left.append(answer.headers["RateLimit"].partition(";t=")[0])
        for _ in zip(range(chunks), answer.response, strict=False):
            pass
        answer.close()
    names["guard"].close()
    assert left == [f'"tokens";r={rest}' for rest in (800, 798, 793)]


def test_the_page_has_no_other_code() -> None:
    assert len(blocks(page(PAGE), "python")) == 2
