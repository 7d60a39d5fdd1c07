"""What an actor may do goes by its key as it stands now, and ends at its own organization."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import NotFoundError, RefusedError
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from tests.stored import Stored

HOUR = timedelta(hours=1)


def row(organization: str, *scopes: str) -> str:
    token = "00000001.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
    fields = {"organization": organization, "name": "old", "format": "drf", "token": token}
    return json.dumps({**fields, "scopes": [*scopes]})


CHANGES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "issue": lambda guard, key, actor: guard.keys.issue(
        organization=key.organization, name="new", actor=actor
    ),
    "update": lambda guard, key, actor: guard.keys.update(key.id, name="new", actor=actor),
    "rotate": lambda guard, key, actor: guard.keys.rotate(key.id, actor=actor),
    "revoke": lambda guard, key, actor: guard.keys.revoke(key.id, force=True, actor=actor),
    "revoke_family": lambda guard, key, actor: guard.keys.revoke_family(
        key.family, force=True, actor=actor
    ),
    "update_organization": lambda guard, key, actor: guard.organizations.update(
        key.organization, name="New", actor=actor
    ),
    "disable": lambda guard, key, actor: guard.organizations.disable(key.organization, actor=actor),
}


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> Callable[[Any, Any, Any], Any]:
    return CHANGES[request.param]


ENDS: dict[str, tuple[Callable[[Stored, Any], Any], str]] = {
    "revoked": (lambda stored, key: stored.guard.keys.revoke(key.id), "is revoked"),
    "expired": (lambda stored, _: stored.clock.advance(2 * HOUR), "is expired"),
    "rotated": (
        lambda stored, key: (
            stored.guard.keys.rotate(key.id, grace=HOUR / 2),
            stored.clock.advance(HOUR / 2),
        ),
        "is rotated",
    ),
    "disabled": (lambda stored, _: stored.guard.organizations.disable("acme"), "is disabled"),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_actor_whose_key_lets_nobody_in_any_more_changes_nothing(
    stored: Stored, change: Any, end: str
) -> None:
    issued = stored.issue("admin", expires_in=HOUR)
    actor, other = stored.principal(issued), stored.issue("admin").key
    ended, said = ENDS[end]
    ended(stored, issued.key)
    before = stored.trail()

    with pytest.raises(RefusedError, match=said):
        change(stored.guard, other, actor)

    assert stored.trail() == before


def test_an_actor_whose_key_is_unknown_changes_nothing(stored: Stored, change: Any) -> None:
    actor = stored.principal(stored.issue("admin"))
    elsewhere = stored.another(store=stored_elsewhere(stored))
    elsewhere.organizations.create("acme")
    key = elsewhere.keys.issue(organization="acme", name="test").key

    with pytest.raises(RefusedError, match="no longer exists"):
        change(elsewhere, key, actor)


def stored_elsewhere(stored: Stored) -> Any:
    return MemoryStore() if stored.flavour == "sync" else AsyncMemoryStore()


def test_a_revocation_meanwhile_wins_over_what_the_key_still_wanted(
    stored: Stored, change: Any
) -> None:
    issued, other = stored.issue("admin"), stored.issue("admin").key
    actor = stored.principal(issued)
    guard = stored.interposing(lambda other: other.keys.revoke(issued.key.id))

    with pytest.raises(RefusedError, match="is revoked"):
        change(guard, other, actor)


def test_a_disabling_meanwhile_wins_over_what_a_key_still_wanted(
    stored: Stored, change: Any
) -> None:
    issued, other = stored.issue("admin"), stored.issue("admin").key
    actor = stored.principal(issued)
    guard = stored.interposing(lambda other: other.organizations.disable("acme"))

    with pytest.raises(RefusedError, match="is disabled"):
        change(guard, other, actor)


def test_a_ceiling_is_that_of_now_though_the_principal_is_older(stored: Stored) -> None:
    stored.issue("admin")
    issued = stored.issue("admin", "inference:read")
    actor = stored.principal(issued)
    stored.guard.keys.update(issued.key.id, scopes=["inference:read"])

    with pytest.raises(RefusedError, match="can't grant what it does not have: admin"):
        stored.issue("admin", actor=actor)
    assert stored.issue("inference:read", actor=actor).key.scopes == {"inference:read"}


def test_a_scope_that_is_taken_meanwhile_is_not_granted(stored: Stored) -> None:
    stored.issue("admin")
    issued = stored.issue("admin")
    actor = stored.principal(issued)
    guard = stored.interposing(
        lambda other: other.keys.update(issued.key.id, scopes=["inference:read"])
    )

    with pytest.raises(RefusedError, match="can't grant what it does not have: admin"):
        guard.keys.issue(organization="acme", name="new", scopes=["admin"], actor=actor)


def test_a_key_changes_itself(stored: Stored) -> None:
    issued = stored.issue("inference:read")
    actor = stored.principal(issued)

    stored.guard.keys.update(issued.key.id, name="new", actor=actor)
    assert stored.guard.keys.revoke(issued.key.id, actor=actor).name == "new"


def test_an_import_ends_when_its_actor_s_key_does(stored: Stored) -> None:
    issued = stored.issue("inference:read")
    actor = stored.principal(issued)
    stored.options["imported_formats"] = ["drf"]
    guard = stored.interposing(lambda other: other.keys.revoke(issued.key.id))

    with pytest.raises(RefusedError, match="is revoked"):
        guard.keys.import_tokens([row("acme")], actor=actor)
    assert len(stored.guard.keys.list()) == 1


def test_to_a_principal_another_organization_and_its_keys_do_not_exist(
    stored: Stored, change: Any
) -> None:
    stored.guard.organizations.create("other")
    actor = stored.principal(stored.issue("*"))
    theirs = stored.issue("admin", organization="other").key
    before = stored.trail()

    with pytest.raises(NotFoundError, match=r"^there is no "):
        change(stored.guard, theirs, actor)

    assert stored.trail() == before
    change(stored.guard, theirs, "an operator")


def test_to_an_import_of_a_principal_another_organization_does_not_exist(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    actor = stored.principal(stored.issue("*"))
    guard = stored.another(imported_formats=["drf"])
    guard.keys.import_tokens([row("other")])

    report = guard.keys.import_tokens([row("other")], actor=actor)

    assert (report.imported, report.present) == (0, 0)
    assert report.refused[0].reason == "there is no organization 'other'"


def test_no_principal_creates_an_organization(stored: Stored) -> None:
    actor = stored.principal(stored.issue("*"))

    with pytest.raises(RefusedError, match="can't create organizations"):
        stored.guard.organizations.create("new", actor=actor)
    assert stored.guard.organizations.create("new", actor="ada").slug == "new"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["10.0.0.0/8"], []),
        (["10.0.0.0/8"], ["0.0.0.0/0"]),
        (["10.0.0.0/8"], ["10.0.0.0/8", "192.0.2.7"]),
        (["10.0.0.0/8"], ["2001:db8::/32"]),
        (["2001:db8::/32"], ["::/0"]),
    ],
)
def test_nobody_has_a_key_work_from_more_networks_that_may_more_than_itself(
    stored: Stored, before: list[str], after: list[str]
) -> None:
    key = stored.issue("admin", allowed_networks=before).key
    stored.issue("admin")
    actor = stored.principal(stored.issue("inference:read"))

    with pytest.raises(RefusedError, match="can't grant what it does not have: admin"):
        stored.guard.keys.update(key.id, allowed_networks=after, actor=actor)
    assert stored.guard.keys.update(key.id, allowed_networks=after).version == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["10.0.0.0/8"]),
        (["10.0.0.0/8"], ["10.1.0.0/16", "10.2.0.7/32"]),
        (["10.0.0.0/9", "10.128.0.0/9"], ["10.0.0.0/8"]),
        (["192.0.2.7", "2001:db8::/32"], ["2001:db8:1::/48"]),
    ],
)
def test_whoever_may_less_than_a_key_may_still_bind_it_to_fewer_networks(
    stored: Stored, before: list[str], after: list[str]
) -> None:
    key = stored.issue("admin", allowed_networks=before).key
    stored.issue("admin")
    actor = stored.principal(stored.issue("inference:read"))

    changed = stored.guard.keys.update(key.id, allowed_networks=after, actor=actor)

    assert changed.allowed_networks == tuple(after)


def test_the_last_administrator_gets_no_nearer_end_without_force(
    stored: Stored,
) -> None:
    key = stored.issue("admin", expires_in=2 * HOUR).key
    now = stored.clock.now

    with pytest.raises(RefusedError, match="is the last"):
        stored.guard.keys.update(key.id, expires_at=now + timedelta(seconds=1))
    assert stored.guard.keys.update(key.id, expires_at=now + 3 * HOUR).version == 2
    ended = stored.guard.keys.update(key.id, expires_at=now + HOUR, force=True)
    assert ended.expires_at == now + HOUR


def test_of_two_administrators_one_keeps_its_end(stored: Stored) -> None:
    first, second = (stored.issue("admin").key for _ in range(2))
    soon = stored.clock.now + timedelta(seconds=1)

    stored.guard.keys.update(first.id, expires_at=soon)

    with pytest.raises(RefusedError, match="is the last"):
        stored.guard.keys.update(second.id, expires_at=soon)
