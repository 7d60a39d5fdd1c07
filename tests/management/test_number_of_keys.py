"""An organization has at most its `max_keys` keys at a time, however they come to be."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from keyguard import InvalidValueError, RefusedError
from tests.stored import Stored

HOUR = timedelta(hours=1)
FULL = "organization 'acme' may have at most 2 keys at a time; revoke keys, or raise max_keys"


@pytest.fixture
def full(stored: Stored) -> Stored:
    """An organization with the two keys that it may have, of which the second ends in an hour."""
    stored.guard.organizations.update("acme", max_keys=2)
    stored.issue(name="first")
    stored.issue(name="second", expires_in=HOUR)
    return stored


def by_name(stored: Stored) -> list[Any]:
    return sorted(stored.guard.keys.list(), key=lambda key: key.name)


def row(number: int) -> str:
    token = f"{number:08}.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
    return json.dumps({"organization": "acme", "name": "old", "format": "drf", "token": token})


def refused(stored: Stored, operation: Any) -> None:
    before = (stored.guard.keys.list(), stored.trail())
    with pytest.raises(RefusedError, match=FULL):
        operation()
    assert (stored.guard.keys.list(), stored.trail()) == before


def test_no_more_are_issued_until_one_has_ended(full: Stored) -> None:
    first, second = by_name(full)
    refused(full, full.issue)
    full.guard.organizations.create("other")
    full.issue(organization="other")  # another organization has no bound

    full.guard.keys.revoke(first.id)
    full.issue()
    refused(full, full.issue)

    full.clock.advance(2 * HOUR)
    full.issue()
    refused(full, full.issue)
    later = full.clock.now + HOUR
    refused(full, lambda: full.guard.keys.update(second.id, expires_at=later))


def test_a_rotation_needs_no_room_and_makes_none(full: Stored) -> None:
    first, _ = by_name(full)

    for grace in (HOUR, timedelta(0)):
        first = full.guard.keys.rotate(first.id, grace=grace).key
    refused(full, full.issue)


def test_a_family_counts_while_any_of_its_keys_works(full: Stored) -> None:
    """Its first key works on through a long grace, whatever became of its successor."""
    first, _ = by_name(full)
    successor = full.guard.keys.rotate(first.id, grace=1000 * HOUR).key

    full.guard.keys.revoke(successor.id)

    refused(full, full.issue)
    full.guard.keys.revoke(first.id)
    full.issue()


def test_a_key_that_works_is_updated_at_the_bound(full: Stored) -> None:
    first, second = by_name(full)

    assert full.guard.keys.update(first.id, name="new").version == 2
    assert full.guard.keys.update(second.id, expires_at=None).version == 2


@pytest.mark.settings(imported_formats=["drf"])
def test_an_import_beyond_it_is_refused_as_a_whole_portion(full: Stored) -> None:
    with pytest.raises(RefusedError, match=FULL):
        full.guard.keys.import_tokens([row(1)])

    full.guard.organizations.update("acme", max_keys=4)
    with pytest.raises(RefusedError, match="at most 4 keys"):
        full.guard.keys.import_tokens([row(1), row(2), row(3)])
    assert full.guard.keys.import_tokens([row(1), row(2)]).imported == 2
    assert len(full.guard.keys.list()) == 4


def test_a_lower_bound_ends_no_key(full: Stored) -> None:
    full.guard.organizations.update("acme", max_keys=1)

    assert all(key.revoked_at is None for key in full.guard.keys.list())
    full.guard.organizations.update("acme", max_keys=None)
    full.issue()


def test_no_key_raises_it(full: Stored) -> None:
    full.guard.organizations.update("acme", max_keys=3)
    actor = full.principal(full.issue("*"))

    for most in (None, 4):
        with pytest.raises(RefusedError, match=r"can't raise .*: max_keys"):
            full.guard.organizations.update("acme", max_keys=most, actor=actor)
    assert full.guard.organizations.update("acme", max_keys=2, actor=actor).max_keys == 2


@pytest.mark.parametrize("most", [0, -1, 1_000_000_001, 1.5, "5", True])
def test_what_is_no_number_of_keys_is_refused(stored: Stored, most: Any) -> None:
    with pytest.raises(InvalidValueError, match="max_keys takes a whole number from 1 to"):
        stored.guard.organizations.update("acme", max_keys=most)
    with pytest.raises(InvalidValueError, match="max_keys takes a whole number from 1 to"):
        stored.guard.organizations.create("other", max_keys=most)


@pytest.mark.campaign("memory", "sqlite-sync", "postgresql-async", "redis-sync")
def test_of_keys_issued_at_once_no_more_than_that_are_made(anywhere: Stored) -> None:
    anywhere.guard.organizations.update("acme", max_keys=5)

    results = anywhere.together(
        [lambda guard: guard.keys.issue(organization="acme", name="new") for _ in range(12)]
    )

    refused = [result for result in results if isinstance(result, RefusedError)]
    assert len(refused) == 7
    assert len(anywhere.guard.keys.list()) == 5
