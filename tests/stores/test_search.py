"""Searches for keys by the beginning of their name or id: what every key store finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyguard.core.keys.lists import KeyFilter
from keyguard.exceptions import InvalidValueError
from tests.stores.conftest import DATABASES, ODD, REDISES, Awaited, Kept, Plain
from tests.stores.records import LATER, NOON, key, organization, record

pytestmark = pytest.mark.campaign(  # the other flavours are left to `make chaos`
    "memory-sync",
    "sqlite-sync",
    "postgresql-async",
    "mariadb-sync",
    "redis-async",
    "redis_cluster-async",
)

NAMES = ("ab", "Ab", "abc", "ab c", "ab%", "ab_", "a", "b", "äb", "ab\N{ROCKET}", "abcde", "ab d")


@pytest.fixture(params=("memory", *DATABASES, *ODD, *REDISES))
def store(request: pytest.FixtureRequest, flavour: str, kept: Kept) -> Plain | Awaited:
    """A store with keys of NAMES; the id of the last begins like a name of another."""
    store: Plain | Awaited = kept(request.param, flavour, fill)
    return store


def fill(store: Any) -> None:
    store.add_organization(organization())
    store.add_organization(organization(2))
    for number, name in enumerate(NAMES, 1):
        own: dict[str, Any] = {"id": "abcde" + 11 * "0"} if name == "ab d" else {}
        made = record(number)
        store.add_key(replace(made, key=key(number, name=name, **own)))
    store.add_key(record(99, owner=organization(2), name="ab foreign"))


def found(store: Any, search: str, limit: int = 100, **wanted: Any) -> list[str]:
    """Return the names of the keys that a search finds, page by page."""
    names, after = [], None
    wanted = {"organization": organization().id, "search": search} | wanted
    while True:
        page = store.list_keys(KeyFilter(**wanted), after=after, limit=limit)
        assert page.damaged == ()
        assert len(page) <= limit
        names += [one.name for one in page]
        if page.next is None:
            return names
        after = page.next


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("ab", ["ab", "ab c", "ab d", "ab%", "ab_", "abc", "abcde", "ab\N{ROCKET}"]),
        ("ab ", ["ab c", "ab d"]),
        ("ab%", ["ab%"]),
        ("ab_", ["ab_"]),
        ("A", ["Ab"]),
        ("ä", ["äb"]),
        ("ab\N{ROCKET}", ["ab\N{ROCKET}"]),
        ("abc", ["abc", "abcde"]),
        ("abcd", ["ab d", "abcde"]),  # the id first
        ("abcde" + 11 * "0", ["ab d"]),
        ("abcde" + 12 * "0", []),
        ("0000", [name for name in NAMES if name != "ab d"]),
        ("000", []),
        ("ABCD", []),
        ("nothing", []),
        ("\ud800", []),
        ("nul\0", []),
        ("x" * 300, []),
    ],
    ids=str,
)
def test_a_search_finds_names_and_ids_that_begin_with_it(
    store: Any, search: str, names: list[str], limit: int
) -> None:
    assert found(store, search, limit) == names


def test_a_search_goes_on_only_behind_a_key_of_the_organization(store: Any) -> None:
    wanted = KeyFilter(organization=organization().id, search="ab")
    for after in (key(99).id, key(98).id, "", "\ud800", "ab"):
        assert store.list_keys(wanted, after=after, limit=9).items == ()


def test_a_search_finds_only_what_other_filters_admit(store: Any) -> None:
    store.change_key(key(1).id, expires_at=NOON)
    store.change_key(key(3).id, owner="ann")

    assert "ab" not in found(store, "ab", alive_at=LATER)
    assert found(store, "ab", owner="ann") == ["abc"]
    assert found(store, "ab", family=key(11).family) == ["abcde"]
    assert found(store, "abcd", family=key(11).family) == ["abcde"]
    assert found(store, "ab", organization=organization(2).id) == ["ab foreign"]


def test_a_search_finds_a_key_by_its_new_name(store: Any) -> None:
    store.change_key(key(3).id, name="new")
    assert found(store, "new") == ["new"]
    assert found(store, "abc") == ["abcde"]


def test_keys_of_one_name_are_found_by_id(store: Any) -> None:
    for number in range(20, 25):
        store.add_key(replace(record(number), key=key(number, name="same")))
    assert found(store, "sam", 2) == ["same"] * 5


def test_a_search_takes_an_organization() -> None:
    with pytest.raises(InvalidValueError, match="organization"):
        KeyFilter(search="ab")
