"""Days, weeks and months of any zone are exact, whatever was done to its clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyguard import InvalidValueError
from keyguard.core.usage.periods import (
    MOST_PERIODS,
    Step,
    civil_day,
    periods_between,
    start_of_day,
)
from keyguard.core.usage.values import QUARTER

ZONES = (
    "UTC",
    "Asia/Kolkata",  # half an hour off
    "Asia/Kathmandu",  # three quarters
    "America/St_Johns",
    "Australia/Lord_Howe",  # puts its clocks forward by half an hour
    "Africa/Cairo",  # at midnight
    "America/Havana",  # midnight comes twice
    "America/Santiago",
    "America/Asuncion",
    "Asia/Beirut",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "America/New_York",
    "America/Nuuk",
)


def labels(step: Step, zone: ZoneInfo) -> Callable[[datetime], object]:
    """Return what tells the period of a request by the clock on the wall."""

    def label(time: datetime) -> object:
        local = time.astimezone(zone)
        match step:
            case Step.QUARTER:
                return time.timestamp() // 900
            case Step.HOUR:
                return local.date(), local.hour, local.utcoffset()
            case Step.DAY:
                return local.date()
            case Step.WEEK:
                return local.date().isocalendar()[:2]
            case Step.MONTH:
                return local.year, local.month

    return label


MOMENTS = st.datetimes(datetime(2012, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.sampled_from(ZONES), MOMENTS, st.sampled_from(list(Step)), st.integers(1, 9))
@example("Africa/Cairo", datetime(2014, 7, 30, 12, tzinfo=UTC), Step.DAY, 5)
@example("Australia/Lord_Howe", datetime(2026, 10, 3, 12, tzinfo=UTC), Step.HOUR, 9)
@example("Australia/Lord_Howe", datetime(2026, 4, 4, 12, tzinfo=UTC), Step.HOUR, 9)
@example("America/St_Johns", datetime(2026, 3, 7, 12, tzinfo=UTC), Step.DAY, 3)
@example("America/St_Johns", datetime(2026, 10, 31, 12, tzinfo=UTC), Step.DAY, 3)
def test_periods_count_what_a_count_of_the_requests_by_the_wall_clock_counts(
    zone_name: str, start: datetime, step: Step, length: int
) -> None:
    zone = ZoneInfo(zone_name)
    label = labels(step, zone)
    spans = {Step.QUARTER: QUARTER, Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1)}
    span = spans.get(step, timedelta(days=12))
    periods = periods_between(start, start + length * span, step, zone)
    assert periods[0].start <= start
    assert periods[-1].end >= start + length * span
    for before, after in pairwise(periods):
        assert before.end == after.start
    for period in periods:
        assert period.start < period.end
        assert period.start.timestamp() % 900 == 0
    # A request in every quarter, and some a moment before and after the bounds.
    first, last = periods[0].start, periods[-1].end
    requests = [first + n * QUARTER for n in range((last - first) // QUARTER)]
    moment = timedelta(microseconds=1)
    requests += [period.end - moment for period in periods]
    requests += [period.start + moment for period in periods]

    by_wall_clock = Counter(label(time) for time in requests)
    by_period: Counter[object] = Counter()
    for period in periods:
        by_period[label(period.start)] += sum(period.start <= t < period.end for t in requests)

    assert by_period == by_wall_clock


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Africa/Cairo", date(2014, 8, 1), "2014-07-31T22:00", 23),
        ("Africa/Cairo", date(2014, 7, 31), "2014-07-30T22:00", 24),
        ("Africa/Cairo", date(2026, 10, 29), "2026-10-28T21:00", 25),
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00", 25),
        ("America/Havana", date(2026, 3, 8), "2026-03-08T05:00", 23),
        ("Australia/Lord_Howe", date(2026, 10, 4), "2026-10-03T13:30", 23.5),
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00", 24.5),
        ("America/St_Johns", date(2026, 3, 8), "2026-03-08T03:30", 23),
        ("America/St_Johns", date(2026, 11, 1), "2026-11-01T02:30", 25),
        ("Asia/Kolkata", date(2026, 3, 8), "2026-03-07T18:30", 24),
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-29T10:00", 24),
        ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00", 24),
    ],
)
def test_a_day_begins_and_ends_when_its_zone_says(
    zone: str, day: date, start: str, hours: float
) -> None:
    found = civil_day(start_of_day(day, ZoneInfo(zone)), ZoneInfo(zone))

    assert found.start == datetime.fromisoformat(f"{start}+00:00")
    assert found.end - found.start == timedelta(hours=hours)


def test_a_date_that_a_zone_left_out_is_no_period() -> None:
    periods = periods_between(
        datetime(2011, 12, 29, 12, tzinfo=UTC),
        datetime(2012, 1, 1, tzinfo=UTC),
        Step.DAY,
        ZoneInfo("Pacific/Apia"),
    )

    assert [period.end - period.start for period in periods] == [timedelta(days=1)] * 3


@pytest.mark.parametrize("step", list(Step))
def test_there_are_at_most_a_thousand_periods(step: Step) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidValueError, match="more than 1000 periods"):
        periods_between(start, datetime(2200, 1, 1, tzinfo=UTC), step, UTC)

    whole = periods_between(start, start + MOST_PERIODS * QUARTER, Step.QUARTER, UTC)
    assert len(whole) == MOST_PERIODS


def test_times_beyond_the_calendar_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="calendar"):
        periods_between(datetime.min.replace(tzinfo=UTC), datetime(1, 2, 1, tzinfo=UTC), Step.WEEK,
                        ZoneInfo("America/New_York"))  # fmt: skip
