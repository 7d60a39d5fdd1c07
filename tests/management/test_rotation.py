"""Rotation: a key gets a successor, and works on for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    Action,
    InvalidValueError,
    Limit,
    NotFoundError,
    Reason,
    RefusedError,
    RevocationReason,
    RotatedKey,
)
from keyguard.core.keys.records import KeyStatus
from tests.stored import Stored

HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


def test_a_successor_has_all_that_its_predecessor_had(stored: Stored) -> None:
    old = stored.issue(
        "inference:*",
        limits=[Limit("own", "5/minute")],
        allowed_networks=["192.0.2.0/24"],
        metadata={"team": "infra"},
    )
    stored.clock.advance(HOUR)

    rotated = stored.guard.keys.rotate(old.key.id)

    new = rotated.key
    for name in ("family", "organization", "name", "scopes", "limits", "allowed_networks"):
        assert getattr(new, name) == getattr(old.key, name)
    assert new.metadata == {"team": "infra"}
    assert new.created_at == stored.clock.now
    assert new.id != old.key.id
    assert (new.successor, new.grace_ends_at, new.version) == (None, None, 1)
    assert rotated.predecessor.successor == new.id
    assert rotated.predecessor.grace_ends_at == stored.clock.now + timedelta(hours=24)
    assert stored.guard.keys.get(new.id) == new
    assert stored.guard.keys.get(old.key.id) == rotated.predecessor
    assert rotated.token.reveal() != old.token.reveal()
    assert rotated.token.reveal().split("_")[2] == new.id


def test_the_old_token_works_to_the_last_microsecond_of_the_grace(stored: Stored) -> None:
    old = stored.issue()
    warm = stored.guard
    assert stored.lets_in(old.token)

    rotated = warm.keys.rotate(old.key.id, grace=HOUR)

    stored.clock.advance(HOUR - INSTANT)
    for guard in (warm, stored.another()):
        assert stored.lets_in(old.token, guard)
        assert stored.lets_in(rotated.token, guard)


@pytest.mark.settings(max_staleness=3600.0)
def test_the_old_token_dies_at_the_end_of_the_grace_warm_and_cold(stored: Stored) -> None:
    old = stored.issue()
    rotated = stored.guard.keys.rotate(old.key.id, grace=HOUR)
    stored.clock.advance(HOUR - INSTANT)
    assert stored.lets_in(old.token)  # remembered, and fresh for as long

    stored.clock.advance(INSTANT)

    for guard in (stored.guard, stored.another()):
        assert stored.refusal(old.token, guard) is Reason.KEY_ROTATED
        assert stored.lets_in(rotated.token, guard)
    key = stored.guard.keys.get(old.key.id)
    assert key.status(stored.clock.now) is KeyStatus.ROTATED


def test_the_grace_makes_no_key_live_longer(stored: Stored) -> None:
    old = stored.issue(expires_in=HOUR)

    rotated = stored.guard.keys.rotate(old.key.id, grace=timedelta(days=7))

    assert rotated.predecessor.grace_ends_at == old.key.expires_at


def test_no_grace_revokes_in_the_same_commit(stored: Stored) -> None:
    old = stored.issue()
    assert stored.lets_in(old.token)

    rotated = stored.guard.keys.rotate(old.key.id, grace=timedelta(0))

    assert rotated.predecessor.revoked_at == stored.clock.now
    assert rotated.predecessor.revoked_reason is RevocationReason.SUPERSEDED
    assert rotated.predecessor.version == old.key.version + 1
    assert stored.refusal(old.token) is Reason.KEY_REVOKED
    assert stored.lets_in(rotated.token)
    actions = [entry.action for entry in stored.trail()]
    assert actions[-2:] == [Action.KEY_ROTATED, Action.KEY_ISSUED]


@pytest.mark.parametrize("failure", ["family", "successor"])
def test_a_rotation_that_is_refused_leaves_no_trace(stored: Stored, failure: str) -> None:
    old = stored.issue()
    if failure == "family":
        stored.guard.keys.revoke_family(old.key.family)
    else:
        stored.guard.keys.rotate(old.key.id)
    trail, keys = stored.trail(), stored.guard.keys.list()

    with pytest.raises(RefusedError):
        stored.guard.keys.rotate(old.key.id)

    assert stored.trail() == trail
    assert stored.guard.keys.list() == keys


def test_a_key_that_has_a_successor_is_not_rotated_again(stored: Stored) -> None:
    old = stored.issue()
    new = stored.guard.keys.rotate(old.key.id).key

    with pytest.raises(RefusedError, match=f"has a successor already: '{new.id}'; rotate that"):
        stored.guard.keys.rotate(old.key.id)
    assert stored.guard.keys.rotate(new.id).key.family == old.key.family


def test_a_revoked_key_is_not_rotated(stored: Stored) -> None:
    old = stored.issue()
    stored.guard.keys.revoke(old.key.id)

    with pytest.raises(RefusedError, match="is revoked, which is final"):
        stored.guard.keys.rotate(old.key.id)


def test_an_expired_key_is_not_rotated(stored: Stored) -> None:
    old = stored.issue(expires_in=HOUR)
    stored.clock.advance(HOUR)

    with pytest.raises(RefusedError, match="has expired; issue a new one"):
        stored.guard.keys.rotate(old.key.id)


def test_no_key_of_a_disabled_organization_is_rotated(stored: Stored) -> None:
    old = stored.issue()
    stored.guard.organizations.disable("acme")

    with pytest.raises(RefusedError, match="is disabled; enable it before rotating keys"):
        stored.guard.keys.rotate(old.key.id)


def test_nobody_gets_by_rotation_what_it_has_not_itself(stored: Stored) -> None:
    strong, weak = stored.issue("admin"), stored.issue("inference:read")

    with pytest.raises(RefusedError, match="can't grant what it does not have: admin"):
        stored.guard.keys.rotate(strong.key.id, actor=stored.principal(weak))
    assert stored.guard.keys.get(strong.key.id) == strong.key


def test_no_key_is_rotated_whose_scopes_its_organization_lost(stored: Stored) -> None:
    old = stored.issue("admin", "inference:read")
    stored.guard.organizations.update("acme", scopes=["inference:read"], force=True)

    with pytest.raises(RefusedError, match="'acme' may not have admin"):
        stored.guard.keys.rotate(old.key.id)


def test_an_unknown_key_is_not_rotated(stored: Stored) -> None:
    with pytest.raises(NotFoundError, match="no key '0000000000000000'"):
        stored.guard.keys.rotate("0" * 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grace": -INSTANT}, "0 or more"),
        ({"grace": 3600}, "0 or more"),
        ({"grace": timedelta.max}, "year 9999"),
        ({"expires_in": timedelta(0)}, "positive timedelta"),
        ({"expires_in": 90}, "timedelta or None"),
        ({"expires_in": timedelta.max}, "year 9999"),
        ({"idempotency_key": ""}, "idempotency key"),
        ({"idempotency_key": "a\nb"}, "idempotency key"),
        ({"actor": 7}, "actor"),
    ],
)
def test_what_can_t_be_is_refused_and_changes_nothing(
    stored: Stored, options: dict[str, Any], said: str
) -> None:
    old = stored.issue()

    with pytest.raises(InvalidValueError, match=said):
        stored.guard.keys.rotate(old.key.id, **options)
    assert stored.guard.keys.get(old.key.id) == old.key


def test_a_successor_lives_as_long_as_its_predecessor_was_to(stored: Stored) -> None:
    old = stored.issue(expires_in=timedelta(days=30))
    stored.clock.advance(timedelta(days=29))

    new = stored.guard.keys.rotate(old.key.id).key

    assert new.expires_at == stored.clock.now + timedelta(days=30)


def test_a_successor_s_life_can_be_told(stored: Stored) -> None:
    first, second = stored.issue(expires_in=HOUR), stored.issue(expires_in=HOUR)

    assert stored.guard.keys.rotate(first.key.id, expires_in=None).key.expires_at is None
    told = stored.guard.keys.rotate(second.key.id, expires_in=timedelta(days=2)).key
    assert told.expires_at == stored.clock.now + timedelta(days=2)


def test_a_successor_waits_as_long_as_its_predecessor_would_have(stored: Stored) -> None:
    start = stored.clock.now + HOUR
    old = stored.issue(not_before=start, expires_in=HOUR)

    new = stored.guard.keys.rotate(old.key.id).key

    assert (new.not_before, new.expires_at) == (start, start + HOUR)


def test_the_same_idempotency_key_gives_the_same_successor_and_no_token(stored: Stored) -> None:
    old = stored.issue()
    first = stored.guard.keys.rotate(old.key.id, idempotency_key="deploy 7")
    trail = stored.trail()

    again = stored.guard.keys.rotate(old.key.id, idempotency_key="deploy 7")

    assert first.token is not None
    assert again == RotatedKey(key=first.key, predecessor=first.predecessor, token=None)
    assert stored.trail() == trail
    assert len(stored.guard.keys.list()) == 2


def test_a_lost_answer_is_asked_for_again_even_after_the_predecessor_s_end(stored: Stored) -> None:
    old = stored.issue()
    first = stored.guard.keys.rotate(old.key.id, grace=timedelta(0), idempotency_key="once")

    again = stored.guard.keys.rotate(old.key.id, idempotency_key="once")

    assert (again.key, again.token) == (first.key, None)


def test_another_idempotency_key_is_another_rotation_and_refused(stored: Stored) -> None:
    old = stored.issue()
    stored.guard.keys.rotate(old.key.id, idempotency_key="one")

    for other in ("two", None):
        with pytest.raises(RefusedError, match="has a successor already"):
            stored.guard.keys.rotate(old.key.id, idempotency_key=other)


def test_a_revocation_between_a_rotation_s_read_and_its_commit_wins(stored: Stored) -> None:
    old = stored.issue()
    guard = stored.interposing(lambda other: other.keys.revoke(old.key.id))

    with pytest.raises(RefusedError, match="is revoked"):
        guard.keys.rotate(old.key.id)
    assert len(stored.guard.keys.list(family=old.key.family)) == 1


def test_an_organization_disabled_between_read_and_commit_gets_no_successor(
    stored: Stored,
) -> None:
    old = stored.issue()
    guard = stored.interposing(lambda other: other.organizations.disable("acme"))

    with pytest.raises(RefusedError, match="is disabled"):
        guard.keys.rotate(old.key.id)
    assert len(stored.guard.keys.list(family=old.key.family)) == 1


def test_a_rotated_key_has_no_second_quota(stored: Stored) -> None:
    old = stored.issue(limits=["3/minute"])
    new = stored.guard.keys.rotate(old.key.id)
    one, other = stored.ask(old.token), stored.ask(new.token)

    assert [charge.key for charge in one.limits.charges] == [
        charge.key for charge in other.limits.charges
    ]


def test_a_rotated_key_is_told_apart_by_its_date_and_nobody_else_is(stored: Stored) -> None:
    old = stored.issue(expires_in=timedelta(days=90))
    assert stored.ask(old.token).retires is None

    rotated = stored.guard.keys.rotate(old.key.id, grace=timedelta(hours=1, microseconds=5))

    assert stored.ask(old.token).retires == "Sun, 22 Nov 2026 13:00:00 GMT"
    assert stored.ask(rotated.token).retires is None


def test_the_date_is_when_the_key_really_ends(stored: Stored) -> None:
    old = stored.issue()
    stored.guard.keys.rotate(old.key.id, grace=timedelta(days=1))

    stored.guard.keys.update(old.key.id, expires_at=stored.clock.now + timedelta(minutes=1))

    assert stored.ask(old.token).retires == "Sun, 22 Nov 2026 12:01:00 GMT"
