"""Look-ups that are shared: who asks for a key while it is being looked up waits for that answer.

A thousand requests that meet a cold cache ask the store once. What is shared is the look-up and not
the decision, so a wrong secret gains nothing by it. An answer to a question that was asked before
the key changed in this process is shared with nobody who comes after, and none is shared for longer
than what is remembered is believed: a change in another process must be felt by then.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from keyguard.core.keys.records import KeyRecord
from keyguard.exceptions import StoreUnavailableError
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import after_fork

__all__ = ["Lookups"]

Mark: TypeAlias = tuple[int, float]
AnyEvent = TypeVar("AnyEvent", bound="threading.Event | asyncio.Event")
Found: TypeAlias = tuple[KeyRecord | None, Mark]

_PATIENCE = 5.0  # seconds, where no deadline is set


class _Flight:
    """One look-up under way."""

    __slots__ = ("abandoned", "answer", "failure", "landed", "mark")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.landed: threading.Event | asyncio.Event | None = None  # made for who waits
        self.answer: KeyRecord | None = None
        self.failure: Exception | None = None
        self.abandoned = False  # its leader was cancelled, and knows nothing

    def result(self) -> Found:
        """Return what was found.

        Raises:
            StoreUnavailableError: The look-up failed.
        """
        if self.failure is not None:
            raise StoreUnavailableError(str(self.failure)) from self.failure
        return self.answer, self.mark


class Lookups:
    """The look-ups of one guard.

    Args:
        tokens: The memory that says what has changed since a look-up began.
    """

    def __init__(self, tokens: VerifiedTokens) -> None:
        self._tokens = tokens
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[tuple[int, str], _Flight] = {}  # by event loop (0: threads) and key

    def find(self, key_id: str, find_key: Callable[[str], KeyRecord | None]) -> Found:
        """Look a key up, or wait for who is looking it up already.

        Args:
            key_id: The key's id.
            find_key: Asks the store.

        Returns:
            What the store answered, and the mark from which that is to be judged.

        Raises:
            StoreUnavailableError: Another thread's look-up, which this one shared, failed.
        """
        name = (0, key_id)
        while True:
            flight, leads, landed = self._board(name, threading.Event)
            if leads:
                try:
                    flight.answer = find_key(key_id)
                    return flight.answer, flight.mark
                except BaseException as failure:
                    self._fail(flight, failure)
                    raise
                finally:
                    self._land(name, flight)
            left = remaining()
            if not landed.wait(_PATIENCE if left is None else left):
                raise StoreUnavailableError(
                    "another request's look-up of the key is still under way"
                )
            if not flight.abandoned:
                return flight.result()

    async def afind(
        self, key_id: str, find_key: Callable[[str], Awaitable[KeyRecord | None]]
    ) -> Found:
        """Look a key up, or wait for whoever does; see :meth:`find`."""
        try:
            name = (id(asyncio.get_running_loop()), key_id)
        except RuntimeError:  # trio: there look-ups go unshared
            mark = self._tokens.begin()
            return await find_key(key_id), mark
        while True:
            flight, leads, landed = self._board(name, asyncio.Event)
            if leads:
                try:
                    flight.answer = await find_key(key_id)
                    return flight.answer, flight.mark
                except BaseException as failure:
                    self._fail(flight, failure)
                    raise
                finally:
                    self._land(name, flight)
            await landed.wait()
            if not flight.abandoned:
                return flight.result()

    def _board(
        self, name: tuple[int, str], event: Callable[[], AnyEvent]
    ) -> tuple[_Flight, bool, AnyEvent]:
        with self._lock:
            flight = self._flights.get(name)
            if flight is None or not self._tokens.is_current(name[1], flight.mark):
                flight = self._flights[name] = _Flight(self._tokens.begin())
                return flight, True, event()
            if flight.landed is None:
                flight.landed = event()
            landed: Any = flight.landed
            return flight, False, landed

    def _land(self, name: tuple[int, str], flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(name) is flight:
                del self._flights[name]
            landed = flight.landed
        if landed is not None:
            landed.set()

    @staticmethod
    def _fail(flight: _Flight, failure: BaseException) -> None:
        if isinstance(failure, Exception):
            flight.failure = failure
        else:
            flight.abandoned = True
