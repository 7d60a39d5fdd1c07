"""``keyguard explain``: what decides on one request, and whether a key would be let in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PROGRAM, Program, Run, Store
from tests.route_report.apps import OWN

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
    is_unguarded = expected[1] == []
    assert done.status == (1 if is_unguarded or expected[2] is False else 0)
    assert "?" not in done.json["path"]


@pytest.mark.parametrize("scopes", ["x:y,inference:write", "x:y, inference:write"])
def test_scopes_are_separated_by_commas_as_in_other_commands(
    keyguard: Program, scopes: str
) -> None:
    app = f"{APPS}:wrapped"
    done = keyguard("explain", "POST", "/v1/inference", app, "--scope", scopes)

    assert done.status == 0
    assert "Let in   yes: it has the scopes\n" in done.stdout


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/inference", "/v1/inference, which takes POST and not GET"),
        ("POST", "/v1/models/x", "/v1/models/{model_id}, which takes GET, PUT and not POST"),
        ("POST", "/ws", "/ws, which takes WebSocket and not POST"),
        ("POST", "/reports/7", "/reports/{id:int}, which takes DELETE, GET and not POST"),
        ("HEAD", "/v1/models/x", "/v1/models/{model_id}"),
        ("OPTIONS", "/v1/inference", "/v1/inference"),  # which something else may answer
    ],
)
def test_a_method_that_the_route_does_not_take_is_named(
    keyguard: Program, method: str, path: str, expected: str
) -> None:
    shown = keyguard("explain", method, path, f"{APPS}:wrapped")

    assert shown.status == 0
    assert f"Route    {expected}\n" in shown.stdout
    takes = explained(keyguard, method, path, f"{APPS}:wrapped")["takes"]
    assert (takes is None) is (" not " not in expected)


def test_a_key_is_judged_by_the_settings_of_the_application(
    keyguard: Program, store: Store
) -> None:
    with store.open(**OWN) as guard:
        guard.organizations.update("acme", plan="pro")
        issued = guard.keys.issue(
            organization="acme", name="ci", scopes=["admin"], allowed_networks=["192.0.2.0/24"]
        )
    asked = ("POST", "/v1/inference", f"{APPS}:with_settings")

    found = explained(keyguard, *asked, "--token-stdin", stdin=issued.token.reveal())

    assert (found["let_in"], found["plan"]) == (True, "pro")
    assert found["limits"] == ["inference 600/minute per key"]
    assert explained(keyguard, *asked, "--scope", "admin")["let_in"] is True
    other = ("POST", "/v1/inference", f"{APPS}:starlette_app")
    refused = explained(keyguard, *other, "--token-stdin", stdin=issued.token.reveal())
    assert refused["why"] == (
        "token_malformed: this is not a token of this service: a token is kg_live_ and 66 "
        "characters, and this one has a wrong prefix, length or checksum"
    )
    assert explained(keyguard, *other, "--scope", "admin")["let_in"] is False


def test_a_pepper_file_comes_before_the_peppers_of_the_application(
    keyguard: Program, store: Store, tmp_path: Any
) -> None:
    pepper = "DAeFbNafUXXzI7Tn-rHnpF2mCE0A_l0Le8YWhAvVJ3GKCNa8uRh5mnQfiKj9sJVV"
    (tmp_path / "pepper").write_text(pepper)
    with store.open(**OWN | {"peppers": [pepper]}) as guard:
        issued = guard.keys.issue(organization="acme", name="ci", scopes=["admin"])
    asked = ("POST", "/v1/inference", f"{APPS}:with_settings", "--token-stdin")

    token = issued.token.reveal()

    assert explained(keyguard, *asked, "--pepper-file", "pepper", stdin=token)["let_in"] is True
    lacking = keyguard("explain", *asked, stdin=token)
    assert (lacking.status, "needs the pepper" in lacking.sentence) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        ("key", "verify"),
        ("explain", "POST", "/v1/inference", f"{APPS}:starlette_app", "--token-stdin"),
    ],
)
def test_a_question_about_a_token_changes_nothing_in_the_store(
    keyguard: Program, store: Store, tmp_path: Any, command: tuple[str, ...]
) -> None:
    pepper = "DAeFbNafUXXzI7Tn-rHnpF2mCE0A_l0Le8YWhAvVJ3GKCNa8uRh5mnQfiKj9sJVV"
    (tmp_path / "pepper").write_text(pepper)
    issued = store.issue(scopes=["inference:write"])
    with store.open() as guard:
        before = guard._store.find_key(issued.key.id)

    done = keyguard(*command, "--pepper-file", "pepper", stdin=issued.token.reveal())

    assert done.status == 0
    with store.open() as guard:
        assert guard._store.find_key(issued.key.id) == before
        report = guard.usage.report(organization=issued.key.organization, step="hour")
    assert before is not None
    assert (before.key.last_used_at, sum(item.n for item in report.items)) == (None, 0)


@pytest.mark.parametrize("path", ["/v1/inference", "/healthz"])
def test_a_token_of_another_organization_than_the_named_one_is_refused(
    keyguard: Program, store: Store, path: str
) -> None:
    issued = store.issue(scopes=["inference:write"])
    with store.open() as guard:
        other = guard.organizations.create("other", name="Other")
    asked = ("explain", "POST", path, f"{APPS}:starlette_app", "--token-stdin")

    done = keyguard(*asked, "--org", "other", stdin=issued.token.reveal())

    assert done.status == 2
    assert done.sentence == (
        f"the token's key belongs to organization {issued.key.organization}, but --org names "
        f"{other.id}: leave out --org, because the plan of the key's organization counts"
    )
    assert keyguard(*asked, "--org", "acme", stdin=issued.token.reveal()).status == 0


def test_a_key_store_that_fails_is_an_error_and_no_refusal_of_the_key(
    keyguard: Program, store: Store
) -> None:
    token = store.issue().token.reveal()
    store.path.write_bytes(b"no database")

    done = keyguard("explain", "GET", "/", "--token-stdin", stdin=token)

    assert done.status == 1
    assert "file is not a database" in done.sentence


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
    assert "Plan" not in keyguard("explain", *asked, stdin=issued.token.reveal()).stdout
    with store.open() as guard:
        guard.keys.revoke(issued.key.id)
    refused = keyguard("explain", *asked, stdin=issued.token.reveal())
    assert refused.status == 1
    assert refused.stdout.endswith(f"Let in   no: key_revoked: key {issued.key.id} is revoked\n")
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
        "Route    unknown, like what decorators ask for: no application was read\n"
        "Rule     /write\n"
        "Needs    scopes inference:write\n"
        "Let in   no: scope_missing: it needs inference:write\n"
    )
    monkeypatch.setenv("KEYGUARD_SCOPES", "inference:write,inference:read")
    slip = keyguard("explain", "GET", "/write", "--scope", "inference:wriet,inference:read")
    assert " ".join(slip.stdout.split()).endswith(
        "scope_missing: it needs inference:write; the catalogue does not know inference:wriet"
    )
    monkeypatch.delenv("KEYGUARD_SCOPES")
    open_path = keyguard("explain", "GET", "/other", "--scope", "a:b")
    assert open_path.stdout.endswith(
        "Let in   yes: every key that works is let in, by the rules of the settings alone\n"
    )
    assert explained(keyguard, "GET", "/write")["routes_read"] is False


def test_an_application_that_can_not_be_read_is_said_to_be_so(keyguard: Program) -> None:
    done = keyguard("explain", "GET", "/v1/models/large", f"{APPS}:shut")

    assert done.status == 0
    assert (
        "Route    unknown, like what decorators ask for: the application can't be read\n"
        in done.stdout
    )


def test_a_request_that_no_middleware_guards_is_a_problem(keyguard: Program) -> None:
    done = keyguard("explain", "GET", "/other", f"{APPS}:partly")

    assert done.status == 1
    assert "Let in   yes: no keyguard middleware guards it\n" in done.stdout
    assert "\nproblem  public, as no keyguard middleware stands before it" in done.stdout


PROJECT = """
from django.http import HttpResponse
from django.urls import path
from keyguard import Keyguard, Rule, rate_limit, require_scopes
from rest_framework.views import APIView

