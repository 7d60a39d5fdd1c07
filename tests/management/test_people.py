"""What a person changes goes by its role in each organization; other organizations are unknown."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import InvalidValueError, Limit, NotFoundError, Person, RefusedError, Role
from tests.management.test_authority import CHANGES, row, stored_elsewhere
from tests.stored import Stored


def person(role: str, organization: str = "acme", **options: Any) -> Person:
    return Person(id="ada", roles={organization: role}, **options)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("by", ["id", "slug"])
def test_an_administrator_changes_an_own_organization(stored: Stored, change: str, by: str) -> None:
    key = stored.issue("inference:read").key

    CHANGES[change](stored.guard, key, person("administrator", getattr(stored.acme, by)))

    assert stored.trail()[-1].actor == "person:ada"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", Role)
def test_another_organization_is_unknown_to_a_person(
    stored: Stored, change: str, role: Role
) -> None:
    other = stored.guard.organizations.create("other")
    key = stored.issue("inference:read", organization=other.id).key
    before = stored.trail()

    with pytest.raises(NotFoundError) as found:
        CHANGES[change](stored.guard, key, person(role))
    with pytest.raises(NotFoundError) as unknown:
        CHANGES[change](stored.another(stored_elsewhere(stored)), key, person(role))

    assert str(found.value) == str(unknown.value)
    assert stored.trail() == before


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", [Role.APPROVER, Role.AUDITOR])
def test_who_decides_or_reads_changes_nothing(stored: Stored, change: str, role: Role) -> None:
    key = stored.issue("inference:read").key
    before = stored.trail()

    with pytest.raises(RefusedError, match=f"person 'ada', {role} of organization 'acme'"):
        CHANGES[change](stored.guard, key, person(role))

    assert stored.trail() == before


@pytest.mark.parametrize(
    "raised",
    [
        {"scopes": None},
        {"max_keys": 2},
        {"max_key_lifetime": None},
        {"limits": ["9/minute"]},
        {"limits": []},
    ],
    ids=str,
)
def test_an_administrator_raises_nothing_that_an_organization_may_have(
    stored: Stored, raised: dict[str, Any]
) -> None:
    bounds = {"scopes": ["admin"], "max_keys": 1, "max_key_lifetime": timedelta(days=1)}
    stored.guard.organizations.update("acme", **bounds, limits=["5/minute"])

    with pytest.raises(RefusedError, match="person 'ada' can't raise"):
        stored.guard.organizations.update("acme", **raised, actor=person("administrator"))

    stored.guard.organizations.update("acme", **raised, actor=Person(id="ada", operator=True))


def test_an_administrator_lifts_no_limit_of_an_organization_for_a_key(stored: Stored) -> None:
    stored.guard.organizations.update("acme", limits=[Limit("all", "5/minute")])
    ada = person("administrator")

    for limits, refused in (["6/minute", True], ["4/minute", False]):
        wanted = [Limit("all", limits)]
        if refused:
            with pytest.raises(RefusedError, match="can't lift its limits"):
                stored.issue(limits=wanted, actor=ada)
        else:
            assert stored.issue(limits=wanted, actor=ada).key.limits


def test_only_an_operator_creates_organizations(stored: Stored) -> None:
    with pytest.raises(RefusedError, match="can't create organizations"):
        stored.guard.organizations.create("new", actor=person("administrator", "new"))

    stored.guard.organizations.create("new", actor=Person(id="root", operator=True))

    assert stored.trail()[-1].actor == "person:root"


@pytest.mark.parametrize(
    ("role", "said"),
    [("administrator", None), ("auditor", "may not do that"), (None, "there is no organization")],
)
def test_an_import_refuses_the_lines_that_a_person_may_not_make(
    stored: Stored, role: str | None, said: str | None
) -> None:
    ada = Person(id="ada", roles={} if role is None else {"acme": role})

    report = stored.another(imported_formats=["drf"]).keys.import_tokens([row("acme")], actor=ada)

    assert (report.imported, len(report.refused)) == ((1, 0) if said is None else (0, 1))
    assert said is None or said in report.refused[0].reason


OWN = ["rotate", "revoke", "revoke_family"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_developer_ends_and_replaces_own_keys_alone(stored: Stored, change: str) -> None:
    key = stored.issue("inference:read", owner="ada", expires_in=timedelta(days=1)).key
    before = stored.trail()

    if change not in OWN:
        with pytest.raises(RefusedError, match="may not do that"):
            CHANGES[change](stored.guard, key, person("developer"))
        assert stored.trail() == before
    else:
        CHANGES[change](stored.guard, key, person("developer"))
        assert stored.trail()[-1].actor == "person:ada"


@pytest.mark.parametrize("change", OWN)
def test_the_keys_of_others_are_unknown_to_a_developer(stored: Stored, change: str) -> None:
    key = stored.issue("inference:read", owner="bob").key
    before = stored.trail()

    with pytest.raises(NotFoundError) as found:
        CHANGES[change](stored.guard, key, person("developer"))
    with pytest.raises(NotFoundError) as unknown:
        CHANGES[change](stored.another(stored_elsewhere(stored)), key, person("developer"))

    assert str(found.value) == str(unknown.value)
    assert stored.trail() == before


def test_a_developer_gains_nothing_by_a_rotation(stored: Stored) -> None:
    old = stored.issue(
        "inference:read",
        owner="ada",
        expires_in=timedelta(days=2),
        limits=["9/minute"],
        allowed_networks=["192.0.2.0/24"],
    ).key
    stored.clock.advance(timedelta(days=1))
    for longer in (None, timedelta(days=2)):
        with pytest.raises(RefusedError, match="can't let a key work for longer"):
            stored.guard.keys.rotate(old.id, expires_in=longer, actor=person("developer"))

    new = stored.guard.keys.rotate(old.id, actor=person("developer")).key

    assert new.expires_at == old.expires_at
    for same in ("owner", "name", "scopes", "limits", "allowed_networks", "organization"):
        assert getattr(new, same) == getattr(old, same)


def test_no_name_can_be_taken_for_a_person(stored: Stored) -> None:
    with pytest.raises(InvalidValueError, match="can't begin with 'person:'"):
        stored.issue(actor="person:ada")


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"id": "a" * 201},
        {"id": "ada\n"},
        {"id": 7},
        {"id": "service"},
        {"id": "rule:ours"},
        {"id": "fam_0123456789abcdef"},
        {"id": "ada", "name": None},
        {"id": "ada", "roles": {"acme": "operator"}},
        {"id": "ada", "roles": {"acme": None}},
        {"id": "ada", "roles": {"Acme Inc.": "auditor"}},
        {"id": "ada", "roles": ["acme"]},
        {"id": "ada", "operator": "no"},
        {"id": "ada", "authenticated_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - the point
    ],
    ids=str,
)
def test_a_person_that_is_not_clear_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        Person(**wrong)


def test_a_person_is_settled_when_it_is_made() -> None:
    roles = {"acme": "auditor", "org_0000000000000001": "developer"}
    ada = Person(
        id="e\u0301va",
        name="\u202eada" * 100,
        roles=roles,
        authenticated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    roles["acme"] = "administrator"

    assert ada.id == "\xe9va"
    assert ada.name.startswith(r"\u202eada")
    assert len(ada.name) == 200
    assert ada.role_in("org_0000000000000001", "acme") is Role.DEVELOPER
    assert ada.role_in("acme") is Role.AUDITOR
    assert ada.role_in("other") is None
    assert hash(ada)


def test_a_person_is_copied_and_pickled() -> None:
    ada = person("auditor", name="Ada", authenticated_at=datetime(2026, 1, 1, tzinfo=UTC))

    assert pickle.loads(pickle.dumps(ada)) == copy.deepcopy(ada) == replace(ada) == ada
    assert asdict(ada)["roles"] == {"acme": "auditor"}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: it])
def test_the_roles_of_a_person_do_not_change(copied: Any) -> None:
    ada = copied(person("auditor"))

    with pytest.raises(TypeError):
        ada.roles["acme"] = Role.ADMINISTRATOR
    with pytest.raises(TypeError):
        ada.roles.update(acme="administrator")
    assert ada.role_in("acme") is Role.AUDITOR
