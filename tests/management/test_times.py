"""When keys begin and end to work, how long at the most, and which of them a report lists."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyguard import InvalidValueError, Reason, RefusedError
from tests.stored import Stored

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
INSTANT = timedelta(microseconds=1)


@pytest.mark.settings(max_staleness=3600.0)
def test_a_key_works_from_its_beginning_to_its_end_to_the_microsecond(stored: Stored) -> None:
    start, end = stored.clock.now + HOUR, stored.clock.now + HOUR + HOUR / 2
    issued = stored.issue(not_before=start, expires_at=end)
    guards = [stored.guard]

    def everywhere(expected: Any) -> None:
        guards.append(stored.another())  # the others have it in memory, where they let it in
        for guard in guards:
            decision = stored.ask(issued.token, guard)
            assert getattr(decision, "reason", None) is expected

    everywhere(Reason.KEY_NOT_YET_VALID)
    stored.clock.advance(HOUR - INSTANT)
    everywhere(Reason.KEY_NOT_YET_VALID)
    stored.clock.advance(INSTANT)
    everywhere(None)
    stored.clock.advance(HOUR / 2 - INSTANT)
    everywhere(None)
    stored.clock.advance(INSTANT)
    everywhere(Reason.KEY_EXPIRED)


def test_a_span_counts_from_the_beginning(stored: Stored) -> None:
    start = stored.clock.now + DAY

    assert stored.issue(expires_in=HOUR).key.expires_at == stored.clock.now + HOUR
    assert stored.issue(expires_in=HOUR, not_before=start).key.expires_at == start + HOUR


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expires_in": HOUR, "expires_at": 2 * HOUR}, "not both"),
        ({"expires_at": timedelta(0)}, "already have expired"),
        ({"not_before": 2 * HOUR, "expires_at": HOUR}, "expire before it starts"),
    ],
)
def test_times_that_can_t_be_make_no_key(
    stored: Stored, options: dict[str, Any], said: str
) -> None:
    now = stored.clock.now
    given = {name: now + span if name != "expires_in" else span for name, span in options.items()}

    with pytest.raises(InvalidValueError, match=said):
        stored.issue(**given)
    assert len(stored.guard.keys.list()) == 0


# The longest lifetime


def test_a_key_works_at_most_as_long_as_its_organization_allows(stored: Stored) -> None:
    stored.guard.organizations.update("acme", max_key_lifetime=30 * DAY)
    now = stored.clock.now

    assert stored.issue().key.expires_at == now + 30 * DAY
    assert stored.issue(not_before=now + DAY).key.expires_at == now + 31 * DAY
    assert stored.issue(expires_in=30 * DAY).key.expires_at == now + 30 * DAY
    for options in ({"expires_in": 30 * DAY + INSTANT}, {"expires_at": now + 31 * DAY}):
        with pytest.raises(RefusedError, match="work for at most 30 days"):
            stored.issue(**options)


def test_no_update_makes_a_key_work_for_longer_than_its_organization_allows(
    stored: Stored,
) -> None:
    stored.guard.organizations.update("acme", max_key_lifetime=30 * DAY)
    start = stored.clock.now
    key = stored.issue(expires_in=DAY).key
    stored.clock.advance(DAY / 2)

    for change in (
        {"expires_at": None},
        {"expires_at": start + 31 * DAY},
        {"not_before": start + 20 * DAY, "expires_at": start + 50 * DAY},
    ):
        with pytest.raises(RefusedError, match="work for at most 30 days"):
            stored.guard.keys.update(key.id, **change)
    assert stored.guard.keys.update(key.id, expires_at=start + 30 * DAY).version == 2


def test_a_successor_works_at_most_as_long_as_its_organization_allows(stored: Stored) -> None:
    old, other = stored.issue(), stored.issue(expires_in=90 * DAY)
    stored.guard.organizations.update("acme", max_key_lifetime=30 * DAY)
    now = stored.clock.now

    with pytest.raises(RefusedError, match="work for at most 30 days"):
        stored.guard.keys.rotate(old.key.id, expires_in=31 * DAY)
    assert stored.guard.keys.rotate(old.key.id).key.expires_at == now + 30 * DAY
    assert stored.guard.keys.rotate(other.key.id).key.expires_at == now + 30 * DAY


def test_a_shorter_lifetime_is_for_keys_that_are_issued_from_now_on(stored: Stored) -> None:
    issued = stored.issue()

    stored.guard.organizations.update("acme", max_key_lifetime=DAY)
    stored.clock.advance(2 * DAY)

    assert stored.lets_in(issued.token)


@pytest.mark.parametrize("span", [timedelta(0), timedelta(milliseconds=999), 30, "30d"])
def test_a_lifetime_that_is_none_is_refused(stored: Stored, span: Any) -> None:
    with pytest.raises(InvalidValueError, match="max_key_lifetime takes a timedelta"):
        stored.guard.organizations.update("acme", max_key_lifetime=span)


# Reports


def test_a_report_lists_keys_that_work_and_will_soon_no_more(stored: Stored) -> None:
    soon = stored.issue(expires_in=6 * DAY).key
    stored.issue(expires_in=8 * DAY)
    stored.issue()
    rotated = stored.issue().key
    new = stored.guard.keys.rotate(rotated.id, grace=DAY).key
    gone = stored.issue(expires_in=DAY).key
    stored.guard.keys.revoke(gone.id)
    stored.issue(expires_in=HOUR)
    stored.clock.advance(2 * HOUR)

    found = stored.guard.keys.list(expiring_within=7 * DAY)

    assert {key.id for key in found} == {soon.id, rotated.id}
    assert new.id not in {key.id for key in found}
    assert len(stored.guard.keys.list(expiring_within=7 * DAY, limit=1)) == 1


def test_a_report_lists_keys_that_work_and_that_nobody_uses(stored: Stored) -> None:
    used, unused, never = stored.issue(), stored.issue(), stored.issue()
    stored.lets_in(unused.token)
    stored.guard.flush()
    gone = stored.issue()
    stored.guard.keys.revoke(gone.key.id)
    stored.clock.advance(89 * DAY)
    stored.lets_in(used.token)
    stored.guard.flush()
    young = stored.issue()
    stored.clock.advance(2 * DAY)

    found = {key.id for key in stored.guard.keys.list(unused_for=90 * DAY)}

    assert found == {unused.key.id, never.key.id}
    assert young.key.id not in found


def test_of_two_reports_a_key_is_in_both(stored: Stored) -> None:
    stored.issue(expires_in=99 * DAY)
    both = stored.issue(expires_in=31 * DAY).key
    stored.clock.advance(30 * DAY)

    found = stored.guard.keys.list(expiring_within=7 * DAY, unused_for=30 * DAY - INSTANT)

    assert [key.id for key in found] == [both.id]


@pytest.mark.parametrize("name", ["expiring_within", "unused_for"])
@pytest.mark.parametrize("span", [timedelta(0), -HOUR, timedelta.max, 7, "7d"])
def test_a_report_over_no_span_is_refused(stored: Stored, name: str, span: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"positive timedelta|year"):
        stored.guard.keys.list(**{name: span})
