"""Single-flight look-ups: concurrent requests for one key share one query.

If a thousand requests come while the cache is cold, the store is asked once. The requests share the
look-up but not the decision, so a wrong secret gains nothing. A look-up that began before its key
or organization changed in this process is not shared with later requests. No look-up is shared for
longer than ``max_staleness``, so that a change in another process takes effect in time.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from keyguard.core.access.ports import Found, Mark
from keyguard.core.keys.records import KeyRecord
from keyguard.exceptions import StoreUnavailableError
from keyguard.freshness.usage_counts import UsageCounts
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.process import after_fork
from keyguard.runtime.waiting import AnyEvent, Waits

_PATIENCE = 5.0  # seconds, where no deadline is set


@dataclass(slots=True, eq=False, repr=False)
class _Flight(Generic[AnyEvent]):
    """One look-up in progress."""

    mark: Mark
    landed: AnyEvent | None = None  # made once a request waits
    answer: KeyRecord | None = None
    failure: Exception | None = None
    abandoned: bool = False  # the request that led it was cancelled


class Lookups(Generic[AnyEvent]):
    """The look-ups of one guard.

    Args:
        tokens: The memory, which knows what has changed since a look-up began.
        counts: Counts look-ups, for metrics.
        waits: How requests wait for one another.
    """

    def __init__(self, tokens: VerifiedTokens, counts: UsageCounts, waits: Waits[AnyEvent]) -> None:
        self._tokens = tokens
        self._counts = counts
        self._waits = waits
        self._place = waits.place
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[tuple[object, str], _Flight[AnyEvent]] = {}  # by place and key

    async def find(
        self,
        key_id: str,
        find_key: Callable[[str], Awaitable[KeyRecord | None]],
        find_nearby: Callable[[str], Awaitable[Found | None]] | None = None,
    ) -> Found:
        """Look a key up, or wait for a request that is looking it up already.

        Args:
            key_id: The key's id.
            find_key: Asks the store.
            find_nearby: Asks a read replica first; None if only the store may be asked.

        Returns:
            The answer of the store, and the mark of the look-up.

        Raises:
            StoreUnavailableError: The look-up of another request failed, or did not end in time.
        """
        try:
            place = self._place()
        except RuntimeError:
            mark = self._tokens.begin()
            self._counts.led += 1
            return await find_key(key_id), mark
        name = (place, key_id)
        while True:
            flight, landed = self._board(name)
            if landed is None:
                self._counts.led += 1
                try:
                    found = None if find_nearby is None else await find_nearby(key_id)
                    if found is None:
                        flight.answer = await find_key(key_id)
                    else:
                        flight.answer, flight.mark = found
                    return flight.answer, flight.mark
                except Exception as failure:
                    flight.failure = failure
                    raise
                except BaseException:
                    flight.abandoned = True
                    raise
                finally:
                    self._land(name, flight)
            left = remaining()
            if not await self._waits.wait(landed, _PATIENCE if left is None else left):
                raise StoreUnavailableError(
                    "another request's look-up of the key is still under way"
                )
            if flight.failure is not None:
                raise StoreUnavailableError(str(flight.failure)) from flight.failure
            if not flight.abandoned and self._may_be_shared(flight):
                self._counts.shared += 1
                return flight.answer, flight.mark

    def _may_be_shared(self, flight: _Flight[AnyEvent]) -> bool:
        """Return whether neither the key nor its organization changed since a look-up began.

        The organization is known only from the answer, so joining a look-up can't check it.
        """
        found = flight.answer
        return found is None or self._tokens.is_unchanged(
            flight.mark, found.key.id, found.key.organization
        )

    def _board(self, name: tuple[object, str]) -> tuple[_Flight[AnyEvent], AnyEvent | None]:
        """Return a look-up, and what to wait for, or None for a new look-up to lead."""
        with self._lock:
            flight = self._flights.get(name)
            if flight is None or not self._tokens.is_current(name[1], flight.mark):
                flight = self._flights[name] = _Flight(self._tokens.begin())
                return flight, None
            if flight.landed is None:
                flight.landed = self._waits.event()
            return flight, flight.landed

    def _land(self, name: tuple[object, str], flight: _Flight[AnyEvent]) -> None:
        with self._lock:
            if self._flights.get(name) is flight:
                del self._flights[name]
            landed = flight.landed
        if landed is not None:
            landed.set()
