"""Shares: the order of turns if few calls may run at once and no share may delay the others."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from keyguard.exceptions import StoreUnavailableError


class Shares:
    """Gives turns by share. The unnamed share, that of ordinary requests, has every other turn.

    The named shares have the other turns, in rotation, so that a share which asks often only delays
    itself. Together they hold at most half of the places, and each at most half of these.

    Args:
        most: How many have a turn at once.
        places: How many have a turn or wait for one. Further ones are refused at once.
    """

    def __init__(self, *, most: int, places: int) -> None:
        self._lock = threading.Lock()
        self._free = most
        self._places = places
        self._taken = Counter[str]()
        self._unnamed: deque[Callable[[], object]] = deque()
        self._named: dict[str, deque[Callable[[], object]]] = {}  # the next share first
        self._is_named_next = False

    def ask(self, share: str, begin: Callable[[], object]) -> None:
        """Call ``begin``, once, when its turn comes: now, or when another leaves.

        Each call is followed by one of :meth:`leave`.

        Raises:
            StoreUnavailableError: There is no place.
        """
        with self._lock:
            if not self._has_place(share):
                raise overloaded()
            self._taken[share] += 1
            if not self._free:
                queue = self._named.setdefault(share, deque()) if share else self._unnamed
                queue.append(begin)
                return
            self._free -= 1
        begin()

    def leave(self, share: str, begin: Callable[[], object]) -> None:
        """Give a turn back, or no longer wait for one."""
        with self._lock:
            self._taken[share] -= 1
            if not self._taken[share]:
                del self._taken[share]
            queue = self._named.get(share, self._unnamed) if share else self._unnamed
            if begin in queue:
                queue.remove(begin)
                if share and not queue:
                    del self._named[share]
                return
            following = self._take_next()
            if following is None:
                self._free += 1
                return
        following()

    def _has_place(self, share: str) -> bool:
        total, named = self._taken.total(), self._taken.total() - self._taken[""]
        if not share:
            return total < self._places
        return (
            total < self._places
            and named < max(1, self._places // 2)
            and self._taken[share] < max(1, self._places // 4)
        )

    def _take_next(self) -> Callable[[], object] | None:
        if self._named and (self._is_named_next or not self._unnamed):
            share = next(iter(self._named))
            queue = self._named.pop(share)
            following = queue.popleft()
            if queue:
                self._named[share] = queue  # behind the other shares
            self._is_named_next = False
            return following
        self._is_named_next = True
        return self._unnamed.popleft() if self._unnamed else None


def overloaded() -> StoreUnavailableError:
    """Return the error that is raised if no place is left to wait for a turn."""
    return StoreUnavailableError("too many slow hashes are under way; try again shortly")
