"""Totals of usage, added up by the database.

A period is cut into pieces: the part of a row with which it begins, whole rows, and the part with
which it ends. A statement holds the pieces of its periods as numbers, and joins them with the rows.
Periods for which the organization can have no rows are left out of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    FromClause,
    Integer,
    String,
    Subquery,
    Table,
    and_,
    case,
    column,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.sql.expression import CTE

from keyguard.core.usage.values import QUARTER, GroupBy, Period, Question, Total
from keyguard.exceptions import CorruptDataError
from keyguard.stores.sql.column_types import MYSQL
from keyguard.stores.sql.session import AnyRow, Query, Session
from keyguard.stores.sql.tables import (
    QUARTERS_A_ROW,
    USAGE,
    USAGE_DAY_TOTALS,
    USAGE_DAYS,
    USAGE_TOTALS,
)

FIELDS = ("n", "units")
"""What is counted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FEW, _MORE = 64, 4
"""How many periods the first statement adds up, and how many times as many each further one."""

_MOST_ROWS = 5000
"""How many rows' starts a statement holds; beyond that it holds ranges, which take longer."""

_NO_PIECE = (0, 1, 0, 0)

_LONGEST_DAY = 25 * 4
"""In quarters of an hour: what is folded starts at most so much later than the row of its day."""

_Numbers: TypeAlias = tuple[int, int, int, int]
"""A period, the first and the last start of rows in it, and the kind of their quarters."""

# What ids and outcomes are made of. Databases treat anything else differently.
_NAME = re.compile(r"[0-9A-Za-z_-]{0,63}\Z")


class Kept(NamedTuple):
    """Two tables of the same counts, before and after they are folded.

    Args:
        quarters: The table of counts that are not folded yet.
        days: The table of folded counts.
    """

    quarters: Table
    days: Table


_OF_KEYS = Kept(USAGE, USAGE_DAYS)
_TOGETHER = Kept(USAGE_TOTALS, USAGE_DAY_TOTALS)

KEPT = (_OF_KEYS, _TOGETHER)
"""The tables of each key and of all keys together, in the order in which they are changed."""

WHOLE_ROW = range(QUARTERS_A_ROW)
"""All quarters of a row."""


class Piece(NamedTuple):
    """The same quarters of one or several rows.

    Args:
        first: The start of the first row.
        last: The start of the last row.
        quarters: The quarters in each row.
    """

    first: int
    last: int
    quarters: range


def number_of(moment: datetime) -> int:
    """Return the number of the quarter in which a moment is, since 1970."""
    return (moment - _EPOCH) // QUARTER


