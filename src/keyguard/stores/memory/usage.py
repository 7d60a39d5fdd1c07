"""A store of usage in the memory of one process, for tests and demos."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias, TypeVar

from keyguard.core.usage.ports import UsageStore
from keyguard.core.usage.values import Cell, Flush, Period, Question, Total, Writer

Under = TypeVar("Under")


_Counts: TypeAlias = tuple[int, int]
"""The number of requests, and their units."""

_Cells: TypeAlias = defaultdict[str, dict[Cell, _Counts]]
"""The counts of cells by organization, each under the cell without its counts."""


class MemoryUsage(UsageStore):
    """Keeps cells in dictionaries. They end with the process. No method suspends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quarters: _Cells = defaultdict(dict)
        self._days: _Cells = defaultdict(dict)
        self._writers: dict[str, tuple[int, datetime]] = {}
        self._dismissed: dict[tuple[str, str], datetime] = {}

    async def add(self, flush: Flush) -> None:
        with self._lock:
            if flush.seq <= self._writers.get(flush.writer, (0,))[0]:
                return
            self._writers[flush.writer] = flush.seq, flush.until
            for cell in flush.cells:
                place = cell._replace(n=0, units=0)
                _add(self._quarters[cell.organization], place, (cell.n, cell.units))

    async def totals(self, question: Question) -> Sequence[Total]:
        totals = sorted(self._sums(question))
        if question.after is not None:
            totals = [total for total in totals if total[:2] > question.after]
        return totals[: question.limit]

    async def largest(self, question: Question) -> Sequence[Total]:
        totals = self._sums(question)
        return sorted(totals, key=lambda total: (-total.n, total.group))[: question.limit]

    async def writers(self) -> Sequence[Writer]:
        with self._lock:
            return [Writer(name, until) for name, (_, until) in sorted(self._writers.items())]

    async def leave(self, writer: str) -> None:
        with self._lock:
            self._writers.pop(writer, None)

    async def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        with self._lock:
            firsts = [
                (organization, min(place.start for place in cells))
                for organization, cells in self._quarters.items()
                if cells
            ]
        return [(name, start) for name, start in firsts if start < before][:limit]

    async def fold(self, organization: str, day: Period) -> None:
        with self._lock:
            quarters = self._quarters[organization]
            for place in [place for place in quarters if day.start <= place.start < day.end]:
                counts = quarters.pop(place)
                _add(self._days[organization], place._replace(start=day.start), counts)

    async def forget(self, organization: str, before: datetime) -> None:
        with self._lock:
            days = self._days[organization]
            for place in [place for place in days if place.start < before]:
                del days[place]

    async def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        with self._lock:
            self._dismissed[organization, hint] = until

    async def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        with self._lock:
            return frozenset(
                hint
                for (owner, hint), until in self._dismissed.items()
                if owner == organization and until > now
            )

    def _sums(self, question: Question) -> list[Total]:
        starts, field = [period.start for period in question.periods], question.group_by.field
        sums: dict[tuple[int, str], _Counts] = {}
        with self._lock:
            for kept in (self._quarters, self._days):
                for place, counts in kept[question.organization].items():
                    number = bisect_right(starts, place.start) - 1
                    if (
                        number >= 0
                        and place.start < question.periods[number].end
                        and question.key_id in (None, place.key_id)
                        and question.family in (None, place.family)
                        and question.outcome in (None, place.outcome)
                    ):
                        group = getattr(place, field) if field else ""
                        _add(sums, (number, group), counts)
        return [Total(number, group, *counts) for (number, group), counts in sums.items()]


def _add(sums: dict[Under, _Counts], under: Under, more: _Counts) -> None:
    before = sums.get(under, (0, 0))
    sums[under] = before[0] + more[0], before[1] + more[1]
