"""Reads the texts of options into the values that the guard takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import TypeVar

from keyguard.core.limits.limit import Limit, parse_limit
from keyguard.core.values import UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError, shown

T = TypeVar("T")
Cleared = TypeVar("Cleared")


def parse_instant(option: str, text: str) -> datetime:
    """Return a point in time: a time with its offset from UTC, or the first instant of a date.

    An error names the option.
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
        f"{option} takes a point in time, not {shown(text)}: write a date such as "
        "2030-01-31, or a time with its offset from UTC such as 2030-01-31T09:00:00Z or "
        "2030-01-31T09:00:00+02:00"
    )


def parse_scopes(texts: Sequence[str] | None) -> list[str]:
    """Return the scopes of an option that may be repeated.

    A text may hold several, separated by commas. Texts without any scope are refused: for an
    organization, no scope would mean any.
    """
    scopes = [scope for part in ",".join(texts or ()).split(",") if (scope := part.strip())]
    if texts and not scopes:
        raise InvalidValueError("--scope is given but names no scope")
    for scope in scopes:
        if len(scope.split()) > 1:
            raise InvalidValueError(
                f"--scope {shown(scope)} holds white space: separate scopes with commas"
            )
    return scopes


def parse_metadata(texts: Sequence[str] | None) -> dict[str, str]:
    """Return metadata, given as NAME=VALUE each."""
    return parse_pairs("--metadata", "NAME=VALUE, such as team=web", texts)


def parse_pairs(option: str, form: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Return names and values, given with an equals sign between them, each name once.

    Args:
        option: The option that gives them, such as ``--metadata``.
        form: How it takes one of them, with an example.
        texts: The values of the option.
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
    """Return the limits of ``--limit``, for keys or for organizations."""
    try:
        return [parse_limit(text, place) for text in texts or ()]
    except InvalidValueError as problem:
        raise InvalidValueError(f"--limit: {problem}") from None


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
    if value is None or value in ([], {}):
        return empty if is_cleared else UNCHANGED
    if is_cleared:
        raise InvalidValueError(f"give {setting} or {clearing}, not both")
    return value


def check_change(command: str, *values: object) -> None:
    """Refuse a change that changes no field.

    Args:
        command: The command's full name, whose help lists the options.
        values: The new value of each field; ``UNCHANGED`` if its options are not given.
    """
    if all(value is UNCHANGED for value in values):
        raise InvalidValueError(f"nothing to change: give an option; see {command} --help")
