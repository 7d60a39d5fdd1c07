"""A key whose record can't be read: it is revoked all the same, and concerns no other key."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyguard import (
    Action,
    CorruptDataError,
    DamagedKey,
    DamagedOrganization,
    Key,
    NotFoundError,
    Organization,
    Reason,
    RefusedError,
)
from tests.damage import Damage, damages
from tests.stored import ALL_STORES, FLAVOURS, Stored, open_stored

KINDS = [kind for kind in ALL_STORES if kind != "memory"]  # whose records are Python objects
# The other flavour of each kind is left to `make chaos`.
every_column = pytest.mark.campaign(
    "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
UNREADABLE = {
    "sqlite": Damage("sqlite", "key", "name", "CAST(x'ff41' AS TEXT)"),
    "postgresql": Damage("postgresql", "key", "created_at", "'infinity'"),
    "mariadb": Damage("mariadb", "key", "limits", "'{'"),
    "redis": Damage("redis", "key", "created_at", None),
}


@pytest.fixture(params=[f"{kind}-{flavour}" for kind in KINDS for flavour in FLAVOURS])
def durable(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path
) -> Iterator[Stored]:
    """A new store of each kind that outlives its process."""
    kind, flavour = request.param.split("-")
    yield from open_stored(
        kind,
        flavour,
        runner,
        request,
        tmp_path,
        imported_formats=["token"],
        peppers=["vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"],
    )


def damage(stored: Stored, key: Key) -> None:
    """Have nobody be able to read a key's record."""
    UNREADABLE[stored.kind].do(stored.target, key.id)


def revokable(kind: str) -> list[Damage]:
    """Return the damage after which a record can still be found and marked as revoked."""
    return [d for d in damages(kind, "key") if d.field not in ("", "id") or d.value is None]


@pytest.mark.campaign("sqlite-sync")
def test_a_key_is_revoked_whatever_its_record_holds(durable: Stored) -> None:
    keys = durable.guard.keys
    for found in revokable(durable.kind):
        issued = durable.issue("admin")
        durable.issue("admin")
        found.do(durable.target, issued.key.id)
        assert durable.refusal(issued.token) is Reason.STORE_UNAVAILABLE, found

        has_time = found.field == "revoked_at" and found.value is not None
        revoked_at = None if has_time else durable.clock.now
        revoked = keys.revoke(issued.key.id, note="stolen", actor="ada")
        again = keys.revoke(issued.key.id)

        if isinstance(revoked, Key):  # the revocation itself has mended the record
            assert found.field in ("revoked_at", "revoked_reason", "revoked_note", "version")
            assert revoked == again == keys.get(issued.key.id)
            assert revoked.revoked_at == revoked_at
            assert durable.refusal(issued.token) is Reason.KEY_REVOKED
        else:
            assert revoked == DamagedKey(id=issued.key.id, revoked_at=revoked_at), found
            assert again == DamagedKey(id=issued.key.id, revoked_at=None), found
            assert durable.refusal(issued.token) is Reason.STORE_UNAVAILABLE
        last = durable.trail(subject=issued.key.id)[-1]
        if not has_time:
            assert (last.action, last.actor) == (Action.KEY_REVOKED, "ada"), found
            assert last.after["revoked_note"] == "stolen"


