"""What every key store does with keys that are deleted, and what of them is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard.core.keys.audit import Action
from keyguard.core.keys.commit import Commit, Ending, changed
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.exceptions import RefusedError
from tests.stores.changes import adding, changing, deleting, trail_of
from tests.stores.conftest import DATABASES, REDISES, Awaited, Plain
from tests.stores.records import key, organization, record

pytestmark = pytest.mark.campaign(  # the other flavours are left to `make chaos`
    "memory-sync",
    "sqlite-sync",
    "postgresql-async",
    "mariadb-sync",
    "redis-async",
    "redis_cluster-async",
)

ALL = KeyFilter()
LONG_AGO = datetime(2001, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
NEVER = datetime(9000, 1, 1, tzinfo=UTC)
ENDED = KeyFilter(ended_before=LONG_AGO + timedelta(days=1))
DAY = timedelta(days=1)


@pytest.fixture(params=("memory", *DATABASES, *REDISES))
def store(
    request: pytest.FixtureRequest, flavour: str, kept: Callable[[str, str], Plain | Awaited]
) -> Plain | Awaited:
    return kept(request.param, flavour)


@pytest.fixture
def acme(store: Any) -> Organization:
    acme = organization()
    store.add_organization(acme)
    return acme


def held(by: str, number: int, **fields: Any) -> KeyRecord:
    """Return the record of a key that somebody holds."""
    made = record(number, **fields)
    return replace(made, key=replace(made.key, owner=by))


def listed(store: Any, wanted: KeyFilter = ALL, after: str | None = None) -> list[str]:
    return [each.id for each in store.list_keys(wanted, after=after, limit=100)]


ENDS: dict[str, dict[str, Any]] = {
    "revoked": {"revoked_at": LONG_AGO},
    "revoked before it expires": {"revoked_at": LONG_AGO, "expires_at": NEVER},
    "expired": {"expires_at": LONG_AGO},
    "expired before it was revoked": {"expires_at": LONG_AGO, "revoked_at": NEVER},
    "rotated": {"grace_ends_at": LONG_AGO, "successor": "9" * 16},
    "rotated before it expires": {"grace_ends_at": LONG_AGO, "expires_at": NEVER},
}
LIVES: dict[str, dict[str, Any]] = {
    "for ever": {},
    "until it expires": {"expires_at": NEVER},
    "until its grace ends": {"grace_ends_at": NEVER},
    "revoked a day later": {"revoked_at": LONG_AGO + DAY},
}


def test_keys_that_ended_before_a_time_are_listed(store: Any, acme: Organization) -> None:
    cases = [*ENDS.values(), *LIVES.values()]
    store.commit(adding(*(record(n, **fields) for n, fields in enumerate(cases))))
    assert listed(store, ENDED) == [key(n).id for n in range(len(ENDS))]
    assert listed(store, replace(ENDED, organization=acme.id)) == listed(store, ENDED)
    assert listed(store, replace(ENDED, organization="org_9999999999999999")) == []


def test_a_deleted_key_is_unknown_and_in_no_list(store: Any, acme: Organization) -> None:
    gone = held("ann", 1, revoked_at=LONG_AGO, name="gone \N{ROCKET}")
    stays = held("ann", 2, name="gone too", family=gone.key.family)
    store.commit(adding(gone, stays))
    assert store.commit(deleting(gone.key)) is True
    assert store.find_key(gone.key.id) is None
    assert store.find_existing([gone.key.id, stays.key.id]) == {stays.key.id}
    for wanted in (
        ALL,
        KeyFilter(organization=acme.id),
        KeyFilter(family=gone.key.family),
        KeyFilter(owner="ann"),
        KeyFilter(organization=acme.id, search="gone"),
        KeyFilter(organization=acme.id, search="0000"),
    ):
        assert listed(store, wanted) == [stays.key.id]
    assert [digest.id for digest in store.list_digests(after=None, limit=10)] == [stays.key.id]


def test_its_deletion_is_in_the_trail_beside_what_was_there(store: Any, acme: Organization) -> None:
    gone = record(1, revoked_at=LONG_AGO)
    store.commit(adding(gone))
    store.commit(deleting(gone.key))
    last, issued = trail_of(store, subject=gone.key.id)
    assert (last.action, last.organization, last.actor) == (Action.KEY_DELETED, acme.id, "test")
    assert issued.action == Action.KEY_ISSUED
    assert last.after == dict.fromkeys(last.before)
    assert last.before == {
        "family": gone.key.family,
        "name": "key 1",
        "created_at": "2026-03-01T12:00:00.123456Z",
        "revoked_at": "2001-05-06T07:08:09.123456Z",
    }


def test_other_processes_are_told(store: Any, acme: Organization) -> None:
    feed = store.feed()
    if feed is None:
        pytest.skip("only this process can change the store")
    gone = record(1, expires_at=LONG_AGO)
    store.commit(adding(gone))
    position = feed.read(None, 0).position
    store.commit(deleting(gone.key))
    news = feed.read(position, 0)
    feed.close()
    assert (news.subjects, news.whole) == ((gone.key.id,), True)


def test_a_key_may_come_again_under_its_id(store: Any, acme: Organization) -> None:
    gone = held("ann", 1, revoked_at=LONG_AGO)
    again = held("bob", 1, name="again", family="fam_9999999999999999")
    store.commit(adding(gone))
    store.commit(deleting(gone.key))
    assert store.commit(adding(again)) is True
    assert store.find_key(again.key.id) == again
    assert listed(store) == [again.key.id]
    assert listed(store, KeyFilter(owner="ann")) == []
    assert listed(store, KeyFilter(owner="bob")) == [again.key.id]
    assert listed(store, KeyFilter(family=gone.key.family)) == []


def test_what_comes_late_brings_nothing_back(store: Any, acme: Organization) -> None:
    gone = record(1, revoked_at=LONG_AGO)
    store.commit(adding(gone))
    store.commit(deleting(gone.key))
    store.mark_used([Use(gone.key.id, NEVER)])
    store.rehash_key(gone.key.id, gone.digest, "$sha256$new")
    assert store.commit(changing(gone.key, expires_at=NEVER)) is False
    ending = Ending(
        subject=gone.key.id,
        action=Action.KEY_REVOKED,
        at=NEVER,
        actor="test",
        fields={"revoked_at": NEVER},
    )
    assert store.end(ending) == ()
    assert store.commit(replace(deleting(gone.key), deleted=(), unchanged=(gone.key,))) is False
    assert store.find_key(gone.key.id) is None
    assert listed(store) == []


def test_a_key_that_changed_since_it_was_read_stays(store: Any, acme: Organization) -> None:
    read = record(1, expires_at=LONG_AGO).key
    other = record(2, expires_at=LONG_AGO).key
    store.commit(adding(record(1, expires_at=LONG_AGO), record(2, expires_at=LONG_AGO)))
    store.commit(changing(read, expires_at=NEVER))
    before = trail_of(store)
    assert store.commit(deleting(read, other)) is False
    assert listed(store) == [read.id, other.id]
    assert trail_of(store) == before


def test_a_key_that_came_again_with_the_version_of_the_deleted_one_stays(
    store: Any, acme: Organization
) -> None:
    read = record(1, expires_at=LONG_AGO)
    store.commit(adding(read))
    store.commit(deleting(read.key))
    store.commit(adding(record(1, expires_at=NEVER)))
    assert store.commit(deleting(read.key)) is False
    assert listed(store) == [read.key.id]


def test_a_key_that_has_not_ended_by_the_clock_of_the_server_stays(
    store: Any, acme: Organization, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["store"] in ("memory", "sqlite"):
        pytest.skip("it has the clock of this machine")
    early, due = record(1, expires_at=NEVER), record(2, expires_at=LONG_AGO)
    store.commit(adding(early, due))
    message = "^key '0000000000000001' has not ended for long enough by the clock of the key store"
    with pytest.raises(RefusedError, match=message):
        store.commit(deleting(early.key, due.key))
    longer = timedelta(days=365 * 1000)
    with pytest.raises(RefusedError, match=r"^key '0000000000000002'"):
        store.commit(deleting(due.key, kept=longer))
    assert listed(store) == [early.key.id, due.key.id]
    assert store.commit(deleting(due.key)) is True


def test_of_deletions_at_once_one_is_made(store: Any, acme: Organization) -> None:
    gone = [record(n, revoked_at=LONG_AGO) for n in range(20)]
    store.commit(adding(*gone))
    commit = deleting(*(each.key for each in gone))
    answers = store.together([lambda backend: backend.commit(commit)] * 8)
    assert sorted(answers) == [False] * 7 + [True]
    assert listed(store) == []
    assert len(trail_of(store)) == 1 + 20 + 20


def test_a_key_that_is_extended_while_it_is_deleted_is_one_of_both(
    store: Any, acme: Organization
) -> None:
    for number in range(6):
        read = record(number, expires_at=LONG_AGO)
        store.commit(adding(read))
        commits: list[Commit] = [changing(read.key, expires_at=NEVER), deleting(read.key)] * 3
        answers = store.together([lambda backend, c=c: backend.commit(c) for c in commits])
        assert answers.count(True) == 1
        found = store.find_key(read.key.id)
        won = answers.index(True) % 2
        assert (found is None) is (won == 1)
        assert found is None or found.key.expires_at == NEVER


def test_a_key_that_is_deleted_is_no_witness(store: Any, acme: Organization) -> None:
    gone, other = record(1, revoked_at=LONG_AGO), record(2)
    store.commit(adding(gone, other))
    store.commit(deleting(gone.key))
    renaming = changing(other.key, name="new")
    assert store.commit(replace(renaming, witnesses=(gone.key,))) is False
    assert store.commit(replace(renaming, witnesses=(gone.key, other.key))) is True


def test_five_hundred_keys_are_deleted_in_one_commit(store: Any, acme: Organization) -> None:
    gone = [held("ann", n, revoked_at=LONG_AGO) for n in range(500)]
    store.commit(adding(*gone))
    assert store.commit(deleting(*(each.key for each in gone))) is True
    assert listed(store) == []


# Lists that go on behind a key that was deleted since


def various(store: Any) -> list[Key]:
    """Add keys whose order by time, by name and by id is the same, in two organizations."""
    other = organization(2)
    store.add_organization(other)
    keys = [
        held("ann", n, created_at=LONG_AGO + n * DAY, name=f"key {n:02}", revoked_at=LONG_AGO)
        for n in range(10)
    ]
    store.commit(adding(*keys, record(50, owner=other, created_at=LONG_AGO)))
    return [each.key for each in keys]


def filters(acme: Organization) -> list[KeyFilter]:
    return [
        ALL,
        ENDED,
        KeyFilter(organization=acme.id),
        KeyFilter(owner="ann"),
        KeyFilter(organization=acme.id, search="key"),
        KeyFilter(organization=acme.id, search="0000"),
    ]


def test_a_list_goes_on_behind_a_key_that_was_deleted(store: Any, acme: Organization) -> None:
    keys = various(store)
    before = {n: listed(store, wanted, keys[4].id) for n, wanted in enumerate(filters(acme))}
    store.commit(deleting(keys[2], keys[4], keys[6]))
    for n, wanted in enumerate(filters(acme)):
        behind = [key_id for key_id in before[n] if key_id != keys[6].id]
        assert listed(store, wanted, keys[4].id) == behind
        assert behind[-1] == keys[9].id
    store.commit(deleting(keys[9]))
    assert listed(store, ENDED, keys[9].id) == []


def test_a_list_of_another_organization_knows_no_deleted_key(
    store: Any, acme: Organization
) -> None:
    keys = various(store)
    store.commit(deleting(keys[4]))
    other = organization(2).id
    assert listed(store, KeyFilter(organization=other), keys[4].id) == []
    assert listed(store, KeyFilter(organization=other, search="key"), keys[4].id) == []


def test_pages_cross_the_deletion_of_all_that_they_listed(store: Any, acme: Organization) -> None:
    keys = various(store)
    found: list[str] = []
    after = None
    while True:
        page = store.list_keys(ENDED, after=after, limit=3)
        found += [each.id for each in page]
        assert store.commit(deleting(*page)) is True
        after = page.next
        if after is None:
            break
    assert found == [each.id for each in keys]
    assert len(listed(store)) == 1


def test_a_key_that_came_again_is_where_it_is_now(store: Any, acme: Organization) -> None:
    keys = various(store)
    store.commit(deleting(keys[4]))
    store.commit(adding(record(4, created_at=LONG_AGO + 20 * DAY)))
    assert listed(store, KeyFilter(organization=acme.id), keys[4].id) == []


def test_a_changed_key_is_deleted_as_it_was_read_last(store: Any, acme: Organization) -> None:
    store.commit(adding(held("ann", 1)))
    first = held("ann", 1).key
    store.commit(changing(first, name="new", owner="bob", revoked_at=LONG_AGO))
    last = changed(first, name="new", owner="bob", revoked_at=LONG_AGO)
    assert store.commit(deleting(last)) is True
    for wanted in (KeyFilter(owner="bob"), KeyFilter(organization=acme.id, search="new")):
        assert listed(store, wanted) == []
