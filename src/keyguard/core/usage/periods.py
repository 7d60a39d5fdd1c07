"""The periods of a report: quarters, and hours, days, weeks and months by the clocks of a zone.

Cells are kept by quarters of an hour, and the clocks of every zone differ from UTC by whole ones.
So a day of any zone is a whole number of quarters, whether clocks were changed on it or not.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise

from keyguard.core.usage.values import QUARTER, Period
from keyguard.exceptions import InvalidValueError, shown

QUARTERS_KEPT = timedelta(days=35)
"""For how long quarters are kept, until they are folded into days."""

DAYS_KEPT = timedelta(days=800)
"""For how long days are kept."""

MOST_PERIODS = 1000
"""How many periods a report has at most."""

_DAY = timedelta(days=1)


class Step(enum.StrEnum):
    """The length of the periods of a report."""

    QUARTER = "15m"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @classmethod
    def of(cls, name: str) -> Step:
        """Return the step of a name.

        Raises:
            InvalidValueError: There is no such step.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(step.value for step in cls)
            raise InvalidValueError(f"step takes one of {known}, not {shown(name)}") from None


FINE = (Step.QUARTER, Step.HOUR)
"""The steps that need quarters."""


def start_of_day(day: date, zone: tzinfo) -> datetime:
    """Return when a civil day begins, in UTC; for a date that a zone left out, the next day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    last = midnight.astimezone(UTC)
    # If clocks were put forward over midnight, this is earlier, and the day begins in between.
    start = midnight.replace(fold=1).astimezone(UTC)
    while start < last and start.astimezone(zone).date() < day:
        start += QUARTER
    return min(start, last).replace(fold=0)  # which no time in UTC needs


def civil_day(time: datetime, zone: tzinfo) -> Period:
    """Return the civil day of a zone that a time is in."""
    day = time.astimezone(zone).date()
    return Period(start_of_day(day, zone), start_of_day(day + _DAY, zone))


def periods_between(start: datetime, end: datetime, step: Step, zone: tzinfo) -> tuple[Period, ...]:
    """Return the periods from the one that a time is in to the one before another time.

    Args:
        start: A time in the first.
        end: The time that the last reaches; later than ``start``.
        step: How long they are, by the clocks of the zone. Weeks begin on Monday.
        zone: The zone.

    Raises:
        InvalidValueError: They are too many, or beyond the times that Python knows.
    """
    bounds: list[datetime] = []
    try:
        for bound in _bounds(start, step, zone):
            if not bounds or bound > bounds[-1]:
                bounds.append(bound)
            if bound >= end:
                break
            if len(bounds) > MOST_PERIODS:
                raise InvalidValueError(
                    f"that is more than {MOST_PERIODS} periods: ask for a shorter time, or take a "
                    "longer step"
                )
    except OverflowError:
        raise InvalidValueError("that time is beyond the calendar") from None
    return tuple(Period(*pair) for pair in pairwise(bounds))


def _bounds(start: datetime, step: Step, zone: tzinfo) -> Iterator[datetime]:
    """Yield the starts of periods, from that of the period which a time is in."""
    if step in FINE:
        yield from _fine_bounds(start, step, zone)
        return
    day = start.astimezone(zone).date()
    if step is Step.WEEK:
        day -= day.weekday() * _DAY
    elif step is Step.MONTH:
        day = day.replace(day=1)
    while True:
        yield start_of_day(day, zone)
        match step:
            case Step.MONTH:
                day = (day + 31 * _DAY).replace(day=1)
            case Step.WEEK:
                day += 7 * _DAY
            case _:
                day += _DAY


def _fine_bounds(start: datetime, step: Step, zone: tzinfo) -> Iterator[datetime]:
    """Yield the starts of quarters or hours. An hour also ends where the clocks are changed."""
    time = start.astimezone(UTC)
    time -= timedelta(minutes=time.minute % 15, seconds=time.second, microseconds=time.microsecond)
    if step is Step.HOUR:
        hour = _hour(time, zone)
        while _hour(time - QUARTER, zone) == hour:
            time -= QUARTER
    while True:
        yield time
        hour = _hour(time, zone)
        time += QUARTER
        while step is Step.HOUR and _hour(time, zone) == hour:
            time += QUARTER


def _hour(time: datetime, zone: tzinfo) -> tuple[date, int, timedelta | None]:
    local = time.astimezone(zone)
    return local.date(), local.hour, local.utcoffset()
