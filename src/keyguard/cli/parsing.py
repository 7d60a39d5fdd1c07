"""Reads the texts of options into the values that the guard takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

from keyguard.core.limits.limit import Limit, parse_limit
from keyguard.core.values import UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError, shown

T = TypeVar("T")
Cleared = TypeVar("Cleared")

_NUMBER = r"([0-9]{1,9})"
_SHORT = re.compile(
    rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?\Z"
)
_ISO_8601 = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?\Z"
)
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


def parse_span(text: str, *, may_be_zero: bool = False) -> timedelta:
    """Return a length of time, such as ``90d``, ``1d12h``, ``P90D`` or ``P1DT12H``.

    The units weeks, days, hours, minutes and seconds come in this order; those that are zero may be
    left out. Years and months have no fixed length. With ``may_be_zero``, ``0`` is a length too.
    """
    if may_be_zero and text == "0":
        return timedelta(0)
    found = _SHORT.match(text) or _ISO_8601.match(text)
    amounts = found.groups() if found else ()
    if not any(amounts):
        raise InvalidValueError(
            f"{shown(text)} is not a length of time: write weeks, days, hours or minutes such as "
            "2w, 90d, 12h, 30m or 1d12h, or ISO 8601 such as P90D (years and months have no fixed "
            "length)"
        )
    try:
        span = timedelta(**{unit: int(n or 0) for unit, n in zip(_UNITS, amounts, strict=True)})
    except OverflowError:
        raise InvalidValueError(f"{shown(text)} is longer than any key can last") from None
    if not span and not may_be_zero:
        raise InvalidValueError(f"{shown(text)} is zero: give a longer time")
    return span


def parse_instant(text: str) -> datetime:
    """Return a point in time: a time with its offset from UTC, or the first instant of a date."""
    try:
        if len(text) == len("2030-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(
        f"{shown(text)} is not a point in time: write a date such as 2030-01-31, or a time with "
        "its offset from UTC such as 2030-01-31T09:00:00Z or 2030-01-31T09:00:00+02:00"
    )


def parse_scopes(texts: Sequence[str] | None) -> list[str]:
    """Return the scopes of an option that may be repeated.

    A text may hold several, separated by commas or white space. Texts without any scope are
    refused: for an organization, no scope would mean any.
    """
    scopes = ",".join(texts or ()).replace(",", " ").split()
    if texts and not scopes:
        raise InvalidValueError("--scope is given but names no scope")
    return scopes


def parse_metadata(texts: Sequence[str] | None) -> dict[str, str]:
    """Return metadata, given as NAME=VALUE each."""
    return parse_pairs("--metadata", "NAME=VALUE, such as team=web", texts)


def parse_pairs(option: str, form: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Return names and values, given with an equals sign between them, each name once.

    Args:
        option: The option that gives them, such as ``--metadata``.
        form: How it takes one of them, with an example.
        texts: What it was given.
    """
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidValueError(f"{option} takes {form}, not {shown(text)}")
        if name in pairs:
            raise InvalidValueError(f"{option} gives {shown(name)} twice")
        pairs[name] = value
    return pairs


def parse_limits(texts: Sequence[str] | None, place: str) -> list[Limit]:
    """Return the limits of an option that may be repeated, for keys or for organizations."""
    return [parse_limit(text, place) for text in texts or ()]


def new_value(
    setting: str, value: T | None, clearing: str, is_cleared: bool, empty: Cleared
) -> T | Cleared | Unchanged:
    """Return the new value of a field: ``empty`` if it is cleared, ``UNCHANGED`` if it is not set.

    Args:
        setting: The option that sets the field, such as ``--limit``.
        value: The value of that option; None or empty if it is not given.
        clearing: The option that clears the field, such as ``--no-limits``.
        is_cleared: Whether that option is given.
        empty: The value that clears the field.
    """
    if not value:
        return empty if is_cleared else UNCHANGED
    if is_cleared:
        raise InvalidValueError(f"give {setting} or {clearing}, not both")
    return value
