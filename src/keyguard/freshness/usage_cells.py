"""The cells in which a process counts requests until a store has them.

A cell is one outcome and one tag of the requests of one key within one bucket of time. A *move*
takes requests from one cell to another, such as those that were let in and refused later. It waits
until there is a request to move. If the store has that request already, it waits for ever.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TypeAlias

from keyguard.core.usage.values import ALLOWED, Cell

MOST_CELLS = 100_000
"""Cells that wait for a store. Beyond, keys are counted together."""

CELLS_OF_FLUSH = 500

_MOST_WAITING = 10_000  # keys; beyond these, a request stays in its first cell

Who: TypeAlias = tuple[str, str, str]
"""The organization, the key and its family."""

What: TypeAlias = tuple[str, str]
"""The outcome and the tag."""

_Cells: TypeAlias = dict[tuple[Who, What], list[int]]
"""The number of requests and their units."""

_NO_CELLS: _Cells = {}


class UsageCells:
    """The cells of one process, and the moves between them.

    Whoever calls a method holds the lock of the counts.

    Attributes:
        size: How many cells there are.
        lost: The number of requests for which no memory was left.
    """

    def __init__(self) -> None:
        self._cells: dict[float, _Cells] = {}  # by the start of the bucket, which rises
        self.size = 0
        self.lost = 0
        self._is_merged = False  # and still large
        self._moves: defaultdict[Who, defaultdict[What, int]] = defaultdict(_no_moves)
        self._extra: defaultdict[tuple[Who, str], int] = defaultdict(int)

    def __bool__(self) -> bool:
        return bool(self._cells)

    def move(self, who: Who, source: What, target: What) -> None:
        """Move a request from one cell to another, as soon as there is one."""
        moves = self._moves[who]
        moves[source] -= 1
        moves[target] += 1

    def weigh(self, who: Who, tag: str, more: int) -> None:
        """Add units to requests that were let in, or take some away."""
        if more:
            self._extra[who, tag] += more

    def keep(self, who: Who, what: What, n: int, units: int, start: float) -> None:
        """Add to a cell.

        Args:
            who: The key that made the requests.
            what: Their outcome and tag.
            n: How many.
            units: Their units.
            start: When the bucket began.
        """
        counts = self._cells.get(start, _NO_CELLS).get((who, what))
        if counts is None:
            if self.size >= MOST_CELLS and not self._is_merged:
                self._merge()
            if self.size < MOST_CELLS:
                counts = self._cells.setdefault(start, {})[who, what] = [0, 0]
                self.size += 1
            else:  # merging once more would gain nothing
                counts = self._cells[min(self._cells)].get(((who[0], "", ""), what))
        if counts is None:
            self.lost += n
            return
        counts[0] += n
        counts[1] += units

    def _merge(self) -> None:
        """Count the keys of an organization together, and then its buckets, to need less memory."""
        for start in (None, min(self._cells)):
            if self.size <= MOST_CELLS // 2:
                break
            before, self._cells, self.size = self._cells, {}, 0
            for at, cells in before.items():
                for ((owner, _, _), what), (n, units) in cells.items():
                    self.keep((owner, "", ""), what, n, units, at if start is None else start)
        self._is_merged = self.size > MOST_CELLS // 2
        moves, extra = self._moves, self._extra
        self._moves, self._extra = defaultdict(_no_moves), defaultdict(int)
        for (owner, _, _), changes in moves.items():
            for what, n in changes.items():
                self._moves[owner, "", ""][what] += n
        for ((owner, _, _), tag), more in extra.items():
            self._extra[(owner, "", ""), tag] += more

    def settle(self, present: float) -> None:
        """Make the moves for which there are requests, and change units. Other moves wait.

        Args:
            present: When the present bucket began.
        """
        waiting, self._moves = self._moves, defaultdict(_no_moves)
        for who, moves in waiting.items():
            short, start = 0, present
            for what, n in moves.items():
                if n < 0:
                    taken, start = self._take_away(who, what, 0, -n, present)
                    moves[what] += taken
                    short -= moves[what]
                    if what[0] == ALLOWED:
                        self._extra[who, what[1]] -= taken
            for what, n in moves.items():
                if n > 0:
                    moves[what] = min(n, short)
                    short -= moves[what]
                    if done := n - moves[what]:
                        self.keep(who, what, done, done if what[0] == ALLOWED else 0, start)
            if any(moves.values()) and len(self._moves) < _MOST_WAITING:
                self._moves[who] = moves
        changes, self._extra = self._extra, defaultdict(int)
        for (who, tag), more in changes.items():
            if more > 0:
                self.keep(who, (ALLOWED, tag), 0, more, present)
                continue
            left = more + self._take_away(who, (ALLOWED, tag), 1, -more, present)[0]
            if left and len(self._extra) < _MOST_WAITING:
                self._extra[who, tag] = left

    def _take_away(
        self, who: Who, what: What, which: int, most: int, present: float
    ) -> tuple[int, float]:
        """Take requests or units out of cells, the latest first.

        Args:
            who: The key whose cells are changed.
            what: The outcome and tag.
            which: 0 for requests, 1 for units.
            most: The largest number to take.
            present: When the present bucket began.

        Returns:
            How many were taken, and the start of the bucket that had the last of them.
        """
        left, last = most, present
        for start, cells in reversed(self._cells.items()):
            counts = cells.get((who, what))
            if counts is not None and left and counts[which]:
                taken = min(left, counts[which])
                counts[which] -= taken
                left -= taken
                last = start
        return most - left, last

    def take(self) -> tuple[Cell, ...]:
        """Take the oldest cells out, as many as a flush holds."""
        found: list[Cell] = []
        for start in tuple(self._cells):
            cells, begun = self._cells[start], instant(start)
            while cells and len(found) < CELLS_OF_FLUSH:
                (who, what), (n, units) = cells.popitem()
                self.size -= 1
                if n or units:
                    found.append(Cell(who[0], begun, who[1], who[2], *what, n, units))
            if cells:
                break
            del self._cells[start]
        self._is_merged = self._is_merged and self.size > MOST_CELLS // 2
        return tuple(found)


def instant(time: float) -> datetime:
    """Return a time as flushes have it."""
    return datetime.fromtimestamp(time, UTC)


def _no_moves() -> defaultdict[What, int]:
    return defaultdict(int)
