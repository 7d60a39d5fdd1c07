"""The clock of a process, and what happens to objects when it forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Protocol, TypeAlias


class Clock(Protocol):
    """A source of time, such as the module :mod:`time`."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


_Methods: TypeAlias = "dict[weakref.WeakMethod[Callable[[], None]], None]"

# Methods of living objects, in the order in which they are called.
_before: _Methods = {}
_in_parent: _Methods = {}
_in_child: _Methods = {}


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives.

    A child needs new locks and threads: a thread that it does not have may have held a lock.
    """
    _in_child[weakref.WeakMethod(method, _in_child.pop)] = None


def around_fork(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Call bound methods before each fork and after it, as long as their object lives.

    Args:
        before: Called before the fork, on the thread that forks.
        in_parent: Called after the fork, on the same thread, also if the fork failed.
        in_child: Called in the child.
    """
    _before[weakref.WeakMethod(before, _before.pop)] = None
    _in_parent[weakref.WeakMethod(in_parent, _in_parent.pop)] = None
    _in_child[weakref.WeakMethod(in_child, _in_child.pop)] = None


def _call(references: Iterable[weakref.WeakMethod[Callable[[], None]]]) -> None:
    """Call methods, the last one first, and all of them even if one fails."""
    with ExitStack() as stack:
        for reference in references:
            method = reference()
            if method is not None:
                stack.callback(method)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _call([*_before]),
        after_in_parent=lambda: _call([*_in_parent][::-1]),
        after_in_child=lambda: _call([*_in_child][::-1]),
    )
