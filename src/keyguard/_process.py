"""What a process brings along: its clock, and what becomes of objects when it forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Clock", "after_fork"]


class Clock(Protocol):
    """Where time comes from; the module :mod:`time` is one."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a scale that is never set back."""
        ...


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives.

    A child needs its own locks and threads: another thread may have been amid a change.
    """
    if not hasattr(os, "register_at_fork"):
        return
    reference: weakref.WeakMethod[Any] = weakref.WeakMethod(method)

    def in_child() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=in_child)
