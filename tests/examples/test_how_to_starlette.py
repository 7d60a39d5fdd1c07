"""What docs/how-to/starlette.md shows is run as it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from keyguard import Keyguard
from tests.examples.pages import blocks, jwt_of, keys_of, page, run

pytestmark = pytest.mark.usefixtures("patience")

PAGE = "docs/how-to/starlette.md"
APPLICATION, BESIDE, MOUNTS = range(3)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
    return run(PAGE, APPLICATION, {"__name__": "how_to_starlette"})


def bearer(*scopes: str) -> dict[str, str]:
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        issued = guard.keys.issue(organization="acme", name="ci", scopes=scopes)
    return {"Authorization": f"Bearer {issued.token.reveal()}"}


def test_every_kind_of_endpoint_is_guarded(names: dict[str, Any]) -> None:
    reader, writer, admin = bearer("inference:read"), bearer("inference:*"), bearer("admin")
    with TestClient(names["app"]) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/v1/inference").status_code == 401
        assert client.post("/v1/inference", headers=reader).status_code == 403
        assert client.post("/v1/inference", headers=writer).status_code == 200
        assert client.get("/v1/models", headers=reader).json()["scopes"] == ["inference:read"]
        assert client.get("/v1/models", headers=admin).status_code == 403
        assert client.get("/v1/models/large", headers=reader).json() == {"model": "large"}
        assert client.delete("/v1/models/large", headers=reader).status_code == 403
        assert client.delete("/v1/models/large", headers=admin).json() == {"deleted": "large"}


def test_the_socket_is_refused_before_it_is_accepted(names: dict[str, Any]) -> None:
    with TestClient(names["app"]) as client:
        with client.websocket_connect("/v1/stream", headers=bearer("inference:write")) as socket:
            assert set(socket.receive_json()) == {"key"}
        for headers, status in (({}, 401), (bearer(), 403)):
            with (
                pytest.raises(WebSocketDenialResponse) as refused,
                client.websocket_connect("/v1/stream", headers=headers),
            ):
                pass
            assert refused.value.status_code == status


def test_a_guard_inside_a_mount_guards_what_is_below_it() -> None:
    names = run(PAGE, MOUNTS, {"__name__": "how_to_mounts"})
    guard = names["guard"]

    async def issue(*scopes: str) -> dict[str, str]:
        issued = await guard.keys.issue(organization="acme", name="ci", scopes=scopes)
        return {"Authorization": f"Bearer {issued.token.reveal()}"}

    asyncio.run(guard.organizations.create("acme"))
    analyst, other = asyncio.run(issue("analytics:read")), asyncio.run(issue())
    client = TestClient(names["site"])

    assert client.get("/").text == "for anybody"
    assert client.get("/api/report").status_code == 401
    assert client.get("/api/report", headers=other).status_code == 403
    assert client.get("/api/report", headers=analyst).text == "for keys with the scope"
    asyncio.run(guard.aclose())


def test_keys_and_a_jwt_are_taken_on_one_path() -> None:
    here = run(PAGE, BESIDE, {"__name__": "how_to_beside"})
    key, other = keys_of(here["guard"], "reports:read", "other")
    with TestClient(here["app"]) as client:

        def ask(token: str) -> Any:
            answer = client.get("/reports", headers={"Authorization": f"Bearer {token}"})
            return answer.text if answer.is_success else answer.status_code

        assert ask(key) == key[11:27]
        assert ask(jwt_of(here["SECRET"])) == "ann"
        assert (ask(other), ask(f"{key}0"), ask("garbage")) == (403, 401, 401)
        assert client.get("/reports").status_code == 401


def test_the_page_has_no_other_code() -> None:
    assert len(blocks(page(PAGE), "python")) == 3


def test_a_page_of_another_origin_may_ask_and_reads_refusals(names: dict[str, Any]) -> None:
    origin = {"Origin": "https://app.example"}
    asks = {"Access-Control-Request-Method": "POST"}
    with TestClient(names["app"]) as client:
        asked = client.options("/v1/inference", headers=origin | asks)
        refused = client.post("/v1/inference", headers=origin)

    assert (asked.status_code, refused.status_code) == (200, 401)
    for answer in (asked, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
