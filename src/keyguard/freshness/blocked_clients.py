"""The clients that this process refuses because they failed too often."""

from __future__ import annotations

import threading
from collections import OrderedDict

from keyguard.runtime.process import Clock, after_fork

_MOST = 10_000


class BlockedClients:
    """Remembers until when clients are refused, so that a flood asks no store.

    The limiter counts the failures, for all processes. A process learns that a client has failed
    too often at the first failure that it sees itself.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._until: OrderedDict[str, float] = OrderedDict()
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()

    def blocked_for(self, client: str) -> float | None:
        """Return for how many seconds a client is still refused, or None.

        Args:
            client: As :func:`keyguard.core.identity.addresses.client_of` names it.
        """
        until = self._until.get(client)
        if until is None:
            return None
        left = until - self._now()
        return left if left > 0 else None

    def block(self, client: str, seconds: float) -> None:
        """Refuse a client for so many seconds."""
        with self._lock:
            self._until[client] = self._now() + seconds
            self._until.move_to_end(client)
            if len(self._until) > _MOST:
                self._until.popitem(last=False)
