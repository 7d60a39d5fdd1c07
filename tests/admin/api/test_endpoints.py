"""What each endpoint does for whom it serves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Limit, Rule, StoreUnavailableError
from keyguard.runtime.events import AccessRefused
from keyguard.runtime.sync import run_sync
from tests.admin.api.office import Office
from tests.test_secrecy import frames_of_keyguard, shows

DAY = 24 * 60 * 60


@pytest.fixture
def office() -> Office:
    return Office(options={"plans": {"pro": {}}})


@pytest.fixture(params=["asgi", "wsgi"])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_operator_creates_an_organization(office: Office, front: str) -> None:
    made = office.call(
        "POST",
        "/organizations",
        {
            "slug": "new",
            "name": "New Inc.",
            "scopes": ["inference:read"],
            "max_key_lifetime": 30 * DAY,
            "max_keys": 3,
            "limits": [{"name": "all", "rate": "10/minute", "per": "organization"}],
            "time_zone": "Europe/Berlin",
            "plan": "pro",
            "metadata": {"crm": "4711"},
        },
        front=front,
        person="operator",
    )

    assert made.status == 201, made.body
    assert made["location"] == f"/organizations/{made.json['id']}"
    assert (made.json["max_key_lifetime"], made.json["plan"]) == (30 * DAY, "pro")
    stored = office.guard.organizations.get("new")
    assert stored.metadata == made.json["metadata"] == {"crm": "4711"}
    assert stored.limits == (Limit("all", "10/minute", per="organization"),)
    assert office.call("GET", made["location"], person="operator").json == made.json


def test_a_slug_that_is_taken_is_a_conflict(office: Office) -> None:
    answer = office.both("POST", "/organizations", {"slug": "acme"}, person="operator")

    assert answer.status == 409


def test_only_operators_create_organizations(office: Office) -> None:
    for who in ({"person": "administrator"}, {"token": office.token("admin")}):
        assert office.both("POST", "/organizations", {"slug": "x"}, **who).status == 403


def test_organizations_are_listed_in_pages(office: Office) -> None:
    first = office.both("GET", "/organizations", person="operator", query="limit=1").json
    query = f"limit=1&after={first['next']}"
    second = office.both("GET", "/organizations", person="operator", query=query).json

    assert [item["slug"] for page in (first, second) for item in page["items"]] == ["acme", "other"]
    assert second["next"] is None


def test_a_change_names_the_version_that_was_read(office: Office, front: str) -> None:
    def change(headers: dict[str, str]) -> Any:
        body = {"name": "Acme & Sons"}
        return office.call(
            "PATCH",
            "/organizations/acme",
            body,
            front=front,
            person="administrator",
            headers=headers,
        )

    assert change({}).status == 428
    assert change({"if-match": '"7"'}).status == 412
    assert change({"if-match": 'W/"1"'}).status == 412
    changed = change({"if-match": '"1"'})
    assert (changed.status, changed["etag"], changed.json["name"]) == (200, '"2"', "Acme & Sons")
    assert change({"if-match": '"1"'}).status == 412
    assert change({"if-match": "*"}).status == 200


def test_only_an_operator_raises_a_ceiling(office: Office) -> None:
    office.guard.organizations.update("acme", max_keys=5)
    change: dict[str, Any] = {"body": {"max_keys": 6}, "headers": {"if-match": "*"}}

    assert (
        office.call("PATCH", "/organizations/acme", person="administrator", **change).status == 403
    )
    assert office.call("PATCH", "/organizations/acme", person="operator", **change).status == 200


def test_an_organization_is_paused_and_goes_on(office: Office, front: str) -> None:
    path = "/organizations/acme"
    paused = office.call("POST", f"{path}/disable", front=front, person="administrator")
    token = office.token("admin", organization="other")
    assert paused.json["disabled_at"] is not None
    assert office.both("GET", "/organizations/acme", token=token).status == 404

    going = office.call("POST", f"{path}/enable", front=front, person="administrator")
    assert going.json["disabled_at"] is None


def test_a_key_is_issued_and_shown_once(office: Office, front: str) -> None:
    made = office.call(
        "POST",
        "/organizations/acme/keys",
        {
            "name": "build",
            "scopes": ["inference:read"],
            "expires_in": DAY,
            "metadata": {"team": "ml"},
            "limits": [{"name": "key", "rate": "60/minute"}],
            "allowed_networks": ["192.0.2.0/24"],
            "owner": "dev",
        },
        front=front,
        person="administrator",
    )

    assert made.status == 201, made.body
    key = made.json["key"]
    assert made["location"] == f"/keys/{key['id']}"
    assert made["etag"] == '"1"'
    shown = office.both("GET", made["location"], token=made.json["token"])
    assert shown.status == 403, "a key that may not read keys"
    assert office.both("GET", made["location"], person="developer").json == key
    assert (key["owner"], key["metadata"], key["status"]) == ("dev", {"team": "ml"}, "active")


def test_an_organization_in_the_body_is_that_of_the_path(office: Office) -> None:
    body = {"name": "a", "organization": "other"}
    answer = office.both("POST", "/organizations/acme/keys", body, person="administrator")

    assert answer.status == 422


def test_a_key_beyond_the_ceiling_is_refused(office: Office) -> None:
    office.guard.organizations.update("acme", scopes=["inference:read"])
    body = {"name": "a", "scopes": ["inference:write"]}
    answer = office.both("POST", "/organizations/acme/keys", body, person="operator")

    assert answer.status == 422


def test_what_reaches_far_takes_a_fresh_sign_in(office: Office) -> None:
    office.signed_in_before = timedelta(minutes=11)
    body = {"name": "a", "scopes": ["admin"]}
    stale = office.both("POST", "/organizations/acme/keys", body, person="administrator")

    assert stale.status == 403
    assert office.both("POST", "/organizations/acme/disable", person="operator").status == 403
    ceiling: dict[str, Any] = {"body": {"max_keys": 1}, "headers": {"if-match": "*"}}
    assert office.both("PATCH", "/organizations/acme", person="operator", **ceiling).status == 403
    body = {"name": "a", "scopes": ["inference:read"]}
    made = office.call("POST", "/organizations/acme/keys", body, person="administrator")
    assert made.status == 201


def test_a_repeated_issue_makes_no_second_key(office: Office, front: str) -> None:
    def issue(name: str = "a", who: str = "administrator") -> Any:
        headers = {"idempotency-key": "order-7"}
        return office.call(
            "POST",
            "/organizations/acme/keys",
            {"name": name},
            front=front,
            person=who,
            headers=headers,
        )

    first, again = issue(), issue()

    assert (again.status, again["location"]) == (201, first["location"])
    assert (first.json["token"] is None, again.json["token"]) == (False, None)
    assert again.json["key"] == first.json["key"]
    assert issue("b").status == 422
    assert issue(who="operator").json["key"]["id"] != first.json["key"]["id"]
    office.clock.advance(timedelta(hours=25))
    assert issue().json["token"] is not None


def test_a_repeated_refusal_is_decided_again(office: Office, front: str) -> None:
    def issue(name: str) -> Any:
        headers = {"idempotency-key": "order-7"}
        body = {"name": name, "expires_in": DAY, "expires_at": "2030-01-01T00:00:00Z"}
        path = "/organizations/acme/keys"
        return office.call("POST", path, body, front=front, person="administrator", headers=headers)

    assert issue("a").status == 422
    assert "not both" in issue("b").json["detail"]


def test_a_call_that_is_under_way_is_not_done_twice(office: Office) -> None:
    from keyguard.admin.api import repeats

    path, headers = "/organizations/acme/keys", {"idempotency-key": "a"}
    call: dict[str, Any] = {"person": "administrator", "headers": headers}
    made = office.call("POST", path, {"name": "a"}, **call)
    digest = repeats._digest("person:ada", "POST", path, "a")
    asked = repeats._digest('{"name": "a"}')
    end = office.clock.now + repeats.KEPT
    under_way = repeats.Temporary("idempotency", digest, f'["{asked}", null]', end)
    run_sync(office.guard.management.temporary.replace(under_way))

    answer = office.both("POST", path, {"name": "a"}, **call)

    assert made.status == 201
    assert (answer.status, answer["retry-after"]) == (409, "1")


@pytest.mark.parametrize("late", [False, True])
def test_a_key_is_shown_though_its_note_fails_and_no_second_one_is_made(
    office: Office, monkeypatch: pytest.MonkeyPatch, front: str, late: bool
) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailableError("gone")

    path = "/organizations/acme/keys"
    call: dict[str, Any] = {
        "body": {"name": "a"},
        "front": front,
        "person": "administrator",
        "headers": {"idempotency-key": "a"},
    }
    for guard in (office.guard, office.async_guard):
        monkeypatch.setattr(guard.management.temporary, "replace", fail)

    first = office.call("POST", path, **call)
    office.clock.advance(timedelta(hours=23 if late else 0))
    again = office.call("POST", path, **call)

    assert first.status == 201
    assert first.json["token"] is not None
    assert (again.status, "retry-after" in dict(again.headers)) == (409, not late)
    assert "list the keys, revoke" in again.json["detail"]
    assert len(office.guard.keys.list(organization="acme").items) == 1


def test_a_call_that_was_cancelled_after_its_commit_makes_no_second_key(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(*_: object) -> None:
        raise asyncio.CancelledError

    path = "/organizations/acme/keys"
    call: dict[str, Any] = {
        "body": {"name": "a"},
        "front": "asgi",
        "person": "administrator",
        "headers": {"idempotency-key": "a"},
    }
    with monkeypatch.context() as patch:
        patch.setattr(office.async_guard.management.temporary, "replace", stop)
        with pytest.raises(asyncio.CancelledError):
            office.call("POST", path, **call)
    office.clock.advance(timedelta(minutes=2))

    assert office.call("POST", path, **call).status == 409
    assert len(office.guard.keys.list(organization="acme").items) == 1


def test_a_refusal_is_told_though_its_note_stays(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(office.guard.management.temporary, "drop", fail)
    body = {"name": "a", "expires_in": DAY, "expires_at": "2030-01-01T00:00:00Z"}
    headers = {"idempotency-key": "a"}
    path = "/organizations/acme/keys"

    assert office.call("POST", path, body, person="administrator", headers=headers).status == 422


def test_keys_are_listed(office: Office) -> None:
    mine = office.issue(owner="dev").key.id
    office.clock.advance(timedelta(seconds=1))
    office.issue()
    office.issue(organization="other")

    def ids(query: str = "", **who: str) -> list[str]:
        answer = office.both("GET", "/organizations/acme/keys", query=query, **who)
        return [item["id"] for item in answer.json["items"]]

    assert len(ids(person="auditor")) == 2
    assert ids(person="developer") == [mine]
    assert ids("owner=dev", person="auditor") == [mine]
    assert (
        office.both("GET", "/organizations/acme/keys", query="owner=ada", person="developer").status
        == 404
    )


def test_keys_are_found_by_their_name_or_id(office: Office) -> None:
    issue = office.guard.keys.issue
    mine = issue(organization="acme", name="laptop", owner="dev").key.id
    other = issue(organization="acme", name="lamp").key.id
    foreign = issue(organization="other", name="laptop").key.id

    def ids(search: str, person: str = "auditor") -> list[str]:
        path = "/organizations/acme/keys"
        answer = office.both("GET", path, query=f"search={search}", person=person)
        return [item["id"] for item in answer.json["items"]]

    assert ids("la") == [other, mine]
    assert ids("lap") == ids(mine) == ids("la", "developer") == [mine]
    assert ids(foreign) == ids("nothing") == ids(other, "developer") == []
    foreign_path = "/organizations/other/keys"
    assert office.both("GET", foreign_path, query="search=la", person="auditor").status == 404


def test_a_key_is_changed(office: Office, front: str) -> None:
    key = office.issue("inference:read", expires_in=timedelta(days=1)).key
    body = {"name": "new", "scopes": [], "expires_at": None, "owner": "dev", "metadata": {"a": "b"}}
    headers = {"if-match": '"1"'}

    changed = office.call(
        "PATCH", f"/keys/{key.id}", body, front=front, person="administrator", headers=headers
    )

    assert (changed.status, changed["etag"]) == (200, '"2"')
    assert {name: changed.json[name] for name in body} == body


def test_a_revoked_key_can_not_be_changed(office: Office) -> None:
    key = office.issue().key
    office.guard.keys.revoke(key.id)
    change: dict[str, Any] = {"person": "administrator", "headers": {"if-match": "*"}}

    assert office.both("PATCH", f"/keys/{key.id}", {"name": "new"}, **change).status == 409


def test_a_key_is_rotated_once(office: Office, front: str) -> None:
    key = office.issue(owner="dev").key
    path = f"/keys/{key.id}/rotate"

    def rotate(**headers: str) -> Any:
        return office.call(
            "POST", path, {"grace": 60}, front=front, person="developer", headers=headers
        )

    first = rotate(**{"idempotency-key": "a"})
    again = rotate(**{"idempotency-key": "a"})

    successor = first.json["key"]["id"]
    assert (first.status, first.json["predecessor"]["id"]) == (201, key.id)
    assert (again.json["key"]["id"], again.json["token"]) == (successor, None)
    other = rotate()
    assert (other.status, successor in other.json["detail"]) == (409, True)


def test_a_rotation_is_repeated_by_the_same_caller_with_the_same_body_alone(
    office: Office,
) -> None:
    path = f"/keys/{office.issue(owner='dev').key.id}/rotate"
    headers = {"idempotency-key": "a"}

    def rotate(who: str, grace: int = 60) -> int:
        call: dict[str, Any] = {"body": {"grace": grace}, "headers": headers}
        return office.call("POST", path, person=who, **call).status

    assert [rotate("developer"), rotate("developer")] == [201, 201]
    assert [rotate("administrator"), rotate("developer", 90)] == [409, 409]


def test_an_admin_key_is_rotated_and_changed_after_a_fresh_sign_in_alone(office: Office) -> None:
    path = f"/keys/{office.issue('admin').key.id}"
    office.issue("admin")
    office.signed_in_before = timedelta(minutes=11)
    change: dict[str, Any] = {"body": {"owner": "ada"}, "headers": {"if-match": "*"}}

    assert office.both("POST", f"{path}/rotate", person="administrator").status == 403
    assert office.both("PATCH", path, person="administrator", **change).status == 403
    less: dict[str, Any] = {"body": {"scopes": ["inference:read"], "owner": "ada"}}
    less |= {"headers": {"if-match": "*"}}
    assert office.both("PATCH", path, person="administrator", **less).status == 403
    office.signed_in_before = timedelta(0)
    assert office.call("PATCH", path, person="administrator", **change).status == 200
    assert office.call("POST", f"{path}/rotate", person="administrator").status == 201


@pytest.mark.parametrize("failing", ["find_key", "find_organization"])
def test_a_store_that_fails_shows_no_token_in_our_frames(
    office: Office, front: str, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, checked = office.token("admin"), office.token()
    office.both("GET", "/me", token=own)

    def fail(*_: object, **__: object) -> Any:
        raise StoreUnavailableError("the store is down")

    monkeypatch.setattr(office.store, failing, fail)
    paths = {"find_key": "/check", "find_organization": "/organizations/acme/keys"}
    body = {"token": checked, "method": "GET", "path": "/", "name": checked}
    answer = office.call(
        "POST",
        paths[failing],
        {
            name: body[name]
            for name in (("token", "method", "path") if failing == "find_key" else ("name",))
        },
        front=front,
        token=own,
    )

    assert answer.status == 503
    causes = [event.cause for event in office.events if isinstance(event, AccessRefused)]
    assert len([cause for cause in causes if cause is not None]) == 1
    for cause in causes:
        seen = frames_of_keyguard(cause) if cause else ""
        assert not shows(seen, checked)
        assert not shows(seen, own)


def test_a_key_is_revoked_as_often_as_one_likes(office: Office, front: str) -> None:
    key = office.issue(owner="dev").key
    path = f"/keys/{key.id}/revoke"
    body = {"reason": "key compromise", "note": "found in a log"}

    answers = [office.call("POST", path, body, front=front, person="developer") for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json["revoked_reason"] == "key compromise"
    assert answers[0].json == answers[1].json


def test_the_last_administrator_stays(office: Office) -> None:
    issued = office.issue("admin")
    path = f"/keys/{issued.key.id}/revoke"

    assert office.both("POST", path, token=issued.token.reveal()).status == 409


def test_a_family_is_revoked(office: Office, front: str) -> None:
    key = office.issue(owner="dev").key
    office.guard.keys.rotate(key.id)
    path = f"/families/{key.family}/revoke"

    answer = office.call("POST", path, front=front, person="developer")

    assert [item["status"] for item in answer.json["items"]] == ["revoked", "revoked"]


def test_many_keys_are_revoked_each_for_itself(office: Office, front: str) -> None:
    key, gone = office.issue().key.id, office.issue().key.id
    office.guard.keys.revoke(gone)
    last = office.issue("admin").key.id
    foreign = office.issue(organization="other").key.id
    path = "/organizations/acme/keys/bulk"
    body = {"action": "revoke", "ids": [key, gone, last, foreign, "A" * 16]}

    def ask(**more: object) -> list[str]:
        answer = office.call("POST", path, body | more, front=front, person="administrator")
        return [item["result"] for item in answer.json["items"]]

    assert ask(dry_run=True) == ["revoked", "unchanged", "revoked", "unknown", "unknown"]
    assert ask() == ["revoked", "unchanged", "refused", "unknown", "unknown"]
    assert ask()[0] == "unchanged"
    assert office.guard.keys.get(foreign).revoked_at is None


def test_many_keys_are_found_by_a_filter(office: Office) -> None:
    mine = office.issue(owner="dev").key.id
    office.issue()
    path, body = "/organizations/acme/keys/bulk", {"action": "revoke", "owner": "dev"}

    answer = office.call("POST", path, body, person="administrator")

    assert answer.json == {"items": [{"id": mine, "result": "revoked"}]}


@pytest.mark.parametrize("body", [{}, {"ids": [], "owner": "dev"}, {"ids": ["a"] * 1001}])
def test_many_keys_are_named_by_at_most_1000_ids_or_a_filter(
    office: Office, body: dict[str, object]
) -> None:
    path = "/organizations/acme/keys/bulk"
    answer = office.both("POST", path, {"action": "revoke", **body}, person="administrator")

    assert answer.status == 422


def test_limits_tell_what_is_left(office: Office) -> None:
    key = office.issue(limits=["10/minute"], owner="dev").key
    answer = office.both("GET", f"/keys/{key.id}/limits", person="developer")

    (limit,) = answer.json["items"]
    assert (limit["quota"], limit["remaining"]) == (10, 10)


def test_a_key_that_was_deleted_is_not_found_and_the_trail_tells_of_it(office: Office) -> None:
    key = office.issue(owner="dev").key
    office.guard.keys.revoke(key.id)
    office.clock.advance(timedelta(seconds=1))  # lists are in the order of creation
    token = office.token("admin")
    office.clock.advance(timedelta(days=401))
    office.guard.keys.delete_ended(ended_for=timedelta(days=400))

    for path in (f"/keys/{key.id}", f"/keys/{key.id}/audit", f"/keys/{key.id}/limits"):
        assert office.both("GET", path, token=token).status == 404
    assert office.both("POST", f"/keys/{key.id}/revoke", {}, token=token).status == 404
    listed = office.both("GET", "/organizations/acme/keys", token=token, query=f"after={key.id}")
    assert [item["id"] for item in listed.json["items"]] == [token.split("_")[2]]
    trail = office.both("GET", "/organizations/acme/audit", token=token, query=f"subject={key.id}")
    assert [item["action"] for item in trail.json["items"]] == [
        "key.deleted", "key.revoked", "key.issued",
    ]  # fmt: skip


def test_the_audit_trail_is_read_in_pages_and_in_lines(office: Office) -> None:
    key = office.issue(owner="dev").key
    path = "/organizations/acme/audit"
    first = office.both("GET", path, person="auditor", query="limit=1")

    assert first.json["items"][0]["action"] == "key.issued"
    lines = office.both(
        "GET",
        path,
        person="auditor",
        query=f"limit=1&subject={key.id}",
        headers={"accept": "application/x-ndjson"},
    )
    assert lines["content-type"] == "application/x-ndjson"
    assert lines.json == first.json["items"][0]
    whole = office.both(
        "GET", path, person="auditor", query="limit=1", headers={"accept": "application/x-ndjson"}
    )
    assert whole["link"] == f'<?limit=1&after={first.json["next"]}>; rel="next"'
    assert office.both("GET", path, person="developer").status == 403
    own = office.both("GET", f"/keys/{key.id}/audit", person="developer")
    assert [item["subject"] for item in own.json["items"]] == [key.id]


def test_usage_is_reported_as_json_and_as_a_table(office: Office) -> None:
    issued = office.issue("analytics:read", owner="dev")
    token = issued.token.reveal()
    office.both("GET", "/usage/me", token=token)
    office.guard.flush()
    path = "/organizations/acme/usage"

    report = office.both("GET", path, token=token, query="group_by=key&step=hour")
    assert report.json["items"][0]["group"] == issued.key.id
    table = office.both(
        "GET", path, token=token, query="group_by=key", headers={"accept": "text/csv"}
    )
    assert table.body.startswith(b"start,end,group,n,units\r\n")
    part = office.both(
        "GET", path, token=token, query="step=hour&limit=1", headers={"accept": "text/csv"}
    )
    assert [name for name, _ in part.headers].count("link") == 0, "there is one hour"
    own = office.both("GET", f"/keys/{issued.key.id}/usage", person="developer")
    assert own.json["items"][0]["n"] == 1
    assert office.both("GET", path, token=token, query="step=second").status == 422


@pytest.mark.parametrize(
    "path", ["/organizations/acme/usage", "/organizations/acme/hints", "/usage/me"]
)
def test_a_service_without_usage_says_so(path: str) -> None:
    office = Office({"usage": False})

    assert office.both("GET", path, token=office.token("admin")).status == 501


def test_a_key_learns_of_its_own_usage(office: Office) -> None:
    answer = office.both("GET", "/usage/me", token=office.token(limits=["10/minute"]))

    assert answer.json["limits"][0]["quota"] == 10
    assert office.both("GET", "/usage/me", person="developer").status == 403


def test_hints_are_shown_and_dismissed(office: Office) -> None:
    key = office.issue(expires_in=timedelta(days=31)).key
    office.clock.advance(timedelta(days=2))
    path = "/organizations/acme/hints"
    (hint,) = office.both("GET", path, person="auditor").json["items"]

    assert hint["key_id"] == key.id
    dismissal = f"{path}/{hint['id']}/dismiss"
    assert office.both("POST", dismissal, person="auditor").status == 403
    assert office.call("POST", dismissal, person="administrator").status == 200
    assert office.both("GET", path, person="auditor").json["items"] == []


def check(office: Office, token: str, **more: object) -> Any:
    body = {"token": token, "method": "GET", "path": "/v1", **more}
    return office.both("POST", "/check", body, person="administrator").json


def test_a_request_is_checked_step_by_step(office: Office) -> None:
    issued = office.issue("inference:read", limits=["10/minute"])
    told = check(office, issued.token.reveal())

    assert (told["allowed"], told["key"]) == (True, issued.key.id)
    assert told["steps"][-1] == {
        "name": "limits",
        "passed": True,
        "detail": "key-minute: 10 of 10 left.",
    }
    assert office.guard.keys.get(issued.key.id).last_used_at is None


def test_a_check_says_where_a_request_fails() -> None:
    office = Office({"rules": [Rule("/v1/write", scopes=["inference:write"])]})
    issued = office.issue(allowed_networks=["192.0.2.0/24"])
    token = issued.token.reveal()

    def fails_at(**more: object) -> tuple[str, str]:
        told = check(office, token, **more)
        (failed,) = [step["name"] for step in told["steps"] if step["passed"] is False]
        return failed, told["reason"]

    assert fails_at(address="198.51.100.1") == ("networks", "address_not_allowed")
    assert check(office, token, address="192.0.2.1")["allowed"]
    assert fails_at(path="/v1//write") == ("rule", "path_ambiguous")
    assert fails_at(path="/v1/write") == ("scopes", "scope_missing")
    office.guard.keys.revoke(issued.key.id)
    assert fails_at() == ("status", "key_revoked")


def test_a_token_of_another_organization_is_checked_like_an_unknown_one(office: Office) -> None:
    foreign = office.token(organization="other")
    token = office.token()
    gone = Office().token()

    assert check(office, token)["key"] is not None
    assert check(office, foreign) == check(office, gone)
    assert check(office, gone)["reason"] == "key_unknown"
