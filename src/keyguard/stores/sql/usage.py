"""Usage in an SQL database: it is added, folded and deleted.

A row holds six hours of one key, outcome and tag, with a column for each quarter of an hour. So a
key that is busy all day has 4 rows and not 96, and a report reads as much less. Totals of all keys
together stand beside the keys' rows, so that a report on an organization reads as many rows however
many keys it has.

All transactions lock rows in one order: a writer's, those of keys, those of totals, each table's by
its primary key, and days after what is folded into them. So none waits for another in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    RowMapping,
    Table,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    null,
    select,
    update,
)

from keyguard.core.usage.ports import UsageStore
from keyguard.core.usage.values import Cell, Flush, Period, Question, Total, Writer
from keyguard.stores.sql.database import Database
from keyguard.stores.sql.errors import corrupt
from keyguard.stores.sql.rows import instant
from keyguard.stores.sql.session import AnyRow, Operation, Session, begin_hastily
from keyguard.stores.sql.tables import USAGE_DISMISSED, USAGE_TOTALS, USAGE_WRITERS
from keyguard.stores.sql.upserts import Given, upserted
from keyguard.stores.sql.usage_totals import (
    FIELDS,
    KEPT,
    WHOLE_ROW,
    Kept,
    Piece,
    bound_of,
    counted,
    first_counted,
    largest,
    number_of,
    pieces_of,
    place_of,
    start_of,
    totals,
)
from keyguard.stores.sql.usage_turns import UsageTurns

P = ParamSpec("P")
R = TypeVar("R")

_Row: TypeAlias = dict[str, str | int | None]

_PORTION = 500
"""The rows that one statement changes."""

_MOST_COUNTED = 2**58
"""At most what a column counts. A row's 24 quarters then add up to what the database can hold."""

_ROWS_AT_ONCE = 50
"""As many totals as most organizations have of the same six hours, by outcome and tag."""

_WRITERS_KEPT = timedelta(days=35)
"""How long a writer that has left is remembered."""


