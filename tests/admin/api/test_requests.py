"""Requests for keys over HTTP: asked, approved with less, claimed once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Allow, Person
from keyguard.core.management.requests import TICKETS
from tests.admin.api.calls import Got
from tests.admin.api.office import PEOPLE, Office

PATH = "/organizations/acme/requests"
BODY = {"name": "notebook", "scopes": ["inference:read", "inference:write"], "reason": "to try"}


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture(params=["asgi", "wsgi"])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Desk:
    """Calls about one request, through one front end."""

    def __init__(self, office: Office, front: str) -> None:
        self.office, self.front = office, front
        self.made = office.call("POST", PATH, BODY, front=front, person="developer")
        self.ticket = self.made.json["ticket"]
        self.path = self.made["location"]

    def call(self, step: str, body: object = None, **more: Any) -> Got:
        return self.office.call("POST", f"{self.path}/{step}", body, front=self.front, **more)

    def status(self) -> str:
        return str(self.office.both("GET", self.path, person="approver").json["status"])


@pytest.fixture
def desk(office: Office, front: str) -> Desk:
    return Desk(office, front)


def test_a_key_is_asked_for_approved_with_less_and_claimed_once(desk: Desk) -> None:
    assert (desk.made.status, desk.made.json["request"]["status"]) == (201, "pending")
    approved = desk.call("approve", {"scopes": ["inference:read"]}, person="approver")
    assert (approved.status, approved.json["granted"]["scopes"]) == (200, ["inference:read"])

    claimed = desk.call("claim", {"ticket": desk.ticket})

    assert claimed.status == 201
    key = claimed.json["key"]
    assert (key["owner"], key["scopes"]) == ("dev", ["inference:read"])
    me = desk.office.both("GET", "/me", token=claimed.json["token"])
    assert me.json["id"] == key["id"]
    again = desk.call("claim", {"ticket": desk.ticket})
    assert again.status == 410
    assert desk.call("claim", person="developer").status == 410


def test_the_requester_claims_without_the_ticket(desk: Desk) -> None:
    desk.call("approve", person="administrator")

    assert desk.call("claim", person="developer").status == 201


def test_who_has_neither_the_ticket_nor_asked_claims_nothing(desk: Desk) -> None:
    desk.call("approve", person="approver")
    wrong = Desk(desk.office, desk.front).ticket

    assert desk.call("claim").status == 401
    for answer in (
        desk.call("claim", person="approver"),
        desk.call("claim", person="stranger"),
        desk.call("claim", {"ticket": wrong}),
        desk.call("claim", {"ticket": "kgc_nothing"}),
    ):
        assert answer.status == 404
    assert desk.status() == "approved"


def test_a_ticket_of_a_request_that_waits_claims_nothing(desk: Desk) -> None:
    assert desk.call("claim", {"ticket": desk.ticket}).status == 409


def test_a_request_that_lapsed_is_gone(desk: Desk) -> None:
    desk.call("approve", person="approver")
    desk.office.clock.advance(timedelta(hours=73))

    assert desk.call("claim", {"ticket": desk.ticket}).status == 410


def test_a_repeated_claim_gives_the_same_key_without_its_token(desk: Desk) -> None:
    desk.call("approve", person="approver")
    call: dict[str, Any] = {"body": {"ticket": desk.ticket}, "headers": {"idempotency-key": "a"}}

    first, again = desk.call("claim", **call), desk.call("claim", **call)

    assert (again.status, again.json["token"]) == (201, None)
    assert again.json["key"] == first.json["key"]


def test_a_claimed_key_that_nobody_used_is_replaced(desk: Desk) -> None:
    desk.call("approve", person="approver")
    first = desk.call("claim", {"ticket": desk.ticket}).json["key"]["id"]

    again = desk.call("reclaim", {"ticket": desk.ticket})

    assert again.status == 201
    assert again.json["key"]["id"] != first
    desk.office.both("GET", "/me", token=again.json["token"])
    desk.office.guard.flush()
    assert desk.call("reclaim", {"ticket": desk.ticket}).status in (201, 409)


def test_nobody_decides_on_an_own_request(office: Office, front: str) -> None:
    made = office.call("POST", PATH, BODY, front=front, person="administrator")
    own = office.call("POST", f"{made['location']}/approve", front=front, person="administrator")

    assert own.status == 409


def test_a_developer_decides_nothing(desk: Desk) -> None:
    for step in ("approve", "deny", "rescind"):
        assert desk.call(step, person="developer").status == 403


def test_more_than_was_asked_for_is_not_granted(desk: Desk) -> None:
    answer = desk.call("approve", {"scopes": ["analytics:read"]}, person="approver")

    assert answer.status in (409, 422)
    assert desk.status() == "pending"


def test_a_decision_may_name_the_version_that_was_read(desk: Desk) -> None:
    stale = desk.call("deny", person="approver", headers={"if-match": '"9"'})

    assert stale.status == 412
    current = {"if-match": desk.made["etag"]}
    denied = desk.call("deny", {"note": "no"}, person="approver", headers=current)
    assert (denied.status, denied.json["note"]) == (200, "no")


def test_a_decision_with_a_version_can_be_repeated(desk: Desk) -> None:
    headers = {"if-match": desk.made["etag"], "idempotency-key": "a"}

    first = desk.call("approve", person="approver", headers=headers)
    again = desk.call("approve", person="approver", headers=headers)

    assert (first.status, again.status) == (200, 200)
    assert again.json == first.json
    other = headers | {"idempotency-key": "b"}
    assert desk.call("approve", person="approver", headers=other).status == 412


def test_several_approvers_are_counted(front: str) -> None:
    desk = Desk(Office({"approvals": {"inference:write": 2}}), front)

    first = desk.call("approve", person="approver", headers={"idempotency-key": "a"})
    again = desk.call("approve", person="approver", headers={"idempotency-key": "a"})
    assert (first.status, again.status) == (202, 202)
    assert desk.call("approve", person="approver").status == 409
    assert desk.call("approve", person="administrator").status == 200


def test_an_approval_is_taken_back(desk: Desk) -> None:
    desk.call("approve", person="approver")

    assert desk.call("rescind", person="administrator").json["status"] == "rescinded"
    assert desk.call("claim", {"ticket": desk.ticket}).status == 409


def test_a_request_is_withdrawn_by_its_ticket(desk: Desk) -> None:
    assert desk.call("withdraw", {"ticket": desk.ticket}).json["status"] == "withdrawn"
    assert desk.call("withdraw", person="developer").status == 409


def test_a_key_with_admin_is_claimed_after_a_fresh_sign_in_alone(front: str) -> None:
    office = Office({"catalogue": None})
    body = BODY | {"scopes": ["admin"]}
    path = office.call("POST", PATH, body, front=front, person="developer")["location"]

    def call(step: str, person: str = "developer") -> Got:
        return office.call("POST", f"{path}/{step}", front=front, person=person)

    assert call("approve", "operator").status == 200
    for step in ("claim", "reclaim"):
        office.signed_in_before = timedelta(minutes=11)
        assert call(step).status == 403
        assert call(step, "stranger").status == 404
        office.signed_in_before = timedelta(0)
        assert call(step).status == 201


@pytest.mark.parametrize("holder", ["dev", None])
def test_a_key_claims_what_it_asked_for_whoever_holds_it(
    office: Office, front: str, holder: str | None
) -> None:
    token = office.token("admin", owner=holder)
    path = office.call("POST", PATH, BODY, front=front, token=token)["location"]
    approved = office.call("POST", f"{path}/approve", front=front, person="administrator")
    assert approved.status == 200

    claimed = office.call("POST", f"{path}/claim", front=front, token=token)

    assert (claimed.status, claimed.json["key"]["owner"]) == (201, approved.json["requester"])


def test_who_has_lost_every_role_gets_no_repeated_claim(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.call("approve", person="approver")
    call: dict[str, Any] = {"person": "developer", "headers": {"idempotency-key": "a"}}
    assert desk.call("claim", **call).status == 201
    assert desk.call("claim", **call).status == 201

    monkeypatch.setitem(PEOPLE, "developer", Person(id="dev"))

    assert desk.call("claim", **call).status == 404


@pytest.mark.parametrize("step", ["claim", "reclaim", "withdraw"])
def test_a_ticket_that_does_not_fit_is_a_failed_attempt(front: str, step: str) -> None:
    desk = Desk(Office({"failure_limit": "3/minute"}), front)
    desk.call("approve", person="approver")
    wrong = {"ticket": Desk(desk.office, front).ticket}
    forged = {"ticket": _forged(desk.ticket)}

    found = [desk.call(step, body).status for body in (wrong, forged, {"ticket": "kgc_x"}, forged)]

    assert found == [404, 404, 404, 429]
    blocked = desk.call("claim", {"ticket": desk.ticket})
    assert (blocked.status, int(blocked["retry-after"]) > 0) == (429, True)
    assert desk.call("deny", person="stranger").status == 404, "whom the host knows goes on"
    desk.office.clock.advance(timedelta(minutes=2))
    assert desk.call("claim", {"ticket": desk.ticket}).status == 201


def test_a_call_without_a_fitting_ticket_leaves_no_note(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    for guard in (desk.office.guard, desk.office.async_guard):
        monkeypatch.setattr(guard.management.temporary, "put", fail)
    headers = {"idempotency-key": "a"}
    for path in ("/requests/nonsense", f"/requests/req_{'A' * 16}", desk.path):
        for ticket in (_forged(desk.ticket), "kgc_x"):
            body = {"ticket": ticket}
            claim = desk.office.call(
                "POST", f"{path}/claim", body, front=desk.front, headers=headers
            )
            assert claim.status == 404


def _forged(ticket: str) -> str:
    """Return a well-formed ticket that names the same request."""
    parts = TICKETS.parse(ticket)
    assert parts is not None
    return TICKETS.mint(replace(parts, secret="x" * len(parts.secret))).reveal()


def test_too_many_open_requests_are_refused(office: Office) -> None:
    for _ in range(5):
        assert office.call("POST", PATH, BODY, person="developer").status == 201
    assert office.call("POST", PATH, BODY, person="developer").status == 409


def test_requests_are_listed(desk: Desk) -> None:
    office = desk.office
    theirs = office.call("POST", PATH, BODY, person="administrator").json["request"]["id"]

    def ids(query: str = "", **who: str) -> list[str]:
        return [item["id"] for item in office.both("GET", PATH, query=query, **who).json["items"]]

    mine = desk.made.json["request"]["id"]
    assert sorted(ids(person="approver")) == sorted([mine, theirs])
    assert ids(person="developer") == [mine]
    assert ids("requester=dev", person="auditor") == [mine]
    assert ids("status=claimed", person="auditor") == []
    assert office.both("GET", PATH, query="requester=ada", person="developer").status == 404
    assert office.both("GET", f"/requests/{theirs}", person="developer").status == 404


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_a_decision_is_on_the_version_of_if_match_even_if_it_changes_meanwhile(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office({"approvals": {"inference:read": 3}})
    requests = office.guard.requests
    asked = requests.create(
        organization="acme", name="x", scopes=["inference:read"], actor="dev"
    ).request
    decide = getattr(office.guard.management.requests, verb)

    async def late(*arguments: Any, **options: Any) -> Any:
        requests.approve(asked.id, actor="abe")
        return await decide(*arguments, **options)

    monkeypatch.setattr(office.guard.management.requests, verb, late)
    path, who = f"/requests/{asked.id}/{verb}", {"person": "administrator"}

    assert office.call("POST", path, {}, headers={"if-match": '"1"'}, **who).status == 412
    assert requests.get(asked.id).decided_by == ("abe",)


@pytest.mark.parametrize("holder", ["dev", None])
def test_a_key_that_decides_on_no_requests_sees_what_it_asked_for_alone(
    office: Office, front: str, holder: str | None
) -> None:
    guard = office.guard
    token = office.token("analytics:read", "inference:read", owner=holder)
    decision = guard.authenticate([f"Bearer {token}"])
    assert isinstance(decision, Allow)
    terms: dict[str, Any] = {"organization": "acme", "name": "n", "scopes": ["inference:read"]}
    own = guard.requests.create(**terms, actor=decision.principal).request
    of_holder = guard.requests.create(**terms, actor=PEOPLE["developer"]).request
    guard.requests.create(**terms, actor="somebody")

    def call(path: str) -> Got:
        return office.call("GET", path, front=front, token=token)

    listed = call(PATH)
    assert [item["id"] for item in listed.json["items"]] == [own.id], listed.json
    assert call(f"/requests/{own.id}").status == 200
    assert call(f"/requests/{of_holder.id}").status == 404
    assert call(f"{PATH}?requester=somebody").status == 404
