"""Usage in Redis: one slot of a cluster for each organization.

One script adds the cells of a flush to an organization, or several if there are many. Each notes
the number of the flush and of its part, so that nothing is added twice. No script works through
more than some thousand cells, unless one hour or date of one organization has more.

The mark of a writer's last flush lives for 40 days, longer than any quarter waits to be folded: a
process whose answer was lost may send its flush again only after the store was out of reach for
days, and then nothing else tells whether it was added.

Scripts add in floating point: a sum beyond 2**53 is rounded, and none grows beyond 2**58.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from typing import TypeAlias
from urllib.parse import unquote

from keyguard.core.usage.values import (
    QUARTER,
    Cell,
    Flush,
    NotAddedError,
    Period,
    Question,
    Total,
    Writer,
)
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis import scripts
from keyguard.stores.redis.ports import ScriptPort
from keyguard.stores.redis.scripts import (
    DONE,
    Reply,
    Script,
    ScriptCall,
    list_of,
    store_call,
    text_of,
    texts_of,
)
from keyguard.stores.redis.usage_hashes import (
    date_of,
    dates_before,
    hours_of,
    parts_of,
    quoted,
    spans_of,
)

_HASHES_A_CALL = 48
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)


_Sums: TypeAlias = dict[tuple[int, str], tuple[int, int]]
"""``n`` and units by period and group."""


class RedisUsage:
    """A store of usage in Redis.

    Args:
        port: Runs the scripts.
    """

    def __init__(self, port: ScriptPort) -> None:
        self._port = port
        self._under_way: dict[str, tuple[int, set[str]]] = {}

    async def add(self, flush: Flush) -> None:
        nothing: tuple[int, set[str]] = (flush.seq, set())
        seq, added = self._under_way.get(flush.writer, nothing)
        if seq != flush.seq:
            added = nothing[1]
        # A flush that is sent again goes on where its deadline ended it.
        self._under_way[flush.writer] = flush.seq, added
        cells: dict[str, list[Cell]] = defaultdict(list)
        for cell in flush.cells:
            if cell.organization not in added:
                cells[cell.organization].append(cell)
        waiting, failures = dict.fromkeys(cells, ""), dict[str, CorruptDataError]()
        while waiting:
            unlisted: dict[str, str] = {}
            for organization, folds in waiting.items():
                try:
                    answer = await self._add_to(organization, flush, cells[organization], folds)
                except CorruptDataError as failure:  # which keeps nobody else from being added
                    failures[organization] = failure
                    continue
                if answer == [DONE]:
                    added.add(organization)
                else:
                    unlisted[organization] = answer[-1]
            if unlisted:
                try:
                    await self._list({name: _first(cells[name]) for name in unlisted})
                except CorruptDataError as failure:
                    failures |= dict.fromkeys(unlisted, failure)
                    unlisted = {}
            waiting = unlisted
        reported = (flush.writer, str(flush.seq), _number(flush.until, _MICROSECOND))
        await self._run(scripts.USAGE_NOTE, *reported, keys=("writers",))
        self._under_way.pop(flush.writer, None)
        if failures:
            first = next(iter(failures.values()))
            raise NotAddedError(str(first), frozenset(failures)) from first.__cause__ or first

    async def totals(self, question: Question) -> Sequence[Total]:
        sums = await self._sums(question, question.limit)
        places = sorted(place for place in sums if question.after is None or place > question.after)
        return [Total(*place, *sums[place]) for place in places[: question.limit]]

    async def largest(self, question: Question) -> Sequence[Total]:
        sums = await self._sums(question, None)
        totals = [Total(*place, n, units) for place, (n, units) in sums.items()]
        return nsmallest(question.limit, totals, key=lambda total: (-total.n, total.group))

    async def writers(self) -> Sequence[Writer]:
        found = await self._run(scripts.USAGE_WRITERS, keys=("writers",))
        return sorted(
            Writer(writer, _EPOCH + int(until) * _MICROSECOND) for writer, until in _pairs(found)
        )

    async def leave(self, writer: str) -> None:
        self._under_way.pop(writer, None)
        await self._run(scripts.USAGE_LEAVE, writer, keys=("writers",))

    async def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        _, found = await self._unfolded(before, limit)
        return [(name, _EPOCH + float(start) * _SECOND) for name, start in _pairs(found)]

    async def fold(self, organization: str, day: Period) -> None:
        listings, _ = await self._unfolded(day.start, 0)
        date = date_of(day.start)
        hours = [((hour.name, hour.sums), texts) for hour, texts in hours_of(day)]
        bucket = str(date.bucket(day.start))
        keys = ("folds", "index", date.name)
        await self._work_through(organization, scripts.USAGE_FOLD, hours, bucket, keys=keys)
        prefix = f"{_key(organization, '')}:"
        keys = ("folds", "listed", "index")
        first = texts_of(await self._ask(organization, scripts.USAGE_FIRST, prefix, keys=keys))
        start = (
            _number(datetime.fromisoformat(f"{first[0]}:00Z") + int(first[1]) * QUARTER, _SECOND)
            if first
            else ""
        )
        found = (organization, text_of(listings), start)
        await self._run(scripts.USAGE_ADVANCE, *found, keys=("unfolded", "listings"))

    async def forget(self, organization: str, before: datetime) -> None:
        _, index = await self._index(organization)
        for month in index:
            dates = [((date.name,), texts) for date, texts in dates_before(month, before)]
            keys = ("folds", "index")
            await self._work_through(organization, scripts.USAGE_FORGET, dates, keys=keys)

    async def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        dismissal = (hint, _number(until, _MICROSECOND))
        await self._ask(organization, scripts.USAGE_DISMISS, *dismissal, keys=("dismissed",))

    async def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        time = _number(now, _MICROSECOND)
        found = await self._ask(organization, scripts.USAGE_DISMISSED, time, keys=("dismissed",))
        return frozenset(texts_of(found))

    async def _add_to(
        self, organization: str, flush: Flush, cells: list[Cell], folds: str
    ) -> list[str]:
        """Add an organization's cells, and return the last script's answer."""
        answer = [DONE]
        for number, changes in enumerate(parts_of(cells)):
            names = [*dict.fromkeys(name for name, _ in changes)]
            texts = [
                text
                for (name, field), value in changes.items()
                for text in (str(names.index(name) + 1), field, value)
            ]
            answer = texts_of(
                await self._ask(
                    organization,
                    scripts.USAGE_ADD,
                    *(str(flush.seq), str(number), folds, _first(cells), *texts),
                    keys=(f"writer:{flush.writer}", "listed", "folds", "index", *names),
                )
            )
            if answer != [DONE]:
                break
        return answer

    async def _list(self, organizations: dict[str, str]) -> None:
        """Add organizations to the list of :meth:`unfolded`, each from a start on."""
        texts = [text for name, first in organizations.items() for text in (name, first)]
        await self._run(scripts.USAGE_LIST, *texts, keys=("unfolded", "listings"))

    async def _unfolded(self, before: datetime, limit: int) -> tuple[Reply, Reply]:
        """Return how often an organization was listed, and organizations with their starts."""
        asked = (_number(before, _SECOND), str(limit))
        keys = ("unfolded", "listings")
        listings, found = list_of(await self._run(scripts.USAGE_UNFOLDED, *asked, keys=keys))
        return listings, found

    async def _index(self, organization: str) -> tuple[str, list[str]]:
        """Return how often anything was folded, and the dates and months that there are."""
        reply = await self._ask(organization, scripts.USAGE_INDEX, keys=("folds", "index"))
        folds, names = list_of(reply)
        return text_of(folds), texts_of(names)

    async def _sums(self, question: Question, enough: int | None) -> _Sums:
        """Return the sums of a question. That many of whole periods are enough; None is for all."""
        names = (question.organization, question.key_id, question.family, question.outcome)
        if not all(_can_be_kept(name) for name in names if name is not None):
            return {}
        sums = None
        while sums is None:
            folds, index = await self._index(question.organization)
            sums = await self._read(question, enough, folds, index)
        return sums

    async def _read(
        self, question: Question, enough: int | None, folds: str, index: list[str]
    ) -> _Sums | None:
        """Return the sums of a question, or None if something was folded meanwhile."""
        after = (0, "") if question.after is None else question.after
        waiting = spans_of(index, question.periods, after[0])
        only = (question.key_id, question.family, question.outcome)
        filters = ["" if text is None else f"={quoted(text)}" for text in only]
        sums: _Sums = defaultdict(lambda: (0, 0))
        cursor, seen, sizes = "0", 0, list[int]()
        while waiting:
            asked = waiting[:_HASHES_A_CALL]
            reply = await self._ask(
                question.organization,
                scripts.USAGE_TOTALS,
                *(folds, cursor, question.group_by, *filters, *(span.text for span in asked)),
                keys=("folds", *(span.name for span in asked)),
            )
            if not reply:
                return None
            *counts, rows = list_of(reply)
            done, cursor, portion, size = texts_of(counts)
            texts = iter(texts_of(rows))
            for period, group, n, units in zip(texts, texts, texts, texts, strict=True):
                place = int(period), unquote(group)
                sums[place] = sums[place][0] + int(n), sums[place][1] + int(units)
            seen += int(portion)
            sizes.append(int(size))
            if cursor == "0":
                # A hash that only grew meanwhile shows no field twice, and none too few.
                if not sizes[0] <= seen <= sizes[-1]:
                    return None
                seen, sizes = 0, []
            waiting = waiting[int(done) :]
            if enough is not None and waiting:
                whole = (place for place in sums if after < place < (waiting[0].first, ""))
                if len([*whole]) >= enough:
                    break
        return sums

    async def _work_through(
        self,
        organization: str,
        script: Script,
        hashes: Sequence[tuple[tuple[str, ...], str]],
        *arguments: str,
        keys: tuple[str, ...],
    ) -> None:
        """Run a script until it went through all hashes, each with a text for it."""
        cursor = "0"
        while hashes:
            texts = [text for _, text in hashes]
            names = [name for names, _ in hashes for name in names]
            reply = await self._ask(
                organization, script, cursor, *arguments, *texts, keys=(*keys, *names)
            )
            done, cursor = texts_of(reply)
            hashes = hashes[int(done) :]

    async def _ask(
        self, organization: str, script: Script, *arguments: str, keys: tuple[str, ...]
    ) -> Reply:
        """Run a script in the slot of an organization."""
        if not script.writes:
            keys = ("", *keys)  # which is never written, for the check of the primary
        names = tuple(_key(organization, key) for key in keys)
        return await self._port.run(ScriptCall(script, names, arguments))

    async def _run(self, script: Script, *arguments: str, keys: tuple[str, ...]) -> Reply:
        """Run a script in the slot of the store."""
        names = tuple(f"usage:{key}" for key in keys)
        return await self._port.run(store_call(script, *arguments, keys=names))


def _key(organization: str, name: str) -> str:
    key = f"keyguard:{{{quoted(organization)}}}:usage"
    return f"{key}:{name}" if name else key


def _first(cells: Iterable[Cell]) -> str:
    return _number(min(cell.start for cell in cells), _SECOND)


def _can_be_kept(text: str) -> bool:
    """Return whether a text can be encoded. A text with half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(time: datetime, unit: timedelta) -> str:
    """Return a time as the number of whole units since 1970."""
    return str((time - _EPOCH) // unit)


def _pairs(found: Reply) -> Iterator[tuple[str, str]]:
    texts = iter(texts_of(found))
    return zip(texts, texts, strict=True)