def bound_of(moment: datetime) -> int:
    """Return the number of the first quarter that does not start before a moment."""
    return -((_EPOCH - moment) // QUARTER)


def start_of(number: int) -> datetime:
    """Return when a quarter starts."""
    return _EPOCH + number * QUARTER


def place_of(number: int) -> tuple[int, int]:
    """Return the start of the row that holds a quarter, and which of its quarters it is."""
    quarter = number % QUARTERS_A_ROW
    return number - quarter, quarter


def pieces_of(period: Period) -> Iterator[Piece]:
    """Cut a period into pieces, which rise by their starts."""
    first, low = place_of(bound_of(period.start))
    last, high = place_of(bound_of(period.end))
    if low and first < last:
        yield Piece(first, first, range(low, QUARTERS_A_ROW))
        first, low = first + QUARTERS_A_ROW, 0
    if first < last:
        yield Piece(first, last - QUARTERS_A_ROW, WHOLE_ROW)
    if low < high:
        yield Piece(last, last, range(low, high))


def counted(field: str, quarters: range) -> ColumnElement[int]:
    """Return how much of a field was counted in some quarters of a row."""
    parts = [f"coalesce({field}{number},0)" for number in quarters]
    return literal_column(field if quarters == WHOLE_ROW else "+".join(parts), BigInteger)


def first_counted(quarters: range) -> ColumnElement[int | None]:
    """Return the first of some quarters of a row in which anything was counted, or NULL."""
    found = " ".join(f"WHEN n{number} IS NOT NULL THEN {number}" for number in quarters)
    return literal_column(f"CASE {found} END", Integer)


class _Possible(NamedTuple):
    """Where the rows of a question can be.

    Args:
        kept: The tables of the rows.
        quarters: The first and the last start of what is not folded.
        days: The first and the last start of folded counts, also of those folded in the meantime.
        periods: The periods that can have rows, with their numbers in the question.
    """

    kept: Kept
    quarters: tuple[int, int]
    days: tuple[int, int]
    periods: Sequence[tuple[int, Period]]


async def totals(session: Session, question: Question) -> list[Total]:
    """Return totals by period and then group."""
    found: list[Total] = []
    possible = await _possible(session, question)
    left, several = possible.periods, _FEW
    # A page is often full long before the last period.
    while left and len(found) < question.limit:
        cells = _cells(session.dialect, question, possible._replace(periods=left[:several]))
        page = _added_up(cells).order_by(cells.c.period, cells.c.grouped)
        if question.after:
            period, group = question.after
            page = page.where(or_(cells.c.period > period, cells.c.grouped > group))
        found += await _read(session, page.limit(question.limit - len(found)))
        left, several = left[several:], _MORE * several
    return found


async def largest(session: Session, question: Question) -> list[Total]:
    """Return the largest totals, by falling ``n`` and then group."""
    possible = await _possible(session, question)
    if not possible.periods:
        return []
    cells = _cells(session.dialect, question, possible)
    order = (func.sum(cells.c.n).desc(), cells.c.grouped)
    return await _read(session, _added_up(cells).order_by(*order).limit(question.limit))


async def _possible(session: Session, question: Question) -> _Possible:
    """Find out between which starts the organization has rows.

    Rows may be folded before they are read. So days can be wherever any rows are now.
    """
    is_of_keys = (
        question.group_by in (GroupBy.KEY, GroupBy.FAMILY)
        or question.key_id is not None
        or question.family is not None
    )
    kept = _OF_KEYS if is_of_keys else _TOGETHER
    nothing = _Possible(kept, (1, 0), (1, 0), ())
    names = (question.organization, question.key_id, question.family, question.outcome)
    if not all(_NAME.match(name) for name in names if name is not None):
        return nothing
    bounds = [
        select(bound(table.c.start))
        .where(table.c.organization == question.organization)
        .scalar_subquery()
        for table in kept
        for bound in (func.min, func.max)
    ]
    [row] = [[*row] for row in await session.execute(select(*bounds))]
    known = [start for start in row if start is not None]
    if not known:
        return nothing
    first, last = min(known) - _LONGEST_DAY, max(known) + QUARTERS_A_ROW - 1
    after = question.after[0] if question.after else 0
    periods = [
        (number, period)
        for number, period in enumerate(question.periods)
        if number >= after and bound_of(period.start) <= last and bound_of(period.end) > first
    ]
    quarters = (1, 0) if row[0] is None else (row[0], row[1])
    return _Possible(kept, quarters, (first, last), periods)


async def _read(session: Session, wanted: Query) -> list[Total]:
    return [_total_from(row) for row in await session.execute(wanted)]


def _total_from(row: AnyRow) -> Total:
    period, group, n, units = row
    if not isinstance(group, str):
        raise CorruptDataError(
            f"the table {USAGE.name} or {USAGE_DAYS.name} holds {group!r}, which keyguard did not "
            "write; restore the row from a backup or delete it"
        )
    return Total(int(period), group, int(n), int(units))


def _added_up(cells: Subquery) -> Query:
    n, units = func.sum(cells.c.n), func.sum(cells.c.units)
    groups = [cells.c.period, cells.c.grouped]
    return select(*groups, *[n, units]).group_by(*groups).having(or_(n != 0, units != 0))


def _cells(dialect: Dialect, question: Question, possible: _Possible) -> Subquery:
    """Return the cells of the periods that can have some, each with its period and group."""
    kept, (low, high), (first_day, last_day), periods = possible
    pieces = [(number, piece) for number, period in periods for piece in pieces_of(period)]
    shapes = dict.fromkeys((WHOLE_ROW, *(piece.quarters for _, piece in pieces)))
    kinds = {quarters: number for number, quarters in enumerate(shapes)}
    parts = [
        (n, max(p.first, low), min(p.last, high), kinds[p.quarters])
        for n, p in pieces
        if p.first <= high and p.last >= low
    ]
    if sum(last - first for _, first, last, _ in parts) < _MOST_ROWS * QUARTERS_A_ROW:
        parts = [
            (n, start, start, kind)
            for n, first, last, kind in parts
            for start in range(first, last + 1, QUARTERS_A_ROW)
        ]
    spans = [
        (n, max(bound_of(p.start), first_day), min(bound_of(p.end) - 1, last_day), 0)
        for n, p in periods
    ]
    days = kept.days.c
    return union_all(
        _within(dialect, question, kept.quarters, parts, [_by_kind(f, kinds) for f in FIELDS]),
        _within(dialect, question, kept.days, spans, [days.n, days.units]),
    ).subquery()


def _by_kind(field: str, kinds: Mapping[range, int]) -> ColumnElement[int]:
    values = {number: counted(field, quarters) for quarters, number in kinds.items()}
    return case(values, value=literal_column("kind", Integer))


def _within(
    dialect: Dialect,
    question: Question,
    table: Table,
    pieces: Sequence[_Numbers],
    counts: Sequence[ColumnElement[int]],
) -> Query:
    """Return the cells of a table that are in pieces, and are asked for."""
    asked = {
        "organization": question.organization,
        "key_id": question.key_id,
        "family": question.family,
        "outcome": question.outcome,
    }
    group = literal_column("''", String)
    if field := question.group_by.field:
        group = table.c[field]
    numbers = _numbers(dialect, f"pieces_of_{table.name}", pieces)
    columns = [numbers.c.period, group.label("grouped")]
    named = [count.label(field) for field, count in zip(FIELDS, counts, strict=True)]
    cells = select(*columns, *named)
    rows: FromClause = numbers
    found: ColumnElement[bool] = table.c.start.between(numbers.c.since, numbers.c.until)
    if all(since == until for _, since, until, _ in pieces):
        found = table.c.start == numbers.c.since
    elif question.key_id is not None and dialect.name not in MYSQL:  # which would read all starts
        starts = _starts(question.organization, table, pieces)
        rows = numbers.join(starts, starts.c.start.between(numbers.c.since, numbers.c.until))
        found = table.c.start == starts.c.start
    conditions = [table.c[name] == value for name, value in asked.items() if value is not None]
    if dialect.name in MYSQL and pieces:  # for each piece it would read all of the organization
        first, last = min(piece[1] for piece in pieces), max(piece[2] for piece in pieces)
        conditions.append(table.c.start.between(first, last))
    # SQLite may read the table first, with all rows of the organization. Of an outer join it reads
    # the left side first. The sums of a piece without rows are NULL, so HAVING leaves it out.
    is_outer = dialect.name == "sqlite"
    return cells.select_from(rows.join(table, and_(found, *conditions), isouter=is_outer))


def _starts(organization: str, table: Table, pieces: Sequence[_Numbers]) -> CTE:
    """Return the starts of an organization's rows between the first piece and the last.

    The index tells each by the one before, so that not all keys are read. A row of one key is then
    found by its start. By a range of starts, the database would read the rows of all keys.
    """
    first, last = min(piece[1] for piece in pieces), max(piece[2] for piece in pieces)
    row = table.alias(f"row_of_{table.name}")

    def following(is_behind: ColumnElement[bool]) -> Query:
        found = select(row.c.start).where(row.c.organization == organization, is_behind)
        return found.where(row.c.start <= last).order_by(row.c.start).limit(1)

    start = following(row.c.start >= first).scalar_subquery().label("start")
    starts = select(start).cte(f"starts_of_{table.name}", recursive=True)
    behind = following(row.c.start > starts.c.start).correlate(starts).scalar_subquery()
    return starts.union_all(select(behind).where(starts.c.start.is_not(None)))


def _numbers(dialect: Dialect, name: str, rows: Sequence[_Numbers]) -> CTE:
    """Return a table of periods and what each holds, as numbers written into the statement."""
    names = ("period", "since", "until", "kind")
    row = "ROW" if dialect.name == "mysql" and not getattr(dialect, "is_mariadb", False) else ""
    head, *rest = rows or [_NO_PIECE]
    sql = "SELECT " + ", ".join(map("{} AS {}".format, head, names))
    if rest:
        sql += " UNION ALL VALUES " + ",".join(f"{row}{numbers}" for numbers in rest)
    return text(sql).columns(*(column(name, Integer) for name in names)).cte(name)
