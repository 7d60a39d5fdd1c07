"""The documentation says what the library does."""

from __future__ import annotations

import asyncio
import json
import pydoc
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

import keyguard
from keyguard import (
    Allow,
    AsyncKeyguard,
    ConfigurationError,
    Deny,
    InvalidValueError,
    Keyguard,
    Reason,
    Settings,
    Strategy,
    current_limits,
)
from keyguard.core.access.answers import Responder
from keyguard.core.limits.charges import Charge, policy_field
from keyguard.core.limits.windows import Tally
from keyguard.runtime import connecting
from keyguard.runtime.events import LimiterFailed, LimiterRecovered
from keyguard.stores.sql import turns
from tests.examples.pages import blocks, page, run
from tests.services import PostgreSQL

pytestmark = pytest.mark.usefixtures("patience")


def denied(reason: Reason) -> Deny:
    if reason is Reason.SCOPE_MISSING:
        return Deny(reason, scopes=("inference:write",))
    if reason is Reason.TOO_MANY_FAILURES:
        return Deny(reason, retry_after=18)
    if reason is Reason.RATE_LIMITED:
        policies = (("key-minute", 100, 60), ("org-day", 20_000, 86_400))
        charges = tuple(
            Charge(name, name, amount, window, Strategy.SLIDING_WINDOW_COUNTER, True, 1)
            for name, amount, window in policies
        )
        tallies = (Tally(False, 0, 17.2, 17.9), Tally(True, 11_042, 41_220.0, 0.0))
        return Deny(reason, charges=charges, tallies=tallies, retry_after=18)
    return Deny(reason)


def spelled(reason: Reason) -> str:
    response = Responder("AIaaS").respond(denied(reason), 0.0)
    lines = [
        f"HTTP/1.1 {response.status_line}",
        *(f"{name}: {value}" for name, value in response.headers),
        "",
        response.body.decode(),
        "",
    ]
    return "\n".join(lines)


def test_every_answer_is_documented_byte_by_byte() -> None:
    documented = blocks(page("docs/http.md"), "http")

    assert len(documented) == len(set(documented))
    assert set(documented) == {spelled(reason) for reason in Reason}


@pytest.mark.parametrize(
    "name",
    [
        "docs/how-to/browsers.md",
        "docs/how-to/retention.md",
        "docs/scopes.md",
        "docs/security.md",
        "docs/stores.md",
        "docs/limits.md",
        "docs/rules.md",
        "docs/proxies.md",
        "docs/websockets.md",
        "docs/health.md",
        "docs/metrics.md",
        "docs/opentelemetry.md",
    ],
)
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYGUARD_URL", "memory://")
    count = len(blocks(page(name), "python"))
    assert count

    for number in range(count):
        guard = run(name, number, {"__name__": "docs"}).get("guard")
        if isinstance(guard, AsyncKeyguard):
            asyncio.run(guard.aclose())
        elif guard is not None:
            guard.close()


def test_a_client_over_the_limit_gets_the_answer_that_the_limits_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("docs/limits.md", 0, {"__name__": "docs"})
    accepted = 0
    with names["guard"] as guard:
        guard.migrate()
        guard.organizations.create("acme")
        issued = guard.keys.issue(organization="acme", name="ci", scopes=["inference:write"])
        headers = {"Authorization": f"Bearer {issued.token.reveal()}"}
        client = names["app"].test_client()
        # A new minute may begin meanwhile, which admits a few more.
        while (answer := client.post("/v1/inference", headers=headers)).status_code == 200:
            accepted += 1
            assert accepted < 600

    assert accepted >= 60
    fields = "".join(f"{name}: {value}\n" for name, value in answer.headers)
    shown = re.search(r"^    (HTTP/1\.1 429 .*?\]\})$", page("docs/limits.md"), re.M | re.S)
    assert shown is not None
    real = f"HTTP/1.1 {answer.status}\n{fields}\n{answer.get_data(as_text=True)}"
    assert at_any_time(shown[1]) == at_any_time(real)


def at_any_time(answer: str) -> str:
    """Return an answer without the page's line breaks, and with no seconds in it."""
    answer = re.sub(r"\n +", "\n", answer.replace(",\n     ", ", "))
    # A wait of one digit makes the content shorter.
    return re.sub(
        r"(Content-Length: |Retry-After: |;t=|Try again in )\d+( seconds?)?", r"\1_", answer
    )


def test_the_decorators_of_the_scopes_page_refuse_without_a_middleware() -> None:
    names = run("docs/scopes.md", 0, {"__name__": "docs"})

    for decorated in (names["rewrite"], names["greet"]):
        with pytest.raises(ConfigurationError):
            decorated()


