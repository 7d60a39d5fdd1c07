"""An organization keeps an administrator: by whatever operation one would be lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import RefusedError
from tests.stored import Stored

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LAST = "is the last key of organization 'acme' that has 'admin'"


def refused(stored: Stored, operation: Callable[..., Any]) -> None:
    before = (stored.guard.keys.list(), stored.guard.organizations.list(), stored.trail())
    with pytest.raises(RefusedError, match=f"{LAST}|'acme' would no longer have a key"):
        operation()
    assert (stored.guard.keys.list(), stored.guard.organizations.list(), stored.trail()) == before


@pytest.mark.parametrize("grace", [timedelta(0), HOUR])
def test_the_last_is_not_rotated_into_a_key_that_ends_soon(
    stored: Stored, grace: timedelta
) -> None:
    last = stored.issue("admin").key
    soon = timedelta(seconds=1)

    refused(stored, lambda: stored.guard.keys.rotate(last.id, grace=grace, expires_in=soon))

    assert stored.guard.keys.rotate(last.id, grace=grace, expires_in=soon, force=True).token


def test_the_last_is_rotated_into_one_that_lasts_as_long_or_for_a_week(stored: Stored) -> None:
    week, short = stored.issue("admin").key, stored.issue("admin", expires_in=DAY).key
    stored.guard.keys.revoke(short.id)

    successor = stored.guard.keys.rotate(week.id, grace=timedelta(0), expires_in=7 * DAY).key
    stored.clock.advance(3 * DAY)
    again = stored.guard.keys.rotate(successor.id, grace=timedelta(0), expires_in=4 * DAY).key

    refused(stored, lambda: stored.guard.keys.rotate(again.id, expires_in=4 * DAY - HOUR))


def test_a_last_that_does_not_work_yet_after_it_is_rotated_is_not_lost(stored: Stored) -> None:
    last = stored.issue("admin").key

    refused(
        stored,
        lambda: stored.guard.keys.update(last.id, not_before=stored.clock.now + HOUR),
    )


def test_one_is_shortened_and_then_the_other_can_t_be_revoked(stored: Stored) -> None:
    first, second = stored.issue("admin").key, stored.issue("admin").key
    stored.guard.keys.update(second.id, expires_at=stored.clock.now + HOUR)

    for operation in (
        lambda: stored.guard.keys.revoke(first.id),
        lambda: stored.guard.keys.revoke_family(first.family),
        lambda: stored.guard.keys.update(first.id, scopes=[]),
    ):
        refused(stored, operation)
    assert stored.guard.keys.revoke(first.id, force=True).revoked_at


@pytest.mark.parametrize("ceiling", [[], ["inference:*"]])
def test_an_organization_s_own_ceiling_is_not_cut_below_its_administrators(
    stored: Stored, ceiling: list[str]
) -> None:
    organizations = stored.guard.organizations
    organizations.update("acme", scopes=ceiling)  # it has no administrator yet
    organizations.update("acme", scopes=None)
    stored.issue("admin")

    refused(stored, lambda: organizations.update("acme", scopes=ceiling))

    assert organizations.update("acme", scopes=["admin", "inference:*"]).version == 4
    assert organizations.update("acme", scopes=ceiling, force=True).scopes == {*ceiling}


def test_a_key_above_its_organization_s_ceiling_is_no_administrator(stored: Stored) -> None:
    key = stored.issue("admin").key
    stored.guard.organizations.update("acme", scopes=["inference:*"], force=True)

    assert stored.guard.keys.revoke(key.id).revoked_at


@pytest.mark.parametrize(
    ("mine", "other", "bound"),
    [
        ([], None, ["192.0.2.0/24"]),
        ([], ["10.0.0.0/8"], ["192.0.2.0/24"]),
        (["10.0.0.0/8"], ["10.1.0.0/16"], ["10.2.0.0/16"]),
        (["10.0.0.0/8"], None, ["10.1.0.0/16"]),
    ],
)
def test_the_last_is_not_bound_to_networks_that_nobody_may_have(
    stored: Stored, mine: list[str], other: list[str] | None, bound: list[str]
) -> None:
    last = stored.issue("admin", allowed_networks=mine).key
    if other is not None:
        stored.issue("admin", allowed_networks=other)

    refused(stored, lambda: stored.guard.keys.update(last.id, allowed_networks=bound))

    assert stored.guard.keys.update(last.id, allowed_networks=bound, force=True).version == 2


@pytest.mark.parametrize("other", [[], ["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/9"]])
def test_one_may_be_bound_where_another_works_from_its_networks(
    stored: Stored, other: list[str]
) -> None:
    key = stored.issue("admin", allowed_networks=["10.0.0.0/8"]).key
    stored.issue("admin", allowed_networks=other)

    assert stored.guard.keys.update(key.id, allowed_networks=["10.9.9.9"]).version == 2


def test_what_would_replace_the_last_and_ends_meanwhile_does_not(stored: Stored) -> None:
    """Whichever of the two operations is first, one administrator remains."""
    for number, operation in enumerate(
        (
            lambda guard, key: guard.keys.revoke(key.id),
            lambda guard, key: guard.keys.revoke_family(key.family),
            lambda guard, key: guard.keys.update(key.id, scopes=[]),
            lambda guard, key: guard.keys.rotate(key.id, expires_in=HOUR),
        )
    ):
        slug = f"tenant-{number}"
        stored.guard.organizations.create(slug)
        first, second = (stored.issue("admin", organization=slug).key for _ in range(2))
        guard = stored.interposing(lambda other, key=second: other.keys.revoke(key.id))

        with pytest.raises(RefusedError, match="is the last"):
            operation(guard, first)
        assert stored.guard.keys.get(first.id) == first


def test_a_key_that_gains_admin_while_it_is_revoked_is_asked_about_again(stored: Stored) -> None:
    key, other = stored.issue("inference:read").key, stored.issue("admin").key

    def promote(guard: Any) -> Any:
        return guard.keys.update(key.id, scopes=["admin"])

    guard = stored.interposing(promote)

    assert guard.keys.revoke(key.id).revoked_at  # there is another
    assert stored.guard.keys.get(other.id).revoked_at is None


@pytest.mark.parametrize("operation", ["revoke", "revoke_family"])
def test_a_key_that_gains_admin_meanwhile_is_not_ended_as_one_without(
    stored: Stored, operation: str
) -> None:
    key, other = stored.issue("inference:read").key, stored.issue("admin").key

    async def awaited(*calls: Any) -> None:
        for call in calls:
            await call()

    def meanwhile(guard: Any) -> Any:
        calls = (
            lambda: guard.keys.update(key.id, scopes=["admin"]),
            lambda: guard.keys.revoke(other.id),
        )
        if stored.flavour == "async":
            return awaited(*calls)
        return [call() for call in calls]

    guard = stored.interposing(meanwhile)
    subject = key.id if operation == "revoke" else key.family

    with pytest.raises(RefusedError, match="is the last"):
        getattr(guard.keys, operation)(subject)
    assert stored.guard.keys.get(key.id).revoked_at is None


def test_a_key_that_will_administer_is_the_last_as_well(stored: Stored) -> None:
    key = stored.issue("admin", not_before=stored.clock.now + HOUR).key

    refused(stored, lambda: stored.guard.keys.revoke(key.id))
    assert stored.guard.keys.revoke(key.id, force=True).revoked_at


def test_a_key_that_no_longer_works_may_be_revoked_whatever_it_had(stored: Stored) -> None:
    expired = stored.issue("admin", expires_in=HOUR).key
    rotated = stored.issue("admin").key
    stored.guard.keys.rotate(rotated.id, grace=HOUR)
    stored.clock.advance(2 * HOUR)

    assert stored.guard.keys.revoke(expired.id).revoked_at
    assert stored.guard.keys.revoke(rotated.id).revoked_at
