"""What a store says of itself to an administrator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Diagnosable", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        is_fine: Whether it may stay as it is.
        text: What was found and, where it may not stay, what to do; one line, without secrets.
    """

    is_fine: bool
    text: str


@runtime_checkable
class Diagnosable(Protocol):
    """A store that can tell what would make it lose what it acknowledged."""

    def diagnose(self) -> list[Finding]:
        """Look at the store's settings, and at what can't be reached."""
        ...
