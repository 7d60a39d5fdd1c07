"""Rows that hold what keyguard never wrote: a list leaves them out, names them, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from keyguard.core.keys.records import KeyFilter
from keyguard.exceptions import CorruptDataError
from tests.damage import Damage, damages
from tests.stores.conftest import DATABASES, Database, emptied, opened
from tests.stores.records import key, organization, record

KINDS = DATABASES
ANY = KeyFilter()
NUMBERS = (1, 2, 3, 4)
DAMAGED = 2
"""The place of the damaged row, from 0."""


def of(what: str) -> list[Damage]:
    return [damage for kind in KINDS for damage in damages(kind, what)]


@pytest.fixture
def database(request: pytest.FixtureRequest, migrated: Callable[[str], Database]) -> Database:
    """An empty store of the kind that a test's damage is for."""
    damage: Damage = request.getfixturevalue("damage")
    database = migrated(damage.kind)
    emptied(database)
    return database


@pytest.fixture
def store(database: Database, flavour: str, runner: asyncio.Runner) -> Iterator[Any]:
    store = opened(flavour, database.url if flavour == "sync" else database.async_url, runner)
    for number in NUMBERS:
        store.add_organization(organization(number))
        store.add_key(record(number))
    yield store
    store.close()


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


def check(damage: Damage, ids: list[str], ask: Callable[[str | None, int], Any]) -> None:
    """Check that pages of each size hold all records but the damaged one, which is named."""
    for limit in (1, 2, 9):
        shown, damaged = listed(lambda after, limit=limit: ask(after, limit))  # type: ignore[misc]
        assert [*sorted(shown), *damaged] == [i for i in ids if i != ids[DAMAGED]] + [
            damaged[0] if damage.field == "id" else ids[DAMAGED]
        ]


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


@pytest.mark.parametrize("damage", of("organization"), ids=str)
def test_a_list_goes_on_behind_a_damaged_organization(
    damage: Damage, database: Database, store: Any
) -> None:
    ids = [organization(number).id for number in NUMBERS]

    damage.do(database.url, ids[DAMAGED])

    check(damage, ids, lambda after, n: store.list_organizations(after=after, limit=n))
    assert store.find_key(key(1).id) == record(1)


@pytest.mark.parametrize("damage", [d for d in of("entry") if d.kind in DATABASES], ids=str)
def test_a_list_goes_on_behind_a_damaged_entry_of_the_audit_trail(
    damage: Damage, database: Database, store: Any
) -> None:
    def ask(after: str | None, limit: int) -> Any:
        return store.list_audit(organization=None, subject=None, after=after, limit=limit)

    ids, _ = listed(lambda after: ask(after, 9))
    with closing(store.feed()) as feed:
        told = feed.read(start := "0-", 0.0).subjects

    damage.do(database.url, sorted(ids)[DAMAGED])

    check(damage, sorted(ids), ask)
    with closing(store.feed()) as feed:
        assert feed.read(start, 0.0).subjects in (None, told)
