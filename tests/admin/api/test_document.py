"""The OpenAPI document, and what is walked from it: other organizations' ids, roles, fuzzing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from keyguard.admin.api import ENDPOINTS
from keyguard.admin.api.document import document
from tests.admin.api.office import PEOPLE, Ids, Office, least_body, like

DOCUMENT: Any = document(ENDPOINTS)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA.config.generation.with_security_parameters = False  # the tests send keys themselves
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def counted(office: Office) -> list[str]:
    """Return a list to which the name of each call of the store is added."""
    calls: list[str] = []
    for name in ("find_key", "find_organization", "find_request", "list_keys", "list_requests"):
        plain = getattr(office.store, name)

        def counting(*args: Any, plain: Any = plain, name: str = name, **options: Any) -> Any:
            calls.append(name)
            return plain(*args, **options)

        setattr(office.store, name, counting)
    return calls


def test_the_document_is_valid_and_has_every_endpoint() -> None:
    SCHEMA.validate()
    listed = {(method, path) for method, path, _ in OPERATIONS}

    assert listed == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert len({operation["operationId"] for _, _, operation in OPERATIONS}) == len(OPERATIONS)


def test_the_api_serves_its_document(office: Office) -> None:
    answer = office.both("GET", "/openapi.json", token=office.token())

    assert answer.json == json.loads(json.dumps(DOCUMENT))


@pytest.fixture
def office() -> Office:
    return Office()


WITH_IDS = [row for row in OPERATIONS if "{" in row[1]]


@pytest.mark.parametrize("caller", ["admin key", "administrator", "approver", "auditor", "nobody"])
@pytest.mark.parametrize(
    ("method", "path", "operation"), WITH_IDS, ids=[f"{row[0]} {row[1]}" for row in WITH_IDS]
)
def test_another_organization_s_object_is_answered_as_one_that_does_not_exist(
    office: Office, caller: str, method: str, path: str, operation: Any
) -> None:
    foreign = Ids(office, "other")
    ghost = Ids.__new__(Ids)
    vars(ghost).update({name: like(value) for name, value in vars(foreign).items()})
    ghost.hint = foreign.hint
    who = {"token": office.token("admin")} if caller == "admin key" else {"person": caller}
    bodies = [least_body(operation)]
    if "ticket" in json.dumps(operation.get("requestBody", {})):
        bodies.append({"ticket": Ids(office, "acme").ticket})
    office.both("GET", "/me", **who)  # so that the key is known
    calls = counted(office)
    for body in bodies:
        call: dict[str, Any] = {"body": body, "headers": {"if-match": '"1"'}, **who}
        answer = office.both(method, foreign.path(path), **call)
        asked = calls.copy()
        calls.clear()

        assert answer == office.both(method, ghost.path(path), **call)
        assert calls == asked, "the store is asked as often, so that the time tells nothing"
        calls.clear()
        assert answer.status in (403, 404)
        assert answer.status == 404 or caller != "admin key"
    assert office.guard.keys.get(foreign.key).version == 1


@pytest.mark.parametrize("query", ["", "after={key}", "limit=1&after={key}"])
def test_a_cursor_of_another_organization_tells_nothing(office: Office, query: str) -> None:
    office.issue()
    foreign = Ids(office, "other")
    office.issue()
    token = office.token("admin")

    def keys(key: str) -> Any:
        path = "/organizations/acme/keys"
        return office.both("GET", path, query=query.format(key=key), token=token)

    assert keys(foreign.key) == keys(like(foreign.key))


# What each kind of caller may do in its own organization, by operation; the rest is 403 or 404.
_ADMINISTRATOR = {row[2]["operationId"] for row in OPERATIONS} - {
    "list_organizations",
    "create_organization",
    "show_own_usage",
    "withdraw_request",
    "claim_request",
    "reclaim_request",
}
_READ = {"show_caller", "show_document", "show_organization", "list_keys", "show_key"} | {
    *("show_limits", "list_audit_of_key", "report_usage_of_key", "list_requests", "show_request"),
    *("report_usage", "list_hints"),
}
_OWN = {"show_caller", "show_document", "list_keys", "show_key", "rotate_key", "revoke_key"} | {
    *("revoke_family", "show_limits", "list_audit_of_key", "report_usage_of_key"),
    *("list_requests", "show_request", "create_request", "withdraw_request"),
    *("claim_request", "reclaim_request"),
}
MAY = {
    "operator": _ADMINISTRATOR | {"list_organizations", "create_organization"},
    "administrator": _ADMINISTRATOR,
    "approver": _READ | {"approve_request", "deny_request", "rescind_request"},
    "auditor": _READ | {"list_audit"},
    "developer": _OWN,
    "nobody": {"show_caller", "show_document"},
    "admin": _ADMINISTRATOR | {"show_own_usage"},
    "analytics:read": {"show_caller", "show_document", "report_usage", "list_hints"}
    | {"show_own_usage", "list_requests"},
    "inference:read": {"show_caller", "show_document", "show_own_usage"},
}


@pytest.mark.parametrize("caller", MAY)
def test_each_caller_may_do_what_its_role_says_and_nothing_else(caller: str) -> None:
    done = set[str]()
    for method, path, operation in OPERATIONS:
        office = Office()
        ids = Ids(office, "acme")
        who = {"person": caller} if caller in PEOPLE else {"token": office.token(caller)}
        call: dict[str, Any] = {"body": least_body(operation), "headers": {"if-match": "*"}, **who}
        answer = office.call(method, ids.path(path), **call)
        if answer.status not in (401, 403, 404):
            done.add(operation["operationId"])
        elif operation["operationId"] == "dismiss_hint":  # there is no such hint
            done |= {"dismiss_hint"} & (MAY[caller] if answer.status == 404 else set())

    assert done == MAY[caller]


def fuzz(operation: Any, caller: str, examples: int) -> None:
    """Call an operation with generated values as one caller, most of them with real ids."""
    office = Office()
    ids = Ids(office, "acme")
    headers = {"Sec-Fetch-Site": "same-origin"}
    if caller in PEOPLE:
        headers["X-Person"] = caller
    elif caller == "holder":
        headers["Authorization"] = f"Bearer {office.token('inference:read', owner='dev')}"
    elif caller != "anonymous":
        headers["Authorization"] = f"Bearer {office.token(caller)}"
    positive, negative = (
        operation.as_strategy(generation_mode=mode)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )

    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
        database=None,
    )
    @given(case=st.one_of(positive, negative), is_real=st.integers(0, 3).map(bool))
    def run(case: Any, is_real: bool) -> None:
        if is_real:
            names = case.path_parameters or {}
            case.path_parameters = {name: getattr(ids, name) for name in names}
        response = case.call(app=office.fronts["wsgi"][1], headers=headers)
        case.validate_response(response, checks=CHECKS)

    run()


@pytest.mark.timeout(1800)
@pytest.mark.campaign("short")
@pytest.mark.parametrize(
    ("caller", "examples"),
    [
        pytest.param(caller, examples, id=f"{length}-{caller}")
        for length, examples, callers in (
            ("short", 3, ("operator", "developer", "admin")),
            ("long", 100, (*MAY, "anonymous", "holder")),
        )
        for caller in callers
    ],
)
def test_no_call_is_answered_by_what_the_document_does_not_say(caller: str, examples: int) -> None:
    for operation in SCHEMA.get_all_operations():
        fuzz(operation.ok(), caller, examples)
