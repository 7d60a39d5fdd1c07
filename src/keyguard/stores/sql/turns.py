"""Bounds the connections in use, and closes those of SQLite at a fork.

SQLite keeps one list of the locks of a process. A child that inherits a connection takes no locks
of its own, even if it never uses that connection, because its SQLite believes that it holds them
already. So no connection is open while a process forks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from sqlalchemy import Engine

from keyguard.runtime.process import around_fork
from keyguard.stores.sql import sqlite

MOST_READS = 10
"""How many connections may look things up at once."""

MOST_WRITES = 5
"""How many connections may change things at once."""

LONGEST_WAIT = 6.0
"""Seconds: more than a change without a deadline waits for the lock of another process."""


class FreeTurns(deque[None]):
    """A semaphore of which a free turn is taken without a lock, by ``pop``.

    Each look-up takes a turn. :class:`threading.Semaphore` takes ten times as long, and a queue of
    the standard library knows of no greenlets. Threads that find no turn wait in a condition.
    """

    def __init__(self, number: int) -> None:
        super().__init__([None] * number)
        self._returned = threading.Condition()
        self._waiting = 0

    def acquire(self, timeout: float | None) -> bool:
        """Take a turn, and return whether there was one in time.

        Args:
            timeout: Seconds for which to wait at most; None for no limit.
        """
        with self._returned:
            self._waiting += 1  # before it looks: then release sees it, or it sees the turn
            try:
                return self._returned.wait_for(self._take, timeout)
            except BaseException:  # it may have been notified of a turn that it leaves to others
                self._returned.notify()
                raise
            finally:
                self._waiting -= 1

    def release(self) -> None:
        """Give a turn back."""
        self.append(None)
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def _take(self) -> bool:
        try:
            self.pop()
        except IndexError:
            return False
        return True


class Turns:
    """One turn for each connection that the pools of a database may open.

    SQLAlchemy's pool waits for a free connection for a fixed time, which is set when the pool is
    made. A turn is waited for until the deadline of the call.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Make all turns free, in a process where none is taken yet."""
        self.reads = FreeTurns(MOST_READS)
        self.writes = FreeTurns(MOST_WRITES)


class ForkGuard:
    """Close a database's connections before each fork of the process.

    Args:
        engines: The engines of the database.
        turns: The turns of their connections. All of them are taken while the process forks.
    """

    def __init__(self, engines: Sequence[Engine], turns: Turns) -> None:
        self._engines = engines
        self._turns = turns
        self._renew()
        around_fork(self._before, self._in_parent, self._in_child)

    def _renew(self) -> None:
        self._forks = threading.Semaphore(1)  # two forks would wait for each other's turns
        self._fork = threading.local()

    def _before(self) -> None:
        """Wait for the operations in progress, let none begin, and close the connections."""
        turns = self._turns
        wanted: list[threading.Semaphore | FreeTurns]
        wanted = [self._forks, *[turns.reads] * MOST_READS, *[turns.writes] * MOST_WRITES]
        ends_at = time.monotonic() + LONGEST_WAIT
        taken: list[threading.Semaphore | FreeTurns] = []
        self._fork.taken, self._fork.is_clean = taken, False
        for free in wanted:
            if not free.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                break
            taken.append(free)
        for engine in self._engines:
            engine.dispose()
        self._fork.is_clean = len(taken) == len(wanted)

    def _in_parent(self) -> None:
        for free in self._fork.taken:
            free.release()
        del self._fork.taken, self._fork.is_clean

    def _in_child(self) -> None:
        # It was clean, too, if nobody was told of the fork: then no connection stays open.
        if not getattr(self._fork, "is_clean", True):
            sqlite.inherit(self._engines[0])
        self._renew()
        self._turns.renew()
