"""The findings that a store reports to an administrator.

A fact that the store's user may not read is reported as such, and is not a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that a store reports.

    Args:
        is_fine: Whether nothing needs to be done.
        text: The fact and, if something needs to be done, the advice; one line, without secrets.
    """

    is_fine: bool
    text: str


def fine(text: str) -> Finding:
    """Return a finding about which nothing needs to be done."""
    return Finding(is_fine=True, text=text)


def problem(text: str) -> Finding:
    """Return a finding about which something needs to be done."""
    return Finding(is_fine=False, text=text)


@runtime_checkable
class Diagnosable(Protocol):
    """A store that can report what could make it lose acknowledged changes."""

    layout: str
    """The version of the tables or of the layout that this keyguard needs."""

    def diagnose(self) -> list[Finding]:
        """Return findings about the store's settings, and about servers that can't be reached."""
        ...
