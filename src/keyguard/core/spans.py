"""Lengths of time as people write them, in options and in settings, and read them."""

from __future__ import annotations

import re
from datetime import timedelta

from keyguard.exceptions import InvalidValueError, shown

_NUMBER = r"([0-9]{1,9})"
_SHORT = re.compile(
    rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?\Z"
)
_ISO_8601 = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?\Z"
)
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


def parse_span(option: str, text: str, *, may_be_zero: bool = False) -> timedelta:
    """Return a length of time, such as ``90d``, ``1d12h``, ``P90D`` or ``P1DT12H``.

    The units weeks, days, hours, minutes and seconds come in this order; those that are zero may be
    left out. Years and months have no fixed length. With ``may_be_zero``, ``0`` is a length too.
    An error names the option.
    """
    if may_be_zero and text == "0":
        return timedelta(0)
    found = _SHORT.match(text) or _ISO_8601.match(text)
    amounts = found.groups() if found else ()
    if not any(amounts):
        raise InvalidValueError(
            f"{option} takes a length of time, not {shown(text)}: write weeks, days, hours "
            "or minutes such as 2w, 90d, 12h, 30m or 1d12h, or ISO 8601 such as P90D (years and "
            "months have no fixed length)"
        )
    try:
        span = timedelta(**{unit: int(n or 0) for unit, n in zip(_UNITS, amounts, strict=True)})
    except OverflowError:
        raise InvalidValueError(f"{option} {shown(text)} is longer than any key can last") from None
    if not span and not may_be_zero:
        raise InvalidValueError(f"{option} {shown(text)} is zero: give a longer time")
    return span


def in_units(seconds: float) -> str:
    """Return whole seconds in their two largest units, such as ``1 h 30 min``."""
    parts: list[str] = []
    left = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
