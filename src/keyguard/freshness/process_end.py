"""Writes the uses and counts that wait in guards to the stores when the process ends.

This is for guards of sync code. An async guard is flushed by its application's lifespan instead.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import Protocol

_LONGEST_PARTING = 2.0
"""Seconds between SIGTERM and the end."""


class Parting(Protocol):
    """An object that must write something before the process ends."""

    def part(self) -> None:
        """Write it."""


_parting: weakref.WeakSet[Parting] = weakref.WeakSet()
_exit_watched_in: int | None = None


def part_at_exit(parting: Parting) -> None:
    """Call ``part`` of an object when the process ends normally."""
    global _exit_watched_in  # noqa: PLW0603 - one watch for all guards of the process
    _parting.add(parting)
    if _exit_watched_in is None:
        atexit.register(_part)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if (
        _exit_watched_in != os.getpid()
        and multiprocessing is not None
        and multiprocessing.parent_process() is not None
    ):
        # A child of multiprocessing, such as a worker of granian, calls its finalizers instead.
        from multiprocessing.util import Finalize

        Finalize(None, _part, exitpriority=0)
    _exit_watched_in = os.getpid()


def part_on_sigterm() -> None:
    """Call ``part`` of all objects before SIGTERM ends the process, if nothing else handles it."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: object) -> None:  # noqa: ARG001 - what signal calls
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # On a thread of its own: this one may hold, under the handler, the very lock that it needs.
    parting = threading.Thread(target=_part, name="keyguard-parting", daemon=True)
    parting.start()
    parting.join(_LONGEST_PARTING)
    os.kill(os.getpid(), signal.SIGTERM)


def _part() -> None:
    for parting in list(_parting):
        with suppress(Exception):
            parting.part()
