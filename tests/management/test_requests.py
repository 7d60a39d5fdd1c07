"""A key is asked for by one, approved by another, and made when it is claimed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    Action,
    ApprovalRule,
    InvalidValueError,
    KeyRequest,
    KeyTerms,
    Limit,
    NotFoundError,
    OutdatedError,
    Person,
    RefusedError,
    RequestStatus,
    ScopeCatalogue,
    Secret,
)
from keyguard.core.keys.records import KeyRecord
from keyguard.core.management.request_parties import TICKETS
from keyguard.core.management.request_turns import MOST_A_DAY, MOST_OPEN
from keyguard.guard.store_ports import StorePort
from keyguard.runtime.events import KeyClaimed, RequestCreated, RequestDecided
from tests.stored import Stored
from tests.world import World

DAY = timedelta(days=1)
ENDS = {
    RequestStatus.DENIED: lambda guard, asked: guard.deny(asked.id, actor="bob"),
    RequestStatus.WITHDRAWN: lambda guard, asked: guard.withdraw(asked.id, actor="alice"),
}


def ask(stored: Stored, *scopes: str, actor: Any = "alice", **options: Any) -> Any:
    default = {"organization": "acme", "name": "laptop", "actor": actor, "scopes": scopes}
    return stored.guard.requests.create(**default | options)


def approved(stored: Stored, *scopes: str, **options: Any) -> Any:
    created = ask(stored, *scopes, **options)
    stored.guard.requests.approve(created.request.id, actor="bob")
    return created


def refuses(stored: Stored, why: str, operation: Callable[[], Any]) -> None:
    """Check that an operation is refused and changes nothing."""
    before = stored.trail()
    with pytest.raises(RefusedError, match=why):
        operation()
    assert stored.trail() == before


def unknown(stored: Stored, operation: Callable[[], Any]) -> None:
    """Check that an operation finds no request and changes nothing."""
    before = stored.trail()
    with pytest.raises(NotFoundError, match="there is no request 'req_"):
        operation()
    assert stored.trail() == before


def status(stored: Stored, request: KeyRequest) -> str:
    found: KeyRequest = stored.guard.requests.get(request.id)
    return found.status(stored.clock.now)


# The way of a request


@pytest.mark.parametrize("verb", ["approve", "deny", "rescind"])
def test_a_decision_is_on_the_version_that_was_read(verb: str) -> None:
    world = World({"approvals": {"admin": 2}})
    requests = world.guard.requests
    asked = requests.create(organization="acme", name="x", scopes=["admin"], actor="alice").request
    for approver in ("bob", "carol") if verb == "rescind" else ("bob",):
        now = requests.approve(asked.id, version=requests.get(asked.id).version, actor=approver)
    decide = getattr(requests, verb)

    with pytest.raises(OutdatedError):
        decide(asked.id, version=asked.version, actor="dave")

    assert requests.get(asked.id) == now
    assert decide(asked.id, version=now.version, actor="dave").version == now.version + 1


def test_what_is_asked_for_and_approved_is_claimed_once(stored: Stored) -> None:
    requests, terms = stored.guard.requests, KeyTerms(scopes=frozenset({"inference:read"}))
    created = ask(stored, "inference:read", reason="the nightly report")
    request = created.request
    assert (request.requester, request.asked, request.reason) == (
        "alice",
        terms,
        "the nightly report",
    )
    assert status(stored, request) == "pending"
    assert stored.guard.keys.list().items == ()

    request = requests.approve(request.id, note="for a month", actor="bob")
    assert (request.granted, request.decided_by, request.note) == (terms, ("bob",), "for a month")
    assert status(stored, request) == "approved"
    assert stored.guard.keys.list().items == ()

    issued = requests.claim(request.id, ticket=created.ticket)
    assert stored.lets_in(issued.token)
    assert (issued.key.name, issued.key.scopes) == ("laptop", {"inference:read"})
    assert issued.key.owner == "alice"
    request = requests.get(request.id)
    assert (request.key, status(stored, request)) == (issued.key.id, "claimed")
    refuses(stored, "is claimed", lambda: requests.claim(request.id, ticket=created.ticket))


def test_the_trail_says_who_did_what(stored: Stored) -> None:
    created = approved(stored)
    issued = stored.guard.requests.claim(created.request.id, ticket=created.ticket)

    told = [(entry.action, entry.actor, entry.subject) for entry in stored.trail()[1:]]
    request_id = created.request.id
    assert told == [
        (Action.REQUEST_CREATED, "alice", request_id),
        (Action.REQUEST_APPROVED, "bob", request_id),
        (Action.REQUEST_CLAIMED, f"ticket:{request_id}", request_id),
        (Action.KEY_ISSUED, f"ticket:{request_id}", issued.key.id),
    ]
    assert [entry.action for entry in stored.trail(subject=request_id)] == [
        a for a, _, s in told if s == request_id
    ]


def test_a_request_in_the_trail_has_its_terms(stored: Stored) -> None:
    ask(stored, "admin", expires_in=DAY, limits=["5/minute"], allowed_networks=["192.0.2.0/24"])

    after = stored.trail()[-1].after
    assert after["asked"] == {
        "scopes": ["admin"],
        "expires_in": 86400.0,
        "limits": [{"name": "key-minute", "rate": "5/minute", "per": "key"}],
        "allowed_networks": ["192.0.2.0/24"],
    }
    assert "digest" not in str(after)


def test_hooks_hear_of_a_request_and_of_no_secret(stored: Stored) -> None:
    created = ask(stored)
    stored.guard.requests.approve(created.request.id, actor="bob")
    stored.guard.requests.claim(created.request.id, actor="alice")
    stored.guard.requests.reclaim(created.request.id, actor="alice")
    stored.guard.requests.deny(ask(stored).request.id, actor="bob")

    kinds = [type(event) for event in stored.events]
    assert kinds == [
        RequestCreated, RequestDecided, KeyClaimed, KeyClaimed, RequestCreated, RequestDecided,
    ]  # fmt: skip
    assert created.ticket.reveal() not in repr(stored.events)


def test_the_lifetime_runs_from_the_claim(stored: Stored) -> None:
    created = approved(stored, expires_in=DAY)
    stored.clock.advance(2 * DAY)

    issued = stored.guard.requests.claim(created.request.id, actor="alice")

    assert issued.key.expires_at == stored.clock.now + DAY


def test_a_key_lasts_no_longer_than_its_organization_allows(stored: Stored) -> None:
    stored.guard.organizations.update("acme", max_key_lifetime=30 * DAY)
    refuses(stored, "at most 30 days", lambda: ask(stored, expires_in=31 * DAY))

    created = approved(stored)

    issued = stored.guard.requests.claim(created.request.id, actor="alice")
    assert issued.key.expires_at == stored.clock.now + 30 * DAY


# Time


def test_a_request_expires_after_a_week(stored: Stored) -> None:
    created = ask(stored)
    stored.clock.advance(7 * DAY)

    assert status(stored, created.request) == "expired"
    refuses(stored, "is expired", lambda: approve(stored, created.request))


def test_an_approval_lapses_after_three_days(stored: Stored) -> None:
    created = approved(stored)
    stored.clock.advance(3 * DAY)

    assert status(stored, created.request) == "lapsed"
    claim = stored.guard.requests.claim
    refuses(stored, "is lapsed", lambda: claim(created.request.id, ticket=created.ticket))


@pytest.mark.settings(request_lifetime=60.0, claim_lifetime=120.0)
def test_both_times_are_settings(stored: Stored) -> None:
    created = ask(stored)
    assert created.request.pending_until == stored.clock.now + timedelta(minutes=1)
    request = approve(stored, created.request)
    assert request.claim_by == stored.clock.now + timedelta(minutes=2)


def approve(stored: Stored, request: KeyRequest, **options: Any) -> Any:
    return stored.guard.requests.approve(request.id, **{"actor": "bob"} | options)


# Ends


@pytest.mark.parametrize("end", ENDS)
def test_a_request_that_ended_becomes_no_key(stored: Stored, end: RequestStatus) -> None:
    created = ask(stored)

    request = ENDS[end](stored.guard.requests, created.request)

    assert status(stored, request) == end
    requests, request_id = stored.guard.requests, created.request.id
    for operation in (
        lambda: requests.approve(request_id, actor="carol"),
        lambda: requests.deny(request_id, actor="carol"),
        lambda: requests.rescind(request_id, actor="carol"),
        lambda: requests.withdraw(request_id, ticket=created.ticket),
        lambda: requests.claim(request_id, ticket=created.ticket),
        lambda: requests.reclaim(request_id, ticket=created.ticket),
    ):
        refuses(stored, f"is {end}", operation)


def test_an_approval_is_taken_back_until_the_claim(stored: Stored) -> None:
    created, requests = approved(stored), stored.guard.requests
    request = requests.rescind(created.request.id, note="wrong team", actor="carol")
    assert (request.status(stored.clock.now), request.note) == ("rescinded", "wrong team")
    refuses(stored, "is rescinded", lambda: requests.claim(request.id, ticket=created.ticket))

    claimed = approved(stored)
    requests.claim(claimed.request.id, ticket=claimed.ticket)
    refuses(stored, "is claimed", lambda: requests.rescind(claimed.request.id, actor="carol"))


def test_who_asked_withdraws_also_what_is_approved(stored: Stored) -> None:
    created = approved(stored)

    stored.guard.requests.withdraw(created.request.id, ticket=created.ticket.reveal())

    assert status(stored, created.request) == "withdrawn"


# Who may do what


def test_nobody_decides_on_an_own_request(stored: Stored) -> None:
    created, requests = ask(stored), stored.guard.requests
    request_id = created.request.id

    refuses(stored, "own request", lambda: requests.approve(request_id, actor="alice"))
    refuses(stored, "own request", lambda: requests.deny(request_id, actor="alice"))
    approve(stored, created.request)
    refuses(stored, "own request", lambda: requests.rescind(request_id, actor="alice"))


def test_all_keys_of_a_family_are_one_party(stored: Stored) -> None:
    first = stored.issue("admin")
    created = ask(stored, actor=stored.principal(first))
    second = stored.guard.keys.rotate(first.key.id)
    assert created.request.requester == first.key.family
    successor = stored.principal(second)

    requests, request_id = stored.guard.requests, created.request.id
    refuses(stored, "own request", lambda: requests.approve(request_id, actor=successor))
    approve(stored, created.request)
    issued = requests.claim(request_id, actor=successor)
    assert issued.key.owner == first.key.family


def test_no_person_is_named_like_a_family(stored: Stored) -> None:
    with pytest.raises(InvalidValueError, match="can't name a person"):
        ask(stored, actor=stored.issue().key.family)


def test_somebody_has_to_ask(stored: Stored) -> None:
    with pytest.raises(InvalidValueError, match="say who asks"):
        ask(stored, actor=None)


def test_a_claim_takes_the_ticket_or_the_requester(stored: Stored) -> None:
    created, other = approved(stored), approved(stored)
    claim, request_id = stored.guard.requests.claim, created.request.id
    ticket = created.ticket.reveal()

    for wrong in (other.ticket, "", ticket[:-1], ticket + "x", "kgc_\x00\ud800", "é" * 70):
        unknown(stored, lambda wrong=wrong: claim(request_id, ticket=wrong))  # type: ignore[misc]
        unknown(stored, lambda wrong=wrong: claim("req_" + "0" * 16, ticket=wrong))  # type: ignore[misc]
    unknown(stored, lambda: claim(request_id, actor="carol"))
    with pytest.raises(InvalidValueError, match="give the ticket"):
        claim(request_id)
    assert claim(request_id, ticket=ticket).key.owner == "alice"


def test_who_approved_a_request_claims_nothing(stored: Stored) -> None:
    created, requests = approved(stored), stored.guard.requests

    unknown(stored, lambda: requests.claim(created.request.id, actor="bob"))
    for operation in (requests.claim, requests.withdraw):
        refuses(
            stored,
            "'bob' has decided on request",
            lambda operation=operation: operation(  # type: ignore[misc]
                created.request.id, ticket=created.ticket, actor="bob"
            ),
        )


def test_a_principal_reaches_only_requests_of_its_organization(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    actor = stored.principal(stored.issue("admin", organization="other"))
    created, requests = ask(stored), stored.guard.requests
    request_id = created.request.id

    unknown(stored, lambda: requests.approve(request_id, actor=actor))
    unknown(stored, lambda: requests.deny(request_id, actor=actor))
    unknown(stored, lambda: requests.rescind(request_id, actor=actor))
    unknown(stored, lambda: requests.get(request_id, organization="other"))
    with pytest.raises(NotFoundError, match="there is no organization 'acme'"):
        ask(stored, actor=actor)


def test_a_key_that_no_longer_works_asks_and_decides_nothing(stored: Stored) -> None:
    issued = stored.issue("admin")
    actor = stored.principal(issued)
    created = ask(stored)
    stored.guard.keys.revoke(issued.key.id, force=True)

    refuses(stored, "is revoked", lambda: ask(stored, actor=actor))
    refuses(stored, "is revoked", lambda: approve(stored, created.request, actor=actor))


@pytest.mark.settings(requesters="people")
def test_keys_may_be_kept_from_asking(stored: Stored) -> None:
    actor = stored.principal(stored.issue("admin"))
    refuses(stored, "only people may ask", lambda: ask(stored, actor=actor))
    ask(stored)


@pytest.mark.settings(requesters="nobody")
def test_a_service_may_take_no_requests(stored: Stored) -> None:
    refuses(stored, "nobody may ask", lambda: ask(stored))


def test_nobody_has_more_than_five_open_requests(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    created = [ask(stored) for _ in range(MOST_OPEN)]
    approve(stored, created[0].request)
    refuses(stored, "has 5 open requests", lambda: ask(stored))
    ask(stored, actor="carol")
    ask(stored, organization="other")

    stored.guard.requests.claim(created[0].request.id, actor="alice")
    stored.guard.requests.deny(created[1].request.id, actor="bob")
    ask(stored)
    ask(stored)
    refuses(stored, "has 5 open requests", lambda: ask(stored))
    stored.clock.advance(7 * DAY)
    ask(stored)


def test_nobody_asks_more_than_twenty_times_within_a_day(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    withdraw = stored.guard.requests.withdraw
    for number in range(MOST_A_DAY):
        if number == 1:
            stored.clock.advance(DAY / 2)
        withdraw(ask(stored).request.id, actor="alice")
    for _ in range(2):
        refuses(stored, "has made 20 requests in organization 'acme'", lambda: ask(stored))
    ask(stored, actor="carol")
    ask(stored, organization="other")

    stored.clock.advance(DAY / 2)
    ask(stored)
    refuses(stored, "has made 20 requests", lambda: ask(stored))
    stored.clock.advance(DAY / 2)
    ask(stored)


# What is granted


def test_less_is_granted_than_was_asked(stored: Stored) -> None:
    created = ask(stored, "inference:read", "analytics:read")

    request = approve(
        stored,
        created.request,
        scopes=["inference:read"],
        expires_in=DAY,
        limits=["5/minute"],
        allowed_networks=["192.0.2.0/24"],
    )

    key = stored.guard.requests.claim(request.id, actor="alice").key
    assert key.scopes == {"inference:read"}
    assert key.expires_at == stored.clock.now + DAY
    assert key.limits == (Limit("key-minute", "5/minute", per="key"),)
    assert key.allowed_networks == ("192.0.2.0/24",)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"scopes": ["inference:read", "admin"]}, "the scope admin"),
        ({"scopes": ["*"]}, r"the scope \*"),
        ({"expires_in": 2 * DAY}, "a later end"),
        ({"expires_in": None}, "a later end"),
        ({"allowed_networks": ()}, "other networks"),
        ({"allowed_networks": ["192.0.0.0/16"]}, "other networks"),
        ({"limits": ()}, "looser limits"),
        ({"limits": ["6/minute"]}, "looser limits"),
    ],
)
def test_no_more_is_granted_than_was_asked(
    stored: Stored, options: dict[str, Any], why: str
) -> None:
    created = ask(
        stored,
        "inference:read",
        expires_in=DAY,
        limits=["5/minute"],
        allowed_networks=["192.0.2.0/24"],
    )
    refuses(stored, f"never more: {why}", lambda: approve(stored, created.request, **options))


@pytest.mark.settings(catalogue=None)
def test_a_principal_grants_no_more_than_it_has(stored: Stored) -> None:
    own = stored.issue(
        "inference:read", "requests:approve", expires_in=10 * DAY, limits=["5/minute"]
    )
    actor = stored.principal(own)
    created = ask(stored, "inference:read", "admin", expires_in=9 * DAY)

    more = lambda **options: approve(stored, created.request, actor=actor, **options)  # noqa: E731
    refuses(stored, "does not have: admin", more)
    # the claim may come three days later
    refuses(stored, "can't let a key work for longer", lambda: more(scopes=["inference:read"]))
    request = more(scopes=["inference:read"], expires_in=7 * DAY)
    assert request.granted is not None
    assert request.granted.limits == own.key.limits


def test_nothing_above_the_ceiling_is_asked_approved_or_claimed(stored: Stored) -> None:
    organizations = stored.guard.organizations
    pending, ready = ask(stored, "admin"), approved(stored, "admin")
    organizations.update("acme", scopes=["inference:read"], force=True)

    refuses(stored, "may not have admin", lambda: ask(stored, "admin"))
    refuses(stored, "may not have admin", lambda: approve(stored, pending.request))
    claim = stored.guard.requests.claim
    refuses(stored, "may not have admin", lambda: claim(ready.request.id, actor="alice"))


def test_a_claim_reads_the_organization_anew(stored: Stored) -> None:
    organizations, requests = stored.guard.organizations, stored.guard.requests
    long, other = approved(stored, expires_in=9 * DAY), approved(stored)
    organizations.update("acme", max_key_lifetime=8 * DAY)
    refuses(stored, "work for at most", lambda: requests.claim(long.request.id, actor="alice"))
    organizations.disable("acme")
    refuses(stored, "is disabled", lambda: requests.claim(other.request.id, actor="alice"))
    refuses(stored, "is disabled", lambda: ask(stored))
    organizations.enable("acme")
    organizations.update("acme", max_keys=1)
    stored.issue()
    refuses(stored, "at most 1 keys", lambda: requests.claim(other.request.id, actor="alice"))


# Several approvers


@pytest.mark.settings(approvals={"admin": 2})
def test_some_scopes_need_several_approvers(stored: Stored) -> None:
    created, claim = ask(stored, "*"), stored.guard.requests.claim
    request = approve(stored, created.request, scopes=["admin", "inference:read"])
    assert request.status(stored.clock.now) == "pending"
    refuses(stored, "is pending", lambda: claim(request.id, ticket=created.ticket))
    refuses(stored, "'bob' has approved", lambda: approve(stored, request))
    refuses(
        stored,
        r"never more: the scope \*",
        lambda: approve(stored, request, scopes=["*"], actor="carol"),
    )

    request = approve(stored, request, actor="carol")

    assert (request.status(stored.clock.now), request.decided_by) == ("approved", ("bob", "carol"))
    assert claim(request.id, ticket=created.ticket).key.scopes == {"admin", "inference:read"}


@pytest.mark.settings(approvals={"admin": 2})
def test_what_is_left_of_a_request_may_need_one_approver(stored: Stored) -> None:
    created = ask(stored, "admin", "inference:read")

    request = approve(stored, created.request, scopes=["inference:read"])

    assert request.status(stored.clock.now) == "approved"


# Rules


READERS = ApprovalRule(
    name="readers",
    scopes=["inference:read", "admin"],
    longest=30 * DAY,
    requesters=["*@acme.example"],
)


@pytest.mark.settings(approval_rules=[READERS], approvals={"admin": 2})
def test_a_rule_approves_what_it_admits(stored: Stored) -> None:
    created = ask(stored, "inference:read", expires_in=DAY, actor="ann@acme.example")
    assert created.request.decided_by == ("rule:readers",)
    assert [entry.actor for entry in stored.trail()[-2:]] == ["ann@acme.example", "rule:readers"]
    assert [type(event) for event in stored.events] == [RequestCreated, RequestDecided]
    issued = stored.guard.requests.claim(created.request.id, ticket=created.ticket)
    assert stored.lets_in(issued.token)

    for scope, span, requester in (
        ("inference:write", DAY, "ann@acme.example"),
        ("inference:read", 31 * DAY, "ann@acme.example"),
        ("inference:read", None, "ann@acme.example"),
        ("inference:read", DAY, "ann@other.example"),
        ("admin", DAY, "ben@acme.example"),  # needs two
    ):
        request = ask(stored, scope, expires_in=span, actor=requester).request
        assert request.status(stored.clock.now) == "pending", scope


# Reclaiming


def test_a_key_that_nobody_used_is_claimed_again(stored: Stored) -> None:
    created, requests = approved(stored, "admin", expires_in=9 * DAY), stored.guard.requests
    lost = requests.claim(created.request.id, ticket=created.ticket)
    stored.clock.advance(DAY)

    found = requests.reclaim(created.request.id, ticket=created.ticket)

    assert not stored.lets_in(lost.token)
    assert stored.lets_in(found.token)
    assert (found.key.family, found.key.expires_at) == (lost.key.family, lost.key.expires_at)
    assert found.key.owner == "alice"
    assert requests.get(created.request.id).key == found.key.id
    assert [entry.action for entry in stored.trail()[-3:]] == [
        Action.REQUEST_RECLAIMED, Action.KEY_REVOKED, Action.KEY_ISSUED,
    ]  # fmt: skip


def test_a_key_is_claimed_again_within_three_days_after_its_time(stored: Stored) -> None:
    requests, created = stored.guard.requests, approved(stored)
    requests.claim(created.request.id, ticket=created.ticket)
    stored.clock.advance(timedelta(hours=144) - timedelta(seconds=1))
    requests.reclaim(created.request.id, ticket=created.ticket)
    stored.clock.advance(timedelta(seconds=1))
    refuses(
        stored,
        "was approved too long ago",
        lambda: requests.reclaim(created.request.id, ticket=created.ticket),
    )


def test_a_key_that_was_used_or_changed_hands_is_not(stored: Stored) -> None:
    requests = stored.guard.requests
    used, rotated, gone, given, ended = (approved(stored, expires_in=DAY) for _ in range(5))
    keys = {
        created.request.id: requests.claim(created.request.id, actor="alice")
        for created in (used, rotated, gone, given, ended)
    }
    assert stored.lets_in(keys[used.request.id].token)
    stored.guard.flush()
    stored.guard.keys.rotate(keys[rotated.request.id].key.id)
    stored.guard.keys.revoke(keys[gone.request.id].key.id)
    stored.guard.keys.update(keys[given.request.id].key.id, owner="carol")

    def reclaim(created: Any) -> Any:
        return requests.reclaim(created.request.id, actor="alice")

    refuses(stored, "was used or rotated", lambda: reclaim(used))
    refuses(stored, "was used or rotated", lambda: reclaim(rotated))
    refuses(stored, "is revoked", lambda: reclaim(gone))
    refuses(stored, "has another owner", lambda: reclaim(given))
    unknown(stored, lambda: requests.reclaim(ended.request.id, actor="bob"))
    stored.clock.advance(DAY)
    with pytest.raises(InvalidValueError, match="already have expired"):
        reclaim(ended)


# Reading


def test_requests_are_listed_by_who_asked_and_how_they_stand(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    names: dict[str, KeyRequest] = {}
    for name in ("pending", "approved", "denied", "elsewhere"):
        stored.clock.advance(timedelta(seconds=1))
        where = "other" if name == "elsewhere" else "acme"
        actor = "carol" if name == "denied" else "alice"
        names[name] = ask(stored, name=name, organization=where, actor=actor).request
    approve(stored, names["approved"])
    stored.guard.requests.deny(names["denied"].id, actor="bob")

    def listed(**options: Any) -> list[str]:
        return [request.name for request in stored.guard.requests.list(**options)]

    assert listed() == [*names]
    assert listed(organization="acme") == ["pending", "approved", "denied"]
    assert listed(requester="alice") == ["pending", "approved", "elsewhere"]
    assert listed(statuses=["pending", "approved"], organization="acme") == ["pending", "approved"]
    assert listed(statuses=["denied"]) == ["denied"]
    page = stored.guard.requests.list(organization="acme", limit=2)
    assert [request.name for request in page] == ["pending", "approved"]
    assert listed(organization="acme", after=page.next) == ["denied"]
    stored.clock.advance(8 * DAY)
    assert listed(statuses=["expired"]) == ["pending", "elsewhere"]
    assert listed(statuses=["lapsed"]) == ["approved"]
    with pytest.raises(InvalidValueError, match="not a valid status of a request"):
        listed(statuses=["open"])


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"reason": "x" * 1001},
        {"reason": ""},
        {"scopes": ["nonsense"]},
        {"scopes": "admin"},
        {"expires_in": -DAY},
        {"expires_in": 5},
        {"limits": ["none"]},
        {"allowed_networks": ["everywhere"]},
        {"allowed_networks": "192.0.2.0/24"},
        {"actor": ""},
        {"actor": "x" * 201},
    ],
)
def test_what_is_not_valid_is_not_asked_for(stored: Stored, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        ask(stored, **options)
    assert stored.guard.requests.list().items == ()


def test_a_ticket_is_no_token_and_shows_which_request_is_its(stored: Stored) -> None:
    created = ask(stored)
    ticket = created.ticket.reveal()
    parts = TICKETS.parse(ticket)
    assert ticket.startswith("kgc_")
    assert parts is not None
    assert f"req_{parts.key_id}" == created.request.id
    assert not stored.lets_in(Secret(ticket))
    assert ticket not in f"{created!r} {created}"


def test_ids_that_are_none_find_nothing(stored: Stored) -> None:
    ticket = ask(stored).ticket.reveal()
    for nonsense in ("", "req_", "nothing", "req_" + "0" * 16, "org_" + "0" * 16, ticket):
        with pytest.raises(NotFoundError) as failed:
            stored.guard.requests.get(nonsense)
        assert ticket not in str(failed.value)


# People


def person(id: str, role: str | None = None, **options: Any) -> Person:
    return Person(id=id, roles={} if role is None else {"acme": role}, **options)


@pytest.mark.parametrize("role", ["administrator", "approver"])
def test_a_developer_asks_and_another_role_decides(stored: Stored, role: str) -> None:
    alice, bob = person("alice", "developer"), person("bob", role)
    created = ask(stored, "inference:read", actor=alice)
    assert created.request.requester == "alice"
    requests, request_id = stored.guard.requests, created.request.id

    refuses(
        stored,
        "developer of .*may not do that",
        lambda: approve(stored, created.request, actor=alice),
    )
    request = approve(stored, created.request, actor=bob)
    assert request.decided_by == ("bob",)
    unknown(stored, lambda: requests.claim(request_id, actor=bob))
    issued = requests.claim(request_id, actor=alice)

    assert issued.key.owner == "alice"
    assert [entry.actor for entry in stored.trail()[1:4]] == [
        "person:alice", "person:bob", "person:alice",
    ]  # fmt: skip


def test_other_people_decide_on_nothing(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    request = ask(stored).request

    auditor, stranger = person("carol", "auditor"), person("dan")
    elsewhere = Person(id="eve", roles={"other": "administrator"})
    refuses(
        stored, "auditor of organization 'acme'", lambda: approve(stored, request, actor=auditor)
    )
    for actor in (person("fay", "developer"), stranger, elsewhere):
        unknown(stored, lambda actor=actor: approve(stored, request, actor=actor))  # type: ignore[misc]
    with pytest.raises(NotFoundError, match="there is no organization 'acme'"):
        ask(stored, actor=stranger)


def test_an_approver_s_name_and_person_are_one_party(stored: Stored) -> None:
    request = ask(stored, actor="bob").request

    refuses(
        stored, "own request", lambda: approve(stored, request, actor=person("bob", "approver"))
    )


def test_an_operator_decides_on_requests_of_all(stored: Stored) -> None:
    request = approve(stored, ask(stored).request, actor=person("root", operator=True))
    assert request.decided_by == ("root",)


# One person with several names


@pytest.mark.settings(approvals={"admin": 2})
def test_a_person_and_the_keys_that_it_holds_are_one_party(stored: Stored) -> None:
    held = stored.principal(stored.issue("admin", owner="alice"))
    request = ask(stored, "admin", actor=person("alice", "administrator")).request
    refuses(stored, "own request", lambda: approve(stored, request, actor=held))

    theirs = ask(stored, "admin", actor=held).request
    alice = person("alice", "administrator")
    refuses(stored, "own request", lambda: approve(stored, theirs, actor=alice))

    created = ask(stored, "admin", actor="carol")
    approve(stored, created.request, actor=alice)
    refuses(stored, "has approved", lambda: approve(stored, created.request, actor=held))
    claim = stored.guard.requests.claim
    refuses(
        stored,
        "can't claim it",
        lambda: claim(created.request.id, ticket=created.ticket, actor=held),
    )


@pytest.mark.settings(approvals={"admin": 2})
def test_a_key_that_changes_hands_gives_nobody_a_second_approval(stored: Stored) -> None:
    key = stored.issue("admin", owner="alice").key
    held = stored.principal(stored.guard.keys.rotate(key.id))
    created = ask(stored, "admin", actor="carol")
    assert approve(stored, created.request, actor=held).decided_by == ("alice",)
    for held_now in stored.guard.keys.list(family=key.family):
        stored.guard.keys.update(held_now.id, owner="bob")

    for actor in (held, "alice", person("alice", "administrator"), "bob"):
        refuses(
            stored,
            "has approved",
            lambda actor=actor: approve(stored, created.request, actor=actor),  # type: ignore[misc]
        )
    assert approve(stored, created.request, actor="dan").decided_by == ("alice", "dan")


def test_keys_ask_as_who_holds_them(stored: Stored) -> None:
    keys = [stored.principal(stored.issue("admin", owner="alice")) for _ in range(2)]
    created = [ask(stored, actor=actor) for actor in [*keys, "alice", "alice", keys[0]]]
    assert {asked.request.requester for asked in created} == {"alice"}
    for actor in [*keys, "alice"]:
        refuses(stored, "'alice' has 5 open", lambda actor=actor: ask(stored, actor=actor))  # type: ignore[misc]
        refuses(
            stored,
            "own request",
            lambda actor=actor: approve(stored, created[0].request, actor=actor),  # type: ignore[misc]
        )
    for asked in created:
        approve(stored, asked.request)

    claim = stored.guard.requests.claim
    unknown(stored, lambda: claim(created[0].request.id, actor=keys[1]))
    done = [
        claim(created[0].request.id, actor=keys[0]),
        claim(created[1].request.id, actor="alice"),
        claim(created[2].request.id, ticket=created[2].ticket, actor=keys[0]),
    ]
    assert {issued.key.owner for issued in done} == {"alice"}


def test_a_key_that_changes_hands_decides_on_nothing_that_it_asked_for(stored: Stored) -> None:
    key = stored.issue("admin", owner="alice").key
    actor = stored.principal(stored.guard.keys.rotate(key.id))
    created = ask(stored, actor=actor)
    for owner in ("bob", None):
        for held in stored.guard.keys.list(family=key.family):
            stored.guard.keys.update(held.id, owner=owner)
        refuses(stored, "own request", lambda: approve(stored, created.request, actor=actor))
    approve(stored, created.request)
    unknown(stored, lambda: stored.guard.requests.claim(created.request.id, actor=actor))


@pytest.mark.settings(
    approval_rules=[ApprovalRule(name="a", scopes=["admin"], requesters=["alice"])]
)
def test_no_rule_takes_a_key_for_its_holder(stored: Stored) -> None:
    narrow = stored.principal(stored.issue("inference:read", owner="alice"))
    assert ask(stored, "admin", actor=narrow).request.state == "pending"
    assert ask(stored, "admin", actor="alice").request.state == "approved"


def test_a_key_claims_nothing_of_its_holder_without_the_ticket(stored: Stored) -> None:
    narrow = stored.principal(stored.issue("inference:read", owner="alice"))
    created = approved(stored, "admin")
    unknown(stored, lambda: stored.guard.requests.claim(created.request.id, actor=narrow))


def test_a_key_is_handed_to_another_only_by_who_may_all_that_it_may(stored: Stored) -> None:
    admin = stored.issue("admin").key
    actor = stored.principal(stored.issue("inference:read"))
    update = stored.guard.keys.update
    refuses(stored, "does not have: admin", lambda: update(admin.id, owner="eve", actor=actor))
    assert update(admin.id, owner="bob", actor=stored.principal(stored.issue("admin")))
    assert update(admin.id, owner=None, actor=actor).owner is None


def test_what_a_key_approved_ends_with_it(stored: Stored) -> None:
    approver, created = stored.issue("admin"), ask(stored)
    approve(stored, created.request, actor=stored.principal(approver))
    successor = stored.guard.keys.rotate(approver.key.id, grace=timedelta(0))
    claim = stored.guard.requests.claim

    stored.guard.keys.revoke(successor.key.id, force=True)

    refuses(stored, "no longer works", lambda: claim(created.request.id, ticket=created.ticket))


def test_what_a_key_approved_ends_with_its_right_to_approve(stored: Stored) -> None:
    approver, created = stored.issue("admin"), ask(stored)
    approve(stored, created.request, actor=stored.principal(approver))
    claim, update = stored.guard.requests.claim, stored.guard.keys.update
    update(approver.key.id, scopes=["inference:read"], force=True)
    refuses(
        stored,
        "or may no longer approve requests",
        lambda: claim(created.request.id, actor="alice"),
    )

    update(approver.key.id, scopes=["admin"])
    stored.guard.organizations.update("acme", scopes=["inference:read"], force=True)
    refuses(
        stored,
        "or may no longer approve requests",
        lambda: claim(created.request.id, actor="alice"),
    )

    stored.guard.organizations.update("acme", scopes=None)
    assert claim(created.request.id, actor="alice")


@pytest.mark.settings(
    catalogue=ScopeCatalogue(
        {"requests:approve": "Approve", "boss": "All", "read": "Read"},
        implies={"boss": ["requests:approve"]},
    )
)
def test_a_key_decides_only_with_a_scope_for_it(stored: Stored) -> None:
    reader = stored.principal(stored.issue("read"))
    request = ask(stored, "read").request
    requests, why = stored.guard.requests, "without requests:approve or admin"
    refuses(stored, why, lambda: approve(stored, request, actor=reader))
    refuses(stored, why, lambda: requests.deny(request.id, actor=reader))
    for scopes in (["requests:approve", "read"], ["boss", "read"], ["*"]):
        actor = stored.principal(stored.issue(*scopes))
        request = approve(stored, ask(stored, "read").request, actor=actor)
        refuses(stored, why, lambda: requests.rescind(request.id, actor=reader))  # noqa: B023
        requests.claim(request.id, actor="alice")


def test_a_successor_of_the_key_that_approved_is_enough(stored: Stored) -> None:
    approver, created = stored.issue("admin"), ask(stored)
    approve(stored, created.request, actor=stored.principal(approver))
    stored.guard.keys.rotate(approver.key.id, grace=timedelta(0))

    assert stored.guard.requests.claim(created.request.id, ticket=created.ticket)


def test_a_longer_lifetime_of_the_organization_is_not_granted_in_hindsight(stored: Stored) -> None:
    stored.guard.organizations.update("acme", max_key_lifetime=9 * DAY)
    created = approved(stored)
    stored.guard.organizations.update("acme", max_key_lifetime=None)

    key = stored.guard.requests.claim(created.request.id, actor="alice").key

    assert key.expires_at == stored.clock.now + 9 * DAY


@pytest.mark.settings(default_limits=["5/minute"], approval_rules=[READERS])
def test_no_rule_loosens_a_limit(stored: Stored) -> None:
    actor = "ann@acme.example"
    for limits, status in ((["9/minute"], "pending"), (["3/minute"], "approved")):
        created = ask(stored, "inference:read", expires_in=DAY, limits=limits, actor=actor)
        assert created.request.state == status


@pytest.mark.parametrize("name", ["fam_" + "0" * 16, "fam_", "rule:readers", "service", "ticket:1"])
def test_people_have_no_names_of_others(stored: Stored, name: str) -> None:
    with pytest.raises(InvalidValueError, match="can't name a person"):
        ask(stored, actor=name)
    with pytest.raises(InvalidValueError, match="can't name a person"):
        Person(id=name)


def test_a_person_asks_and_claims_by_its_role(stored: Stored) -> None:
    refuses(stored, "auditor of", lambda: ask(stored, actor=person("dan", "auditor")))
    created = approved(stored, actor=person("alice", "developer"))
    gone = person("alice")
    unknown(stored, lambda: stored.guard.requests.claim(created.request.id, actor=gone))
    unknown(stored, lambda: stored.guard.requests.withdraw(created.request.id, actor=gone))


def test_a_page_of_own_requests_looks_each_key_up_once(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    find = StorePort.find_key

    async def counted(port: StorePort, key_id: str) -> KeyRecord | None:
        asked.append(key_id)
        return await find(port, key_id)

    monkeypatch.setattr(StorePort, "find_key", counted)
    first = stored.principal(stored.issue(owner="alice"))
    second = stored.principal(stored.issue(owner="alice"))
    for actor in (first, second, first, second):
        stored.guard.requests.create(organization="acme", name="ci", actor=actor)
    asked.clear()

    assert len(stored.guard.requests.list(asked_by=first).items) == 2
    assert sorted(asked) == sorted([first.key_id, first.key_id, second.key_id])
