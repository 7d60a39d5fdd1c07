"""Times and spans, as people write and read them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from keyguard.exceptions import InvalidValueError

__all__ = ["absolute", "instant", "parse_instant", "parse_span", "relative", "spelled"]

_NUMBER = r"([0-9]{1,9})"
_SHORT = re.compile(
    rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?\Z"
)
_ISO_8601 = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?\Z"
)
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")
_RELATIVE = (
    ("year", timedelta(days=365)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)


def parse_span(text: str, *, or_none: bool = False) -> timedelta:
    """Read a span of time.

    Args:
        text: Whole weeks, days, hours, minutes and seconds, in this order, those that are zero left
            out: ``90d``, ``2w``, ``1d12h``; or the same in ISO 8601: ``P90D``, ``P1DT12H``. Years
            and months have no fixed length.
        or_none: Whether ``0`` is a span as well.

    Raises:
        InvalidValueError: It is none, or nothing, or too long.
    """
    if or_none and text == "0":
        return timedelta(0)
    found = _SHORT.match(text) or _ISO_8601.match(text)
    amounts = {
        unit: int(amount)
        for unit, amount in zip(_UNITS, found.groups() if found else (), strict=False)
        if amount is not None
    }
    if not amounts:
        raise InvalidValueError(
            f"{text!r} is no span of time; write weeks, days, hours or minutes such as 2w, 90d, "
            "12h, 30m or 1d12h, or ISO 8601 such as P90D (years and months have no fixed length)"
        )
    try:
        span = timedelta(**amounts)
    except OverflowError:
        raise InvalidValueError(f"{text!r} is longer than any key can last") from None
    if not span and not or_none:
        raise InvalidValueError(f"{text!r} is no time at all")
    return span


def parse_instant(text: str) -> datetime:
    """Read a point in time.

    Args:
        text: ISO 8601, a time with its offset from UTC such as ``2030-01-31T09:00:00Z``, or a date
            alone, which is its first instant in UTC.

    Raises:
        InvalidValueError: It is none, or leaves the offset open.
    """
    try:
        if len(text) == len("2030-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(
        f"{text!r} is no point in time; write a date such as 2030-01-31, or a time with its "
        "offset from UTC such as 2030-01-31T09:00:00Z or 2030-01-31T09:00:00+02:00"
    )


def instant(at: datetime | None) -> str | None:
    """Return a time as JSON has it: ISO 8601 in UTC, to the microsecond, ending in Z."""
    if at is None:
        return None
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def relative(at: datetime, now: datetime) -> str:
    """Return how far a time is from now, such as ``in 89 days`` or ``3 hours ago``."""
    distance = abs(at - now)
    for name, unit in _RELATIVE:
        amount = distance // unit
        # One year and a bit says too little, so up to two are told in days.
        if amount >= (2 if name == "year" else 1):
            words = f"{amount} {name}{'' if amount == 1 else 's'}"
            return f"in {words}" if at > now else f"{words} ago"
    return "just now"


def absolute(at: datetime, now: datetime) -> str:
    """Return a time in UTC, to the second, and how far it is from now."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({relative(at, now)})"


def spelled(seconds: int) -> str:
    """Return a span of whole seconds in its largest units, such as ``1 h 30 min``."""
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
