"""The pages of docs/how-to: what they show is run as it stands."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient

from keyguard import Keyguard
from keyguard.adapters._served import asgi_of
from keyguard.cli.app import run as run_command
from keyguard.cli.route_report.applications import read_application
from keyguard.cli.route_report.report import report, report_rules
from tests.examples.pages import blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

NOTES = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def answer(request):
    return PlainTextResponse("notes")

app = Starlette(routes=[
    Route("/healthz", answer),
    Route("/notes", answer, methods=["POST"]),
    Route("/notes/{note_id}", answer),
    Route("/notes/{note_id}", answer, methods=["DELETE"]),
])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder. Its modules are unloaded afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("notes", "keyguard.asgi"):
        sys.modules.pop(name, None)


def bearer(guard: Keyguard, *scopes: str) -> dict[str, str]:
    issued = guard.keys.issue(organization="acme", name="test", scopes=scopes)
    return {"Authorization": f"Bearer {issued.token.reveal()}"}


def test_the_factory_of_the_flask_page_makes_a_guarded_application(folder: Path) -> None:
    names = run("docs/how-to/flask.md", 0, {"__name__": "service"})
    with names["guard"] as guard:
        guard.migrate()
        organization = guard.organizations.create("acme")
        client = names["create_app"]().test_client()

        assert client.get("/healthz").get_json() == {"status": "ok"}
        origin = {"Origin": "https://app.example"}
        asks = {"Access-Control-Request-Method": "POST"}
        asked = client.options("/v1/inference", headers=origin | asks)
        refused = client.post("/v1/inference", headers=origin)
        assert (asked.status_code, refused.status_code) == (204, 401)
        for answer in (asked, refused):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        answer = client.post("/v1/inference", headers=bearer(guard, "inference:write"))
        assert answer.get_json() == {"organization": organization.id}
        reader = bearer(guard, "analytics:read")
        assert client.get("/v1/reports/7", headers=reader).get_json() == {"report": 7}
        refused = client.delete("/v1/reports/7", headers=reader)
        assert (refused.status_code, refused.get_json()) == (403, {"error": "not allowed"})
        assert 'scope="admin analytics:read"' in refused.headers["WWW-Authenticate"]


def test_keys_and_flask_login_are_taken_on_one_path_and_the_site_is_open(folder: Path) -> None:
    names = run("docs/how-to/flask.md", 1, {"__name__": "service"})
    found = read_application(names["app"])
    assert not [route for route in report(found, []) if route.problem] + [*report_rules(found)]
    with names["guard"] as guard:
        guard.migrate()
        guard.organizations.create("acme")
        key, other = bearer(guard, "reports:read"), bearer(guard, "other")
        client = names["app"].test_client()

        def ask(path: str = "/api/reports", headers: dict[str, str] | None = None) -> int:
            return int(client.get(path, headers=headers).status_code)

        assert (ask(), ask(headers=other), ask(headers=key)) == (401, 403, 200)
        assert (ask("/api/inference"), ask("/api/inference", key)) == (401, 200)
        assert client.post("/login/ann").status_code == 204
        assert client.get("/api/reports").get_json() == {"caller": "ann"}
        assert ask("/api/inference") == 401


def test_the_carriers_of_the_page_are_taken() -> None:
    guard = run("docs/carriers.md", 0, {})["guard"]

    assert guard.carriers.header_names == ("X-API-Key",)
    assert guard.carriers.schemes == ("Bearer", "Basic", "Api-Key")


def test_an_application_is_guarded_by_the_file_and_the_variables_that_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "docs/how-to/configuration.md"
    (folder / "notes.py").write_text(NOTES)
    settings = blocks(page(name), "toml")[0].replace("/srv/notes", str(folder))
    (folder / "keyguard.toml").write_text(settings)
    made, served, shown = blocks(page(name), "console")
    for line in (*made.splitlines(), served.splitlines()[0]):
        words = shlex.split(line.removeprefix("$ ").removeprefix("TOKEN=$(").removesuffix(")"))
        if words[0] == "export":
            for variable, value in (word.split("=", 1) for word in words[1:]):
                monkeypatch.setenv(variable, value)
        else:
            assert run_command(words[1:]) == 0
    token = capsys.readouterr().out.splitlines()[-1]
    reader = {"Authorization": f"Bearer {token}"}
    guarded = ModuleType("guarded")
    exec(blocks(page(name), "python")[0].replace("/srv/notes", str(folder)), vars(guarded))
    for app in (asgi_of(os.environ), vars(guarded)["app"]):
        client = TestClient(app)
        assert client.get("/healthz").text == "notes"
        assert client.get("/notes/1").status_code == 401
        assert client.get("/notes/1", headers=reader).text == "notes"
        assert client.post("/notes", headers=reader).status_code == 403
        assert client.delete("/notes/1", headers=reader).status_code == 403
        asyncio.run(app.guard.aclose())

    assert run_command(["routes", "keyguard.asgi:app"]) == 0
    assert capsys.readouterr().out == shown.removeprefix("$ keyguard routes keyguard.asgi:app\n")
