"""Each rule for hints, on replayed days: where it speaks, and where it keeps silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from keyguard import InvalidValueError, Key, NotFoundError, Principal, RefusedError, ScopeCatalogue
from keyguard.core.access.decisions import Allow
from keyguard.core.keys.records import Use
from keyguard.core.usage.hints import Hint, HintKind
from keyguard.core.usage.values import ALLOWED, Cell, Flush
from keyguard.core.values import Page
from keyguard.runtime.events import HintFound, log_event
from keyguard.runtime.sync import run_sync
from tests.world import StandingClock, World

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
QUARTER_HOURS = 15
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


class Replay:
    """Days of one organization, told by a clock that is moved on and requests that are counted."""

    def __init__(self, **options: Any) -> None:
        self.clock = StandingClock(MONDAY)
        self.world = World(clock=self.clock, options=options)
        self.usage = self.world.store.usage()
        self._cells: dict[tuple[Any, ...], int] = {}
        self._numbers = count(1)

    def issue(self, **options: Any) -> Key:
        return self.world.issue("inference:read", **options).key

    def use(self, key: Key, n: int = 1, outcome: str = ALLOWED) -> None:
        """Count requests of a key now."""
        now = self.clock.now
        start = now.replace(minute=now.minute // QUARTER_HOURS * QUARTER_HOURS, second=0)
        place = (key.organization, start, key.id, key.family, outcome, "")
        self._cells[place] = self._cells.get(place, 0) + n
        if outcome == ALLOWED:
            self.world.store.mark_used([Use(key.id, now.replace(second=0))])

    def pass_days(self, days: int, *used: Key) -> None:
        """Let days pass, on each of which some keys are used."""
        for _ in range(days):
            self.clock.advance(DAY)
            for key in used:
                self.use(key)

    def flush(self) -> None:
        cells = tuple(Cell(*place, n, n) for place, n in self._cells.items())
        self._cells = {}
        self.usage.add(Flush("writer", next(self._numbers), self.clock.now, cells))

    def hints(self, kind: HintKind, organization: str = "acme") -> list[Hint]:
        return [hint for hint in self.page(organization) if hint.kind is kind]

    def page(
        self, organization: str = "acme", after: str | None = None, limit: int = 1000
    ) -> Page[Hint]:
        self.flush()
        usage = self.world.guard.usage
        return usage.hints(organization=organization, after=after, limit=limit)

    def dismiss(self, hint: str, until: datetime | None = None, actor: Any = None) -> datetime:
        self.flush()
        usage = self.world.guard.usage
        return usage.dismiss(organization="acme", hint=hint, until=until, actor=actor)

    def principal(self, *scopes: str, **options: Any) -> Principal:
        token = self.world.token(*scopes, **options)
        decision = self.world.guard.authenticate([f"Bearer {token}"])
        assert isinstance(decision, Allow)
        return decision.principal


@pytest.fixture
def days() -> Replay:
    return Replay()


# A dormant key wakes


def test_a_key_that_is_used_after_30_silent_days_has_woken(days: Replay) -> None:
    other, key = days.issue(), days.issue()
    days.pass_days(10, other, key)
    days.pass_days(30, other)
    days.pass_days(1, other, key)

    (hint,) = days.hints(HintKind.DORMANT_WOKE)

    assert (hint.key_id, hint.family, hint.organization) == (key.id, key.family, key.organization)
    assert hint.id == f"dormant_woke:{key.id}"
    assert hint.since == days.clock.now.replace(hour=0, minute=0, second=0)
    assert hint.evidence == {"used_on": "2026-04-12T00:00:00Z", "requests": 1, "silent_days": 30}
    assert "after 30 days or more without a request" in hint.text


def test_a_key_that_was_silent_for_29_days_has_not_woken(days: Replay) -> None:
    other, key = days.issue(), days.issue()
    days.pass_days(10, other, key)
    days.pass_days(29, other)
    days.pass_days(1, other, key)

    assert days.hints(HintKind.DORMANT_WOKE) == []


def test_it_is_told_for_a_week_that_a_key_woke(days: Replay) -> None:
    key = days.issue()
    days.pass_days(10, key)
    days.pass_days(40)
    days.pass_days(1, key)

    told = []
    for _ in range(8):
        told.append(len(days.hints(HintKind.DORMANT_WOKE)))
        days.pass_days(1, key)

    assert told == [1, 1, 1, 1, 1, 1, 1, 0]


def test_a_new_key_has_not_woken(days: Replay) -> None:
    other = days.issue()
    days.pass_days(50, other)
    new = days.issue()
    days.pass_days(1, new)

    assert days.hints(HintKind.DORMANT_WOKE) == []


def test_where_nothing_was_counted_before_nobody_knows_that_a_key_slept(days: Replay) -> None:
    key = days.issue()
    days.pass_days(60)
    days.pass_days(1, key)

    assert days.hints(HintKind.DORMANT_WOKE) == []


def test_a_refused_request_wakes_no_key(days: Replay) -> None:
    other, key = days.issue(), days.issue()
    days.pass_days(10, other, key)
    days.pass_days(40, other)
    days.use(key, outcome="scope_missing")

    assert days.hints(HintKind.DORMANT_WOKE) == []


def test_of_many_busy_keys_the_one_that_slept_is_found(
    days: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyguard.core.management.usage_evidence.MOST", 3)
    busy = [days.issue() for _ in range(20)]
    key = days.issue()
    days.pass_days(3, *busy, key)
    days.pass_days(40, *busy)
    days.pass_days(1, *busy, key)

    assert [hint.key_id for hint in days.hints(HintKind.DORMANT_WOKE)] == [key.id]


# A surge


def weeks_of(days: Replay, key: Key, *counts: int) -> None:
    """Use a key at the same time of each week, and end an hour after the last time."""
    for n in counts:
        days.clock.advance(WEEK)
        days.use(key, n)
    days.clock.advance(HOUR)


def test_eight_times_the_requests_of_that_quarter_in_other_weeks_is_a_surge(days: Replay) -> None:
    key = days.issue()
    weeks_of(days, key, 9, 9, 9, 11, 10, 9, 80)

    (hint,) = days.hints(HintKind.SURGE)

    assert hint.id == f"surge:{key.id}:20260420"
    assert (hint.key_id, hint.family) == (key.id, key.family)
    assert hint.evidence == {"quarter": "2026-04-20T00:00:00Z", "requests": 80, "usual": 9}
    assert hint.since == datetime(2026, 4, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "counts",
    [
        (10, 10, 10, 10, 10, 10, 79),
        (1, 1, 1, 1, 1, 1, 49),
        (100, 100, 0, 100, 100, 0, 100),
        (100, 100, 100, 100, 100, 100, 100),
    ],
    ids=["seven times", "49", "two quiet weeks", "as ever"],
)
def test_less_than_that_is_no_surge(days: Replay, counts: tuple[int, ...]) -> None:
    weeks_of(days, days.issue(), *counts)

    assert days.hints(HintKind.SURGE) == []


def test_a_surge_is_told_for_a_day(days: Replay) -> None:
    weeks_of(days, days.issue(), 1, 1, 1, 1, 1, 1, 50)

    assert len(days.hints(HintKind.SURGE)) == 1
    days.clock.advance(DAY)
    assert days.hints(HintKind.SURGE) == []


def test_a_successor_is_compared_with_its_predecessors(days: Replay) -> None:
    key = days.issue()
    weeks_of(days, key, *[100] * 6)
    successor = days.world.guard.keys.rotate(key.id).key
    days.clock.advance(-HOUR)
    weeks_of(days, successor, 100)

    assert days.hints(HintKind.SURGE) == []


def test_a_key_of_four_weeks_has_nothing_that_is_usual(days: Replay) -> None:
    weeks_of(days, days.issue(), *[1] * 6)
    weeks_of(days, days.issue(), *[1000] * 4)

    assert days.hints(HintKind.SURGE) == []


def test_where_counting_began_lately_nothing_is_a_surge(days: Replay) -> None:
    key = days.issue()
    days.clock.advance(10 * WEEK)
    weeks_of(days, key, 1000)

    assert days.hints(HintKind.SURGE) == []


def test_an_hour_that_the_clocks_moved_is_no_surge(days: Replay) -> None:
    days.world.guard.organizations.update("acme", time_zone="Europe/Berlin")
    days.clock.advance(timedelta(hours=9))
    key = days.issue()
    for week in range(7):  # the clocks were put forward on 29 March
        days.clock.now = MONDAY + week * WEEK + timedelta(hours=9 if week < 4 else 8)
        days.use(key, 500)
        days.clock.advance(HOUR)

    assert days.hints(HintKind.SURGE) == []
    days.world.guard.organizations.update("acme", time_zone="UTC")
    assert len(days.hints(HintKind.SURGE)) == 1


# Mostly refused


def test_more_than_half_refused_is_told_with_the_most_frequent_reason(days: Replay) -> None:
    key = days.issue()
    days.use(key, 9)
    days.use(key, 4, "rate_limited")
    days.use(key, 7, "scope_missing")

    (hint,) = days.hints(HintKind.MOSTLY_REFUSED)

    assert hint.id == f"mostly_refused:{key.id}"
    assert hint.evidence == {
        **{"requests": 20, "refused": 11},
        **{"reason": "scope_missing", "by_reason": 7},
    }
    assert hint.text == (
        "11 of 20 requests within a day were refused, most often as scope_missing."
    )


@pytest.mark.parametrize(
    ("allowed", "refused", "later"),
    [(10, 10, 0), (8, 11, 0), (0, 19, 0), (0, 99, 2)],
    ids=["half", "19 requests", "only refused", "two days ago"],
)
def test_less_than_that_is_not_told(days: Replay, allowed: int, refused: int, later: int) -> None:
    key = days.issue()
    days.use(key, allowed)
    days.use(key, refused, "scope_missing")
    days.pass_days(later)

    assert days.hints(HintKind.MOSTLY_REFUSED) == []


def test_a_key_that_has_ended_is_not_told_of_as_mostly_refused(days: Replay) -> None:
    key = days.issue()
    days.world.guard.keys.revoke(key.id)
    days.use(key, 99, "key_revoked")

    assert days.hints(HintKind.MOSTLY_REFUSED) == []


# A predecessor in its last tenth


@pytest.mark.parametrize(("after", "told"), [(8.9 * HOUR, 0), (9.1 * HOUR, 1)])
def test_a_predecessor_used_in_the_last_tenth_of_its_grace(
    days: Replay, after: timedelta, told: int
) -> None:
    key = days.issue()
    successor = days.world.guard.keys.rotate(key.id, grace=10 * HOUR).key
    days.clock.advance(after)
    days.use(key)
    days.clock.now = successor.created_at + 9.5 * HOUR

    found = days.hints(HintKind.PREDECESSOR_USED)

    assert len(found) == told
    for hint in found:
        assert (hint.key_id, hint.evidence["successor"]) == (key.id, successor.id)
        assert hint.since == successor.created_at + 9 * HOUR


def test_a_predecessor_that_has_ended_is_past_telling(days: Replay) -> None:
    key = days.issue()
    days.world.guard.keys.rotate(key.id, grace=10 * HOUR)
    days.clock.advance(9.5 * HOUR)
    days.use(key)
    days.clock.advance(HOUR)

    assert days.hints(HintKind.PREDECESSOR_USED) == []


# A key that has ended is presented


def revoked(days: Replay) -> Key:
    key = days.issue()
    days.world.guard.keys.revoke(key.id)
    return key


def expired(days: Replay) -> Key:
    key = days.issue(expires_in=HOUR)
    days.clock.advance(HOUR)
    return key


def rotated(days: Replay) -> Key:
    key = days.issue()
    days.world.guard.keys.rotate(key.id, grace=HOUR)
    days.clock.advance(HOUR)
    return key


@pytest.mark.parametrize("ended", [revoked, expired, rotated])
def test_a_key_that_has_ended_and_is_still_presented_is_told_of(
    days: Replay, ended: Callable[[Replay], Key]
) -> None:
    key = ended(days)
    days.pass_days(2)
    days.use(key, outcome=f"key_{ended.__name__}")
    days.pass_days(1)
    days.use(key, 2, outcome=f"key_{ended.__name__}")

    (hint,) = days.hints(HintKind.ENDED_KEY_PRESENTED)

    assert hint.id == f"ended_key_presented:{key.id}"
    assert hint.since == datetime(2026, 3, 4, tzinfo=UTC)
    assert hint.evidence == {
        **{"requests": 3, "status": ended.__name__},
        "last_day_began": "2026-03-05T00:00:00Z",
    }
    days.pass_days(7)
    assert days.hints(HintKind.ENDED_KEY_PRESENTED) == []


@pytest.mark.parametrize("ended", [revoked, expired, rotated])
def test_a_key_that_has_ended_and_is_left_alone_is_not_told_of(
    days: Replay, ended: Callable[[Replay], Key]
) -> None:
    key = days.issue()
    days.use(key)
    ended(days)

    assert days.hints(HintKind.ENDED_KEY_PRESENTED) == []


def test_a_key_that_works_again_is_not_told_of(days: Replay) -> None:
    key = expired(days)
    days.use(key, outcome="key_expired")
    days.world.guard.keys.update(key.id, expires_at=days.clock.now + DAY)

    assert days.hints(HintKind.ENDED_KEY_PRESENTED) == []


def test_an_organization_that_is_disabled_is_told_of_ended_keys_alone(days: Replay) -> None:
    key = revoked(days)
    days.issue()
    days.use(key, outcome="key_revoked")
    days.pass_days(100)
    days.use(key, outcome="key_revoked")
    days.world.guard.organizations.disable("acme")

    assert [hint.kind for hint in days.page()] == [HintKind.ENDED_KEY_PRESENTED]


# A key ends soon


def test_the_end_of_a_key_is_told_30_and_7_days_and_a_day_before(days: Replay) -> None:
    key = days.issue(expires_in=timedelta(days=90))
    told = {}
    for day in range(91):
        for hint in days.hints(HintKind.ENDS_SOON):
            told.setdefault(hint.id, day)
            assert hint.evidence["ends_at"] == "2026-05-31T00:00:01Z"
        days.pass_days(1)

    assert told == {
        f"ends_soon:{key.id}:30": 60,
        f"ends_soon:{key.id}:7": 83,
        f"ends_soon:{key.id}:1": 89,
    }
    assert days.hints(HintKind.ENDS_SOON) == []


def test_a_key_for_a_week_is_told_of_a_day_before_its_end(days: Replay) -> None:
    key = days.issue(expires_in=WEEK)
    told = []
    for _ in range(8):
        told += [hint.id for hint in days.hints(HintKind.ENDS_SOON)]
        days.pass_days(1)

    assert told == [f"ends_soon:{key.id}:1"]


def test_the_end_of_a_key_that_has_a_successor_or_is_revoked_is_not_told(days: Replay) -> None:
    ends = {"expires_in": timedelta(days=90)}
    replaced, gone = days.issue(**ends), days.issue(**ends)
    days.pass_days(60)
    assert len(days.hints(HintKind.ENDS_SOON)) == 2
    days.world.guard.keys.rotate(replaced.id, grace=WEEK, expires_in=timedelta(days=365))
    days.world.guard.keys.revoke(gone.id)

    assert days.hints(HintKind.ENDS_SOON) == []


# A new network


class Clients:
    """A key of a service that records addresses, and the clients that use it."""

    def __init__(self, **options: Any) -> None:
        self.days = Replay(**{"record_addresses": True} | options)
        self.issued = self.days.world.issue("inference:read")

    def come_from(self, *addresses: str, days: int = 1) -> None:
        guard = self.days.world.guard
        for _ in range(days):
            self.days.clock.advance(DAY)
            for address in addresses:
                field = f"Bearer {self.issued.token.reveal()}"
                assert isinstance(guard.authenticate([field], address=address), Allow)
            guard.flush()

    def told(self) -> list[Any]:
        return [hint.evidence["network"] for hint in self.days.hints(HintKind.NEW_NETWORK)]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.9", "198.51.100.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:198.51.100.9", "198.51.100.0/24"),
    ],
)
def test_a_network_from_which_a_key_never_came_is_new(address: str, network: str) -> None:
    clients = Clients()
    clients.come_from("203.0.113.7", days=40)
    clients.come_from("203.0.113.7", address)

    (hint,) = clients.days.hints(HintKind.NEW_NETWORK)

    assert hint.id == f"new_network:{clients.issued.key.id}:{network}"
    assert hint.evidence == {"network": network, "day": "2026-04-12T00:00:00Z", "known": 1}
    assert hint.text == (
        f"The key was used from {network}; before that, it was used from 1 other network."
    )
    clients.come_from("203.0.113.7", days=7)
    assert clients.told() == []


def test_another_address_of_a_network_and_a_network_of_before_are_not_new() -> None:
    clients = Clients()
    clients.come_from("203.0.113.7", "198.51.100.9")
    clients.come_from("203.0.113.7", days=100)
    clients.come_from("203.0.113.99", "198.51.100.7")

    assert clients.told() == []


def test_the_first_networks_of_a_key_are_not_new() -> None:
    clients = Clients()
    clients.come_from("203.0.113.7", "198.51.100.9")
    clients.come_from("192.0.2.1")

    assert clients.told() == []


def test_a_key_that_comes_from_everywhere_comes_from_nowhere_new() -> None:
    clients = Clients()
    clients.come_from(*(f"10.0.{number}.1" for number in range(21)), days=8)
    clients.come_from("203.0.113.7")

    assert clients.told() == []


def test_a_service_that_records_no_addresses_is_told_of_no_network() -> None:
    clients = Clients(record_addresses=False)
    clients.come_from("203.0.113.7", days=40)
    clients.come_from("198.51.100.9", "no address")

    assert clients.told() == []
    usage = clients.days.world.store.kept_usage
    assert {owner[:4] for owner, _ in run_sync(usage.unfolded(clients.days.clock.now, 9))} == {
        "org_"
    }


def test_no_report_counts_what_a_key_was_seen_with() -> None:
    clients = Clients()
    clients.come_from("203.0.113.7", "203.0.113.9", "198.51.100.9")

    report = clients.days.world.guard.usage.report(organization="acme", group_by="outcome")

    assert [(item.group, item.n) for item in report.items] == [(ALLOWED, 3)]


# A key that nobody uses


def test_a_key_that_nobody_has_used_for_90_days_is_told_of(days: Replay) -> None:
    never, once, often = days.issue(), days.issue(), days.issue()
    days.pass_days(1, once)
    days.pass_days(89, often)
    assert [hint.key_id for hint in days.hints(HintKind.UNUSED)] == [never.id]
    days.pass_days(1, often)

    found = {hint.key_id: hint for hint in days.hints(HintKind.UNUSED)}

    assert found.keys() == {never.id, once.id}
    assert found[never.id].evidence == {"last_used_at": "never", "days": 91}
    assert found[once.id].evidence["days"] == 90


def test_a_key_that_starts_later_or_has_ended_is_not_told_of_as_unused(days: Replay) -> None:
    revoked(days), expired(days)
    days.issue(not_before=days.clock.now + timedelta(days=80))
    days.pass_days(100)

    assert days.hints(HintKind.UNUSED) == []


# Scopes that a key never needs


class Asking:
    """A service whose rules and decorators ask keys for scopes, as the memory of one process."""

    def __init__(self, *scopes: str, **options: Any) -> None:
        self.days = Replay(**options)
        self.issued = self.days.world.issue(*scopes)

    def ask(self, *scopes: str, days: int = 1, any_of: Any = None) -> None:
        guard = self.days.world.guard
        for _ in range(days):
            self.days.clock.advance(DAY)
            field = f"Bearer {self.issued.token.reveal()}"
            assert isinstance(guard.authenticate([field], scopes=scopes, any_of=any_of), Allow)
            guard.flush()

    def told(self) -> list[Any]:
        hints = self.days.hints(HintKind.SCOPES_UNNEEDED)
        assert {hint.id for hint in hints} <= {f"scopes_unneeded:{self.issued.key.id}"}
        return [hint.evidence["scopes"] for hint in hints]


def test_scopes_that_nobody_asked_for_in_90_days_are_told() -> None:
    asking = Asking("inference:*", "analytics:read", "admin")
    asking.ask("inference:read", days=89)
    assert asking.told() == []
    asking.ask("inference:read", days=3)

    assert asking.told() == ["admin analytics:read"]


def test_a_scope_that_was_asked_for_is_needed_for_90_days() -> None:
    asking = Asking("inference:read", "analytics:read")
    asking.ask("inference:read", "analytics:read", days=2)
    asking.ask("inference:read", days=88)
    assert asking.told() == []
    asking.ask("inference:read", days=40)

    assert asking.told() == ["analytics:read"]


def test_a_scope_is_needed_that_implies_or_covers_what_was_asked_for() -> None:
    catalogue = ScopeCatalogue({"read": "", "all": "", "m:a": ""}, implies={"all": ["read"]})
    asking = Asking("all", "m:*", catalogue=catalogue)
    asking.ask("read", "m:a", days=100)

    assert asking.told() == []


def test_each_of_several_scopes_that_would_do_is_needed() -> None:
    asking = Asking("inference:read", "analytics:read")
    asking.ask(any_of=["inference:read", "analytics:read"], days=100)

    assert asking.told() == []


def test_a_key_that_nobody_asked_for_any_scope_is_not_told_of() -> None:
    asking = Asking("inference:read")
    asking.ask(days=100)

    assert asking.told() == []


def test_where_it_is_not_known_what_a_key_needed_at_first_nothing_is_told() -> None:
    asking = Asking("inference:read", "analytics:read")
    asking.days.pass_days(95)
    asking.ask("inference:read", days=80)

    assert asking.told() == []


def test_a_guard_that_remembers_no_token_tells_of_no_scope() -> None:
    asking = Asking("inference:read", "analytics:read", cache_size=0)
    asking.ask("inference:read", days=100)

    assert asking.told() == []


# All of them


@pytest.fixture
def several(days: Replay) -> Replay:
    """Three keys that nobody uses, and a revoked one that somebody still presents."""
    for _ in range(3):
        days.issue()
    key = revoked(days)
    days.pass_days(100)
    days.use(key, outcome="key_revoked")
    return days


def test_hints_come_in_pages_with_the_most_urgent_first(several: Replay) -> None:
    everything = several.page()
    first = several.page(limit=2)
    second = several.page(after=first.next, limit=2)

    assert [hint.kind for hint in everything] == [HintKind.ENDED_KEY_PRESENTED] + [
        HintKind.UNUSED
    ] * 3
    assert (*first, *second) == everything.items
    assert (second.next, several.page(after="unused:gone").items) == (None, ())


def test_another_organization_has_its_own_hints(several: Replay) -> None:
    assert several.page("other").items == ()


@pytest.mark.parametrize("limit", [0, 1001, None, "7"])
def test_a_page_has_1_to_1000_hints(several: Replay, limit: Any) -> None:
    with pytest.raises(InvalidValueError):
        several.page(limit=limit)


def test_the_id_of_a_hint_has_at_most_100_ascii_characters(several: Replay) -> None:
    for kind in HintKind:
        assert len(f"{kind.value}:fam_{'x' * 16}:20260413") <= 100


def test_a_hint_that_is_dismissed_comes_back_after_its_time(several: Replay) -> None:
    hint = several.page().items[-1]
    until = several.dismiss(hint.id)
    assert until == several.clock.now + timedelta(days=30)
    assert hint.id not in {found.id for found in several.page()}
    assert len(several.page()) == 3
    several.pass_days(30)
    assert hint.id in {found.id for found in several.page()}


def test_a_hint_is_dismissed_again_for_another_time(several: Replay) -> None:
    hint = several.page().items[-1]
    several.dismiss(hint.id)
    several.dismiss(hint.id, several.clock.now + HOUR)
    several.clock.advance(HOUR)
    assert hint.id in {found.id for found in several.page()}


@pytest.mark.parametrize("hint", ["unused:gone", "", "x" * 200])
def test_a_hint_that_is_not_there_can_t_be_dismissed(several: Replay, hint: Any) -> None:
    with pytest.raises(NotFoundError, match="has no hint"):
        several.dismiss(hint)


def test_a_hint_is_dismissed_by_its_id(several: Replay) -> None:
    with pytest.raises(InvalidValueError, match="hint takes the id of a hint"):
        several.dismiss(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "until",
    [
        MONDAY,
        "tomorrow",
        datetime(2026, 12, 1),  # noqa: DTZ001 - naive on purpose
        datetime(2030, 1, 1, tzinfo=UTC),
    ],
)
def test_a_hint_is_dismissed_until_a_time_in_the_next_800_days(several: Replay, until: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"until takes|until must be a time in the future"):
        several.dismiss(several.page().items[-1].id, until)


def test_a_key_dismisses_hints_of_its_own_organization_while_it_works(several: Replay) -> None:
    hint = several.page().items[-1].id
    mine, theirs = several.principal("admin"), several.principal("admin", organization="other")
    with pytest.raises(NotFoundError, match="there is no organization"):
        several.dismiss(hint, actor=theirs)
    several.dismiss(hint, actor=mine)
    several.world.guard.keys.revoke(mine.key_id, force=True)
    with pytest.raises(RefusedError):
        several.dismiss(hint, actor=mine)


def test_the_hints_of_an_unknown_organization_are_not_found(several: Replay) -> None:
    with pytest.raises(NotFoundError):
        several.page("nowhere")


def test_async_code_gets_the_same_hints_and_dismisses_them(several: Replay) -> None:
    usage = several.world.async_guard.usage

    async def asked() -> list[Page[Hint]]:
        everything = await usage.hints(organization="acme", limit=1000)
        await usage.dismiss(organization="acme", hint=everything.items[0].id)
        return [everything, await usage.hints(organization="acme", limit=2)]

    several.flush()
    everything = several.page()

    assert asyncio.run(asked()) == [everything, Page(everything.items[1:3], everything.items[2].id)]


# Hooks hear of new hints


def test_hooks_hear_of_each_hint_once_whatever_process_asks(several: Replay) -> None:
    several.flush()
    world = several.world
    shown = several.page().items
    assert world.guard.usage.new_hints(organization="acme") == shown
    assert asyncio.run(world.async_guard.usage.new_hints(organization="acme")) == ()
    told = [event for event in world.events if isinstance(event, HintFound)]
    assert [event.hint for event in told] == list(shown)
    assert {event.at for event in told} == {several.clock.now}


def test_a_hint_that_comes_later_is_told_alone(several: Replay) -> None:
    several.flush()
    usage = several.world.guard.usage
    usage.new_hints(organization="acme")
    key = several.issue(expires_in=timedelta(days=2))
    several.clock.advance(timedelta(hours=30))
    assert {hint.key_id for hint in usage.new_hints(organization="acme")} == {key.id}


def test_a_hint_whose_cause_lasts_is_told_again_after_90_days(several: Replay) -> None:
    several.flush()
    usage = several.world.guard.usage
    before = {hint.id for hint in usage.new_hints(organization="acme")}
    several.clock.advance(timedelta(days=89))
    assert not before & {hint.id for hint in usage.new_hints(organization="acme")}
    several.clock.advance(timedelta(days=1))
    lasting = {hint.id for hint in several.page()} & before
    assert lasting
    assert lasting == before & {hint.id for hint in usage.new_hints(organization="acme")}


def test_hooks_do_not_hear_of_a_dismissed_hint(several: Replay) -> None:
    hint = several.page().items[0].id
    several.dismiss(hint)
    told = several.world.guard.usage.new_hints(organization="acme")
    assert hint not in {found.id for found in told}


def test_the_default_hook_logs_a_new_hint(
    several: Replay, caplog: pytest.LogCaptureFixture
) -> None:
    hint = several.page().items[0]
    log_event(HintFound(at=several.clock.now, hint=hint))
    assert caplog.messages == [f"{hint.id}: {hint.text}"]
