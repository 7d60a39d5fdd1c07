"""Work that begins in the middle of keyguard's own, because Python collects garbage there.

Python closes an abandoned generator wherever it collects garbage: also while a lock of keyguard's
is held, and on the thread that holds it. What the generator settles then would wait for that lock
for ever.
"""

from __future__ import annotations

import sys
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from os.path import dirname, join
from types import FrameType

__all__ = ["do_elsewhere", "is_interruption"]

# As code names its file, which need not be the form that a Path gives it.
_PACKAGE = dirname(dirname(sys._getframe().f_code.co_filename))
_WITH_LOCKS = tuple(
    join(_PACKAGE, room, "") for room in ("core", "freshness", "runtime", "stores", "telemetry")
)
_RUNS_APPLICATIONS = join(_PACKAGE, "runtime", "sync.py")


def is_interruption() -> bool:
    """Tell whether the present call interrupts work of keyguard's that may hold a lock.

    No request runs below such work but by chance: only an abandoned generator or coroutine does.
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
    with suppress(RuntimeError):  # no thread can be had: the process ends
        start_new_thread(work, ())
