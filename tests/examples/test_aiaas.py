"""The example services, called as their clients would."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import requests

from examples import aiaas
from tests.examples.running import FRAMEWORKS, KEYS, Service, Store, curl, running
from tests.telemetry.measured import parsed, sample

GOOD_BODY = b'{"model": "gpt-4", "prompt": "Hello"}'

# What each endpoint needs, and how it is called.
ENDPOINTS = {
    "inference:read": ("GET", "/v1/models", None),
    "inference:write": ("POST", "/v1/inference", GOOD_BODY),
    "analytics:read": ("GET", "/v1/analytics/usage", None),
    "admin": ("GET", "/v1/admin/keys", None),
}

UNPROCESSABLE = {
    b"": "The body is not JSON.",
    b"Hello": "The body is not JSON.",
    b'{"model": "gpt-4", "prompt": ': "The body is not JSON.",
    b'{"model": "gpt-4", "prompt": "\xff"}': "The body is not JSON.",
    b'{"model": "gpt-4", "prompt": NaN}': "The body is not JSON.",
    b'\xef\xbb\xbf{"model": "gpt-4", "prompt": "Hello"}': "The body is not JSON.",
    b"[" * 100_000: "The body is not JSON.",
    b'["gpt-4", "Hello"]': "The body is not a JSON object.",
    b"null": "The body is not a JSON object.",
    b'"model prompt"': "The body is not a JSON object.",
    b"{}": "The field 'model' is missing.",
    b'{"prompt": "Hello"}': "The field 'model' is missing.",
    b'{"model": "gpt-4"}': "The field 'prompt' is missing.",
    b'{"model": null, "prompt": "Hello"}': "The field 'model' is not a string.",
    b'{"model": "gpt-4", "prompt": ["Hello"]}': "The field 'prompt' is not a string.",
}


IMPOSSIBLE_REPORTS = {
    "start=yesterday": "'start'",
    "end=2026-02-30": "'end'",
    "start=": "'start'",
    "start=2026-01-01T00:00:00": "aware datetime",
    "start=2026-01-02&end=2026-01-01": "end must be later than start",
    "start=0001-01-01": "more than 1000 periods",
    "step=year": "step takes one of",
    "zone=Mars/Olympus": "time zone",
    "zone=../../etc/passwd": "time zone",
    "group_by=colour": "grouped by",
    "limit=0": "'limit'",
    "after=%00": "after takes",
}


def covers(granted: list[str], scope: str) -> bool:
    return scope in granted or "*" in granted or f"{scope.partition(':')[0]}:*" in granted


def run_curl(service: Service, token: str) -> tuple[int, Any]:
    """Run the issue's command line, with host and key filled in, and nothing but -s -w added."""
    done = subprocess.run(
        [
            curl(), "-X", "POST", f"{service.url}/v1/inference",
            "-H", f"Authorization: Bearer {token}",
            "-H", "Content-Type: application/json",
            "-d", '{"model": "gpt-4", "prompt": "Hello"}',
            "-s", "-w", "\n%{http_code}",
        ],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def post(service: Service, api_key: str) -> Any:
    url = f"{service.url}/v1/inference"
    response = requests.post(
        url,
        headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        json={"model": "gpt-4", "prompt": "Hello"},
        timeout=30,
    )
    response.raise_for_status()
    return response.json()


def test_curl_gets_an_answer(service: Service, store: Store) -> None:
    assert run_curl(service, store.token("writer")) == (200, {"model": "gpt-4", "output": "Hello"})


@pytest.mark.parametrize(("key", "status"), [("reader", 403), ("revoked", 401)])
def test_curl_is_refused(service: Service, store: Store, key: str, status: int) -> None:
    assert run_curl(service, store.token(key))[0] == status


def test_requests_gets_an_answer(service: Service, store: Store) -> None:
    assert post(service, store.token("writer")) == {"model": "gpt-4", "output": "Hello"}


@pytest.mark.parametrize(("key", "status"), [("reader", 403), ("revoked", 401)])
def test_requests_raises_when_a_key_is_refused(
    service: Service, store: Store, key: str, status: int
) -> None:
    with pytest.raises(requests.HTTPError) as refused:
        post(service, store.token(key))

    assert refused.value.response.status_code == status


def test_requests_raises_when_the_key_is_misspelt(service: Service) -> None:
    with pytest.raises(requests.HTTPError) as refused:
        post(service, "<your-api-key>")

    assert refused.value.response.status_code == 400


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_key_may_ask_60_times_a_minute(
    store: Store, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_LIMITER_TIMEOUT", "10")
    eager = store.issue("eager", ["inference:*"]).token.reveal()
    patient = store.issue("patient", ["inference:*"]).token.reveal()
    with running(framework, store.url) as service:

        def status(token: str) -> int:
            return service.call("/v1/inference", token, method="POST", body=GOOD_BODY).status

        # A few more than sixty, in case a new minute begins meanwhile.
        statuses = [status(eager) for _ in range(70)]
        refused = service.call("/v1/inference", eager, method="POST", body=GOOD_BODY)

        assert statuses[:60] == [200] * 60
        assert refused.status == 429
        assert json.loads(refused.body)["violated-policies"] == ["inference"]
        assert service.call("/v1/models", eager).status == 200
        assert status(patient) == 200


def test_a_page_of_another_origin_may_ask_and_reads_refusals(service: Service) -> None:
    url, origin = f"{service.url}/v1/inference", {"Origin": aiaas.ORIGIN}
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }

    answers = [
        requests.options(url, headers=origin | asks, timeout=30),
        requests.post(url, headers=origin, timeout=30),
    ]

    assert [answer.ok for answer in answers] == [True, False]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == aiaas.ORIGIN


def test_health_needs_no_key(service: Service) -> None:
    answer = service.call("/healthz")

    assert (answer.status, answer.body) == (200, b'{"status": "ok"}')


def test_metrics_need_no_key_and_count_the_decisions(service: Service, store: Store) -> None:
    def allowed() -> float:
        found = sample(
            parsed(service.call("/metrics").body.decode()),
            "keyguard_decisions_total",
            keyguard_outcome="allowed",
        )
        return found or 0

    before = allowed()
    assert service.call("/v1/models", store.token("reader")).status == 200

    assert allowed() == before + 1


@pytest.mark.parametrize("scope", ENDPOINTS)
def test_an_endpoint_lets_in_exactly_the_keys_with_its_scope(
    service: Service, store: Store, scope: str
) -> None:
    method, path, body = ENDPOINTS[scope]
    wanted = {key: 200 if covers(granted, scope) else 403 for key, (_, granted) in KEYS.items()}

    found = {
        key: service.call(path, store.token(key), method=method, body=body).status for key in KEYS
    }

    assert found == wanted


@pytest.mark.parametrize("scope", ENDPOINTS)
def test_an_endpoint_refuses_a_request_without_a_live_key(
    service: Service, store: Store, scope: str
) -> None:
    method, path, body = ENDPOINTS[scope]

    for token in (None, store.token("revoked"), store.token("everything")[:-1] + "!"):
        expected = 400 if token and token.endswith("!") else 401
        assert service.call(path, token, method=method, body=body).status == expected


def test_an_unknown_path_needs_a_key_too(service: Service, store: Store) -> None:
    assert service.call("/v2/models").status == 401
    assert service.call("/v2/models", store.token("nothing")).status == 404


@pytest.mark.parametrize("body", UNPROCESSABLE, ids=lambda body: body[:24].decode("latin-1"))
def test_a_malformed_body_is_422(service: Service, store: Store, body: bytes) -> None:
    answer = service.call("/v1/inference", store.token("writer"), method="POST", body=body)

    assert answer.status == 422
    assert ("content-type", "application/problem+json") in answer.headers
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": UNPROCESSABLE[body],
    }


