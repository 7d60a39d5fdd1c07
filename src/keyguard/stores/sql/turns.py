"""How many connections of keyguard's own may be in use at once.

SQLAlchemy's pool waits for a free connection for a fixed time, which is set when the pool is made.
A turn is waited for until the deadline of the call.
"""

from __future__ import annotations

import threading

__all__ = ["MOST_READS", "MOST_WRITES", "Turns"]

MOST_READS = 10
"""How many connections may look things up at once."""

MOST_WRITES = 5
"""How many connections may change things at once."""


class Turns:
    """One turn for each connection that the pools of a database may open."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Make all turns free, in a process where none is taken yet."""
        self.reads = threading.BoundedSemaphore(MOST_READS)
        self.writes = threading.BoundedSemaphore(MOST_WRITES)