SECRET_KEY = "x"
ROOT_URLCONF = "shop"
INSTALLED_APPS = ["keyguard.adapters.django"]
MIDDLEWARE = ["keyguard.adapters.django.KeyguardMiddleware"]
KEYGUARD = {
    "guard": lambda: Keyguard("memory://"),
    "rules": [Rule("/orders", scopes=["orders:read"])],
}

@require_scopes("orders:sign")
def view(request):
    return HttpResponse()

@rate_limit("60/minute")
class Report(APIView):
    def get(self, request): ...

urlpatterns = [path("orders", view), path("report", Report.as_view())]
"""
DJANGO = (sys.executable, "-m", "django", "keyguard")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(PROJECT)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("program", [PROGRAM, DJANGO])
def test_the_django_project_is_read_without_being_named(
    program: tuple[str, ...], process: Callable[..., Run]
) -> None:
    done = process("explain", "GET", "/orders", "--scope", "orders:read", program=program)

    assert done.stdout == (
        "Request  GET /orders\n"
        "Route    /orders\n"
        "Rule     /orders\n"
        "Needs    scopes orders:read, orders:sign\n"
        "Let in   no: scope_missing: it needs orders:sign\n"
    )
    assert (done.status, done.stderr) == (1, "")


@pytest.mark.usefixtures("project")
def test_a_limit_of_a_view_class_of_django_rest_framework_is_named_once(
    process: Callable[..., Run],
) -> None:
    limits = ["Report 60/minute per key"]

    assert process("explain", "GET", "/report", "--json").json["limits"] == limits
    (_, report) = process("routes", "--json").json["routes"]
    assert (report["path"], report["limits"]) == ("/report", limits)


def test_wrong_usage_is_one_sentence(keyguard: Program) -> None:
    assert keyguard("explain", "GET", "/v1", "--url", "memory://").status == 0
    assert keyguard("explain", "GET", "v1").sentence.startswith("a path begins with a slash")
    swapped = keyguard("explain", "/v1/models", "GET")
    sentence = "first the method, then the path: keyguard explain GET /v1/models"
    assert (swapped.status, swapped.sentence) == (2, sentence)
    both = keyguard("explain", "GET", "/", "--scope", "a", "--token-stdin")
    assert both.sentence == "give --scope or --token-stdin, not both"
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
        ("free", limit + "Plan     free, which changes none of them\n"),
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
