"""What a store reports of itself to an administrator.

What a user of the store may not ask is told, and is no problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that a store reports.

    Args:
        is_fine: Whether nothing needs to be done.
        text: What was found and, if something needs to be done, what; one line, without secrets.
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
        """Return what the store's settings mean, and what can't be reached."""
        ...
