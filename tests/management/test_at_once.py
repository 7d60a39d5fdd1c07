"""Operations upon one key at the same time, on every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Action, Key, Reason, RefusedError, RotatedKey
from tests.stored import Stored

pytestmark = pytest.mark.campaign("memory", "sqlite-sync", "postgresql-async", "redis-sync")

HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)

Call = Callable[[Any], Any]


def rotating(key: Key, **options: Any) -> Call:
    return lambda guard: guard.keys.rotate(key.id, **options)


def revoking(key: Key, **options: Any) -> Call:
    return lambda guard: guard.keys.revoke(key.id, **options)


def entries(stored: Stored, action: Action, key: Key) -> int:
    return [entry.action for entry in stored.trail(subject=key.id)].count(action)


def test_fifty_rotations_at_once_make_one_successor(anywhere: Stored) -> None:
    old = anywhere.issue()

    results = anywhere.together([rotating(old.key)] * 50)

    done = [one for one in results if isinstance(one, RotatedKey)]
    assert len(done) == 1
    assert all("has a successor already" in str(one) for one in results if one is not done[0])
    family = anywhere.guard.keys.list(family=old.key.family).items
    assert {key.id for key in family} == {old.key.id, done[0].key.id}
    assert anywhere.lets_in(done[0].token)
    assert entries(anywhere, Action.KEY_ROTATED, old.key) == 1
    assert entries(anywhere, Action.KEY_ISSUED, done[0].key) == 1


def test_fifty_rotations_of_one_name_give_one_token(anywhere: Stored) -> None:
    old = anywhere.issue()

    results = anywhere.together([rotating(old.key, idempotency_key="one")] * 50)

    assert {one.key.id for one in results} == {results[0].key.id}
    assert len([one for one in results if one.token is not None]) == 1
    assert len(anywhere.guard.keys.list(family=old.key.family)) == 2


@pytest.mark.parametrize("grace", [timedelta(0), HOUR])
def test_a_rotation_against_a_revocation_never_makes_a_live_key_of_a_dead_one(
    anywhere: Stored, grace: timedelta
) -> None:
    for _ in range(5):
        old = anywhere.issue()
        rotated, revoked = anywhere.together(
            [rotating(old.key, grace=grace), revoking(old.key, reason="key compromise")]
        )

        present = anywhere.guard.keys.get(old.key.id)
        assert present.revoked_at is not None
        assert not isinstance(revoked, Exception)
        assert anywhere.refusal(old.token) is Reason.KEY_REVOKED
        if isinstance(rotated, Exception):
            assert "is revoked, which is final" in str(rotated)
            assert len(anywhere.guard.keys.list(family=old.key.family)) == 1
        else:
            assert present.successor == rotated.key.id


def test_a_family_that_is_revoked_while_it_is_rotated_ends_whole_or_goes_on_refused(
    anywhere: Stored,
) -> None:
    for _ in range(5):
        old = anywhere.issue()
        anywhere.together(
            [
                rotating(old.key),
                lambda guard, family=old.key.family: guard.keys.revoke_family(family),
            ]
        )

        family = anywhere.guard.keys.list(family=old.key.family)
        assert all(key.revoked_at is not None for key in family)


def test_ten_revocations_at_once_are_one(anywhere: Stored) -> None:
    key = anywhere.issue().key

    results = anywhere.together([revoking(key, note=f"number {n}") for n in range(10)])

    assert {one.revoked_note for one in results} == {results[0].revoked_note}
    assert anywhere.guard.keys.get(key.id) == results[0]
    assert entries(anywhere, Action.KEY_REVOKED, key) == 1


def test_of_administrators_that_are_revoked_at_once_one_stays(anywhere: Stored) -> None:
    administrators = [anywhere.issue("admin").key for _ in range(4)]

    results = anywhere.together([revoking(key) for key in administrators])

    refused = [one for one in results if isinstance(one, RefusedError)]
    assert len(refused) == 1
    assert "is the last" in str(refused[0])
    left = [key for key in anywhere.guard.keys.list() if key.revoked_at is None]
    assert len(left) == 1


def test_updates_at_once_lose_nothing_of_one_another(anywhere: Stored) -> None:
    key = anywhere.issue().key

    anywhere.together(
        [
            lambda guard: guard.keys.update(key.id, name="new"),
            lambda guard: guard.keys.update(key.id, metadata={"a": "b"}),
            lambda guard: guard.keys.update(key.id, scopes=["inference:read"]),
            rotating(key),
        ]
    )

    present = anywhere.guard.keys.get(key.id)
    assert (present.name, present.metadata, present.scopes) == (
        "new",
        {"a": "b"},
        {"inference:read"},
    )
    assert present.successor is not None
    assert present.version == key.version + 4


def test_a_grace_ends_at_its_microsecond(anywhere: Stored) -> None:
    old = anywhere.issue()
    rotated = anywhere.guard.keys.rotate(old.key.id, grace=HOUR + INSTANT)
    assert anywhere.lets_in(old.token)

    anywhere.clock.advance(HOUR)
    assert anywhere.lets_in(old.token)
    assert anywhere.lets_in(old.token, anywhere.another())
    anywhere.clock.advance(INSTANT)

    for guard in (anywhere.guard, anywhere.another()):
        assert anywhere.refusal(old.token, guard) is Reason.KEY_ROTATED
        assert anywhere.lets_in(rotated.token, guard)


def test_a_rotation_that_is_repeated_shows_no_second_token(anywhere: Stored) -> None:
    old = anywhere.issue()
    first = anywhere.guard.keys.rotate(old.key.id, idempotency_key="deploy 7")

    again = anywhere.another().keys.rotate(old.key.id, idempotency_key="deploy 7")

    assert first.token is not None
    assert again == RotatedKey(key=first.key, predecessor=first.predecessor, token=None)
    for token in (old.token, first.token):
        assert anywhere.lets_in(token)


def test_no_grace_revokes_in_the_same_commit(anywhere: Stored) -> None:
    old = anywhere.issue()

    rotated = anywhere.guard.keys.rotate(old.key.id, grace=timedelta(0))

    guard = anywhere.another()
    assert guard.keys.get(old.key.id) == rotated.predecessor
    assert rotated.predecessor.version == old.key.version + 1
    assert anywhere.refusal(old.token, guard) is Reason.KEY_REVOKED
    assert anywhere.lets_in(rotated.token, guard)
