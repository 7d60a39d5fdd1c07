"""Words for people, and times in JSON."""

from datetime import UTC, datetime, timedelta

import pytest

from keyguard.cli.wording import in_units, relative
from keyguard.core.management.json_forms import json_time

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_times_in_json_are_utc_with_microseconds_and_a_z() -> None:
    assert json_time(NOW) == "2026-11-22T12:00:00.000000Z"
    assert json_time(None) is None


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (timedelta(days=90) - timedelta(seconds=1), "in 90 days"),
        (timedelta(days=89, hours=11), "in 89 days"),
        (timedelta(hours=-3, minutes=-59), "4 hours ago"),
        (timedelta(hours=23, minutes=59), "in 1 day"),
        (timedelta(seconds=59, milliseconds=700), "in 1 minute"),
        (timedelta(minutes=-59, seconds=-40), "1 hour ago"),
        (timedelta(days=1), "in 1 day"),
        (timedelta(minutes=-1), "1 minute ago"),
        (timedelta(seconds=59), "in 59 seconds"),
        (timedelta(days=729), "in 729 days"),
        (timedelta(days=729, hours=13), "in 2 years"),
        (timedelta(days=-730), "2 years ago"),
        (timedelta(days=3 * 365 - 1), "in 3 years"),
        (timedelta(milliseconds=-3), "just now"),
    ],
)
def test_a_relative_time_is_rounded_in_its_largest_unit(distance: timedelta, words: str) -> None:
    assert relative(NOW + distance, NOW) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (5400, "1 h 30 min"), (90 * 86_400, "90 d"), (90_061, "1 d 1 h")],
)
def test_a_length_of_time_is_told_in_its_two_largest_units(seconds: int, words: str) -> None:
    assert in_units(seconds) == words
