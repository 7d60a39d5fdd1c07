"""Lengths of time and points in time, as options give them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError
from keyguard.cli.parsing import parse_instant
from keyguard.core.spans import parse_span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("2w", timedelta(weeks=2)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("P90D", timedelta(days=90)),
        ("P2W", timedelta(weeks=2)),
        ("PT30M", timedelta(minutes=30)),
        ("P1DT12H", timedelta(days=1, hours=12)),
    ],
)
def test_a_span_is_whole_units_or_iso_8601(text: str, span: timedelta) -> None:
    assert parse_span("--for", text) == span


@pytest.mark.parametrize(
    "text",
    [
        *("", "d", "90", "90 d", "+90d", "-90d", "1.5d", "90D", "12h1d", "1d1d", "\u0669d"),
        *("1y", "1y2d", "P", "PT", "P1Y", "P1M", "P1DT", "p1d", "P1.5D", "-P1D", "90d\n"),
    ],
)
def test_a_malformed_span_is_refused_with_examples(text: str) -> None:
    with pytest.raises(
        InvalidValueError, match=r"^--for takes a length of time, .*: write .* 90d, 12h"
    ):
        parse_span("--for", text)


def test_a_span_of_zero_is_refused() -> None:
    for text in ("0d", "PT0S", "0d0h"):
        with pytest.raises(InvalidValueError, match=r"^--for '.*' is zero: give a longer time"):
            parse_span("--for", text)


def test_a_span_longer_than_any_key_can_last_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^--for .* longer than any key can last"):
        parse_span("--for", "999999999w")


@given(st.text())
def test_reading_a_span_or_a_time_raises_nothing_else_whatever_the_text(text: str) -> None:
    for read in (parse_span, parse_instant):
        with suppress(InvalidValueError):
            read("--for", text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T09:00:00Z", datetime(2030, 1, 31, 9, tzinfo=UTC)),
        ("2030-01-31T09:00+02:00", datetime(2030, 1, 31, 7, tzinfo=UTC)),
        ("2030-01-31 09:00:00.25Z", datetime(2030, 1, 31, 9, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_a_point_in_time_is_a_date_or_a_time_with_its_offset(text: str, time: datetime) -> None:
    assert parse_instant("--start", text) == time


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2030-02-30", "2030-01-31T09:00:00", "0001-01-01T00:00:00+10:00"],
)
def test_a_point_in_time_that_is_malformed_or_without_an_offset_is_refused(text: str) -> None:
    with pytest.raises(
        InvalidValueError, match=r"^--start takes a point in time, .*: write a date such as"
    ):
        parse_instant("--start", text)