def test_a_key_without_the_scope_learns_nothing_of_the_body(service: Service, store: Store) -> None:
    assert (
        service.call("/v1/inference", store.token("reader"), method="POST", body=b"{").status == 403
    )


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "", "1e1", "%EF%BC%91"])
def test_an_impossible_page_size_is_422(service: Service, store: Store, limit: str) -> None:
    answer = service.call(f"/v1/admin/keys?limit={limit}", store.token("admin"))

    assert answer.status == 422
    assert b"'limit'" in answer.body


def listed(service: Service, token: str, query: str = "") -> Any:
    answer = service.call(f"/v1/admin/keys{query}", token)
    assert answer.status == 200
    return json.loads(answer.body)


@pytest.mark.parametrize("organization", ["acme", "globex"])
def test_an_administrator_sees_only_the_keys_of_its_own_organization(
    service: Service, store: Store, organization: str
) -> None:
    own = store.guard.organizations.get(organization)
    admin = {"acme": "admin", "globex": "globex admin"}[organization]

    found = listed(service, store.token(admin))

    assert [key["id"] for key in found["keys"]] == [
        key.id for key in store.guard.keys.list(organization=own.id)
    ]
    assert not {key["id"] for key in found["keys"]} & {
        issued.key.id for issued in store.issued.values() if issued.key.organization != own.id
    }
    assert found["next"] is None


