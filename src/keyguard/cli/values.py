"""What options hold, read into what the managers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from keyguard.core.keys.values import UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError

__all__ = ["new_value", "parse_metadata", "parse_scopes"]

T = TypeVar("T")
Cleared = TypeVar("Cleared")


def parse_scopes(texts: Sequence[str] | None) -> list[str]:
    """Return scopes that are repeated, or separated by commas or white space.

    Raises:
        InvalidValueError: They were given, and are none: an organization without any given could
            do anything.
    """
    scopes = ",".join(texts or ()).replace(",", " ").split()
    if texts and not scopes:
        raise InvalidValueError("--scope is given and holds no scope")
    return scopes


def new_value(
    given: str, value: T | None, clearing: str, *, cleared: bool, empty: Cleared
) -> T | Cleared | Unchanged:
    """Return what a field is set to: a value, nothing, or what it was.

    Args:
        given: The option that gives the value.
        value: The value, or None (or nothing) where the option is not there.
        clearing: The option that takes the value away.
        cleared: Whether that one is there.
        empty: What then stands for no value.

    Raises:
        InvalidValueError: Both are there.
    """
    if not value:
        return empty if cleared else UNCHANGED
    if cleared:
        raise InvalidValueError(f"give {given} or {clearing}, not both")
    return value


def parse_metadata(pairs: Sequence[str] | None) -> dict[str, str]:
    """Read notes, NAME=VALUE each.

    Raises:
        InvalidValueError: One is none, or given twice.
    """
    notes: dict[str, str] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidValueError(f"--metadata takes NAME=VALUE, such as team=web, not {pair!r}")
        if not pair.isprintable():
            raise InvalidValueError(f"--metadata takes printable characters only, not {pair!r}")
        if name in notes:
            raise InvalidValueError(f"--metadata gives {name!r} twice")
        notes[name] = value
    return notes
