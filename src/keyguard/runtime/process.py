"""What a process brings along: its clock, and what becomes of objects when it forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Clock", "after_fork", "around_fork"]


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
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_while_it_lives(method))


def around_fork(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Call bound methods before each fork and after it, as long as their object lives.

    Args:
        before: Is called on the thread that forks, before it does.
        in_parent: Is called on the same thread afterwards, also where the fork failed.
        in_child: Is called in the child.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_while_it_lives(before),
            after_in_parent=_while_it_lives(in_parent),
            after_in_child=_while_it_lives(in_child),
        )


def _while_it_lives(method: Callable[[], None]) -> Callable[[], None]:
    reference: weakref.WeakMethod[Any] = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call