class SqlUsage(UsageStore):
    """A store of usage in an SQL database.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._turns = UsageTurns(database)

    async def add(self, flush: Flush) -> None:
        await self.database.write(_add, flush)

    async def totals(self, question: Question) -> Sequence[Total]:
        return await self._read(totals, question)

    async def largest(self, question: Question) -> Sequence[Total]:
        return await self._read(largest, question)

    async def writers(self) -> Sequence[Writer]:
        return await self._read(_writers)

    async def leave(self, writer: str) -> None:
        await self.database.write(_leave, writer)

    async def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        return await self._read(_unfolded, before, limit)

    async def fold(self, organization: str, day: Period) -> None:
        # In portions, each a transaction: a day of many keys would hold its locks for too long.
        start = number_of(day.start)
        for kept in KEPT:
            for piece in pieces_of(day):
                while await self.database.write(_fold_some, kept, organization, start, piece):
                    pass

    async def forget(self, organization: str, before: datetime) -> None:
        while await self.database.write(_forget_some, organization, before):
            pass

    async def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        await self.database.write(_dismiss, organization, hint, until)

    async def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        return await self._read(_dismissed, organization, now)

    async def _read(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._turns.taken():
            return await self.database.read(operation, *args, **kwargs)


async def _add(session: Session, flush: Flush) -> None:
    await session.call(begin_hastily)
    reported = {"seq": flush.seq, "until": flush.until, "has_left": False}
    new = {**reported, "writer": flush.writer, "seq": 0}
    await session.execute(_added(session, USAGE_WRITERS, ()), [new])
    is_new = (USAGE_WRITERS.c.writer == flush.writer, USAGE_WRITERS.c.seq < flush.seq)
    noted = await session.execute(update(USAGE_WRITERS).where(*is_new).values(reported))
    if not noted.rowcount:  # the flush was added before
        return
    for kept in KEPT:
        for rows in _portions(flush.cells, kept.quarters):
            sums = [name for name in rows[0] if name.startswith(FIELDS)]
            await session.execute(_added(session, kept.quarters, sums), rows)


def _portions(cells: Sequence[Cell], table: Table) -> Iterator[list[_Row]]:
    """Return the rows that add cells to a table, in portions that rise by the primary key."""
    found: dict[tuple[str | int, ...], list[tuple[int, Cell]]] = {}
    names = table.primary_key.columns.keys()
    for cell in cells:
        if cell.n or cell.units:
            start, quarter = place_of(number_of(cell.start))
            key = (cell.organization, start, *(getattr(cell, name) for name in names[2:]))
            found.setdefault(key, []).append((quarter, cell))
    keys = sorted(found)
    for first in range(0, len(keys), _PORTION):
        portion = keys[first : first + _PORTION]
        quarters = sorted({quarter for key in portion for quarter, _ in found[key]})
        yield [_row_of(dict(zip(names, key, strict=True)), found[key], quarters) for key in portion]


def _row_of(key: _Row, cells: Sequence[tuple[int, Cell]], quarters: Sequence[int]) -> _Row:
    """Return a row with columns for some quarters, in each of which a cell may be."""
    family: _Row = {"family": cells[0][1].family} if "key_id" in key else {}
    row = key | family
    for field in FIELDS:
        counts: dict[int, int] = {}
        for quarter, cell in cells:
            counts[quarter] = counts.get(quarter, 0) + getattr(cell, field)
        row |= {field: min(sum(counts.values()), _MOST_COUNTED)}
        row |= dict.fromkeys(f"{field}{quarter}" for quarter in quarters)
        row |= {f"{field}{quarter}": min(n, _MOST_COUNTED) for quarter, n in counts.items()}
    return row


def _added(session: Session, table: Table, sums: Iterable[str]) -> Executable:
    """Return the statement that makes rows, or adds columns to those that are there."""
    # Either the old or the new count of a quarter may be missing.
    most = literal_column(str(_MOST_COUNTED), BigInteger)

    def changes(given: Given) -> dict[str, ColumnElement[Any]]:
        return {
            name: func.coalesce(
                case((table.c[name] > most - given[name], most), else_=table.c[name] + given[name]),
                given[name],
                table.c[name],
            )
            for name in sums
        }

    return upserted(session.dialect.name, table, changes)


async def _writers(session: Session) -> list[Writer]:
    columns = (USAGE_WRITERS.c.writer, USAGE_WRITERS.c.until)
    found = select(*columns).where(~USAGE_WRITERS.c.has_left)
    return [_writer_from(row) for row in await session.execute(found.order_by(columns[0]))]


def _writer_from(row: AnyRow) -> Writer:
    try:
        return Writer(str(row[0]), instant(row[1]))
    except (ValueError, TypeError, AttributeError) as failure:
        raise corrupt(USAGE_WRITERS.name, row[0], failure, advice="delete it") from failure


async def _leave(session: Session, writer: str) -> None:
    """Note that a writer has left, and forget those that left long ago."""
    await session.call(begin_hastily)
    left = update(USAGE_WRITERS).where(USAGE_WRITERS.c.writer == writer)
    await session.execute(left.values(has_left=True))
    newest = (await session.execute(select(func.max(USAGE_WRITERS.c.until)))).scalar()
    if newest is not None:
        old = USAGE_WRITERS.c.until < instant(newest) - _WRITERS_KEPT
        await session.execute(delete(USAGE_WRITERS).where(USAGE_WRITERS.c.has_left, old))


async def _unfolded(session: Session, before: datetime, limit: int) -> list[tuple[str, datetime]]:
    table, end = USAGE_TOTALS, bound_of(before)
    start = table.c.start + first_counted(WHOLE_ROW)
    # The earliest alone: more may wait than a call should read.
    earliest = (
        select(table.c.organization, start.label("start"))
        .where(table.c.start < end, start < end)
        .order_by(table.c.start, table.c.organization)
        .limit(limit * _ROWS_AT_ONCE)
        .subquery()
    )
    owner = earliest.c.organization
    found = select(owner, func.min(earliest.c.start)).group_by(owner).limit(limit)
    return [(str(row[0]), start_of(row[-1])) for row in await session.execute(found)]


async def _fold_some(
    session: Session, kept: Kept, organization: str, start: int, piece: Piece
) -> bool:
    """Fold a portion of the rows in a piece of a day.

    The rows are locked when they are read, and only they change. So what another transaction adds
    meanwhile is in other rows, or comes afterwards.

    Returns:
        Whether there may be more.
    """
    await session.call(begin_hastily)
    table, days = kept
    key = [*table.primary_key]
    within = (table.c.organization == organization, table.c.start.between(piece.first, piece.last))
    counts = [counted(field, piece.quarters).label(f"folded_{field}") for field in FIELDS]
    names = [column.name for column in days.c if column.name not in ("start", *FIELDS)]
    found = (
        select(table.c.start, *(table.c[name] for name in names), *counts)
        .where(*within, first_counted(piece.quarters).is_not(None))
        .order_by(*key)
        .limit(_PORTION)
        .with_for_update()
    )
    rows = (await session.execute(found)).mappings().all()
    if rows:
        await _move(session, kept, rows, start, piece)
    if len(rows) == _PORTION:
        return True
    await session.execute(delete(table).where(*within, first_counted(WHOLE_ROW).is_(None)))
    return False


async def _move(
    session: Session, kept: Kept, rows: Sequence[RowMapping], start: int, piece: Piece
) -> None:
    """Add rows to the day that starts at a time, and take from them what was added."""
    table, days = kept
    names = [column.name for column in days.c if column.name not in ("start", *FIELDS)]
    by_key = sorted(rows, key=lambda row: [row[name] for name in names])
    await session.execute(
        _added(session, days, FIELDS),
        [
            {"start": start}
            | {name: row[name] for name in names}
            | {field: row[f"folded_{field}"] for field in FIELDS}
            for row in by_key
        ],
    )
    key = [*table.primary_key]
    which = [column == bindparam(f"old_{column.name}", type_=column.type) for column in key]
    left = {
        field: table.c[field] - bindparam(f"folded_{field}", type_=BigInteger) for field in FIELDS
    }
    left |= {f"{field}{number}": null() for number in piece.quarters for field in FIELDS}
    await session.execute(
        update(table).where(*which).values(left),
        [
            {f"old_{column.name}": row[column.name] for column in key}
            | {f"folded_{field}": row[f"folded_{field}"] for field in FIELDS}
            for row in rows
        ],
    )


async def _forget_some(session: Session, organization: str, before: datetime) -> bool:
    """Forget the earliest day that starts before a time, and hints dismissed until then.

    Returns:
        Whether there may be another.
    """
    await session.call(begin_hastily)
    has_more = False
    for _, table in KEPT:
        is_of = table.c.organization == organization
        earliest = select(func.min(table.c.start)).where(is_of, table.c.start < bound_of(before))
        start = (await session.execute(earliest)).scalar()
        if start is not None:
            await session.execute(delete(table).where(is_of, table.c.start == start))
            has_more = True
    over = (USAGE_DISMISSED.c.organization == organization, USAGE_DISMISSED.c.until < before)
    await session.execute(delete(USAGE_DISMISSED).where(*over))
    return has_more


async def _dismiss(session: Session, organization: str, hint: str, until: datetime) -> None:
    await session.call(begin_hastily)
    row = {"organization": organization, "hint": hint, "until": until}
    newer = upserted(session.dialect.name, USAGE_DISMISSED, lambda given: {"until": given.until})
    await session.execute(newer, [row])


async def _dismissed(session: Session, organization: str, now: datetime) -> frozenset[str]:
    is_of = USAGE_DISMISSED.c.organization == organization
    found = select(USAGE_DISMISSED.c.hint).where(is_of, USAGE_DISMISSED.c.until > now)
    return frozenset((await session.execute(found)).scalars())
