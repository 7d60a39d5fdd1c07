"""``keyguard explain``: what decides on one request, and whether a key would be let in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Program, Store

APPS = "tests.route_report.apps"


def explained(keyguard: Program, *arguments: str, stdin: str = "") -> dict[str, Any]:
    found: dict[str, Any] = keyguard("explain", *arguments, "--json", stdin=stdin).json
    return found


def test_the_rule_and_what_it_needs_are_printed(keyguard: Program) -> None:
    done = keyguard("explain", "GET", "/v1/models/large", f"{APPS}:starlette_app")

    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == (
        "Request  GET /v1/models/large\n"
        "Route    /v1/models/{model_id}\n"
        "Rule     /v1/models/{model} (GET)\n"
        "Needs    any of a:b, c:d\n"
        "Limits   v1-models-model 100/minute per key\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # method, path, application, scopes: the route, the rules, whether it is let in
        ("HEAD /healthz wrapped", ("/healthz", ["/healthz"], True)),
        ("POST /v1/inference wrapped --scope inference:write", ("/v1/inference", [None], True)),
        ("POST /v1/inference/ wrapped --scope a:b", ("/v1/inference", [None], False)),
        ("PUT /v1/models/x wrapped", ("/v1/models/{model_id}", [None], None)),
        ("delete /api/reports/7?all=1 partly --scope admin",
         ("/api/reports/{id:int}", [None], True)),
        ("GET /other partly --scope admin", ("/other", [], True)),
        ("GET /nowhere wrapped --scope a:b", (None, [None], True)),
        ("GET /v1/models%2Flarge wrapped --scope a:b",
         ("/v1/models/{model_id}", [None], False)),
        ("GET /v1/models/large shut --scope c:d", (None, ["/v1/models/{model} (GET)"], True)),
    ],
)  # fmt: skip
def test_a_request_is_explained_by_its_route_its_rules_and_a_key_s_scopes(
    keyguard: Program, arguments: str, expected: tuple[str | None, list[str | None], bool | None]
) -> None:
    method, path, app, *scopes = arguments.split()
    done = keyguard("explain", method, path, f"{APPS}:{app}", *scopes, "--json")

    assert (done.json["route"], done.json["rules"], done.json["let_in"]) == expected
    assert done.status == (1 if expected[2] is False else 0)
    assert "?" not in done.json["path"]


def test_what_is_lacking_is_named(keyguard: Program) -> None:
    asked = ("POST", "/v1/inference", f"{APPS}:starlette_app", "--scope", "a:b")
    assert explained(keyguard, *asked)["why"] == "scope_missing: it needs inference:write"
    asked = ("GET", "/v1/models/x", f"{APPS}:starlette_app", "--scope", "inference:write")
    assert explained(keyguard, *asked)["why"] == "scope_missing: it needs any of a:b c:d"
    asked = ("GET", "/v1/models%2Fx", f"{APPS}:starlette_app")
    assert explained(keyguard, *asked)["why"].startswith("400: The path can be read in several")


def test_a_token_says_for_itself_whether_it_would_be_let_in(
    keyguard: Program, store: Store
) -> None:
    issued = store.issue(scopes=["inference:write"])
    asked = ("POST", "/v1/inference", f"{APPS}:starlette_app", "--token-stdin")

    assert explained(keyguard, *asked, stdin=issued.token.reveal())["let_in"] is True
    with store.open() as guard:
        guard.keys.revoke(issued.key.id)
    refused = keyguard("explain", *asked, stdin=issued.token.reveal())
    assert refused.status == 1
    assert refused.stdout.endswith(f"Let in   no: key_revoked (key {issued.key.id})\n")
    assert issued.token.reveal() not in refused.stdout + refused.stderr


def test_without_an_application_the_rules_of_the_settings_decide(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    config = tmp_path / "keyguard.toml"
    config.write_text('[[rules]]\npath = "/write"\nscopes = ["inference:write"]\n')
    monkeypatch.setenv("KEYGUARD_CONFIG", str(config))

    done = keyguard("explain", "GET", "/write", "--scope", "a:b")

    assert done.status == 1
    assert done.stdout == (
        "Request  GET /write\n"
        "Rule     /write\n"
        "Needs    scopes inference:write\n"
        "Let in   no: scope_missing: it needs inference:write\n"
    )


def test_wrong_usage_is_one_sentence(keyguard: Program) -> None:
    assert keyguard("explain", "GET", "v1").sentence.startswith("a path begins with a slash")
    both = keyguard("explain", "GET", "/", "--scope", "a", "--token-stdin")
    assert both.sentence == "give scopes or a token, and not both"
    assert both.status == 2


def test_an_application_inside_middleware_is_named_and_not_the_middleware(
    keyguard: Program,
) -> None:
    done = keyguard("routes", f"{APPS}:shut")

    assert done.status == 2
    assert done.sentence.startswith(
        "the application is a Closed inside a KeyguardMiddleware, whose routes can't be read"
    )


PLANS = """
[[rules]]
path = "/infer"
limits = [{ name = "inference", rate = "60/minute" }]

[[rules]]
path = "/open"
public = true
limits = [{ name = "inference", rate = "60/minute", per = "address" }]

[plans.pro]
inference = "600/minute"

[plans.free]
other = "1/minute"
"""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "keyguard.toml").write_text(PLANS)
    monkeypatch.setenv("KEYGUARD_CONFIG", str(tmp_path / "keyguard.toml"))


@pytest.mark.usefixtures("planned")
def test_the_plan_of_an_organization_changes_the_limits_that_are_shown(
    keyguard: Program, store: Store
) -> None:
    def lines(path: str, *arguments: str) -> str:
        shown = keyguard("explain", "GET", path, *arguments).stdout
        return shown[shown.index("Limits") :]

    limit = "Limits   inference 60/minute per key\n"
    assert lines("/infer") == limit + "Plans    change these limits: pro (see --org)\n"
    assert lines("/infer", "--org", "acme") == limit + "Plans    the organization has none\n"
    for plan, expected in (
        (
            "pro",
            "Limits   inference 600/minute per key\nPlan     pro, which changes these limits\n",
        ),
        ("free", limit + "Plan     free, which changes none\n"),
    ):
        with store.open(plans={"pro": {}, "free": {}}) as guard:
            guard.organizations.update("acme", plan=plan)
        assert lines("/infer", "--org", "acme") == expected
    with store.open(plans={"old": {}}) as guard:
        guard.organizations.update("acme", plan="old")
    unknown = "Plan     old, which the settings do not know: it changes nothing\n"
    assert lines("/infer", "--org", "acme") == limit + unknown
    assert explained(keyguard, "GET", "/infer", "--org", "acme")["plan"] == "old"
    assert explained(keyguard, "GET", "/open")["plans"] == []


@pytest.mark.usefixtures("planned", "store")
def test_an_organization_that_does_not_exist_is_named(keyguard: Program) -> None:
    assert "nobody" in keyguard("explain", "GET", "/infer", "--org", "nobody").sentence


def test_what_a_mounted_console_decides_is_said_to_be_its_decision(keyguard: Program) -> None:
    asked = ("GET", "/keys/organizations", f"{APPS}:with_console")
    done = keyguard("explain", *asked, "--scope", "a:b")

    assert done.status == 0
    decides = "the console or the management API, by itself"
    assert f"Needs    what is asked for by {decides}\n" in done.stdout
    assert explained(keyguard, *asked)["by_itself"] is True
    assert decides in keyguard("routes", f"{APPS}:with_console").stdout