def test_the_catalogue_of_the_scopes_page_implies_and_refuses() -> None:
    with run("docs/scopes.md", 1, {"__name__": "docs"})["guard"] as guard:
        guard.organizations.create("acme")
        issued = guard.keys.issue(organization="acme", name="ci", scopes=["inference:write"])
        fields = [f"Bearer {issued.token.reveal()}"]

        assert isinstance(guard.authenticate(fields, scopes=["inference:read"]), Allow)
        with pytest.raises(InvalidValueError, match="inference:raed"):
            guard.keys.issue(organization="acme", name="typo", scopes=["inference:raed"])


def test_the_rules_of_the_rules_page_ask_for_what_they_say() -> None:
    guard = run("docs/rules.md", 0, {"__name__": "docs"})["guard"]
    book = guard.settings.rule_book()
    found = book.find("/v1/models/7", "GET")

    assert book.find("/static/app.css", "GET").public
    assert found.requirement.scopes == ("models:read",)
    assert book.find("/v1/models/7", "PATCH") is None
    asyncio.run(guard.aclose())


def example_of_billing(framework: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("KEYGUARD_URL", "memory://")
    codes = blocks(page("docs/limits.md"), "python")
    number = next(
        number
        for number, code in enumerate(codes)
        if f"from {framework}" in code and "settle" in code
    )
    names = run("docs/limits.md", number, {"__name__": "docs"})
    complete = names["complete"]
    names["reserved"] = []

    def watched(prompt: str) -> Any:
        names["reserved"].append(next(iter(current_limits())).remaining)
        return complete(prompt)

    names["complete"] = watched
    return names


def test_starlettes_example_of_billing_charges_what_was_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = example_of_billing("starlette", monkeypatch)
    guard = names["guard"]

    async def issue() -> str:
        await guard.organizations.create("acme")
        issued = await guard.keys.issue(organization="acme", name="ci")
        return str(issued.token.reveal())

    fields = {"Authorization": f"Bearer {asyncio.run(issue())}"}
    client = TestClient(names["app"])

    def ask(**more: str) -> str:
        answer = client.post("/v1/inference", content="a prompt", headers=fields | more)
        assert (answer.status_code, answer.text) == (200, "a prompt")
        return str(answer.headers["RateLimit"].split(";")[1])

    assert [ask(), ask(**{"X-Max-Tokens": "50"})] == ["r=99998", "r=99996"]
    assert names["reserved"] == [99_000, 99_948]
    asyncio.run(guard.aclose())


def test_flasks_example_of_billing_charges_what_was_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = example_of_billing("flask", monkeypatch)
    with names["guard"] as guard:
        guard.organizations.create("acme")
        issued = guard.keys.issue(organization="acme", name="ci")
        fields = {"Authorization": f"Bearer {issued.token.reveal()}"}
        client = names["app"].test_client()

        def ask() -> str:
            answer = client.post("/v1/inference", data="a prompt", headers=fields)
            assert (answer.status_code, answer.text) == (200, "a prompt")
            return str(answer.headers["RateLimit"].split(";")[1])

        assert [ask(), ask()] == ["r=99998", "r=99996"]
    assert names["reserved"] == [99_000, 98_998]


def test_the_hook_of_the_limits_page_measures_an_outage() -> None:
    codes = blocks(page("docs/limits.md"), "python")
    number = next(number for number, code in enumerate(codes) if "def measure" in code)
    names = run("docs/limits.md", number, {"__name__": "docs"})
    now = datetime.now(UTC)

    with names["guard"]:
        names["measure"](LimiterFailed(at=now, fails_open=True, cause=OSError()))
        assert names["metrics"] == {"keyguard_limiter_up": 0, "keyguard_uncounted_decisions": 0}

        names["measure"](LimiterRecovered(at=now, lasted=1.5, decisions=7))
        assert names["metrics"] == {"keyguard_limiter_up": 1, "keyguard_uncounted_decisions": 7}


def test_the_fields_of_an_accepted_answer_are_as_shown() -> None:
    deny = denied(Reason.RATE_LIMITED)
    tallies = (Tally(True, 42, 17.2, 0.0), deny.tallies[1])
    fields = Responder("AIaaS").limit_fields(
        deny.charges, tallies, policy_field(deny.charges), lambda: 0.0
    )

    shown = "".join(f"{name}: {value}\n" for name, value in fields)
    assert shown in blocks(page("docs/limits.md"), "text")


def test_the_life_of_a_key_goes_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}

    for number in range(len(blocks(page("docs/lifecycle.md"), "python"))):
        run("docs/lifecycle.md", number, names)

    with names["guard"]:
        printed = capsys.readouterr().out
        assert "can't grant what it does not have: admin" in printed
        actions = re.findall(r"\+00:00 \S+ (\S+) ", printed)
        assert actions == [
            *("key.revoked", "key.issued", "key.issued", "key.rotated", "key.issued"),
            "organization.created",
        ]
        assert names["rotated"].predecessor.id == names["issued"].key.id
        assert len(names["soon"]) == 1
        assert len(names["idle"]) == 0


