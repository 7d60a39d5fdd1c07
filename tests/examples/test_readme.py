"""What README.md and the quickstart show is run as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import flask
import pytest
from starlette.testclient import TestClient

from keyguard import ConfigurationError, NotFoundError
from tests.examples.pages import ROOT, blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

ISSUE, STARLETTE, FLASK, DECORATORS, LIMITS, RULES, ROTATE = range(7)


@pytest.fixture
def token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Issue the README's key, in a folder of its own, and return what is printed."""
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


def test_who_goes_over_the_limit_gets_the_answer_that_is_shown(token: str) -> None:
    names = run("README.md", LIMITS, {"__name__": "readme"})
    headers = {"Authorization": f"Bearer {token}"}
    accepted = 0
    with names["guard"]:
        client = names["app"].test_client()
        # A minute may turn meanwhile, and then a little of the last one is forgotten.
        while (answer := client.post("/v1/inference", headers=headers)).status_code == 200:
            accepted += 1
            assert accepted < 600

    assert accepted >= 60
    fields = "".join(f"{name}: {value}\n" for name, value in answer.headers)
    shown = re.search(r"^    (HTTP/1\.1 429 .*?\]\})$", page("README.md"), re.M | re.S)
    assert shown is not None
    real = f"HTTP/1.1 {answer.status}\n{fields}\n{answer.get_data(as_text=True)}"
    assert at_any_time(shown[1]) == at_any_time(real)


def at_any_time(answer: str) -> str:
    """Return an answer without line breaks for the page's sake, and with no wait in it."""
    answer = re.sub(r"\n +", "\n", answer.replace(",\n     ", ", "))
    # A wait of one digit makes the content shorter.
    return re.sub(
        r"(Content-Length: |Retry-After: |;t=|Try again in )\d+( seconds?)?", r"\1_", answer
    )


def test_the_decorators_refuse_without_a_middleware() -> None:
    names = run("README.md", DECORATORS, {"__name__": "readme"})

    for decorated in (names["rewrite"], names["greet"]):
        with pytest.raises(ConfigurationError):
            decorated()


def test_the_issued_key_is_rotated_and_its_successor_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("README.md", ISSUE, {"__name__": "readme"})
    capsys.readouterr()

    run("README.md", ROTATE, names)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[3] for words in lines] == [
        *("key.revoked", "key.issued", "key.rotated", "key.issued", "organization.created"),
    ]
    names["guard"].close()


def test_the_rules_ask_for_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guard = run("README.md", RULES, {"__name__": "readme"})["guard"]
    book = guard.settings.rule_book()
    assert book.find("/static/app.css", "GET").public
    assert book.find("/v1/models/7", "GET").requirement.scopes == ("inference:read",)
    assert book.find("/v1/models/7", "DELETE") is None
    asyncio.run(guard.aclose())


def test_the_readme_has_no_other_code() -> None:
    assert len(blocks(page("README.md"), "python")) == 7


@pytest.mark.parametrize(
    "name", ["README.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_every_link_to_a_file_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page(name))

    for link in links:
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), link


def test_every_extra_is_in_the_table() -> None:
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"]) - {"dev", "servers"}

    assert set(re.findall(r"^\| `(\w+)` \|", page("README.md"), re.MULTILINE)) == extras


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

    run("docs/quickstart.md", revoke, names)
    with flask_guard:
        assert not [key for key in flask_guard.keys.list() if key.revoked_at is None]
        with pytest.raises(NotFoundError):
            flask_guard.keys.list(organization="nobody")