@pytest.mark.campaign("redis-async")
def test_a_family_is_revoked_whatever_one_of_its_records_holds(durable: Stored) -> None:
    keys = durable.guard.keys
    for found in damages(durable.kind, "key"):
        if found.field in ("id", "family"):
            continue
        first = durable.issue()
        second = keys.rotate(first.key.id)
        third = keys.rotate(second.key.id)
        found.do(durable.target, second.key.id)

        gone = keys.revoke_family(first.key.family)

        assert sorted(key.id for key in gone) == sorted(
            issued.key.id for issued in (first, second, third)
        ), found
        for issued in (first, third):
            assert durable.refusal(issued.token) is Reason.KEY_REVOKED
        ended = {key.id: key.revoked_at for key in gone}
        if found.field not in ("", "revoked_at"):
            assert ended[second.key.id] == durable.clock.now
        assert durable.refusal(second.token) is not Reason.KEY_UNKNOWN


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_version_that_counts_no_further_keeps_no_key_from_being_revoked(durable: Stored) -> None:
    issued = durable.issue()
    largest = {"redis": str(2**63 - 1)}.get(durable.kind, str(2**31 - 1))
    Damage(durable.kind, "key", "version", largest).do(durable.target, issued.key.id)

    assert durable.guard.keys.revoke(issued.key.id).revoked_at == durable.clock.now
    assert durable.refusal(issued.token) is Reason.KEY_REVOKED


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_damaged_key_is_no_administrator_and_keeps_none(durable: Stored) -> None:
    lost, last = durable.issue("admin"), durable.issue("admin")
    family = durable.guard.keys.rotate(durable.issue("admin").key.id)
    damage(durable, lost.key)
    damage(durable, family.key)

    assert isinstance(durable.guard.keys.revoke(lost.key.id), DamagedKey)
    assert len(durable.guard.keys.revoke_family(family.key.family)) == 2
    with pytest.raises(RefusedError, match=r"is the last key of organization 'acme'"):
        durable.guard.keys.revoke(last.key.id)


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_principal_revokes_damaged_keys_of_its_own_organization_only(durable: Stored) -> None:
    durable.guard.organizations.create("other")
    actor = durable.principal(durable.issue("admin"))
    stranger = durable.principal(durable.issue("admin", organization="other"))
    issued = durable.issue()
    damage(durable, issued.key)
    keys = durable.guard.keys

    for force in (False, True):
        with pytest.raises(NotFoundError):
            keys.revoke(issued.key.id, actor=stranger, force=force)
        with pytest.raises(NotFoundError):
            keys.revoke_family(issued.key.family, actor=stranger, force=force)
    assert keys.list(organization="other").damaged == ()
    assert keys.list(organization="other", family=issued.key.family).damaged == ()
    assert keys.revoke(issued.key.id, actor=actor).revoked_at == durable.clock.now


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_other_keys_and_tenants_go_on_beside_a_damaged_key(
    durable: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    durable.guard.organizations.create("other")
    other = durable.issue(organization="other")
    beside, issued = durable.issue(), durable.issue()
    damage(durable, issued.key)

    with caplog.at_level(logging.WARNING, "keyguard"):
        page = durable.guard.keys.list()

    assert {key.id for key in page} == {other.key.id, beside.key.id}
    assert page.damaged == (issued.key.id,)
    assert [record.getMessage() for record in caplog.records] == [
        f"a list leaves out records that the key store can't read: {issued.key.id}"
    ]
    assert durable.lets_in(other.token)
    assert durable.lets_in(beside.token)
    assert durable.guard.keys.revoke(beside.key.id).revoked_at == durable.clock.now
    durable.guard.organizations.disable("acme")
    assert durable.refusal(beside.token) in (Reason.KEY_REVOKED, Reason.ORGANIZATION_DISABLED)
    assert durable.lets_in(other.token)


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_an_import_refuses_what_is_damaged_and_goes_on(durable: Stored) -> None:
    broken = durable.guard.organizations.create("broken")
    token = "a-token-that-others-issued-{}-q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
    rows = [
        json.dumps({"organization": owner, "name": "imported", "token": token.format(number)})
        for number, owner in enumerate(("acme", "broken", "acme"))
    ]
    assert durable.guard.keys.import_tokens(rows[:1]).imported == 1
    damage(durable, durable.guard.keys.list().items[0])
    value = "[" if durable.kind == "redis" else "'['"
    Damage(durable.kind, "organization", "limits", value).do(durable.target, broken.id)

    report = durable.guard.keys.import_tokens(rows)

    assert report.imported == 1
    assert [row.line for row in report.refused] == [1, 2]
    assert all("keyguard" in row.reason for row in report.refused)


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_what_stands_in_the_place_of_a_key_is_not_revoked(durable: Stored) -> None:
    if durable.kind != "redis":
        return
    issued = durable.issue()
    Damage("redis", "key", "", "a text").do(durable.target, issued.key.id)

    with pytest.raises(CorruptDataError, match="delete it or restore it"):
        durable.guard.keys.revoke(issued.key.id)
    gone: Any = durable.guard.keys.revoke_family(issued.key.family)
    assert gone == (DamagedKey(id=issued.key.id, revoked_at=None),)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_record_with_the_id_of_another_is_not_taken_for_that_one(
    flavour: str, request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path
) -> None:
    for stored in open_stored("redis", flavour, runner, request, tmp_path):
        keys = stored.guard.keys
        one, other = (stored.issue(name=name).key for name in ("one", "other"))
        Damage("redis", "key", "id", other.id).do(stored.target, one.id)
        for change in (keys.get, keys.rotate):
            with pytest.raises(CorruptDataError, match="it has another id"):
                change(one.id)
        assert keys.get(other.id) == other


# Organizations


def unreadable(stored: Stored) -> Damage:
    value = "[" if stored.kind == "redis" else "'['"
    return Damage(stored.kind, "organization", "limits", value)


@every_column
def test_an_organization_is_disabled_whatever_its_record_holds(durable: Stored) -> None:
    organizations = durable.guard.organizations
    for number, found in enumerate(damages(durable.kind, "organization")):
        if found.field in ("", "id"):
            continue
        owner = organizations.create(f"damaged-{number}")
        issued = durable.issue("admin", organization=owner.id)
        found.do(durable.target, owner.id)

        has_time = found.field == "disabled_at" and found.value is not None
        disabled_at = None if has_time else durable.clock.now
        gone = organizations.disable(owner.id, actor="ada")
        again = organizations.disable(owner.id)

        if isinstance(gone, Organization):  # it could be read, or this has mended the record
            assert found.field in ("disabled_at", "version"), found
            assert gone == again == organizations.get(owner.id)
            assert organizations.enable(owner.id).disabled_at is None
        else:
            assert gone == DamagedOrganization(id=owner.id, disabled_at=disabled_at), found
            assert again == DamagedOrganization(id=owner.id, disabled_at=None), found
            with pytest.raises(CorruptDataError):
                organizations.enable(owner.id)
            assert durable.refusal(issued.token) is Reason.STORE_UNAVAILABLE, found
        if not has_time:
            entries = [entry.action for entry in durable.trail(subject=owner.id)]
            assert Action.ORGANIZATION_DISABLED in entries, found


def test_a_damaged_organization_is_disabled_by_its_id_alone(durable: Stored) -> None:
    unreadable(durable).do(durable.target, durable.acme.id)

    with pytest.raises(CorruptDataError):
        durable.guard.organizations.disable("acme")
    with pytest.raises(NotFoundError):
        durable.guard.organizations.disable("org_" + "0" * 16)


def test_a_principal_disables_no_damaged_organization_of_others(durable: Stored) -> None:
    other = durable.guard.organizations.create("other")
    stranger = durable.principal(durable.issue("admin"))
    unreadable(durable).do(durable.target, other.id)

    with pytest.raises(NotFoundError):
        durable.guard.organizations.disable(other.id, actor=stranger)
    assert durable.guard.organizations.disable(other.id).disabled_at == durable.clock.now


def test_the_token_of_a_damaged_key_is_not_verified_and_its_id_is_named(durable: Stored) -> None:
    issued = durable.issue()
    damage(durable, issued.key)

    with pytest.raises(CorruptDataError, match=rf"revoke the key by its id, {issued.key.id}$"):
        durable.guard.keys.revoke_token(issued.token)

    assert durable.guard.keys.revoke(issued.key.id) == DamagedKey(
        id=issued.key.id, revoked_at=durable.clock.now
    )


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_list_of_own_requests_leaves_out_what_a_damaged_key_asked_for(durable: Stored) -> None:
    first = durable.issue(owner="ann")
    ask = durable.guard.requests.create
    old = ask(organization="acme", name="a", actor=durable.principal(first)).request
    key = durable.guard.keys.rotate(first.key.id)
    own = durable.principal(key)
    new = ask(organization="acme", name="b", actor=own).request
    damage(durable, first.key)

    page = durable.guard.requests.list(asked_by=own)

    assert ([request.id for request in page], page.damaged) == ([new.id], (old.id,))
