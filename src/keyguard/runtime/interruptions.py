"""Handles work that begins within keyguard's own code, because Python collects garbage there.

Python closes an abandoned generator wherever it collects garbage, even on a thread that holds a
lock of keyguard's. If the generator then settles its cost, it would wait for that lock for ever.
"""

from __future__ import annotations

import sys
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from os.path import dirname, join
from types import FrameType

__all__ = ["do_elsewhere", "is_interruption"]

# The form in which code objects name the file, which may differ from that of a Path.
_PACKAGE = dirname(dirname(sys._getframe().f_code.co_filename))
_WITH_LOCKS = tuple(
    join(_PACKAGE, room, "") for room in ("core", "freshness", "runtime", "stores", "telemetry")
)
_RUNS_APPLICATIONS = join(_PACKAGE, "runtime", "sync.py")


def is_interruption() -> bool:
    """Return whether the present call interrupts work of keyguard's that may hold a lock.

    Normally no request runs inside such work; only an abandoned generator or coroutine does.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_WITH_LOCKS):
        frame = frame.f_back  # the call that asks
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_WITH_LOCKS) and file != _RUNS_APPLICATIONS:
            return True
        frame = frame.f_back
    return False


def do_elsewhere(work: Callable[[], object]) -> None:
    """Do work on another thread, without waiting for it. It must not raise.

    Nothing of the module :mod:`threading` is used: its locks may be held as well.
    """
    with suppress(RuntimeError):  # no thread can start, because the process ends
        start_new_thread(work, ())
