"""The clients that failed here lately, and those that failed too often and are refused."""

from __future__ import annotations

import threading
from collections import OrderedDict

from keyguard.runtime.process import Clock, after_fork

_MOST = 10_000
_LATELY = 60.0


class BlockedClients:
    """Remembers until when clients are refused, so that a flood does not reach the store.

    The limiter counts the failures, for all processes. A process learns that a client has failed
    too often at the first failure that it sees itself.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._until: OrderedDict[str, float] = OrderedDict()
        self._failed: OrderedDict[str, float] = OrderedDict()
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
        """Refuse a client for a number of seconds."""
        self._keep(self._until, client, seconds)

    def has_failed(self, name: str) -> bool:
        """Return whether a client, or a guess at a key, has failed here within a minute."""
        return self._failed.get(name, 0.0) > self._now()

    def note_failure(self, name: str) -> None:
        """Note a failed attempt, by its client or by the key that was guessed at."""
        self._keep(self._failed, name, _LATELY)

    def _keep(self, clients: OrderedDict[str, float], client: str, seconds: float) -> None:
        with self._lock:
            clients[client] = self._now() + seconds
            clients.move_to_end(client)
            if len(clients) > _MOST:
                clients.popitem(last=False)
