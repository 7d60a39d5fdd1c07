"""Maps buckets of cells to the hashes of Redis that hold them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple
from urllib.parse import quote

from keyguard.core.usage.values import QUARTER, Cell, Period
from keyguard.exceptions import CorruptDataError

_KEYS_A_PART = 200
_HOUR, _DATE = 4, 96


class BucketHash(NamedTuple):
    """A hash of buckets.

    Args:
        start: The time in its name, in UTC.
        size: How many quarters long it is: an hour, or a date.
    """

    start: datetime
    size: int

    @property
    def name(self) -> str:
        return f"{self.start:%Y-%m-%dT%H}" if self.size == _HOUR else f"{self.start:%Y-%m-%d}"

    @property
    def sums(self) -> str:
        """The name of the hash with the sums of the quarters of the date."""
        return f"{self.start:%Y-%m-%d}:sums"

    def bucket(self, time: datetime) -> int:
        """Return the number of the bucket that starts at a time, or the nearest."""
        return min(max((time - self.start) // QUARTER, 0), self.size)


class Span(NamedTuple):
    """The part of a hash that is asked for.

    Args:
        start: The time in its name.
        first: The number of the first period that it has buckets of.
        name: Its name.
        text: For each period its number, its first bucket and the first behind it.
    """

    start: datetime
    first: int
    name: str
    text: str


def hour_of(time: datetime) -> BucketHash:
    """Return the hash with the quarter that starts at a time."""
    return BucketHash(time.astimezone(UTC).replace(minute=0, second=0, microsecond=0), _HOUR)


def date_of(time: datetime) -> BucketHash:
    """Return the hash with the day that starts at a time."""
    return BucketHash(hour_of(time).start.replace(hour=0), _DATE)


def hours_of(day: Period) -> list[tuple[BucketHash, str]]:
    """Return the hashes with the quarters of a day, each with the first bucket and that behind."""
    hour, hours = hour_of(day.start), list[tuple[BucketHash, str]]()
    while hour.start < day.end:
        hours.append((hour, f"{hour.bucket(day.start)} {hour.bucket(day.end)}"))
        hour = hour_of(hour.start + _HOUR * QUARTER)
    return hours


def dates_before(month: str, before: datetime) -> list[tuple[BucketHash, str]]:
    """Return the hashes with a month's days before a time, each with the first bucket to keep.

    Args:
        month: A month or a date of the index; a date has no days.
        before: The time.
    """
    dates = _hashes(month) if _is_month(month) else []
    return [(date, str(date.bucket(before))) for date in dates if date.start < before]


def parts_of(cells: Iterable[Cell]) -> Iterator[dict[tuple[str, str], str]]:
    """Yield the values, by hash and field, that each script in turn adds.

    The same cells always make the same parts.
    """
    rows = [
        (start, key_id, [*group])
        for (start, key_id), group in groupby(sorted(cells), lambda cell: (cell.start, cell.key_id))
    ]
    for at in range(0, len(rows), _KEYS_A_PART):
        added: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for start, key_id, its_cells in rows[at : at + _KEYS_A_PART]:
            hour = hour_of(start)
            for name, bucket in ((hour.name, str(hour.bucket(start))), (hour.sums, "0")):
                added[name, bucket] += its_cells
                added[name, f"{bucket} {quoted(key_id)}"] += its_cells
        yield {
            (name, field): _value(all_cells[0].family if " " in field else "", all_cells)
            for (name, field), all_cells in added.items()
        }


def spans_of(index: Iterable[str], periods: Sequence[Period], first: int) -> list[Span]:
    """Return the parts of hashes to read for periods, in the order of time.

    Args:
        index: The dates with quarters and the months with days.
        periods: The periods.
        first: The number of the first one.
    """
    ends = [period.end for period in periods]

    def runs_of(found: BucketHash) -> list[tuple[int, int, int]]:
        runs: list[tuple[int, int, int]] = []
        for number in range(max(first, bisect_right(ends, found.start)), len(periods)):
            start, end = map(found.bucket, periods[number])
            if start == found.size:
                break
            runs.append((number, start, end))
        return runs

    spans: list[Span] = []
    for name in index:
        hashes = _hashes(name)
        if not _is_month(name):
            date = date_of(hashes[0].start)
            runs = runs_of(date)
            if [run[1:] for run in runs] == [(0, _DATE)]:
                # All of the date is asked for together, so that its sums will do.
                spans.append(Span(date.start, runs[0][0], date.sums, f"{runs[0][0]} 0 1"))
                continue
        for found in hashes:
            if runs := runs_of(found):
                text = " ".join(str(part) for run in runs for part in run)
                spans.append(Span(found.start, runs[0][0], found.name, text))
    return sorted(spans)


def quoted(text: str) -> str:
    """Return a text without spaces, line ends, colons and braces."""
    return quote(text, safe="")


def _value(family: str, cells: Iterable[Cell]) -> str:
    sums: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for cell in cells:
        n, units = sums[cell.outcome, cell.tag]
        sums[cell.outcome, cell.tag] = n + cell.n, units + cell.units
    lines = [
        f"{quoted(outcome)} {n} {units} {quoted(tag)}\n"
        for (outcome, tag), (n, units) in sums.items()
    ]
    return "".join([f"{quoted(family)}\n", *lines])


def _is_month(name: str) -> bool:
    return len(name) == len("2026-11")


def _hashes(name: str) -> list[BucketHash]:
    """Return the hashes that there may be of a date or a month of the index."""
    try:
        if not _is_month(name):
            date = datetime.fromisoformat(f"{name}T00:00Z")
            return [hour_of(date + timedelta(hours=number)) for number in range(24)]
        first = datetime.fromisoformat(f"{name}-01T00:00Z")
    except ValueError as failure:
        raise CorruptDataError(f"{name!r} in Redis is not a date of usage; delete it") from failure
    dates = [first + timedelta(days=number) for number in range(31)]
    return [date_of(date) for date in dates if date.month == first.month]
