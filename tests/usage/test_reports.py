"""What is asked of usage, in both flavours, over the store in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from keyguard import (
    Allow,
    ConfigurationError,
    InvalidValueError,
    Keyguard,
    NotFoundError,
    UsageItem,
    UsageReport,
)
from keyguard.core.usage.values import ALLOWED, Cell, Flush
from keyguard.runtime.sync import run_sync
from keyguard.stores.memory.keys import MemoryStore
from tests.world import World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Used:
    """A world whose usage a test writes into the store."""

    def __init__(self, flavour: str = "sync", zone: str = "UTC", **options: Any) -> None:
        self.world = World(options)
        self.flavour = flavour
        if zone != "UTC":
            self.world.guard.organizations.update("acme", time_zone=zone)
        self.now = self.world.clock.now
        self._seq = 0

    def write(
        self, at: datetime, n: int = 1, *, key: str = "0" * 16, outcome: str = ALLOWED,
        tag: str = "", until: datetime | None = None, writer: str = "one",
        owner: str | None = None,
    ) -> None:  # fmt: skip
        self._seq += 1
        owner = owner or self.world.acme.id
        cell = Cell(owner, at, key, f"fam_{key}", outcome, tag, n, n * (outcome == ALLOWED))
        flush = Flush(writer, self._seq, until or self.world.clock.now, (cell,))
        run_sync(self.world.store.kept_usage.add(flush))

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        guard: Any = self.world.guard if self.flavour == "sync" else self.world.async_guard
        if method != "mine":
            options = {"organization": "acme"} | options
        answer = getattr(guard.usage, method)(*args, **options)
        return answer if self.flavour == "sync" else asyncio.run(answer)

    def report(self, **options: Any) -> UsageReport:
        found: UsageReport = self.ask("report", **options)
        return found

    def counts(self, **options: Any) -> list[tuple[str, str, int]]:
        return [
            (f"{item.start:%m-%d %H:%M}", item.group, item.n)
            for item in self.report(**options).items
        ]


@pytest.fixture(params=["sync", "async"])
def used(request: pytest.FixtureRequest) -> Used:
    return Used(request.param)


def test_a_report_covers_seven_days_by_day(used: Used) -> None:
    for days in range(9):
        used.write(used.now - days * DAY, days + 1)

    report = used.report()

    midnight = used.now.replace(hour=0, second=0)
    assert report.items == tuple(
        UsageItem(midnight - days * DAY, midnight - (days - 1) * DAY, "", days + 1, days + 1)
        for days in range(6, -1, -1)
    )
    assert report.next is None


def test_days_are_those_of_the_organization_s_zone_or_of_the_asked_one() -> None:
    used = Used(zone="Asia/Kolkata")
    evening = datetime(2026, 11, 21, 18, 15, tzinfo=UTC)
    used.write(evening, 1)
    used.write(evening + timedelta(minutes=15), 2)

    days = used.report(start=date(2026, 11, 20), end=date(2026, 11, 23))
    assert [(item.start.isoformat(), item.n) for item in days.items] == [
        ("2026-11-21T00:00:00+05:30", 1),
        ("2026-11-22T00:00:00+05:30", 2),
    ]
    assert used.counts(start=date(2026, 11, 20), zone="UTC") == [("11-21 00:00", "", 3)]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("15m", [("11-22 11:45", "", 1), ("11-22 12:00", "", 2)]),
        ("hour", [("11-22 11:00", "", 1), ("11-22 12:00", "", 2)]),
        ("day", [("11-22 00:00", "", 3)]),
        ("week", [("11-16 00:00", "", 3)]),
        ("month", [("11-01 00:00", "", 3)]),
    ],
)
def test_a_report_is_told_by_its_step(used: Used, step: str, expected: Any) -> None:
    used.write(datetime(2026, 11, 22, 11, 45, tzinfo=UTC))
    used.write(datetime(2026, 11, 22, 12, 0, tzinfo=UTC), 2)

    assert used.counts(step=step) == expected


def test_totals_are_told_apart_and_filtered(used: Used) -> None:
    first, second = used.world.issue().key, used.world.issue().key
    used.write(used.now, 1, key=first.id, tag="chat")
    used.write(used.now, 2, key=second.id)
    used.write(used.now, 4, key=second.id, outcome="rate_limited")

    by_key = dict(sorted([(first.id, 1), (second.id, 6)]))
    assert {group: n for _, group, n in used.counts(group_by="key")} == by_key
    assert [row[1:] for row in used.counts(group_by="outcome")] == [
        ("allowed", 3),
        ("rate_limited", 4),
    ]
    assert [row[1:] for row in used.counts(group_by="tag")] == [("", 6), ("chat", 1)]
    assert [row[2] for row in used.counts(key=second.id)] == [6]
    assert [row[2] for row in used.counts(family=f"fam_{first.id}")] == [1]
    assert used.counts(family="fam_unknown") == []


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_report_comes_in_pages(used: Used, size: int) -> None:
    for days in range(4):
        for number in range(3):
            used.write(used.now - days * DAY, 1 + number, key=f"{number:016}")
    whole = used.report(group_by="key").items
    assert len(whole) == 12

    found: list[UsageItem] = []
    after = None
    while True:
        page = used.report(group_by="key", after=after, limit=size)
        assert len(page.items) <= size
        found += page.items
        after = page.next
        if after is None:
            break
    assert tuple(found) == whole


def test_a_page_goes_on_where_the_one_before_ended_even_on_the_next_day(used: Used) -> None:
    for days in range(3):
        used.write(used.now - days * DAY, days + 1)
    first = used.report(limit=1)
    used.world.clock.advance(DAY)

    assert [item.n for item in used.report(after=first.next).items] == [2, 1]


def test_the_largest_come_first(used: Used) -> None:
    for number in range(5):
        used.write(used.now - number * HOUR, number + 1, key=f"{number:016}")
    used.write(used.now, 100, key=f"{0:016}", outcome="rate_limited")

    report = used.ask("top", limit=2)
    allowed = used.ask("top", limit=2, outcome="allowed")

    assert [(item.group, item.n) for item in report.items] == [(f"{0:016}", 101), (f"{4:016}", 5)]
    assert [(item.group, item.n) for item in allowed.items] == [(f"{4:016}", 5), (f"{3:016}", 4)]
    assert next(item.group for item in used.ask("top", by="outcome").items) == "rate_limited"


def test_a_key_reads_its_own_usage_of_today_and_of_the_month(used: Used) -> None:
    issued = used.world.issue(limits=["100/day"])
    other = used.world.issue()
    decision = used.world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
    assert isinstance(decision, Allow)
    used.write(used.now, 3, key=issued.key.id)
    used.write(used.now, 2, key=issued.key.id, outcome="rate_limited")
    used.write(used.now - 20 * DAY, 4, key=issued.key.id)
    used.write(used.now - 30 * DAY, 8, key=issued.key.id)
    used.write(used.now, 16, key=other.key.id)

    own = used.ask("mine", decision.principal)

    assert [(item.group, item.n) for item in own.day] == [("allowed", 3), ("rate_limited", 2)]
    assert [(item.group, item.n) for item in own.month] == [("allowed", 7), ("rate_limited", 2)]
    assert [(limit.quota, limit.remaining) for limit in own.limits] == [(100, 100)]
    with pytest.raises(InvalidValueError, match="takes a principal"):
        used.ask("mine", issued.key.id)


# What is said of how complete a report is


def test_a_report_says_up_to_when_all_have_reported(used: Used) -> None:
    used.write(used.now, writer="one", until=used.now - timedelta(seconds=30))
    used.write(used.now, writer="two", until=used.now - timedelta(seconds=2))
    yesterday = used.now.replace(hour=0, second=0)

    today = used.report()
    assert today.as_of == used.now - timedelta(seconds=30)
    assert (today.complete, today.late) == (False, ())
    assert used.report(start=yesterday - DAY, end=yesterday).complete


def test_a_late_process_is_named_and_one_silent_for_an_hour_is_given_up(used: Used) -> None:
    used.write(used.now, writer="late", until=used.now - timedelta(minutes=59))
    used.write(used.now, writer="gone", until=used.now - timedelta(minutes=60))

    report = used.report()

    assert report.late == ("late",)
    assert report.as_of == used.now - timedelta(minutes=59)


def test_where_nobody_counts_a_report_is_as_of_a_moment_ago(used: Used) -> None:
    assert used.report() == UsageReport((), used.now - timedelta(seconds=10), complete=False)


# What is refused


def test_another_organization_s_key_is_refused_as_an_unknown_one(used: Used) -> None:
    theirs = used.world.issue(organization="other").key.id
    used.write(used.now, key=theirs, owner=used.world.other.id)
    unknown = "z" * len(theirs)

    def refused(key: str) -> str:
        with pytest.raises(NotFoundError) as refusal:
            used.report(key=key)
        return str(refusal.value).replace(key, "...")

    assert refused(theirs) == refused(unknown)
    with pytest.raises(NotFoundError, match="no organization 'nobody'"):
        used.report(organization="nobody")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": "minute"}, "step takes one of 15m, hour, day, week, month"),
        ({"group_by": "color"}, "key, family, outcome, tag"),
        ({"zone": "Mars/Olympus"}, "time zone"),
        ({"start": "yesterday"}, "a datetime or a date"),
        ({"start": datetime(2026, 11, 1)}, "start"),  # noqa: DTZ001 - what is refused
        ({"start": date(2026, 11, 22), "end": date(2026, 11, 22)}, "end must be later"),
        ({"start": date(2026, 11, 1), "step": "15m"}, "more than 1000 periods"),
        (
            {"start": date(2026, 10, 1), "end": date(2026, 10, 3), "step": "hour"},
            "kept by days: take the step day",
        ),
        ({"start": date(2026, 10, 1), "zone": "Asia/Kolkata"}, "leave out zone"),
        ({"start": date.min}, "calendar|1000 periods|years"),
        ({"start": date(9999, 12, 1), "end": datetime(9999, 12, 31, 1, tzinfo=UTC)}, "calendar"),
        ({"after": "nonsense"}, "after takes the next"),
        ({"after": "1:"}, "after takes the next"),
        ({"after": "1795910400:\0"}, "after takes the next"),
        ({"after": "1795910400:\ud800"}, "after takes the next"),
        ({"start": date(9000, 1, 1)}, "start must be a time in the past"),
        ({"end": datetime(1, 1, 3, tzinfo=UTC), "step": "month"}, "beyond the calendar"),
        ({"limit": 0}, "1 to 1000"),
        ({"limit": 1001}, "1 to 1000"),
        ({"family": "x" * 100}, "family takes"),
    ],
)
def test_what_makes_no_report_is_refused(used: Used, options: Any, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        used.report(**options)


def test_what_a_refusal_offers_can_be_asked_for(used: Used) -> None:
    used.report(start=date(2026, 10, 1), step="week")
    used.report(start=date(2026, 10, 19), step="hour")
    used.report(start=date(2026, 10, 19), zone="Asia/Kolkata")


def test_hours_can_t_be_told_apart_in_a_zone_that_is_half_an_hour_off() -> None:
    used = Used(zone="Asia/Kolkata", usage_bucket="1h")

    with pytest.raises(InvalidValueError, match="usage_bucket"):
        used.report()
    with pytest.raises(InvalidValueError, match="usage_bucket"):
        used.report(step="15m", zone="UTC")
    used.report(zone="Europe/Berlin")


def test_a_guard_that_counts_nothing_says_so() -> None:
    with pytest.raises(ConfigurationError, match="usage is False"):
        Used(usage=False).report()


def test_a_store_that_keeps_no_usage_is_named() -> None:
    class Without:
        """A store of keys alone."""

        def __init__(self) -> None:
            self._store = MemoryStore()

        def __getattr__(self, name: str) -> Any:
            if name == "usage":
                raise AttributeError(name)
            return getattr(self._store, name)

    with Keyguard(Without(), failure_limit=None) as guard:
        guard.organizations.create("acme")
        token = guard.keys.issue(organization="acme", name="ci").token.reveal()
        assert isinstance(guard.authenticate([f"Bearer {token}"]), Allow)
        guard.flush()
        assert guard.counts.outcomes() == {"allowed": 1}

        with pytest.raises(ConfigurationError, match="Without keeps no usage"):
            guard.usage.report(organization="acme")
