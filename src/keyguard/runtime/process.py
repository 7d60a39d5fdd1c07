"""The clock of a process, its threads, and what happens to objects when it forks."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import MethodType
from typing import Protocol, TypeAlias, cast


class Clock(Protocol):
    """A source of time, such as the module :mod:`time`."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


_Method: TypeAlias = tuple["weakref.ref[object]", Callable[[object], None]]
_Methods: TypeAlias = dict[int, _Method]

# Methods of living objects, in the order in which they are called.
_before: _Methods = {}
_in_parent: _Methods = {}
_in_child: _Methods = {}
_numbers = itertools.count()

_OFF = (b"false", b"off", b"no", b"0")  # as uWSGI reads an option

_process = os.getpid()  # whose locks, threads and connections the objects have
_renewing = threading.Lock()


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives.

    A child needs new locks and threads: a thread that it does not have may have held a lock.
    """
    _keep(_in_child, method)


def around_fork(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Call bound methods before each fork and after it, as long as their object lives.

    Args:
        before: Called before the fork, on the thread that forks.
        in_parent: Called after the fork, on the same thread, even if the fork failed.
        in_child: Called in the child.
    """
    _keep(_before, before)
    _keep(_in_parent, in_parent)
    _keep(_in_child, in_child)


def forks_unnoticed() -> bool:
    """Return whether this process is uWSGI's, and is going to fork workers without telling Python.

    It tells Python with ``--py-call-uwsgi-fork-hooks`` only. Otherwise no method is called around
    the fork. If a thread holds the interpreter's lock just then, the worker waits for it for ever.
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None:
        return False
    try:
        has_forked = uwsgi.worker_id() or uwsgi.mule_id()
        hooks = uwsgi.opt.get("py-call-uwsgi-fork-hooks", b"false")
    except (AttributeError, TypeError):  # another module has the name
        return False
    if has_forked or getattr(uwsgi, "i_am_the_spooler", bool)():
        return False
    return isinstance(hooks, bytes) and hooks.lower() in _OFF


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RuntimeError: The system refuses one, or the process is going to fork and no thread may run.
    """
    if forks_unnoticed():
        raise RuntimeError("no thread may run while uWSGI forks its workers")
    thread.start()


def renew_if_forked() -> None:
    """Call the methods for a forked child now, if Python was not told of the fork.

    It is called before a look-up, and before a thread or a connection is used that the parent may
    have. Other threads that call it wait meanwhile.
    """
    if _process != os.getpid():
        with _renewing:
            if _process != os.getpid():
                _renew()


class ReceiptLock:
    """Lets one thread at a time change the receipts of requests.

    Python may close a generator on the thread that holds the lock, and the generator then settles.
    So a thread that holds the lock can take it again.
    """

    def __init__(self) -> None:
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _keep(methods: _Methods, method: Callable[[], None]) -> None:
    """Keep a bound method without its object.

    weakref.WeakMethod does so too, but may write a traceback to stderr while Python ends.
    """
    bound = cast("MethodType", method)
    number = next(_numbers)
    reference = weakref.ref(bound.__self__, lambda _: methods.pop(number, None))
    methods[number] = reference, bound.__func__


def _call(methods: Iterable[_Method]) -> None:
    """Call methods, the last one first, and all of them even if one fails."""
    with ExitStack() as stack:
        for reference, method in methods:
            living = reference()
            if living is not None:
                stack.callback(method, living)


def _renew() -> None:
    """Call the methods for a child, the first one first."""
    global _process  # noqa: PLW0603 - there is one process
    try:
        _call([*_in_child.values()][::-1])
    finally:
        _process = os.getpid()


def _renew_at_fork() -> None:
    global _renewing  # noqa: PLW0603 - a thread that the child lacks may hold it
    _renewing = threading.Lock()
    _renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _call([*_before.values()]),
        after_in_parent=lambda: _call([*_in_parent.values()][::-1]),
        after_in_child=_renew_at_fork,
    )

receipt_lock = ReceiptLock()
"""The lock of this process."""