def test_a_listed_key_shows_all_but_its_secret(service: Service, store: Store) -> None:
    answer = service.call("/v1/admin/keys", store.token("admin"))
    shown = {key["name"]: key for key in json.loads(answer.body)["keys"]}
    writer = store.issued["writer"].key
    assert writer.expires_at is not None

    assert shown["writer"] == {
        "id": writer.id,
        "name": "writer",
        "scopes": ["inference:read", "inference:write"],
        "status": "active",
        "created_at": writer.created_at.isoformat(),
        "not_before": None,
        "expires_at": writer.expires_at.isoformat(),
        "revoked_at": None,
    }
    assert shown["revoked"]["status"] == "revoked"
    for issued in store.issued.values():
        assert issued.token.reveal()[-49:].encode() not in answer.body
    assert b"$sha256$" not in answer.body


def test_pages_add_up_to_the_whole_list(service: Service, store: Store) -> None:
    token, found, query = store.token("admin"), [], "?limit=2"
    while True:
        page = listed(service, token, query)
        found += page["keys"]
        if page["next"] is None:
            break
        assert len(page["keys"]) == 2
        query = f"?limit=2&after={page['next']}"

    assert found == listed(service, token)["keys"]


@pytest.mark.parametrize("after", ["another organization's", "0000000000000000", "%00", "'"])
def test_a_page_after_another_organizations_key_is_empty(
    service: Service, store: Store, after: str
) -> None:
    if after.startswith("another"):
        after = store.issued["globex reader"].key.id

    assert listed(service, store.token("admin"), f"?after={after}") == {"keys": [], "next": None}


def shown(service: Service, path: str, token: str) -> Any:
    answer = service.call(path, token)
    assert (answer.status, dict(answer.headers)["content-type"]) == (200, "application/json")
    return json.loads(answer.body)


def test_usage_is_that_of_the_callers_organization(store: Store, framework: str) -> None:
    owner = store.guard.organizations.create(f"busy-{framework}", time_zone="Asia/Kolkata")
    keys = {
        name: store.issue(name, scopes, organization=owner.id)
        for name, scopes in {"writer": ["inference:*"], "analyst": ["analytics:read"]}.items()
    }
    tokens = {name: issued.token.reveal() for name, issued in keys.items()}
    with running(framework, store.url) as service:
        for name in ("writer", "writer", "analyst"):
            service.call("/v1/inference", tokens[name], method="POST", body=GOOD_BODY)
        service.call("/v1/inference", store.token("writer"), method="POST", body=GOOD_BODY)
        service.flush()
        path = "/v1/analytics/usage"
        by_outcome = shown(service, f"{path}?group_by=outcome&step=month", tokens["analyst"])
        by_key = shown(service, f"{path}?group_by=key&limit=1", tokens["analyst"])
        own = shown(service, "/v1/usage/me", tokens["writer"])
        refused = service.call(path, tokens["writer"])

    items = [(item["group"], item["n"], item["units"]) for item in by_outcome["items"]]
    assert items == [("allowed", 2, 2), ("scope_missing", 1, 0)]
    assert by_outcome["items"][0]["start"].endswith("-01T00:00:00+05:30")
    assert (by_outcome["organization"], by_outcome["next"]) == (owner.id, None)
    assert by_key["next"] is not None
    assert len(by_key["items"]) == 1
    assert own["key"] == keys["writer"].key.id
    assert [(item["group"], item["n"]) for item in own["today"]] == [("allowed", 2)]
    assert refused.status == 403


