"""What every key store does, in both flavours."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason, Use
from keyguard.core.limits.limit import Limit
from keyguard.core.values import Page
from keyguard.exceptions import RefusedError
from keyguard.stores.base import AsyncStore, News, Store
from tests.stores.changes import adding, changing, revoking, trail_of
from tests.stores.conftest import (
    DATABASES,
    ODD,
    REDISES,
    Awaited,
    Database,
    Kept,
    Plain,
    empty_store,
)
from tests.stores.records import LATER, NOON, key, organization, record, revoked

# On Sentinel and, in sync code, on a cluster the same again is left to `make chaos`.
pytestmark = pytest.mark.campaign(  # the other flavours are left to `make chaos`
    "memory-sync",
    "sqlite-sync",
    "postgresql-async",
    "mariadb-sync",
    "redis-async",
    "redis_cluster-async",
    "odd_postgresql-sync",
    "odd_mariadb-async",
)


ALL = KeyFilter()
LIMITS = (
    Limit("burst", "5 per second; 100/minute"),
    Limit("day", "9/day", per="address", strategy="moving-window", enforce=False),  # type: ignore[arg-type]
)


IMPOSSIBLE = (
    "", " ", "no such", "ünknown", "\N{ROCKET}", "nul\0", "\ud800", "%", "_", "'", "x" * 10_000,
)  # fmt: skip


KINDS = ("memory", *DATABASES, *ODD, *REDISES)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, flavour: str, kept: Kept) -> Plain | Awaited:
    """An empty store of each kind in each flavour, on odd servers too."""
    return kept(request.param, flavour)


@pytest.fixture(params=KINDS)
def own_store(
    request: pytest.FixtureRequest,
    flavour: str,
    migrated: Callable[[str], Database],
    runner: asyncio.Runner,
) -> Iterator[Plain | Awaited]:
    """Another, which a test may close."""
    yield from empty_store(request.param, flavour, migrated, runner)


@pytest.fixture
def acme(store: Any) -> Organization:
    acme = organization()
    store.add_organization(acme)
    return acme


# The protocol


def test_a_store_satisfies_the_protocol_of_its_flavour(store: Any, flavour: str) -> None:
    mine, other = (Store, AsyncStore) if flavour == "sync" else (AsyncStore, Store)
    assert isinstance(store.backend, mine)
    assert not isinstance(store.backend, other)


def test_migrating_again_changes_nothing(store: Any, acme: Organization) -> None:
    store.migrate()
    assert store.find_organization(acme.id) == acme


def test_closing_twice_is_fine(own_store: Any) -> None:
    own_store.close()
    own_store.close()


# Organizations


def test_an_organization_is_found_by_its_id(store: Any, acme: Organization) -> None:
    assert store.find_organization(acme.id) == acme


def test_an_organization_is_found_by_its_slug(store: Any, acme: Organization) -> None:
    assert store.find_organization(acme.slug) == acme


def test_an_organization_that_could_not_be_is_not_found(store: Any) -> None:
    for name in IMPOSSIBLE:
        assert store.find_organization(name) is None


def test_an_organization_is_found_only_by_its_exact_name(store: Any) -> None:
    store.add_organization(organization(id="org_aaaaaaaaaaaaaaaa", slug="acme"))
    for name in ("Acme", "ACME", "acme ", " acme", "acm", "org_AAAAAAAAAAAAAAAA", "org_a"):
        assert store.find_organization(name) is None


def test_ids_of_organizations_differ_by_case(store: Any) -> None:
    lower = organization(id="org_aaaaaaaaaaaaaaaa", slug="lower")
    upper = organization(id="org_AAAAAAAAAAAAAAAA", slug="upper")
    store.add_organization(lower)
    store.add_organization(upper)
    assert store.find_organization(lower.id) == lower
    assert store.find_organization(upper.id) == upper


@pytest.mark.parametrize(
    "name", ["Zürich \N{ROCKET}", "日本語", "x" * 200, "\N{ROCKET}" * 200, "50% 'off' \"\\n"]
)
def test_an_organization_may_have_any_printable_name(store: Any, name: str) -> None:
    store.add_organization(organization(name=name))
    assert store.find_organization("acme-1").name == name


def test_times_keep_their_microseconds_and_come_back_in_utc(store: Any) -> None:
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    at = datetime(2026, 3, 1, 0, 0, 0, 999999, tzinfo=kathmandu)
    store.add_organization(organization(created_at=at))
    found = store.find_organization("acme-1").created_at
    assert found == at
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "at",
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
)
def test_times_far_away_are_kept(store: Any, at: datetime) -> None:
    store.add_organization(organization(created_at=at))
    assert store.find_organization("acme-1").created_at == at


def test_a_slug_is_taken_once(store: Any, acme: Organization) -> None:
    with pytest.raises(RefusedError, match=r"^organization 'acme-1' exists already$"):
        store.add_organization(organization(2, slug=acme.slug))
    assert store.find_organization(organization(2).id) is None


def test_an_organization_id_is_taken_once(store: Any, acme: Organization) -> None:
    with pytest.raises(RefusedError, match=rf"^organization '{acme.id}' exists already$"):
        store.add_organization(organization(2, id=acme.id))
    assert store.find_organization(acme.id) == acme


def test_a_store_goes_on_after_a_refusal(store: Any, acme: Organization) -> None:
    with pytest.raises(RefusedError):
        store.add_organization(acme)
    store.add_organization(organization(2))
    assert store.find_organization("acme-2") == organization(2)


def test_every_field_of_an_organization_is_kept(store: Any) -> None:
    full = organization(
        disabled_at=LATER,
        limits=LIMITS,
        scopes=frozenset({"models:*", "inference:write"}),
        max_key_lifetime=timedelta(days=99_999, microseconds=1),
        version=7,
    )
    store.add_organization(full)
    assert store.find_organization(full.id) == full


def test_an_organization_of_no_scopes_is_not_one_of_any(store: Any) -> None:
    store.add_organization(organization(1, scopes=frozenset()))
    store.add_organization(organization(2))
    assert store.find_organization("acme-1").scopes == frozenset()
    assert store.find_organization("acme-2").scopes is None


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Other \N{ROCKET}"},
        {"disabled_at": LATER},
        {"disabled_at": None},
        {"limits": ()},
        {"limits": (Limit("a", "1/day"),), "scopes": None},
        {"scopes": frozenset()},
        {"scopes": frozenset({"a:b"})},
        {"max_key_lifetime": timedelta(seconds=1)},
        {"max_key_lifetime": None},
        {"max_keys": 7},
        {"max_keys": None},
        {"time_zone": "America/Argentina/ComodRivadavia"},
        {"plan": "pro"},
        {"plan": None},
        {"metadata": {"\N{ROCKET}": "\N{LATIN SMALL LETTER E WITH ACUTE}", "crm": ""}},
        {"metadata": {}},
        {},
    ],
)
def test_an_organization_is_changed_as_the_commit_says(store: Any, fields: dict[str, Any]) -> None:
    full: dict[str, Any] = {
        "disabled_at": NOON,
        "limits": LIMITS,
        "scopes": frozenset({"models:*"}),
        "max_key_lifetime": timedelta(days=1),
        "plan": "free",
        "metadata": {"crm": "4711"},
    }
    store.add_organization(organization(1, **full))
    store.add_organization(organization(2))
    after = store.change_organization("acme-1", **fields)
    assert after == organization(1, **{**full, **fields}, version=2)
    assert store.find_organization("acme-1") == after
    assert store.find_organization("acme-2") == organization(2)


# Keys


def test_a_key_is_found_with_its_organization_and_digest(store: Any, acme: Organization) -> None:
    store.add_key(record())
    assert store.find_key(key().id) == record()


def test_every_field_of_a_key_is_kept(store: Any, acme: Organization) -> None:
    full = record(
        name="ci \N{ROCKET}",
        scopes=frozenset({"models:*", "inference:write", "*"}),
        not_before=NOON,
        expires_at=LATER,
        revoked_at=LATER,
        revoked_reason=RevocationReason.CESSATION_OF_OPERATION,
        revoked_note="verloren \N{PENSIVE FACE}" + "\N{ROCKET}" * 190,
        limits=LIMITS,
        allowed_networks=("192.0.2.0/24", "2001:db8::/32"),
        successor=key(2).id,
        grace_ends_at=LATER,
        rotation_key="deploy \N{ROCKET}",
        version=7,
        metadata={"plan": "größer", "": "", "\N{ROCKET}": "nul \0, lone \ud800, \\ and \" and '"},
    )
    store.add_key(full)
    assert store.find_key(key().id) == full


def test_as_much_metadata_as_a_key_may_have_is_kept(store: Any, acme: Organization) -> None:
    metadata = {f"{number:02}" + "\N{ROCKET}" * 498: "\N{ROCKET}" * 500 for number in range(50)}
    store.add_key(record(metadata=metadata))
    assert store.find_key(key().id).key.metadata == metadata


def test_what_a_key_lacks_comes_back_as_none(store: Any, acme: Organization) -> None:
    store.add_key(record())
    found: Key = store.find_key(key().id).key
    assert found == key()
    assert found.expires_at is found.grace_ends_at is found.revoked_reason is None
    assert found.last_used_at is found.last_used_address is found.successor is None
    assert (found.metadata, found.limits, found.allowed_networks) == ({}, (), ())


def test_a_key_may_have_no_scopes(store: Any, acme: Organization) -> None:
    store.add_key(record(scopes=frozenset()))
    assert store.find_key(key().id).key.scopes == frozenset()


def test_ids_of_keys_differ_by_case(store: Any, acme: Organization) -> None:
    store.add_key(record(1, id="abcdefghijklmnop"))
    store.add_key(record(2, id="ABCDEFGHIJKLMNOP"))
    assert store.find_key("abcdefghijklmnop").key.name == "key 1"
    assert store.find_key("ABCDEFGHIJKLMNOP").key.name == "key 2"
    assert store.find_key("Abcdefghijklmnop") is None


def test_an_unknown_key_is_not_found(store: Any, acme: Organization) -> None:
    store.add_key(record())
    for key_id in ("9999999999999999", f"{key().id} ", *IMPOSSIBLE):
        assert store.find_key(key_id) is None
    assert store.find_key(key().id) == record()


def test_a_key_shows_its_organization_as_it_stands_now(store: Any, acme: Organization) -> None:
    store.add_key(record())
    disabled = store.set_organization_disabled(acme.id, NOON)
    assert store.find_key(key().id).organization == disabled


def test_a_key_shows_its_own_organization(store: Any, acme: Organization) -> None:
    other = organization(2)
    store.add_organization(other)
    store.add_key(record(1))
    store.add_key(record(2, owner=other))
    assert store.find_key(key(2).id).organization == other


def test_a_key_id_is_taken_once(store: Any, acme: Organization) -> None:
    store.add_key(record())
    with pytest.raises(RefusedError, match=rf"^key '{key().id}' exists already$"):
        store.add_key(record(name="another"))
    assert store.find_key(key().id) == record()


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "new"},
        {"scopes": frozenset({"a:b", "c:d"})},
        {"not_before": LATER},
        {"expires_at": None},
        {"metadata": {"b": "2"}},
        {"metadata": {}, "name": "x"},
        {"limits": LIMITS},
        {"allowed_networks": ("192.0.2.1/32",)},
        {"allowed_networks": ()},
        {"successor": key(2).id, "grace_ends_at": NOON, "rotation_key": "\N{ROCKET}"},
        {},
    ],
)
def test_a_change_sets_the_given_columns_and_only_those(
    store: Any, acme: Organization, fields: dict[str, Any]
) -> None:
    before: dict[str, Any] = {
        "expires_at": LATER,
        "metadata": {"a": "1"},
        "allowed_networks": ("192.0.2.0/24",),
    }
    store.add_key(record(1, **before))
    store.add_key(record(2))
    after = key(**{**before, **fields}, version=2)
    assert store.change_key(after.id, **fields) == after
    assert store.find_key(after.id).key == after
    assert store.find_key(after.id).digest == record().digest
    assert store.find_key(key(2).id) == record(2)


def test_revoking_says_when_and_why(store: Any, acme: Organization) -> None:
    store.add_key(record(1))
    store.add_key(record(2))
    assert store.revoke_key(key().id, LATER, "lost \N{ROCKET}") == revoked(
        at=LATER, note="lost \N{ROCKET}"
    )
    assert store.find_key(key().id).key == revoked(at=LATER, note="lost \N{ROCKET}")
    assert store.find_key(key(2).id) == record(2)


def test_those_ids_are_told_that_exist(store: Any, acme: Organization) -> None:
    commit_all(store, *(record(number) for number in range(0, 2000, 2)))
    asked = [f"{number:016}" for number in range(1000)]
    assert store.find_existing(asked) == frozenset(asked[::2])
    assert store.find_existing(asked[1::2]) == frozenset()
    assert store.find_existing([]) == frozenset()
    assert store.find_existing([asked[0], asked[0], *IMPOSSIBLE]) == {asked[0]}


# Commits


def commit_all(store: Any, *new: Any) -> None:
    assert store.commit(adding(*new)) is True


def everything(store: Any) -> Any:
    """All that can be read of a store."""
    keys = store.list_keys(ALL, after=None, limit=1000)
    return (
        store.list_organizations(after=None, limit=1000),
        [store.find_key(one.id) for one in keys],
        store.list_digests(after=None, limit=1000),
        store.list_audit(organization=None, subject=None, after=None, limit=1000),
    )


def test_a_commit_makes_all_its_changes_at_once(store: Any, acme: Organization) -> None:
    commit_all(store, record(1), record(2))
    owner = changing(acme, scopes=frozenset({"models:*"}))
    first, second = revoking(key(1), LATER, "lost"), changing(key(2), name="new")
    born = adding(organization(2), record(3, name="successor"))
    assert store.commit(
        Commit(
            entries=(*owner.entries, *first.entries, *second.entries, *born.entries),
            organizations=born.organizations,
            keys=born.keys,
            changes=(*owner.changes, *first.changes, *second.changes),
        )
    )
    assert store.find_organization(acme.id) == owner.changes[0].after
    assert store.find_organization("acme-2") == organization(2)
    assert store.find_key(key(1).id).key == first.changes[0].after
    assert store.find_key(key(2).id).key == second.changes[0].after
    assert store.find_key(key(3).id).key == key(3, name="successor")
    trail = store.list_audit(organization=None, subject=None, after=None, limit=5)
    assert [entry.subject for entry in trail] == [
        key(3).id, organization(2).id, key(2).id, key(1).id, acme.id,
    ]  # fmt: skip


def test_five_hundred_keys_are_one_commit(store: Any, acme: Organization) -> None:
    commit_all(store, *(record(number, metadata={"n": str(number)}) for number in range(500)))
    listed = store.list_keys(ALL, after=None, limit=1000)
    assert [one.metadata["n"] for one in listed] == [str(number) for number in range(500)]
    assert len(store.list_audit(organization=acme.id, subject=None, after=None, limit=1000)) == 501


def test_a_commit_of_keys_of_many_organizations(store: Any) -> None:
    owners = [organization(number) for number in range(60)]
    commit_all(store, *owners)
    commit_all(store, *(record(number, owner=owner) for number, owner in enumerate(owners)))
    assert store.find_key(key(59).id).organization == owners[59]


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.parametrize(
    "stale",
    [
        changing(key(1), name="other"),
        changing(organization(), name="Other"),
        changing(key(1, version=3), name="other"),
        changing(key(9), name="other"),
        changing(organization(9), name="Other"),
        adding(record(3)),
        adding(record(3, owner=organization(9))),
        Commit(entries=(), changes=changing(key(2)).changes + changing(key(1)).changes),
        Commit(entries=(), changes=changing(key(1)).changes + changing(key(2)).changes),
        Commit(entries=(), unchanged=(organization(),)),
        Commit(entries=(), unchanged=(key(1),)),
        Commit(entries=(), unchanged=(key(9),)),
        Commit(entries=(), unchanged=(key(1),), changes=changing(key(2)).changes),
        Commit(entries=adding(organization(3)).entries, unchanged=(organization(),),
            organizations=(organization(3),)),
    ],
)  # fmt: skip
def test_a_commit_upon_what_has_changed_does_nothing(
    store: Any, acme: Organization, stale: Commit
) -> None:
    commit_all(store, record(1), record(2))
    store.change_key(key(1).id, name="new")
    store.change_organization(acme.id, name="New")
    before = everything(store)
    assert store.commit(stale) is False
    assert everything(store) == before
    store.add_organization(organization(4))  # it goes on


@pytest.mark.parametrize(
    ("new", "taken"),
    [
        ((record(2), record(1, name="other")), "key '0000000000000001'"),
        ((organization(2), organization(3, slug="acme-1")), "organization 'acme-1'"),
        (
            (organization(2), organization(3, id=organization().id)),
            "organization 'org_0000000000000001'",
        ),
        ((organization(2), record(1)), "key '0000000000000001'"),
    ],
)
def test_a_commit_that_is_refused_does_nothing(
    store: Any, acme: Organization, new: tuple[Any, ...], taken: str
) -> None:
    commit_all(store, record(1))
    before = everything(store)
    with pytest.raises(RefusedError, match=rf"^{taken} exists already$"):
        store.commit(adding(*new))
    assert everything(store) == before
    store.add_organization(organization(4))  # it goes on


def test_what_is_stale_and_taken_is_stale(store: Any, acme: Organization) -> None:
    commit_all(store, record(1))
    store.change_organization(acme.id, name="New")
    assert store.commit(adding(record(1))) is False


def test_a_commit_upon_an_unchanged_organization_changes_it_not(
    store: Any, acme: Organization
) -> None:
    assert store.commit(Commit(entries=(), unchanged=(acme,))) is True
    assert store.find_organization(acme.id) == acme


def test_a_commit_upon_an_unchanged_key_changes_it_not(store: Any, acme: Organization) -> None:
    commit_all(store, record(1), record(2))
    commit = changing(key(2), name="new")
    assert store.commit(replace(commit, unchanged=(acme, key(1)))) is True
    assert store.find_key(key(1).id).key == key(1)
    assert store.find_key(key(2).id).key.name == "new"


def test_a_change_leaves_what_moves_without_a_version(store: Any, acme: Organization) -> None:
    commit_all(store, record())
    read = store.find_key(key().id).key
    store.mark_used([Use(key().id, LATER, "192.0.2.1")])
    store.rehash_key(key().id, record().digest, "$sha256$new")
    assert store.commit(changing(read, name="new")) is True
    found = store.find_key(key().id)
    assert found.key == key(
        name="new", last_used_at=LATER, last_used_address="192.0.2.1", version=2
    )
    assert found.digest == "$sha256$new"


# The stored forms of tokens


def test_a_stored_form_is_replaced(store: Any, acme: Organization) -> None:
    commit_all(store, record(1), record(2))
    before = store.list_audit(organization=None, subject=None, after=None, limit=9)
    store.rehash_key(key(1).id, record(1).digest, "$argon2id$new")
    found = store.find_key(key(1).id)
    assert (found.digest, found.key) == ("$argon2id$new", key(1))
    assert store.find_key(key(2).id) == record(2)
    assert store.list_audit(organization=None, subject=None, after=None, limit=9) == before


def test_a_stored_form_is_replaced_only_if_it_is_still_the_old_one(
    store: Any, acme: Organization
) -> None:
    commit_all(store, record())
    store.rehash_key(key().id, "$sha256$older", "$sha256$new")
    store.rehash_key("9999999999999999", record().digest, "$sha256$new")
    for name in IMPOSSIBLE:
        store.rehash_key(name, record().digest, "$sha256$new")
    assert store.find_key(key().id) == record()


def test_of_rehashes_at_once_one_takes_hold(store: Any, acme: Organization) -> None:
    commit_all(store, record())
    store.together(
        [
            lambda backend, n=n: backend.rehash_key(key().id, record().digest, f"$sha256$new-{n}")
            for n in range(20)
        ]
    )
    won = store.find_key(key().id).digest
    assert won.startswith("$sha256$new-")
    store.rehash_key(key().id, won, "$sha256$last")
    assert store.find_key(key().id).digest == "$sha256$last"


def test_stored_forms_are_listed_by_key_id_but_of_revoked_keys(
    store: Any, acme: Organization
) -> None:
    ids = ["0" * 16, "Z" * 16, "a" * 16, "b" * 16, "z" * 16]
    commit_all(store, *(record(n, id=one) for n, one in reversed([*enumerate(ids)])))
    store.revoke_key("b" * 16, NOON)
    listed = [KeyDigest(one, f"$sha256$digest-{n}") for n, one in enumerate(ids) if one[0] != "b"]
    assert store.list_digests(after=None, limit=10) == Page(tuple(listed))
    assert store.list_digests(after=None, limit=4) == Page(tuple(listed))
    first = store.list_digests(after=None, limit=2)
    assert first == Page(tuple(listed[:2]), "Z" * 16)
    # Also behind one that has been revoked since.
    store.revoke_key("Z" * 16, NOON)
    assert store.list_digests(after=first.next, limit=2) == Page(tuple(listed[2:]))
    assert store.list_digests(after="z" * 16, limit=2) == Page(())


# When keys were last used


def test_a_use_is_noted(store: Any, acme: Organization) -> None:
    commit_all(store, *(record(number) for number in range(4)))
    trail = store.list_audit(organization=None, subject=None, after=None, limit=9)
    store.mark_used(
        [
            Use(key(0).id, NOON),
            Use(key(1).id, LATER, "2001:db8:1234:5678:9abc:def0:1234:5678%a-long-zone-id"),
            Use("9999999999999999", LATER, "192.0.2.1"),
            Use(key(3).id, NOON, "192.0.2.1"),
        ]
    )
    found = [store.find_key(key(number).id).key for number in range(4)]
    assert [(one.last_used_at, one.last_used_address) for one in found] == [
        (NOON, None),
        (LATER, "2001:db8:1234:5678:9abc:def0:1234:5678%a-long-zone-id"),
        (None, None),
        (NOON, "192.0.2.1"),
    ]
    assert [one.version for one in found] == [1] * 4
    assert store.list_audit(organization=None, subject=None, after=None, limit=9) == trail


def test_no_uses_are_no_uses(store: Any, acme: Organization) -> None:
    store.mark_used([])


def test_an_address_that_is_none_is_no_reason_to_fail(store: Any, acme: Organization) -> None:
    commit_all(store, record())
    store.mark_used([Use(key().id, NOON, "testclient"), *(Use(x, NOON) for x in IMPOSSIBLE)])
    assert store.find_key(key().id).key.last_used_address == "testclient"


def test_a_use_is_never_set_back(store: Any, acme: Organization) -> None:
    commit_all(store, record())
    for at, address in (
        (NOON, "192.0.2.1"),
        (LATER, "192.0.2.2"),
        (LATER, "192.0.2.3"),
        (NOON, "192.0.2.4"),
    ):
        store.mark_used([Use(key().id, at, address)])
    found = store.find_key(key().id).key
    assert (found.last_used_at, found.last_used_address) == (LATER, "192.0.2.2")


def test_of_uses_at_once_the_last_stays(store: Any, acme: Organization) -> None:
    commit_all(store, *(record(number) for number in range(5)))
    moments = [NOON + timedelta(minutes=n) for n in range(20)]
    store.together(
        [
            lambda backend, at=at, n=n: backend.mark_used(
                [Use(key((m * (n + 1)) % 5).id, at, str(at.minute)) for m in range(5)]
            )
            for n, at in enumerate(moments)
            if n not in (4, 9, 14)  # the others come past every key
        ]
    )
    for number in range(5):
        found = store.find_key(key(number).id).key
        assert found.last_used_at == moments[-1] or (number and found.last_used_at == moments[18])
        assert found.last_used_address == str(found.last_used_at.minute)


def test_a_use_revives_nothing(store: Any, acme: Organization) -> None:
    commit_all(store, record())
    store.revoke_key(key().id, NOON)
    store.mark_used([Use(key().id, LATER)])
    assert store.find_key(key().id).key == revoked(last_used_at=LATER)


# Lists


def test_an_empty_store_lists_nothing(store: Any) -> None:
    assert store.list_organizations(after=None, limit=10) == Page(())
    assert store.list_keys(ALL, after=None, limit=10) == Page(())


def test_organizations_are_listed_by_time_and_then_id(store: Any) -> None:
    listed = [
        organization(1, id="org_ZZZZZZZZZZZZZZZZ", created_at=NOON),
        organization(2, id="org_aaaaaaaaaaaaaaaa", created_at=NOON),
        organization(3, id="org_1111111111111111", created_at=NOON + timedelta(microseconds=1)),
        organization(4, id="org_0000000000000000", created_at=LATER, disabled_at=LATER),
    ]
    for one in reversed(listed):
        store.add_organization(one)
    assert store.list_organizations(after=None, limit=10) == Page(tuple(listed))


def test_keys_are_listed_by_time_and_then_id(store: Any, acme: Organization) -> None:
    listed = [
        record(1, id="Z" * 16, created_at=NOON),
        record(2, id="a" * 16, created_at=NOON),
        record(3, id="1" * 16, created_at=NOON + timedelta(microseconds=1)),
        record(4, id="0" * 16, created_at=LATER),
    ]
    for one in reversed(listed):
        store.add_key(one)
    page = store.list_keys(ALL, after=None, limit=10)
    assert page == Page(tuple(one.key for one in listed))


def test_dead_keys_are_listed(store: Any, acme: Organization) -> None:
    store.add_key(record(expires_at=NOON))
    dead = store.revoke_key(key().id, NOON, "lost")
    assert list(store.list_keys(KeyFilter(organization=acme.id), after=None, limit=10)) == [dead]


def test_keys_of_one_organization_are_listed_alone(store: Any, acme: Organization) -> None:
    other = organization(2)
    store.add_organization(other)
    store.add_key(record(1))
    store.add_key(record(2, owner=other))
    store.add_key(record(3))
    listed = store.list_keys(KeyFilter(organization=acme.id), after=None, limit=10)
    assert [one.name for one in listed] == ["key 1", "key 3"]


def test_an_unknown_organization_has_no_keys(store: Any, acme: Organization) -> None:
    store.add_key(record())
    for name in ("org_9999999999999999", acme.slug, *IMPOSSIBLE):
        assert store.list_keys(KeyFilter(organization=name), after=None, limit=10) == Page(())


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_of_keys_leave_out_and_repeat_nothing(
    store: Any, acme: Organization, limit: int
) -> None:
    for number in range(4):
        store.add_key(record(number, created_at=NOON if number < 3 else LATER))
    for owner in (None, acme.id):
        pages: list[Page[Key]] = []
        after = None
        while not pages or after is not None:
            pages.append(store.list_keys(KeyFilter(organization=owner), after=after, limit=limit))
            after = pages[-1].next
        assert [one.name for page in pages for one in page] == [f"key {n}" for n in range(4)]
        assert all(len(page) == limit for page in pages[:-1])
        assert len(pages[-1]) > 0


def test_pages_of_organizations_leave_out_and_repeat_nothing(store: Any) -> None:
    for number in range(3):
        store.add_organization(organization(number))
    first = store.list_organizations(after=None, limit=2)
    assert (first.items, first.next) == ((organization(0), organization(1)), organization(1).id)
    second = store.list_organizations(after=first.next, limit=2)
    assert (second.items, second.next) == ((organization(2),), None)


def test_behind_an_unknown_id_there_is_nothing(store: Any, acme: Organization) -> None:
    store.add_key(record())
    for after in ("9999999999999999", "org_9999999999999999", *IMPOSSIBLE):
        assert store.list_organizations(after=after, limit=10) == Page(())
        assert store.list_keys(ALL, after=after, limit=10) == Page(())


def test_behind_a_key_of_another_organization_there_is_nothing(
    store: Any, acme: Organization
) -> None:
    other = organization(2)
    store.add_organization(other)
    store.add_key(record(1, owner=other))
    store.add_key(record(2))
    assert store.list_keys(KeyFilter(organization=acme.id), after=key(1).id, limit=10) == Page(())


def test_a_page_goes_on_behind_a_key_that_was_revoked_since(store: Any, acme: Organization) -> None:
    store.add_key(record(1))
    store.add_key(record(2))
    page = store.list_keys(ALL, after=None, limit=1)
    store.revoke_key(key(1).id, NOON, None)
    after = store.list_keys(ALL, after=page.next, limit=1)
    assert after == Page((key(2),))


# Filters


def various_keys() -> list[Key]:
    """Keys that differ in all that a filter looks at."""
    moments = (None, NOON, NOON + timedelta(microseconds=1), LATER)
    made = [
        key(
            number,
            organization=organization(1 + number % 2).id,
            family=f"fam_{number % 3:016}",
            expires_at=expires_at,
            grace_ends_at=grace_ends_at,
            revoked_at=NOON if number % 5 == 0 else None,
            created_at=NOON if number % 2 else LATER,
            last_used_at=last_used_at,
        )
        for number, (expires_at, grace_ends_at, last_used_at) in enumerate(
            itertools.product(moments, moments, moments)
        )
    ]
    return sorted(made, key=lambda one: (one.created_at, one.id))


@pytest.fixture
def various(store: Any) -> list[Key]:
    owners = organization(1), organization(2)
    commit_all(store, *owners)
    keys = various_keys()
    by_id = {one.id: one for one in owners}
    commit_all(
        store,
        *(
            KeyRecord(key=one, organization=by_id[one.organization], digest=f"$sha256${one.id}")
            for one in keys
        ),
    )
    store.mark_used([Use(one.id, one.last_used_at) for one in keys if one.last_used_at])
    return keys


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_a_list_holds_what_its_filter_admits(store: Any, various: list[Key]) -> None:
    moments = (None, NOON, NOON + timedelta(microseconds=1), LATER, LATER + timedelta(days=1))
    filters = [
        KeyFilter(organization=owner, family=family, ends_before=b, unused_since=u, alive_at=a)
        for owner, family, b, u, a in [
            *itertools.product([None], [None], moments, moments, moments),
            *itertools.product(
                [None, organization(2).id], [None, "fam_" + "0" * 16], [None, LATER], [None], [NOON]
            ),
            *itertools.product([organization(1).id], ["fam_" + "0" * 16], moments, [LATER], [None]),
        ]
    ]
    for wanted in filters:
        listed = store.list_keys(wanted, after=None, limit=1000)
        assert list(listed) == [one for one in various if wanted.admits(one)], wanted


def test_a_filter_of_what_can_not_be_admits_nothing(store: Any, various: list[Key]) -> None:
    for name in ("fam_9999999999999999", *IMPOSSIBLE):
        assert store.list_keys(KeyFilter(family=name), after=None, limit=9) == Page(())


@pytest.mark.parametrize(
    "wanted",
    [KeyFilter(alive_at=NOON), KeyFilter(unused_since=LATER, organization=organization(2).id)],
)
def test_pages_of_a_filter_leave_out_and_repeat_nothing(
    store: Any, various: list[Key], wanted: KeyFilter
) -> None:
    found: list[Key] = []
    after = None
    while True:
        page = store.list_keys(wanted, after=after, limit=3)
        found += page
        after = page.next
        if after is None:
            break
        assert len(page) == 3
    assert found == [one for one in various if wanted.admits(one)]


def test_a_page_goes_on_behind_a_key_that_the_filter_admits_no_more(
    store: Any, acme: Organization
) -> None:
    commit_all(store, record(1), record(2))
    wanted = KeyFilter(alive_at=NOON)
    page = store.list_keys(wanted, after=None, limit=1)
    store.revoke_key(key(1).id, NOON)
    assert store.list_keys(wanted, after=page.next, limit=1) == Page((key(2),))


# The audit trail


def test_every_change_leaves_one_entry(store: Any, acme: Organization) -> None:
    commit_all(store, record(metadata={"a": "\N{ROCKET} \ud800 nul \0"}, limits=LIMITS))
    store.change_key(key().id, name="new \N{ROCKET}", scopes=frozenset({"a:b"}))
    store.revoke_key(key().id, LATER, "lost")
    last, changed, issued, created = trail_of(store)
    assert (created.action, created.subject, created.organization, created.actor, created.at) == (
        Action.ORGANIZATION_CREATED, acme.id, acme.id, "test", NOON,
    )  # fmt: skip
    assert (issued.action, issued.subject, issued.organization) == (
        Action.KEY_ISSUED, key().id, acme.id,
    )  # fmt: skip
    assert issued.before is None
    expected = adding(record(metadata={"a": "\N{ROCKET} \ud800 nul \0"}, limits=LIMITS)).entries[0]
    assert issued.after == expected.after
    assert changed.before == {"name": "key 1", "scopes": ["models:read"]}
    assert changed.after == {"name": "new \N{ROCKET}", "scopes": ["a:b"]}
    assert (last.at, last.at.tzinfo) == (LATER, UTC)
    assert last.after == {
        "revoked_at": "2026-03-02T12:00:00.123457Z",
        "revoked_reason": "key compromise",
        "revoked_note": "lost",
    }
    assert len({entry.id for entry in (last, changed, issued, created)}) == 4


def test_an_actor_may_have_any_printable_name(store: Any) -> None:
    store.commit(adding(organization(), actor="\N{ROCKET}" * 200))
    assert [entry.actor for entry in trail_of(store)] == ["\N{ROCKET}" * 200]


def test_the_trail_is_listed_for_an_organization_and_for_a_record(
    store: Any, acme: Organization
) -> None:
    other = organization(2)
    commit_all(store, other)
    commit_all(store, record(1), record(2), record(3, owner=other))
    store.revoke_key(key(1).id, NOON)
    assert [one.subject for one in trail_of(store, organization=acme.id)] == [
        key(1).id, key(2).id, key(1).id, acme.id,
    ]  # fmt: skip
    assert [one.subject for one in trail_of(store, organization=other.id)] == [key(3).id, other.id]
    assert [one.action for one in trail_of(store, subject=key(1).id)] == [
        Action.KEY_UPDATED,
        Action.KEY_ISSUED,
    ]
    assert len(trail_of(store, subject=acme.id)) == 1
    assert len(trail_of(store, organization=acme.id, subject=key(2).id)) == 1
    assert trail_of(store, organization=other.id, subject=key(2).id) == []
    for name in ("org_9999999999999999", *IMPOSSIBLE):
        assert trail_of(store, organization=name) == []
        assert trail_of(store, subject=name) == []


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7])
def test_pages_of_the_trail_leave_out_and_repeat_nothing(
    store: Any, acme: Organization, limit: int
) -> None:
    commit_all(store, *(record(number) for number in range(5)))
    for wanted in ({}, {"organization": acme.id}):
        whole = trail_of(store, **wanted)
        assert len(whole) == 6
        found: list[AuditEntry] = []
        after = None
        while True:
            page = store.list_audit(
                **{"organization": None, "subject": None} | wanted, after=after, limit=limit
            )
            found += page
            after = page.next
            if after is None:
                break
            assert len(page) == limit
        assert found == whole


def test_behind_what_is_no_entry_there_is_nothing(store: Any, acme: Organization) -> None:
    for after in IMPOSSIBLE:
        assert trail_of(store, after=after) == []


# The change feed


@pytest.fixture
def feed(store: Any) -> Iterator[Any]:
    """A reader of the audit trail; there is none where only this process can change the store."""
    feed = store.feed()
    if feed is None:
        pytest.skip("only this process can change the store")
    yield feed
    feed.close()


def test_a_feed_tells_nothing_of_a_commit_that_was_not_made(
    store: Any, acme: Organization, feed: Any
) -> None:
    position = feed.read(None, 0).position
    assert store.commit(changing(organization(version=2), name="Other")) is False
    with pytest.raises(RefusedError):
        store.commit(adding(organization(2), acme))
    assert feed.read(position, 0) == News(position, ())


def test_a_feed_tells_what_changed_since(store: Any, acme: Organization, feed: Any) -> None:
    start = feed.read(None, 0)
    assert not start.subjects
    assert feed.read(start.position, 0) == News(start.position, ())
    commit_all(store, record(1), record(2))
    store.change_organization(acme.id, name="New")
    news = feed.read(start.position, 0)
    assert set(news.subjects) == {key(1).id, key(2).id, acme.id}
    assert feed.read(news.position, 0) == News(news.position, ())
    # As often as one likes, and by anyone.
    other = store.feed()
    assert other.read(start.position, 0) == news
    for one in (feed, feed, other):
        one.close()


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_a_feed_tells_of_more_than_fits_at_once(store: Any, acme: Organization, feed: Any) -> None:
    position = feed.read(None, 0).position
    for first in range(0, 2500, 500):
        commit_all(store, *(record(number) for number in range(first, first + 500)))
    told: list[str] = []
    for _ in range(100):
        news = feed.read(position, 0)
        if news.position == position:
            break
        position = news.position
        told += news.subjects
        # Only who has read all may say that what it remembers has not changed.
        assert news.whole is (feed.read(position, 0).subjects == ())
    assert sorted(set(told)) == [key(number).id for number in range(2500)]


def test_a_feed_tells_nothing_of_uses_and_rehashes(
    store: Any, acme: Organization, feed: Any
) -> None:
    commit_all(store, record())
    start = feed.read(None, 0)
    store.mark_used([Use(key().id, LATER)])
    store.rehash_key(key().id, record().digest, "$sha256$new")
    assert feed.read(start.position, 0) == News(start.position, ())


def test_a_feed_that_was_never_read_may_be_closed(feed: Any) -> None:
    feed.close()
    feed.close()


# At the same time


def test_of_commits_at_once_upon_one_version_exactly_one_is_made(
    store: Any, acme: Organization
) -> None:
    commit_all(store, record())
    for _ in range(3):
        present = store.find_key(key().id).key
        commits = [changing(present, name=f"{present.version} {n}") for n in range(24)]
        answers = store.together([lambda backend, c=c: backend.commit(c) for c in commits])
        assert sorted(answers) == [False] * 23 + [True]
        won = commits[answers.index(True)].changes[0].after
        assert store.find_key(key().id).key == won
    assert store.find_key(key().id).key.version == 4
    assert len(trail_of(store, subject=key().id)) == 4


def test_of_opposite_commits_at_once_upon_two_records_exactly_one_is_made(
    store: Any, acme: Organization
) -> None:
    commit_all(store, record(1), record(2))
    pairs = [(key(1), key(2)), (key(2), key(1))] * 10
    commits = [
        Commit(
            entries=changing(one, name=f"{n}").entries,
            changes=(*changing(one, name=f"{n}").changes, *changing(other, name=f"{n}").changes),
        )
        for n, (one, other) in enumerate(pairs)
    ]
    answers = store.together([lambda backend, c=c: backend.commit(c) for c in commits])
    assert sorted(answers) == [False] * 19 + [True]
    winner = str(answers.index(True))
    assert [store.find_key(key(n).id).key.name for n in (1, 2)] == [winner, winner]


def test_a_key_issued_while_its_organization_is_disabled_loses_or_wins_first(
    store: Any, acme: Organization
) -> None:
    disabling = changing(acme, disabled_at=NOON)
    issuing = [adding(record(number)) for number in range(20)]
    calls = [*issuing[:10], disabling, *issuing[10:]]
    answers = store.together([lambda backend, c=c: backend.commit(c) for c in calls])
    assert answers[10] is True
    trail = [entry.subject for entry in reversed(trail_of(store))]
    # Whatever was issued was issued before.
    assert trail[-1] == acme.id
    assert len(trail) == 1 + sum(answers)
    assert store.find_organization(acme.id) == disabling.changes[0].after


def test_entries_of_commits_at_once_are_each_there_and_in_one_order(
    store: Any, acme: Organization
) -> None:
    feed = store.feed()
    position = feed and feed.read(None, 0).position
    calls = [adding(record(number)) for number in range(30)]
    assert all(store.together([lambda backend, c=c: backend.commit(c) for c in calls]))
    trail = [entry.subject for entry in reversed(trail_of(store))][1:]
    assert sorted(trail) == [key(number).id for number in range(30)]
    if feed is not None:
        assert list(dict.fromkeys(feed.read(position, 0).subjects)) == trail
        feed.close()


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_changes_at_once_that_are_decided_anew_all_take_hold(
    store: Any, acme: Organization
) -> None:
    store.add_key(record())
    changes: list[dict[str, Any]] = [
        {"name": "new"},
        {"scopes": frozenset({"a:b"})},
        {"expires_at": LATER},
        {"not_before": NOON},
        {"metadata": {"a": "1"}},
    ]
    store.together([lambda backend, c=c: backend.change_key(key().id, **c) for c in changes * 4])
    assert store.find_key(key().id).key == key(
        name="new", scopes={"a:b"}, expires_at=LATER, not_before=NOON, metadata={"a": "1"},
        version=21,
    )  # fmt: skip


def test_a_revocation_among_changes_stands(store: Any, acme: Organization) -> None:
    store.add_key(record())
    store.together(
        [lambda backend: backend.revoke_key(key().id, NOON, "lost")]
        + [lambda backend, n=n: backend.change_key(key().id, name=f"{n}") for n in range(19)]
    )
    assert store.find_key(key().id).key.revoked_at == NOON


def test_of_twenty_organizations_of_one_slug_at_once_one_is_added(store: Any) -> None:
    def attempt(backend: Any, number: int) -> Any:
        return backend.add_organization(organization(number, slug="acme"))

    with pytest.raises(RefusedError, match=r"^organization 'acme' exists already$"):
        store.together([lambda backend, n=n: attempt(backend, n) for n in range(20)])
    assert len(store.list_organizations(after=None, limit=30)) == 1
