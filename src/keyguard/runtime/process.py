"""The clock of a process, and what happens to objects when it forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Clock(Protocol):
    """A source of time, such as the module :mod:`time`."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives.

    A child needs new locks and threads: a thread that it does not have may have held a lock.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_while_it_lives(method))


def around_fork(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Call bound methods before each fork and after it, as long as their object lives.

    Args:
        before: Called before the fork, on the thread that forks.
        in_parent: Called after the fork, on the same thread, also if the fork failed.
        in_child: Called in the child.
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
