"""What README.md and the quickstart show is run as it stands, and README.md has its form."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import flask
import pytest
from starlette.testclient import TestClient

from keyguard import ConfigurationError, NotFoundError, Reason
from scripts.readme import absolute
from tests.examples.pages import ROOT, blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

ISSUE, STARLETTE, FLASK = range(3)
MOST_LINES = 150


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
        return table


@pytest.fixture
def token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Issue the README's key in an empty folder, and return what is printed."""
    monkeypatch.chdir(tmp_path)
    run("README.md", ISSUE, {"__name__": "readme"})
    return capsys.readouterr().out.strip()


def call_starlette(app: Any, token: str | None) -> list[tuple[int, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with TestClient(app) as client:
        answers = [client.get("/healthz"), client.post("/v1/inference", headers=headers)]
        return [(answer.status_code, answer.json()) for answer in answers]


def call_flask(app: Any, token: str | None) -> list[tuple[int, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    client = app.test_client()
    answers = [client.get("/healthz"), client.post("/v1/inference", headers=headers)]
    return [(answer.status_code, answer.get_json(force=True)) for answer in answers]


def test_the_key_is_issued_and_printed(token: str) -> None:
    assert re.fullmatch(r"aiaas_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", token)


def test_the_starlette_example_works(token: str) -> None:
    app = run("README.md", STARLETTE, {"__name__": "readme"})["app"]

    health, (status, answer) = call_starlette(app, token)

    assert health == (200, {"status": "ok"})
    assert status == 200
    assert answer["organization"].startswith("org_")


def test_the_starlette_example_refuses(token: str) -> None:
    app = run("README.md", STARLETTE, {"__name__": "readme"})["app"]

    health, (status, _) = call_starlette(app, None)

    assert (health, status) == ((200, {"status": "ok"}), 401)


def test_the_flask_example_works_and_refuses(token: str) -> None:
    names = run("README.md", FLASK, {"__name__": "readme"})
    with names["guard"]:
        (health, (status, answer)), refused = (
            call_flask(names["app"], sent) for sent in (token, token[:-1] + "!")
        )

    assert health == refused[0] == (200, {"status": "ok"})
    assert status == 200
    assert answer["organization"].startswith("org_")
    assert refused[1][0] == 400


def test_the_readme_has_no_other_code() -> None:
    assert len(blocks(page("README.md"), "python")) == 3


def test_the_readme_is_short() -> None:
    assert len(page("README.md").splitlines()) <= MOST_LINES


def test_on_a_package_index_every_link_of_the_readme_leads_to_the_repository() -> None:
    shown = absolute(page("README.md"), project()["urls"]["Source"])
    links = re.findall(r"\]\(([^)]+)\)", shown)
    base = f"{project()['urls']['Source']}/blob/main/"

    assert links
    for link in links:
        assert link.startswith(base), link
        assert (ROOT / link.removeprefix(base).partition("#")[0]).exists(), link


def test_every_mention_of_the_projects_address_is_the_stated_one() -> None:
    places = ["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"]
    places += [str(path.relative_to(ROOT)) for path in ROOT.glob(".github/**/*.*")]
    stated = project()["urls"]["Source"]

    for place in places:
        for found in re.findall(r"https://github\.com/keyguard[\w./-]*", page(place)):
            assert found.startswith(stated), place


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
        *(str(p.relative_to(ROOT)) for p in ROOT.glob(".github/*.md")),
        *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    ],
)
def test_every_link_to_a_file_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page(name))

    for link in links:
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), link


def test_every_extra_is_in_the_table() -> None:
    extras = set(project()["optional-dependencies"])

    assert set(re.findall(r"^\| `(\w+)` \|", page("docs/quickstart.md"), re.MULTILINE)) == extras


def test_each_shell_of_the_quickstart_gets_the_prefix_with_the_url() -> None:
    exports = re.findall(r"export KEYGUARD_URL=.*", page("docs/quickstart.md"))

    assert len(exports) == 2
    assert all("KEYGUARD_PREFIX=aiaas_live" in export for export in exports)


def test_the_causes_that_the_quickstart_explains_are_those_of_the_log() -> None:
    causes = re.findall(r"^- `(\w+_\w+)`:", page("docs/quickstart.md"), re.MULTILINE)

    assert len(causes) == 5
    assert set(causes) <= {reason.value for reason in Reason}


def test_the_quickstart_works_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    issue, settings, starlette, flask_, anything, ask, objects, revoke = range(8)
    names: dict[str, Any] = {"__name__": "quickstart"}
    assert len(blocks(page("docs/quickstart.md"), "python")) == 8

    run("docs/quickstart.md", issue, names)
    token = capsys.readouterr().out.strip()
    run("docs/quickstart.md", settings, names)

    run("docs/quickstart.md", starlette, names)
    assert [status for status, _ in call_starlette(names["app"], token)] == [200, 200]

    run("docs/quickstart.md", flask_, names)
    flask_guard, flask_app = names["guard"], names["app"]
    assert isinstance(flask_app, flask.Flask)
    assert [status for status, _ in call_flask(flask_app, token)] == [200, 200]

    run("docs/quickstart.md", anything, names)
    run("docs/quickstart.md", ask, names)
    assert capsys.readouterr().out.strip() == "token_malformed"

    run("docs/quickstart.md", objects, names)
    with pytest.raises(ConfigurationError):
        names["get_report"]("none", {})
    names["guard"].close()

    run("docs/quickstart.md", revoke, names)
    with flask_guard:
        assert not [key for key in flask_guard.keys.list() if key.revoked_at is None]
        with pytest.raises(NotFoundError):
            flask_guard.keys.list(organization="nobody")
