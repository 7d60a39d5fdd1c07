"""Requests for keys and owners of keys: what every key store does with them, in both flavours."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from keyguard.core.keys.audit import Action, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key
from keyguard.core.keys.requests import (
    OPEN,
    KeyRequest,
    KeyTerms,
    RequestFilter,
    RequestRecord,
    RequestStatus,
)
from keyguard.exceptions import RefusedError
from tests.stores.changes import adding, asking, changing
from tests.stores.conftest import DATABASES, ODD, REDISES, Awaited, Kept, Plain
from tests.stores.records import LATER, NOON, TERMS, key, organization, record, request

pytestmark = pytest.mark.campaign(  # the other flavours are left to `make chaos`
    "memory-sync",
    "sqlite-sync",
    "postgresql-async",
    "mariadb-sync",
    "redis-async",
    "redis_cluster-async",
)

DAY = timedelta(days=1)
CLAIMANTS = 50
NOBODY = RequestFilter(at=NOON)


def deciding(before: KeyRequest, **fields: Any) -> Commit:
    """Return the commit that changes a request as it was read."""
    after = changed(before, **fields)
    entry = describe(Action.REQUEST_DENIED, NOON, "bob", before, after)
    return Commit(entries=(entry,), changes=(Change(before, after),))


def approving(before: KeyRequest) -> Commit:
    return deciding(
        before,
        state=RequestStatus.APPROVED,
        granted=replace(TERMS, scopes=frozenset()),
        decided_by=("bob", "Zoë, the \N{ROCKET}"),
        decided_at=LATER,
        note="less",
        claim_by=LATER + 3 * DAY,
    )


def claiming(before: KeyRequest, number: int) -> Commit:
    """Return the commit that makes a key for a request as it was read."""
    made = record(number, owner=organization())
    at = {"claimed_at": LATER, "key": made.key.id}
    commit = deciding(before, state=RequestStatus.CLAIMED, **at)
    issued = describe(Action.KEY_ISSUED, NOON, "ann", None, made.key)
    return replace(
        commit, keys=(made,), unchanged=(organization(),), entries=(*commit.entries, issued)
    )


@pytest.fixture(params=("memory", *DATABASES, *ODD, *REDISES))
def store(request: pytest.FixtureRequest, flavour: str, kept: Kept) -> Plain | Awaited:
    store: Plain | Awaited = kept(request.param, flavour, fill)
    return store


def fill(store: Any) -> None:
    store.add_organization(organization())
    store.add_organization(organization(2))


def asked(store: Any, number: int = 1, **fields: Any) -> KeyRequest:
    """Add a request."""
    one = request(number, **fields)
    owner = store.find_organization(one.organization)
    assert store.commit(asking(one, owner)) is True
    return one


def ids(store: Any, wanted: RequestFilter = NOBODY, limit: int = 100) -> list[str]:
    """Return the last digits of the ids of the requests that a filter admits, page by page."""
    found, after = [], None
    while True:
        page = store.list_requests(wanted, after=after, limit=limit)
        assert page.damaged == ()
        found += [one.id[-2:].lstrip("0") for one in page]
        if page.next is None:
            return found
        after = page.next


# One request


def test_a_request_is_found_as_it_was_asked(store: Any) -> None:
    one = asked(store, reason="Ünïcode \N{ROCKET} " + "x" * 900, requester="O'Neill, 100%_/")

    found = store.find_request(one.id)

    assert found == RequestRecord(request=one, digest=f"$sha256$ticket-{one.id}")


def test_a_request_of_the_fewest_fields_is_found(store: Any) -> None:
    one = asked(store, asked=KeyTerms(scopes=frozenset()))
    assert store.find_request(one.id).request == one


@pytest.mark.parametrize(
    "request_id", ["", "req_", "req_000000000000000X", "ü", "\ud800", "req_1'"]
)
def test_an_unknown_request_is_not_found(store: Any, request_id: str) -> None:
    asked(store)
    assert store.find_request(request_id) is None
    assert ids(store, RequestFilter(at=NOON, organization=request_id)) == []
    assert ids(store, RequestFilter(at=NOON, requester=request_id)) == []
    assert store.list_requests(NOBODY, after=request_id, limit=5).items == ()


def test_a_request_is_changed(store: Any) -> None:
    one = asked(store)
    approved = approving(one)
    assert store.commit(approved) is True

    assert store.find_request(one.id).request == approved.changes[0].after
    claimed = claiming(store.find_request(one.id).request, 7)
    assert store.commit(claimed) is True

    found = store.find_request(one.id)
    assert found.request == claimed.changes[0].after
    assert found.digest == f"$sha256$ticket-{one.id}"
    assert store.find_key(f"{7:016}").key.id == found.request.key


def test_a_request_that_changed_is_not_changed_again(store: Any) -> None:
    one = asked(store)
    store.commit(approving(one))

    assert store.commit(deciding(one, state=RequestStatus.DENIED)) is False
    assert store.commit(claiming(one, 7)) is False
    assert store.find_key(f"{7:016}") is None
    assert store.find_request(one.id).request.state is RequestStatus.APPROVED


def test_a_commit_may_rest_on_a_request(store: Any) -> None:
    one = asked(store)
    commit = replace(adding(record()), unchanged=(organization(), one))
    store.commit(approving(one))

    assert store.commit(commit) is False
    now = store.find_request(one.id).request
    assert store.commit(replace(commit, unchanged=(organization(), now))) is True


def test_a_request_of_an_organization_that_changed_is_not_added(store: Any) -> None:
    store.change_organization(organization().id, name="New")
    assert store.commit(asking(request())) is False
    assert store.find_request(request().id) is None


def test_the_id_of_a_request_is_taken_once(store: Any) -> None:
    asked(store)
    with pytest.raises(RefusedError, match=f"request '{request().id}' exists already"):
        store.commit(asking(request(requester="bob")))
    assert store.find_request(request().id).request.requester == "ann"


def test_the_trail_and_the_feed_tell_of_a_request(store: Any) -> None:
    one = asked(store)
    store.commit(approving(one))

    trail = store.list_audit(organization=None, subject=one.id, after=None, limit=9)
    assert [entry.action for entry in trail] == [Action.REQUEST_DENIED, Action.REQUEST_CREATED]
    own = store.list_audit(organization=one.organization, subject=None, after=None, limit=9)
    assert own.items[:2] == trail.items


# Lists


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_requests_are_listed_by_age(store: Any, limit: int) -> None:
    asked(store, 3, created_at=NOON - DAY)
    asked(store, 2)
    asked(store, 1)
    asked(store, 4, created_at=NOON - DAY, organization=organization(2).id)

    assert ids(store, limit=limit) == ["3", "4", "1", "2"]
    mine = RequestFilter(at=NOON, organization=organization().id)
    assert ids(store, mine, limit) == ["3", "1", "2"]


def test_a_list_goes_on_behind_a_request_of_the_same_organization_alone(store: Any) -> None:
    asked(store, 1)
    foreign = asked(store, 2, organization=organization(2).id, created_at=NOON - DAY)

    mine = RequestFilter(at=NOON, organization=organization().id)
    assert store.list_requests(mine, after=foreign.id, limit=9).items == ()


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_requests_are_listed_by_requester(store: Any, limit: int) -> None:
    names = ("ann", "Ann", "ann ", "an", "ann%", "ann")
    for number, name in enumerate(names, 1):
        asked(store, number, requester=name)
    asked(store, 7, organization=organization(2).id)

    assert ids(store, RequestFilter(at=NOON, requester="ann"), limit) == ["1", "6", "7"]
    mine = RequestFilter(at=NOON, requester="ann", organization=organization().id)
    assert ids(store, mine, limit) == ["1", "6"]
    for number, name in enumerate(names[1:-1], 2):
        assert ids(store, RequestFilter(at=NOON, requester=name), limit) == [str(number)]


def by_status(store: Any) -> dict[RequestStatus, list[str]]:
    """Add requests of which each has another status at LATER."""
    pending = {"pending_until": LATER + timedelta(microseconds=1)}
    for number in range(1, 9):
        asked(store, number, **pending if number == 1 else {})
    for number in (2, 3, 4):
        store.commit(approving(request(number)))
    lapsing = store.find_request(request(3).id).request
    store.commit(deciding(lapsing, claim_by=LATER))
    store.commit(claiming(store.find_request(request(4).id).request, 9))
    for number, state in ((5, "denied"), (6, "withdrawn"), (7, "rescinded")):
        store.commit(deciding(request(number), state=RequestStatus(state)))
    store.commit(deciding(request(8), pending_until=LATER))
    return {
        RequestStatus.PENDING: ["1"],
        RequestStatus.APPROVED: ["2"],
        RequestStatus.LAPSED: ["3"],
        RequestStatus.CLAIMED: ["4"],
        RequestStatus.DENIED: ["5"],
        RequestStatus.WITHDRAWN: ["6"],
        RequestStatus.RESCINDED: ["7"],
        RequestStatus.EXPIRED: ["8"],
    }


def test_requests_are_listed_by_status(store: Any) -> None:
    expected = by_status(store)
    mine = {"organization": organization().id}
    for options in ({}, mine, {"requester": "ann"}, mine | {"requester": "ann"}):
        wanted = RequestFilter(at=LATER, **options)  # type: ignore[arg-type]
        for status, numbers in expected.items():
            assert ids(store, replace(wanted, statuses=frozenset({status}))) == numbers, status
        for limit in (1, 100):
            assert ids(store, replace(wanted, statuses=OPEN), limit) == ["1", "2"]
            decided = frozenset(RequestStatus) - OPEN
            assert ids(store, replace(wanted, statuses=decided), limit) == [*"345678"]
            assert ids(store, replace(wanted, statuses=frozenset(RequestStatus)), limit) == [
                *"12345678"
            ]
    other = RequestFilter(at=LATER, organization=organization(2).id, statuses=OPEN)
    assert ids(store, other) == []
    assert ids(store, RequestFilter(at=LATER, requester="bob", statuses=OPEN)) == []


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_open_requests_are_listed_by_age_whatever_ends_first(store: Any, limit: int) -> None:
    for number in range(1, 7):
        asked(
            store,
            number,
            created_at=NOON - number * DAY,
            pending_until=NOON + (number * 7 % 5) * DAY + timedelta(microseconds=1),
        )

    wanted = RequestFilter(at=NOON, organization=organization().id, statuses=OPEN)
    assert ids(store, wanted, limit) == [*"654321"]


# Races


def test_one_of_many_claims_makes_the_key(store: Any) -> None:
    one = asked(store)
    store.commit(approving(one))
    approved = store.find_request(one.id).request
    commits = [claiming(approved, number) for number in range(10, 10 + CLAIMANTS)]

    done = store.together([lambda store, c=commit: store.commit(c) for commit in commits])

    assert sorted(done) == [False] * (CLAIMANTS - 1) + [True]
    [key] = store.list_keys(KeyFilter(), after=None, limit=100)
    claimed = store.find_request(one.id).request
    assert (claimed.key, claimed.version) == (key.id, 3)
    assert key.id == commits[done.index(True)].keys[0].key.id
    trail = store.list_audit(organization=None, subject=None, after=None, limit=1000)
    actions = [entry.action for entry in trail]
    assert actions.count(Action.KEY_ISSUED) == 1
    assert len(actions) == 2 + 1 + 1 + 2


# Owners of keys


def owned(store: Any, **wanted: Any) -> list[str]:
    page = store.list_keys(KeyFilter(**wanted), after=None, limit=9)
    return [found.id.lstrip("0") for found in page]


def change_owner(store: Any, number: int, owner: str | None) -> None:
    now: Key = store.find_key(key(number).id).key
    assert store.commit(changing(now, owner=owner)) is True


def test_keys_are_listed_by_owner(store: Any) -> None:
    other = organization(2)
    for number, owner in enumerate(("ann", "Ann", "ann ", None, "ann", "Zoë %_/{}\N{ROCKET}"), 1):
        store.add_key(record(number, owner=organization() if number < 5 else other, **{}))
        change_owner(store, number, owner)

    assert owned(store, owner="ann") == ["1", "5"]
    assert owned(store, owner="ann", organization=other.id) == ["5"]
    assert owned(store, owner="Ann") == ["2"]
    assert owned(store, owner="ann ") == ["3"]
    assert owned(store, owner="Zoë %_/{}\N{ROCKET}") == ["6"]
    for nobody in ("", "an", "ann%", "\ud800", "nul\0"):
        assert owned(store, owner=nobody) == []


def test_a_key_goes_to_another_owner(store: Any) -> None:
    store.add_key(replace(record(), key=key(owner="ann")))
    store.add_key(replace(record(2), key=key(2, owner="ann", created_at=LATER)))
    assert owned(store, owner="ann") == ["1", "2"]

    change_owner(store, 1, "bob")
    assert (owned(store, owner="ann"), owned(store, owner="bob")) == (["2"], ["1"])
    change_owner(store, 1, None)
    assert owned(store, owner="bob") == []
    change_owner(store, 1, "ann")
    assert owned(store, owner="ann") == ["1", "2"]
    assert store.find_key(key().id).key.owner == "ann"


def test_an_owner_s_keys_are_listed_with_other_filters(store: Any) -> None:
    for number in range(1, 5):
        ends: datetime | None = NOON + number * DAY
        store.add_key(replace(record(number), key=key(number, owner="ann", expires_at=ends)))

    assert owned(store, owner="ann", alive_at=NOON + 2 * DAY) == ["3", "4"]
    assert owned(store, owner="ann", family=key(2).family) == ["2"]
    first = store.list_keys(KeyFilter(owner="ann"), after=None, limit=2)
    rest = store.list_keys(KeyFilter(owner="ann"), after=first.next, limit=2)
    assert [found.id[-1] for found in (*first, *rest)] == [*"1234"]
