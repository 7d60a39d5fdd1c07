"""What docs/how-to/fastapi.md shows is run as it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from keyguard import Keyguard
from tests.examples.pages import blocks, jwt_of, page, run

pytestmark = pytest.mark.usefixtures("patience")

PAGE = "docs/how-to/fastapi.md"
APPLICATION, ROUTERS, OPTIONAL, BESIDE, SOCKETS = range(5)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
    return run(PAGE, APPLICATION, {"__name__": "how_to_fastapi"})


def bearer(*scopes: str) -> dict[str, str]:
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        issued = guard.keys.issue(organization="acme", name="ci", scopes=scopes)
    return {"Authorization": f"Bearer {issued.token.reveal()}"}


def test_the_application_lets_in_a_key_with_the_scope(names: dict[str, Any]) -> None:
    reader, writer = bearer("inference:read"), bearer("inference:write")
    with TestClient(names["app"]) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=reader).json()["models"] == ["large"]
        assert client.post("/v1/inference", headers=reader).status_code == 403
        answer = client.post("/v1/inference", headers=writer)

    assert answer.json()["output"] == "Hello"
    assert answer.headers["RateLimit-Policy"] == '"inference";q=60;w=60'


def test_the_document_is_public_and_describes_the_guard(names: dict[str, Any]) -> None:
    with TestClient(names["app"]) as client:
        assert "SwaggerUIBundle" in client.get("/docs").text
        assert client.get("/redoc").status_code == 401
        paths = client.get("/openapi.json").json()["paths"]

    assert paths["/v1/inference"]["post"]["security"] == [{"KeyguardBearer": ["inference:write"]}]
    assert {"400", "401", "403", "429", "503"} < set(paths["/v1/models"]["get"]["responses"])
    assert set(paths["/healthz"]["get"]["responses"]) == {"200"}


def test_the_scopes_of_the_router_and_around_the_dependency_add_up(names: dict[str, Any]) -> None:
    app: FastAPI = names["app"]
    app.include_router(run(PAGE, ROUTERS, {"__name__": "how_to_routers"})["router"])
    both = bearer("inference:*")
    with TestClient(app) as client:
        for some in (bearer("inference:read"), bearer("inference:write")):
            assert client.get("/v1/reports/usage", headers=some).status_code == 403
        assert client.get("/v1/reports/usage", headers=both).status_code == 200


def test_the_shared_dependency_gives_no_principal_on_a_public_path(names: dict[str, Any]) -> None:
    app: FastAPI = names["app"]
    plan = run(PAGE, OPTIONAL, {"__name__": "how_to_optional"})["Plan"]

    async def shown(found: str) -> str:
        return found

    shown.__annotations__["found"] = plan  # as in a module of its own
    app.router.routes = [one for one in app.routes if getattr(one, "path", "") != "/healthz"]
    app.get("/healthz")(shown)
    app.get("/plan")(shown)
    with TestClient(app) as client:
        assert client.get("/healthz").json() == "free"
        assert client.get("/plan", headers=bearer()).json() == "paid"


def test_the_socket_is_refused_before_it_is_accepted(names: dict[str, Any]) -> None:
    app: FastAPI = names["app"]
    app.include_router(run(PAGE, SOCKETS, {"__name__": "how_to_sockets"})["sockets"])
    with TestClient(app) as client:
        with client.websocket_connect("/v1/stream", headers=bearer("inference:write")) as socket:
            assert set(socket.receive_json()) == {"key"}
        for headers, status in (({}, 401), (bearer(), 403)):
            with (
                pytest.raises(WebSocketDenialResponse) as refused,
                client.websocket_connect("/v1/stream", headers=headers),
            ):
                pass
            assert refused.value.status_code == status


def test_keys_and_a_jwt_are_taken_on_one_path(names: dict[str, Any]) -> None:
    here = run(PAGE, BESIDE, {"__name__": "how_to_beside"})
    key, other = (bearer(scope)["Authorization"][7:] for scope in ("reports:read", "other"))
    with TestClient(here["app"]) as client:

        def ask(field: str, path: str = "/v1/reports") -> Any:
            answer = client.get(path, headers={"Authorization": field} if field else {})
            return answer.json().get("caller") if answer.is_success else answer.status_code

        assert ask(f"Bearer {key}") == f"key {key[11:27]}"
        assert ask(f"Bearer {jwt_of(here['SECRET'])}") == "person ann"
        refused = [f"Bearer {jwt_of('another secret of 32 bytes or so.')}", "", "Basic YTpi"]
        assert [ask(field) for field in (*refused, f"Bearer {key}0")] == [401] * 4
        assert ask(f"Bearer {other}") == 403
        assert ask(f"Bearer {jwt_of(here['SECRET'])}", "/v1/inference") == 401


def test_the_page_has_no_other_code(names: dict[str, Any]) -> None:
    assert len(blocks(page(PAGE), "python")) == 5
    asyncio.run(names["guard"].aclose())


def test_a_page_of_another_origin_may_ask_and_reads_refusals(names: dict[str, Any]) -> None:
    origin = {"Origin": "https://app.example"}
    asks = {"Access-Control-Request-Method": "POST"}
    with TestClient(names["app"]) as client:
        asked = client.options("/v1/inference", headers=origin | asks)
        refused = client.post("/v1/inference", headers=origin)

    assert (asked.status_code, refused.status_code) == (200, 401)
    for answer in (asked, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
