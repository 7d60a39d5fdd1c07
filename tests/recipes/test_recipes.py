"""What each recipe promises: the contract's answers from the framework of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse

from tests.recipes.conftest import RECIPES, Store

Recipe = Callable[[str], tuple[dict[str, Any], Any]]
WITH_WEBSOCKETS = [name for name in RECIPES if "WSGI" not in name]


def body(answer: Any) -> Any:
    return json.loads(answer.text)


@pytest.mark.parametrize("name", RECIPES)
def test_a_key_with_the_scope_is_served(name: str, recipe: Recipe, store: Store) -> None:
    _, client = recipe(name)

    answer = client.post("/v1/inference", headers=store.bearer("inference:write"))

    assert answer.status_code == 200
    assert body(answer)["organization"].startswith("org_")
    assert answer.headers["RateLimit-Policy"] == '"inference";q=2;w=60' or (
        answer.headers["RateLimit-Policy"] == '"on_post";q=2;w=60'
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_public_path_needs_no_key_and_any_other_does(name: str, recipe: Recipe) -> None:
    _, client = recipe(name)

    assert body(client.get("/healthz")) == {"status": "ok"}
    for path in ("/v1/inference", "/nowhere"):
        answer = client.post(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
def test_a_page_of_another_origin_may_ask_and_reads_refusals(name: str, recipe: Recipe) -> None:
    _, client = recipe(name)
    origin = {"Origin": "https://app.example"}
    asks = {"Access-Control-Request-Method": "POST"}

    asked = client.options("/v1/inference", headers=origin | asks)
    refused = client.post("/v1/inference", headers=origin)

    assert (asked.status_code, refused.status_code) == (200, 401)
    for answer in (asked, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


@pytest.mark.parametrize("name", RECIPES)
def test_a_missing_scope_is_403_with_the_contract_s_answer(
    name: str, recipe: Recipe, store: Store
) -> None:
    _, client = recipe(name)

    answer = client.post("/v1/inference", headers=store.bearer("inference:read"))

    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="inference:write"'
    )
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert body(answer)["status"] == 403


@pytest.mark.parametrize("name", RECIPES)
def test_a_limit_that_is_reached_is_429(name: str, recipe: Recipe, store: Store) -> None:
    _, client = recipe(name)
    headers = store.bearer("inference:write")

    answers = [client.post("/v1/inference", headers=headers) for _ in range(4)]

    # A minute may turn meanwhile; then a little of the last one is forgotten.
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    assert answers[3].status_code == 429
    assert "Retry-After" in answers[3].headers


@pytest.mark.parametrize("name", RECIPES)
def test_a_refusal_is_no_error_in_the_log(
    name: str,
    recipe: Recipe,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, client = recipe(name)
    headers = store.bearer("inference:read")
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])  # Litestar sets its own
    caplog.clear()

    with caplog.at_level(logging.INFO):
        client.post("/v1/inference", headers=headers)

    assert [record for record in caplog.records if record.name == "keyguard"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
def test_a_websocket_is_served_to_a_principal_with_the_scope(
    name: str, recipe: Recipe, store: Store
) -> None:
    _, client = recipe(name)

    with client.websocket_connect(
        "/v1/stream", headers=store.bearer("inference:write")
    ) as connection:
        assert connection.receive_text().startswith("org_")


@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
@pytest.mark.parametrize(("scopes", "status"), [(None, 401), (["inference:read"], 403)])
def test_a_websocket_is_refused_before_it_is_accepted(
    name: str, scopes: list[str] | None, status: int, recipe: Recipe, store: Store
) -> None:
    _, client = recipe(name)
    headers = {} if scopes is None else store.bearer(*scopes)

    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/v1/stream", headers=headers),
    ):
        raise AssertionError("accepted")

    assert refused.value.status_code == status
