"""Pages from templates: the environment, and how values are written for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.management.change_words import in_words, word_of
from keyguard.core.texts import escaped

_TONES = {
    "active": "good",
    "enabled": "good",
    "approved": "good",
    "claimed": "good",
    "pending": "warn",
    "not yet valid": "warn",
    "revoked": "bad",
    "denied": "bad",
    "rescinded": "bad",
    "disabled": "bad",
}
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@cache
def environment() -> Environment:
    """Return the environment of the templates.

    Whatever a template prints is escaped for HTML, and characters that could deceive are written
    as escape sequences.
    """
    made = Environment(
        loader=PackageLoader("keyguard.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    # Jinja's types know the filters that it has itself, and no others.
    made.filters.update(  # pyright: ignore[reportCallIssue]
        {
            written.__name__: written  # pyright: ignore[reportArgumentType]
            for written in (changed, clock, instant, number, span, subject_path, tone)
        }
    )
    return made


def _printed(value: object) -> object:
    """Return what is printed for a value: strings without characters that could deceive."""
    return (
        escaped(str(value)) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )


def clock(time: datetime, zone: str) -> str:
    """Return a time by the clocks of a zone, for people."""
    return f"{time.astimezone(ZoneInfo(zone)):%-d %b %Y, %H:%M}"


def instant(time: datetime) -> str:
    """Return a time in UTC as the element ``time`` takes it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def number(n: int) -> str:
    """Return a number with its digits in groups of three."""
    return f"{n:,}"


def span(length: timedelta | float) -> str:
    """Return a length of time, given as a timedelta or in seconds, in its largest whole unit."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    for unit, size in _UNITS:
        if seconds >= size and not seconds % size:
            n = int(seconds // size)
            return f"{n:,} {unit}{'' if n == 1 else 's'}"
    return f"{seconds:g} seconds"


def changed(entry: AuditEntry, zone: str) -> list[tuple[str, str, str]]:
    """Return what each field of an audit entry is called, holds, and held before, or ""."""
    before = entry.before
    return [
        (
            word_of(name),
            _field(name, value, zone),
            "" if before is None else _field(name, before.get(name), zone),
        )
        for name, value in entry.after.items()
    ]


def _field(name: str, value: object, zone: str) -> str:
    try:
        return in_words(name, value, lambda time: clock(time, zone))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return json.dumps(value, ensure_ascii=False)  # keyguard did not write this


def subject_path(entry: AuditEntry) -> str:
    """Return the path of the page on what an audit entry reports."""
    kind = entry.action.partition(".")[0]
    return f"/{kind}s/{entry.subject}"


def tone(status: object) -> str:
    """Return the class of a status: its colour and its sign."""
    return _TONES.get(str(status), "")


def rendered(template: str, data: Mapping[str, object]) -> str:
    """Return a page."""
    return environment().get_template(template).render(data)
