"""Rows that hold what keyguard never wrote: a list leaves them out, names them, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import redis

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Use
from keyguard.core.keys.requests import RequestFilter
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis.scripts import STORE
from tests.damage import Damage, damages
from tests.stores.changes import asking
from tests.stores.conftest import DATABASES, Database, Kept, Plain
from tests.stores.records import LATER, NOON, key, organization, record, request

KINDS = (*DATABASES, "redis")
ANY = KeyFilter()
NUMBERS = (1, 2, 3, 4)
DAMAGED = 2
"""The place of the damaged row, from 0."""


# The other flavour of each kind is left to `make chaos`.
every_column = pytest.mark.campaign(
    "sync-sqlite", "async-postgresql", "sync-mariadb", "async-redis"
)


def of(what: str) -> list[Damage]:
    return [damage for kind in KINDS for damage in damages(kind, what)]


@pytest.fixture
def database(damage: Damage, migrated: Callable[[str], Database]) -> Database:
    """The database that a test's damage is for."""
    return migrated(damage.kind)


@pytest.fixture
def store(damage: Damage, flavour: str, kept: Kept) -> Any:
    """A store with some keys, of the kind that a test's damage is for."""
    return kept(damage.kind, flavour, fill)


def fill(store: Any) -> None:
    for number in NUMBERS:
        store.add_organization(organization(number))
        store.add_key(record(number))


def listed(ask: Callable[[str | None], Any]) -> tuple[list[str], list[str]]:
    """Return the ids of what a list shows and of what it leaves out, page by page."""
    shown, damaged, after = [], [], None
    while True:
        page = ask(after)
        shown += [item.id for item in page]
        damaged += page.damaged
        if page.next is None:
            return shown, damaged
        after = page.next


def first_of(url: str) -> str:
    """Return the position of the first entry of a trail on Redis."""
    with redis.Redis.from_url(url) as client:
        position: str = client.xrange(f"{STORE}audit", count=1)[0][0].decode()
        return position


def check(damage: Damage, ids: list[str], ask: Callable[[str | None, int], Any]) -> None:
    """Check that pages of each size hold all records but the damaged one, which is named."""
    for limit in (1, 2, 9):
        shown, damaged = listed(lambda after, limit=limit: ask(after, limit))  # type: ignore[misc]
        assert [*sorted(shown), *damaged] == [i for i in ids if i != ids[DAMAGED]] + [
            damaged[0] if damage.field == "id" else ids[DAMAGED]
        ]


@every_column
@pytest.mark.parametrize("damage", of("key"), ids=str)
def test_a_list_goes_on_behind_a_damaged_key(
    damage: Damage, database: Database, store: Any
) -> None:
    keys = [record(number) for number in NUMBERS]
    ids = [item.key.id for item in keys]

    damage.do(database.url, ids[DAMAGED])

    if damage.field != "digest":  # which no list of keys shows
        check(damage, ids, lambda after, n: store.list_keys(ANY, after=after, limit=n))
    digests, _ = listed(lambda after: store.list_digests(after=after, limit=2))
    assert {*ids} - {ids[DAMAGED]} <= {*digests}
    for item in keys:
        if item.key.id != ids[DAMAGED]:
            assert store.find_key(item.key.id) == item
        elif damage.field != "id":
            with pytest.raises(CorruptDataError):
                store.find_key(item.key.id)


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb", "async-redis")
@pytest.mark.parametrize(
    "damage",
    [
        Damage("sqlite", "key", "name", "CAST(x'ff' AS TEXT)"),
        Damage("sqlite", "key", "created_at", "'yesterday'"),
        Damage("postgresql", "key", "expires_at", "'infinity'"),
        Damage("mariadb", "key", "metadata", "'{'"),
        Damage("redis", "key", "created_at", None),
    ],
    ids=lambda damage: damage.kind,
)
def test_a_list_goes_on_where_most_is_damaged(
    damage: Damage, database: Database, store: Any
) -> None:
    for number in range(5, 40):
        store.add_key(record(number))
    good = {key(number).id for number in (4, 5, 17)}
    bad = {key(number).id for number in range(1, 40)} - good
    for key_id in bad:
        damage.do(database.url, key_id)

    for limit in (1, 7, 99):
        shown, damaged = listed(lambda after, n=limit: store.list_keys(ANY, after=after, limit=n))  # type: ignore[misc]
        assert ({*shown}, {*damaged}) == (good, bad)
        assert len(shown) + len(damaged) == 39


@pytest.mark.campaign("async-postgresql", "sync-mariadb", "async-redis")
@pytest.mark.parametrize("damage", of("organization"), ids=str)
def test_a_list_goes_on_behind_a_damaged_organization(
    damage: Damage, database: Database, store: Any
) -> None:
    ids = [organization(number).id for number in NUMBERS]

    damage.do(database.url, ids[DAMAGED])

    check(damage, ids, lambda after, n: store.list_organizations(after=after, limit=n))
    assert store.find_key(key(1).id) == record(1)


