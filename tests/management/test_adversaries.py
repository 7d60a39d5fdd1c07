"""Whoever holds a stolen key can't put off its end by changing it again and again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from keyguard import NotFoundError, Reason
from tests.stored import Stored

pytestmark = pytest.mark.campaign(
    "memory", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-"
)

ALWAYS = 1000  # more often than any operation is tried

OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "revoke": lambda guard, key, actor: guard.keys.revoke(key.id, actor=actor),
    "revoke with force": lambda guard, key, actor: guard.keys.revoke(
        key.id, force=True, actor=actor
    ),
    "revoke_family": lambda guard, key, actor: guard.keys.revoke_family(key.family, actor=actor),
    "revoke_family with force": lambda guard, key, actor: guard.keys.revoke_family(
        key.family, force=True, actor=actor
    ),
    "disable": lambda guard, key, actor: guard.organizations.disable(key.organization, actor=actor),
}


@pytest.mark.campaign("memory-sync", "postgresql-async", "redis-sync")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("by_key", [False, True], ids=["operator", "key"])
def test_what_changes_before_every_attempt_to_end_it_ends(
    anywhere: Stored, operation: str, by_key: bool
) -> None:
    """The thief renames its key, the actor's key and the organization before each commit."""
    stolen, own = anywhere.issue("admin"), anywhere.issue("admin")
    anywhere.issue("admin")  # remains
    actor = anywhere.principal(own) if by_key else None
    numbers = count()

    def rename(guard: Any) -> Any:
        number = next(numbers)
        changes = (
            lambda: guard.keys.update(stolen.key.id, name=f"thief {number}"),
            lambda: guard.keys.update(own.key.id, name=f"own {number}"),
            lambda: guard.organizations.update("acme", name=f"acme {number}"),
        )
        return _all_of(changes)

    guard = anywhere.interposing(rename, ALWAYS)

    OPERATIONS[operation](guard, stolen.key, actor)

    assert next(numbers) == 1  # it was made at the first attempt
    assert anywhere.refusal(stolen.token) in {Reason.KEY_REVOKED, Reason.ORGANIZATION_DISABLED}
    assert [e.actor for e in anywhere.trail()][-1] == (f"key:{own.key.id}" if by_key else "service")


def test_a_family_ends_with_all_that_was_rotated_before_every_attempt(anywhere: Stored) -> None:
    stolen = anywhere.issue("inference:read")
    newest = [stolen]

    async def awaited(rotated: Any) -> None:
        newest.append(await rotated)

    def rotate(guard: Any) -> Any:
        rotated = guard.keys.rotate(newest[-1].key.id)
        if hasattr(rotated, "__await__"):
            return awaited(rotated)
        newest.append(rotated)
        return None

    guard = anywhere.interposing(rotate, ALWAYS)

    gone = guard.keys.revoke_family(stolen.key.family)

    assert len(gone) == len(newest) == 2
    assert all(key.revoked_at is not None for key in gone)
    for issued in newest:
        assert anywhere.refusal(issued.token) is Reason.KEY_REVOKED


def test_nothing_is_ended_that_is_unknown_or_of_others(anywhere: Stored) -> None:
    anywhere.guard.organizations.create("other")
    theirs = anywhere.issue("admin", organization="other")
    actor = anywhere.principal(anywhere.issue("admin"))
    trail = anywhere.trail()

    for operation in (
        lambda: anywhere.guard.keys.revoke(theirs.key.id, force=True, actor=actor),
        lambda: anywhere.guard.keys.revoke_family(theirs.key.family, force=True, actor=actor),
        lambda: anywhere.guard.organizations.disable("other", actor=actor),
        lambda: anywhere.guard.keys.revoke("0" * 16, force=True),
        lambda: anywhere.guard.keys.revoke_family("fam_" + "0" * 16, force=True),
    ):
        with pytest.raises(NotFoundError):
            operation()
    assert anywhere.trail() == trail
    assert anywhere.lets_in(theirs.token)


def test_the_trail_says_of_each_key_what_ended(anywhere: Stored) -> None:
    old = anywhere.issue()
    new = anywhere.guard.keys.rotate(old.key.id)
    before = len(anywhere.trail())

    anywhere.guard.keys.revoke_family(old.key.family, reason="superseded", note="done", actor="ada")

    entries = anywhere.trail()[before:]
    assert {entry.subject for entry in entries} == {old.key.id, new.key.id}
    for entry in entries:
        assert (entry.actor, entry.organization) == ("ada", anywhere.acme.id)
        assert entry.before == {
            "revoked_at": None, "revoked_reason": None, "revoked_note": None,
        }  # fmt: skip
        assert entry.after["revoked_reason"] == "superseded"
        assert entry.after["revoked_note"] == "done"
    key = anywhere.guard.keys.get(new.key.id)
    assert key.version == 2


def _all_of(changes: Any) -> Any:
    results = [change() for change in changes]
    if not any(hasattr(result, "__await__") for result in results):
        return None

    async def awaited() -> None:
        for result in results:
            await result

    return awaited()