def test_a_key_is_asked_for_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}

    for number in range(len(blocks(page("docs/requests.md"), "python"))):
        before = names.get("guard")
        run("docs/requests.md", number, names)
        if before is not None and before is not names["guard"]:
            assert len(before.keys.list()) == 2
            before.close()

    names["guard"].close()
    (tmp_path / "keyguard.toml").write_text(blocks(page("docs/requests.md"), "toml")[0])
    settings = Settings.from_file("keyguard.toml", {})
    assert settings.request_terms == before.settings.request_terms


def test_a_change_by_hand_tells_the_feed_as_the_page_says(
    postgresql: PostgreSQL,
) -> None:
    url, _ = postgresql.create_database()
    (statements,) = blocks(page("docs/lifecycle.md"), "sql")
    with Keyguard(url) as guard:
        guard.migrate()
        owner = guard.organizations.create("acme")
        key = guard.keys.issue(organization="acme", name="ci").key
        feed: Any = guard._store.feed()
        position = feed.read(None, 0).position
        named = statements.replace("KEY", key.id).replace("ORGANIZATION", owner.id)
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute(named)  # one transaction

        assert feed.read(position, 0).subjects == (key.id,)
        feed.close()
        assert guard.keys.get(key.id).revoked_at is not None
        assert guard.audit.list(limit=1).items[0].actor == "by hand"


def test_the_reference_has_every_public_name() -> None:
    documented = set(
        re.findall(r"^\.\. [\w:]+:: keyguard\.(\w+)$", page("docs/reference.md"), re.M)
    )

    assert documented == set(keyguard.__all__)


@pytest.mark.parametrize("part", ["organizations", "keys", "requests", "audit"])
@pytest.mark.parametrize("flavour", [Keyguard, AsyncKeyguard])
def test_the_reference_has_the_class_of_every_part_of_a_guard(flavour: type, part: str) -> None:
    with_members = re.findall(
        r"^\.\. autoclass:: (keyguard\.(?:guard|core\.management)[\w.]+)(\n   :members:)?$",
        page("docs/reference.md"),
        re.M,
    )
    documented = {pydoc.locate(name): bool(members) for name, members in with_members}

    assert documented[type(getattr(flavour("memory://"), part))] is (flavour is Keyguard)


def test_the_reference_repeats_no_signature() -> None:
    assert not re.findall(r"^\.\. \w+:: .*\(", page("docs/reference.md"), re.M)


def test_the_endpoints_of_the_page_on_readiness_tell_whether_the_store_can_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flask = run("docs/health.md", 1, {"__name__": "docs"})
    with flask["guard"]:
        answer = flask["app"].test_client().get("/readyz")
        assert (answer.status_code, "keyguard init" in answer.text) == (503, True)
        with TestClient(run("docs/health.md", 0, {"__name__": "docs"})["app"]) as client:
            assert client.get("/livez").text == "alive"
            assert client.get("/readyz").text == "ready"
        assert flask["app"].test_client().get("/readyz").text == "ready"


def test_the_page_on_rules_shows_how_to_guard_a_part_of_a_site() -> None:
    (number,) = (
        n for n, block in enumerate(blocks(page("docs/rules.md"), "python")) if "/api" in block
    )
    with run("docs/rules.md", number, {})["guard"] as guard:
        find = guard.settings.rule_book().find
        assert all(find(path, "GET").public for path in ("/", "/about", "/apis"))
        assert not any(find(path, "POST").public for path in ("/api", "/api/", "/api/v1/notes"))


def test_the_page_on_stores_tells_how_many_connections_a_process_takes() -> None:
    ready = 2 * connecting._MOST_READY
    parts = f"{turns.MOST_READS} for look-ups, {turns.MOST_WRITES} for changes and counts, {ready}"
    whole = turns.MOST_READS + turns.MOST_WRITES + ready

    assert f"| PostgreSQL | up to {whole + 1}: {parts} that are kept ready, and 1" in page(
        "docs/stores.md"
    )
    assert f"| MySQL, MariaDB | up to {whole}:" in page("docs/stores.md")


def test_the_page_on_imports_takes_a_file_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    token = f"qkH2ZUv6.{'aB3' * 10}"
    row = {"organization": "acme", "name": "ci", "format": "drf", "token": token}
    (tmp_path / "keys.jsonl").write_text(json.dumps(row))
    with Keyguard("sqlite:///keys.db") as guard:
        guard.migrate()
        guard.organizations.create("acme")

    with run("docs/import.md", 0, {"__name__": "docs"})["guard"] as guard:
        assert isinstance(guard.authenticate([f"Bearer {token}"]), Allow)


def test_the_console_of_its_page_asks_the_application_who_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user = SimpleNamespace(id="ann", name="Ann", role="auditor")
    names = run("docs/console.md", 0, {"current_user": lambda call: user if call else None})
    with names["guard"]:
        assert names["who"](None) is None
        assert names["who"](object()).roles == {"acme": "auditor"}