def test_a_key_without_any_scope_sees_its_own_usage(service: Service, store: Store) -> None:
    own = shown(service, "/v1/usage/me", store.token("nothing"))

    assert list(own) == ["key", "today", "this_month", "limits", "as_of"]
    assert own["key"] == store.issued["nothing"].key.id


@pytest.mark.parametrize("query", IMPOSSIBLE_REPORTS)
def test_an_impossible_report_is_422(service: Service, store: Store, query: str) -> None:
    answer = service.call(f"/v1/analytics/usage?{query}", store.token("analyst"))

    assert answer.status == 422
    assert ("content-type", "application/problem+json") in answer.headers
    assert IMPOSSIBLE_REPORTS[query] in json.loads(answer.body)["detail"]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_revoked_key_is_refused_on_the_next_request(service: Service, store: Store) -> None:
    issued = store.issue("short-lived", ["inference:read"])
    token = issued.token.reveal()
    assert service.call("/v1/models", token).status == 200

    service.revoke(issued.key.id)

    assert service.call("/v1/models", token).status == 401


def test_a_key_that_another_process_revoked_is_refused_when_no_staleness_is_allowed(
    store: Store, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_MAX_STALENESS", "0")
    issued = store.issue("short-lived", ["inference:read"])
    token = issued.token.reveal()
    with running(framework, store.url) as service:
        assert service.call("/v1/models", token).status == 200

        store.guard.keys.revoke(issued.key.id)

        assert service.call("/v1/models", token).status == 401


def requests_of_all_kinds() -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = [
        {"path": "/healthz"},
        {"path": "/healthz", "method": "HEAD"},
        {"path": "/healthz", "key": "revoked"},
        {"path": "/v2/nothing"},
    ]
    for method, path, body in ENDPOINTS.values():
        if path != "/v1/analytics/usage":  # whose answer tells up to when requests were counted
            table.append({"path": path, "key": "everything", "method": method, "body": body})
        for key in ("nothing", "revoked"):
            table.append({"path": path, "key": key, "method": method, "body": body})
        for value in ("Basic YTpi", "Bearer", "Bearer\tx", "Bearer a,Bearer b", "bearer x", ""):
            table.append({"path": path, "authorization": value, "method": method, "body": body})
        table.append({"path": path, "method": method, "body": body})
    table += [{"path": "/v1/models", "method": "HEAD", "key": key} for key in ("reader", "admin")]
    table += [
        {"path": "/v1/inference", "key": "writer", "method": "POST", "body": body}
        for body in (*UNPROCESSABLE, '{"model": "\\ud83d", "prompt": "Grüße, 世界"}'.encode())
    ]
    table += [
        {"path": f"/v1/analytics/usage?{query}", "key": "analyst"} for query in IMPOSSIBLE_REPORTS
    ]
    table += [
        {"path": f"/v1/admin/keys?{query}", "key": "globex admin"}
        for query in (
            "limit=1",
            "limit=x",
            "limit=1&limit=2",
            "after=none",
            "a%00=%ff&;&=",
            "after",
        )
    ]
    return table


@pytest.mark.parametrize("request_", requests_of_all_kinds(), ids=str)
def test_both_services_give_the_same_bytes(
    services: dict[str, Service], store: Store, request_: dict[str, Any]
) -> None:
    key = request_.pop("key", None)
    if key is not None:
        request_["token"] = store.token(key)

    by_starlette, by_flask = (services[name].call(**request_) for name in FRAMEWORKS)

    assert by_flask == by_starlette
