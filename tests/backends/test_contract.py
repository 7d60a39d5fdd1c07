"""What every key store does, in both flavours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from keyguard.backends.base import AsyncBackend, Backend
from keyguard.exceptions import RefusedError
from keyguard.sansio.limits import Limit
from keyguard.sansio.models import Key, KeyChanges, Organization, OrganizationChanges, Page
from tests.backends.records import LATER, NOON, key, organization, record

IMPOSSIBLE = (
    "", " ", "no such", "ünknown", "\N{ROCKET}", "nul\0", "\ud800", "%", "_", "'", "x" * 10_000,
)  # fmt: skip


@pytest.fixture
def acme(store: Any) -> Organization:
    acme = organization()
    store.add_organization(acme)
    return acme


# The protocol


def test_a_store_satisfies_the_protocol_of_its_flavour(store: Any, flavour: str) -> None:
    mine, other = (Backend, AsyncBackend) if flavour == "sync" else (AsyncBackend, Backend)
    assert isinstance(store.backend, mine)
    assert not isinstance(store.backend, other)


def test_migrating_again_changes_nothing(store: Any, acme: Organization) -> None:
    store.migrate()
    assert store.find_organization(acme.id) == acme


def test_closing_twice_is_fine(store: Any) -> None:
    store.close()
    store.close()


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
    [datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)],
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


def test_disabling_says_since_when(store: Any, acme: Organization) -> None:
    disabled = store.set_organization_disabled(acme.id, NOON)
    assert disabled == organization(disabled_at=NOON)
    assert store.find_organization(acme.id) == disabled


def test_disabling_again_keeps_the_time(store: Any, acme: Organization) -> None:
    store.set_organization_disabled(acme.id, NOON)
    assert store.set_organization_disabled(acme.id, LATER).disabled_at == NOON


def test_enabling_ends_it(store: Any, acme: Organization) -> None:
    store.set_organization_disabled(acme.id, NOON)
    assert store.set_organization_disabled(acme.id, None) == acme
    assert store.set_organization_disabled(acme.id, None) == acme


def test_disabling_touches_no_other_organization(store: Any, acme: Organization) -> None:
    store.add_organization(organization(2))
    store.set_organization_disabled(acme.id, NOON)
    assert store.find_organization("acme-2").disabled_at is None


def test_disabling_takes_an_id_and_no_other(store: Any, acme: Organization) -> None:
    for name in ("org_9999999999999999", acme.slug, *IMPOSSIBLE):
        assert store.set_organization_disabled(name, NOON) is None
    assert store.find_organization(acme.id) == acme


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
        revoked_reason="verloren \N{PENSIVE FACE}",
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
    assert (found.not_before, found.expires_at, found.revoked_at, found.revoked_reason) == (
        None, None, None, None,
    )  # fmt: skip
    assert found.metadata == {}


def test_a_key_may_have_no_scopes(store: Any, acme: Organization) -> None:
    store.add_key(record(scopes=frozenset()))
    assert store.find_key(key().id).key.scopes == frozenset()


def test_ids_of_keys_differ_by_case(store: Any, acme: Organization) -> None:
    store.add_key(record(1, id="abcdefghijklmnop"))
    store.add_key(record(2, id="ABCDEFGHIJKLMNOP"))
    assert store.find_key("abcdefghijklmnop").key.name == "key 1"
    assert store.find_key("ABCDEFGHIJKLMNOP").key.name == "key 2"
    assert store.find_key("Abcdefghijklmnop") is None


def test_an_unknown_key_is_not_found_changed_or_revoked(store: Any, acme: Organization) -> None:
    store.add_key(record())
    for key_id in ("9999999999999999", f"{key().id} ", *IMPOSSIBLE):
        assert store.find_key(key_id) is None
        assert store.change_key(key_id, KeyChanges(name="new")) is None
        assert store.revoke_key(key_id, NOON, None) is None
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


def test_a_key_needs_an_organization_that_exists(store: Any, acme: Organization) -> None:
    with pytest.raises(RefusedError, match=r"^there is no organization 'org_0000000000000002'$"):
        store.add_key(record(owner=organization(2)))
    assert store.find_key(key().id) is None


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (KeyChanges(name="new"), {"name": "new"}),
        (KeyChanges(scopes=frozenset({"a:b", "c:d"})), {"scopes": frozenset({"a:b", "c:d"})}),
        (KeyChanges(not_before=LATER), {"not_before": LATER}),
        (KeyChanges(expires_at=None), {"expires_at": None}),
        (KeyChanges(metadata={"b": "2"}), {"metadata": {"b": "2"}}),
        (KeyChanges(metadata={}, name="x"), {"metadata": {}, "name": "x"}),
        (KeyChanges(), {}),
    ],
)
def test_a_change_sets_the_given_columns_and_only_those(
    store: Any, acme: Organization, changes: KeyChanges, fields: dict[str, Any]
) -> None:
    before: dict[str, Any] = {"expires_at": LATER, "metadata": {"a": "1"}}
    store.add_key(record(**before))
    after = key(**before | fields)
    assert store.change_key(after.id, changes) == after
    assert store.find_key(after.id).key == after
    assert store.find_key(after.id).digest == record().digest


def test_a_change_touches_no_other_key(store: Any, acme: Organization) -> None:
    store.add_key(record(1))
    store.add_key(record(2))
    store.change_key(key(1).id, KeyChanges(name="new"))
    assert store.find_key(key(2).id) == record(2)


def test_a_revoked_key_is_not_changed(store: Any, acme: Organization) -> None:
    store.add_key(record())
    revoked = store.revoke_key(key().id, NOON, "lost")
    assert store.change_key(key().id, KeyChanges(name="new", expires_at=LATER)) == revoked
    assert store.find_key(key().id).key == revoked


def test_revoking_says_when_and_why(store: Any, acme: Organization) -> None:
    store.add_key(record())
    revoked = store.revoke_key(key().id, LATER, "lost \N{ROCKET}")
    assert revoked == key(revoked_at=LATER, revoked_reason="lost \N{ROCKET}")
    assert store.find_key(key().id).key == revoked


def test_revoking_needs_no_reason(store: Any, acme: Organization) -> None:
    store.add_key(record())
    assert store.revoke_key(key().id, LATER, None) == key(revoked_at=LATER)


def test_revoking_again_keeps_time_and_reason(store: Any, acme: Organization) -> None:
    store.add_key(record())
    first = store.revoke_key(key().id, NOON, None)
    assert store.revoke_key(key().id, LATER, "again") == first


def test_revoking_touches_no_other_key(store: Any, acme: Organization) -> None:
    store.add_key(record(1))
    store.add_key(record(2))
    store.revoke_key(key(1).id, NOON, None)
    assert store.find_key(key(2).id).key.revoked_at is None


# Lists


def test_an_empty_store_lists_nothing(store: Any) -> None:
    assert store.list_organizations(after=None, limit=10) == Page(())
    assert store.list_keys(organization=None, after=None, limit=10) == Page(())


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
    page = store.list_keys(organization=None, after=None, limit=10)
    assert page == Page(tuple(one.key for one in listed))


def test_dead_keys_are_listed(store: Any, acme: Organization) -> None:
    store.add_key(record(expires_at=NOON))
    revoked = store.revoke_key(key().id, NOON, "lost")
    assert list(store.list_keys(organization=acme.id, after=None, limit=10)) == [revoked]


def test_keys_of_one_organization_are_listed_alone(store: Any, acme: Organization) -> None:
    other = organization(2)
    store.add_organization(other)
    store.add_key(record(1))
    store.add_key(record(2, owner=other))
    store.add_key(record(3))
    listed = store.list_keys(organization=acme.id, after=None, limit=10)
    assert [one.name for one in listed] == ["key 1", "key 3"]


def test_an_unknown_organization_has_no_keys(store: Any, acme: Organization) -> None:
    store.add_key(record())
    for name in ("org_9999999999999999", acme.slug, *IMPOSSIBLE):
        assert store.list_keys(organization=name, after=None, limit=10) == Page(())


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
            pages.append(store.list_keys(organization=owner, after=after, limit=limit))
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
        assert store.list_keys(organization=None, after=after, limit=10) == Page(())


def test_behind_a_key_of_another_organization_there_is_nothing(
    store: Any, acme: Organization
) -> None:
    other = organization(2)
    store.add_organization(other)
    store.add_key(record(1, owner=other))
    store.add_key(record(2))
    assert store.list_keys(organization=acme.id, after=key(1).id, limit=10) == Page(())


def test_a_page_goes_on_behind_a_key_that_was_revoked_since(store: Any, acme: Organization) -> None:
    store.add_key(record(1))
    store.add_key(record(2))
    page = store.list_keys(organization=None, after=None, limit=1)
    store.revoke_key(key(1).id, NOON, None)
    after = store.list_keys(organization=None, after=page.next, limit=1)
    assert after == Page((key(2),))


# At the same time


def test_of_twenty_revocations_at_once_one_wins_and_all_see_it(
    store: Any, acme: Organization
) -> None:
    store.add_key(record())
    answers = store.together(
        [
            lambda backend, n=n: backend.revoke_key(
                key().id, NOON + timedelta(seconds=n), f"reason {n}"
            )
            for n in range(20)
        ]
    )
    won = store.find_key(key().id).key
    assert won.revoked_reason == f"reason {(won.revoked_at - NOON).seconds}"
    assert answers == [won] * 20


def test_changes_of_different_columns_at_once_all_take_hold(store: Any, acme: Organization) -> None:
    store.add_key(record())
    changes = [
        KeyChanges(name="new"),
        KeyChanges(scopes=frozenset({"a:b"})),
        KeyChanges(expires_at=LATER),
        KeyChanges(not_before=NOON),
        KeyChanges(metadata={"a": "1"}),
    ] * 4
    store.together([lambda backend, one=one: backend.change_key(key().id, one) for one in changes])
    assert store.find_key(key().id).key == key(
        name="new", scopes={"a:b"}, expires_at=LATER, not_before=NOON, metadata={"a": "1"}
    )


def test_a_revocation_among_changes_stands(store: Any, acme: Organization) -> None:
    store.add_key(record())
    store.together(
        [lambda backend: backend.revoke_key(key().id, NOON, "lost")]
        + [
            lambda backend, n=n: backend.change_key(key().id, KeyChanges(name=f"name {n}"))
            for n in range(19)
        ]
    )
    assert store.find_key(key().id).key.revoked_at == NOON


def test_of_twenty_organizations_of_one_slug_at_once_one_is_added(store: Any) -> None:
    def attempt(backend: Any, number: int) -> Any:
        return backend.add_organization(organization(number, slug="acme"))

    with pytest.raises(RefusedError, match=r"^organization 'acme' exists already$"):
        store.together([lambda backend, n=n: attempt(backend, n) for n in range(20)])
    assert len(store.list_organizations(after=None, limit=30)) == 1


# Limits

LIMITS = (
    Limit("burst", "5 per second; 100/minute"),
    Limit("day", "9/day", per="address", strategy="moving-window", enforce=False),  # type: ignore[arg-type]
)


def test_limits_come_back_as_they_were(store: Any) -> None:
    owner = organization(limits=LIMITS)
    store.add_organization(owner)
    store.add_key(record(owner=owner, limits=LIMITS[:1]))
    found = store.find_key(key().id)
    assert found.key.limits == LIMITS[:1]
    assert found.organization == owner
    assert store.find_organization(owner.slug).limits == LIMITS
    assert store.list_organizations(after=None, limit=5).items == (owner,)


def test_limits_of_a_key_are_changed_and_taken_away(store: Any, acme: Organization) -> None:
    store.add_key(record())
    assert store.change_key(key().id, KeyChanges(limits=LIMITS)).limits == LIMITS
    assert store.find_key(key().id).key.limits == LIMITS
    assert store.change_key(key().id, KeyChanges(limits=())).limits == ()
    assert store.find_key(key().id).key == key()


def test_columns_of_an_organization_are_changed_and_no_others(
    store: Any, acme: Organization
) -> None:
    store.set_organization_disabled(acme.id, LATER)
    changed = store.change_organization(acme.id, OrganizationChanges(limits=LIMITS))
    assert changed == organization(limits=LIMITS, disabled_at=LATER)
    changed = store.change_organization(acme.id, OrganizationChanges(name="Other"))
    assert changed == organization(name="Other", limits=LIMITS, disabled_at=LATER)
    assert store.find_organization(acme.id) == changed
    assert store.change_organization(acme.id, OrganizationChanges()) == changed


def test_an_organization_that_is_not_there_is_not_changed(store: Any, acme: Organization) -> None:
    for name in ("org_9999999999999999", acme.slug, *IMPOSSIBLE):
        assert store.change_organization(name, OrganizationChanges(name="Other")) is None
    assert store.find_organization(acme.id) == acme