@pytest.mark.campaign("sync-sqlite", "async-redis")
@pytest.mark.parametrize("damage", of("request"), ids=str)
def test_a_list_goes_on_behind_a_damaged_request(
    damage: Damage, database: Database, store: Any
) -> None:
    requests = [request(number) for number in NUMBERS]
    for asked in requests:
        assert store.commit(asking(asked)) is True
    ids = [asked.id for asked in requests]
    every = RequestFilter(at=NOON)

    damage.do(database.url, ids[DAMAGED])

    if damage.field != "digest":  # which no list shows
        check(damage, ids, lambda after, n: store.list_requests(every, after=after, limit=n))
    for asked in requests:
        if asked.id != ids[DAMAGED]:
            assert store.find_request(asked.id).request == asked
        elif damage.field != "id":
            with pytest.raises(CorruptDataError):
                store.find_request(asked.id)


@pytest.mark.campaign("sync-sqlite-key", "async-redis-organization")
@pytest.mark.parametrize("damage", [*of("key"), *of("organization")], ids=str)
def test_a_list_goes_on_behind_a_record_that_was_damaged_since(
    damage: Damage, database: Database, store: Any
) -> None:
    records: list[Any] = [record(number).key for number in NUMBERS]
    ask = partial(store.list_keys, ANY)
    if damage.record == "organization":
        records, ask = [organization(number) for number in NUMBERS], store.list_organizations
    ids = [item.id for item in records]
    page = ask(after=None, limit=2)
    assert page.next == ids[1]

    damage.do(database.url, ids[1])

    if damage.field != "id" or damage.kind == "redis":
        assert [item.id for item in ask(after=ids[1], limit=9)] == ids[2:]
    if (damage.record, damage.field) == ("key", "created_at"):
        own = KeyFilter(organization=records[2].organization)
        assert [item.id for item in store.list_keys(own, after=ids[1], limit=9)] == ids[2:]


@pytest.mark.parametrize(
    "damage",
    [
        Damage("sqlite", "key", "created_at", "'yesterday'"),
        Damage("postgresql", "key", "created_at", "'infinity'"),
        Damage("mariadb", "key", "created_at", "'0000-00-00'"),
    ],
    ids=lambda damage: damage.kind,
)
def test_a_list_that_can_not_go_on_says_so(damage: Damage, database: Database, store: Any) -> None:
    for entry in store.list_audit(organization=None, subject=key().id, after=None, limit=9):
        Damage(damage.kind, "entry", "after", "'['").do(database.url, entry.id)
    damage.do(database.url, key().id)

    with pytest.raises(CorruptDataError, match="begin anew"):
        store.list_keys(ANY, after=key().id, limit=9)


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "async-redis")
@pytest.mark.parametrize("damage", of("entry"), ids=str)
def test_a_list_goes_on_behind_a_damaged_entry_of_the_audit_trail(
    damage: Damage, database: Database, store: Any
) -> None:
    def ask(after: str | None, limit: int) -> Any:
        return store.list_audit(organization=None, subject=None, after=after, limit=limit)

    ids, _ = listed(lambda after: ask(after, 9))
    with closing(store.feed()) as feed:
        start = "0-" if damage.kind in DATABASES else first_of(database.url)
        told = feed.read(start, 0.0).subjects

    damage.do(database.url, sorted(ids)[DAMAGED])

    if damage.kind == "redis":
        store.add_organization(organization(7))
        for limit in (1, 2, 9):
            shown, damaged = listed(lambda after, limit=limit: ask(after, limit))  # type: ignore[misc]
            assert (shown[1:], len(damaged)) == (ids, 1)
    else:
        check(damage, sorted(ids), ask)
    with closing(store.feed()) as feed:
        news = feed.read(start, 0.0).subjects
        assert news is None or {*told} <= {*news}


@pytest.mark.parametrize("damage", [Damage("redis", "key", "", "a text")], ids=str)
def test_the_uses_of_other_keys_are_noted_beside_a_damaged_one(
    damage: Damage, database: Database, store: Any
) -> None:
    damage.do(database.url, key(DAMAGED).id)

    store.mark_used([Use(key(number).id, LATER, f"10.0.0.{number}") for number in NUMBERS])

    used = [item.last_used_address for item in store.list_keys(ANY, after=None, limit=9)]
    assert used == [f"10.0.0.{number}" for number in NUMBERS if number != DAMAGED]


@pytest.mark.parametrize(
    "damage", [Damage(kind, "key", "name", None) for kind in KINDS], ids=lambda d: d.kind
)
@pytest.mark.parametrize("address", ["\ud800", "\0", "a\u2028b", "x" * 100])
def test_whatever_a_server_calls_a_client_can_be_read(
    address: str, damage: Damage, store: Any
) -> None:
    store.mark_used([Use(key().id, LATER, address)])

    used = store.find_key(key().id).key
    assert used.last_used_at == LATER
    assert used.last_used_address == ("x" * 64 if len(address) == 100 else None)


@pytest.mark.parametrize(
    "damage", [Damage("sqlite", "key", "name", "CAST(x'ff' AS TEXT)")], ids=lambda d: d.kind
)
def test_a_look_up_that_fails_keeps_no_later_one_from_what_changed_since(
    damage: Damage, database: Database, store: Any
) -> None:
    damage.do(database.url, key(DAMAGED).id)
    with pytest.raises(CorruptDataError) as failed:  # which holds the frames of the driver's call
        store.find_key(key(DAMAGED).id)

    other = Plain(database.backend())
    other.revoke_key(key(1).id, LATER)
    other.close()

    assert store.find_key(key(1).id).key.revoked_at == LATER
    assert failed.value.__cause__ is not None
