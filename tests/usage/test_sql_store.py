"""The store of usage in SQL databases: flushes at once, lost answers, rows read, damage."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.dialects import mysql

from keyguard.core.usage.values import QUARTER, Flush, GroupBy, Period, Question, Total
from keyguard.exceptions import CorruptDataError, StoreUnavailableError
from keyguard.runtime.deadlines import within
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql.session import SyncSession
from keyguard.stores.sql.tables import QUARTERS_A_ROW
from keyguard.stores.sql.usage_totals import KEPT, pieces_of, totals
from tests.links import Link
from tests.stores.conftest import DATABASES, Awaited, Database, Plain, empty, opened
from tests.stores.sessions import FakeSession
from tests.stores.test_sql_distance import address, through
from tests.usage.test_store_contract import ACME, DAY, NOON, OTHER, ask, cell, flush

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
KOLKATA = Period(MIDNIGHT - 22 * QUARTER, MIDNIGHT + 74 * QUARTER)
ALWAYS = Period(MIDNIGHT - 100 * DAY, MIDNIGHT + 100 * DAY)


def emptied(database: Database) -> None:
    with closing(database.backend()) as backend:
        empty(database, backend)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, migrated: Callable[[str], Database]) -> Database:
    """A database of each kind with empty tables."""
    database = migrated(request.param)
    emptied(database)
    return database


@pytest.fixture
def store(database: Database, runner: asyncio.Runner) -> Iterator[Any]:
    """A key store for sync code."""
    store = opened("sync", database.url, runner)
    yield store
    store.close()


@pytest.fixture
def usage(store: Any) -> Plain:
    """Its store of usage."""
    return Plain(store.usage())


def everything(usage: Any, **fields: Any) -> list[Total]:
    return list(usage.totals(ask(ALWAYS, **fields)))


# Flushes


def test_fifty_flushes_at_once_add_up_and_never_deadlock(usage: Plain) -> None:
    """They count for the same keys and organizations, each in an order of its own."""
    cells = [
        cell(key, owner=owner, at=NOON + number * QUARTER, n=1, outcome=outcome)
        for key in range(8)
        for owner in (ACME, OTHER)
        for number in range(3)
        for outcome in ("allowed", "rate_limited")
    ]

    def flush_of(number: int) -> Flush:
        rng = random.Random(number)
        return flush(*rng.sample(cells, len(cells) // 2), writer=f"writer-{number}")

    flushes = [flush_of(number) for number in range(50)]

    usage.together([lambda usage, flush=flush: usage.add(flush) for flush in flushes])

    expected = Counter(cell for flush in flushes for cell in flush.cells)
    for owner in (ACME, OTHER):
        counts: Counter[str] = Counter()
        for counted, times in expected.items():
            counts[counted.key_id] += times * (counted.organization == owner)
        found = everything(usage, owner=owner, group_by=GroupBy.KEY)
        assert {total.group: total.n for total in found} == dict(counts)
        assert [total.n for total in everything(usage, owner=owner)] == [sum(counts.values())]
    assert len(usage.writers()) == 50


@pytest.mark.campaign("postgresql", "mariadb")
def test_flushes_and_folds_at_once_lose_nothing_and_count_nothing_twice(usage: Plain) -> None:
    def flushed(number: int) -> Callable[[Any], Any]:
        cells = [cell(key, at=NOON + number * QUARTER) for key in range(20)]
        return lambda usage: usage.add(flush(*cells, writer=f"writer-{number}"))

    def folded(number: int) -> Callable[[Any], Any]:
        day = Period(NOON + number // 4 * QUARTER, NOON + number // 4 * QUARTER + DAY)
        return lambda usage: usage.fold(ACME, day)

    usage.add(flush(*[cell(key, at=NOON) for key in range(20)]))
    usage.together([call(number) for number in range(12) for call in (flushed, folded)])

    assert [total.n for total in everything(usage)] == [260]
    assert [total.n for total in everything(usage, group_by=GroupBy.KEY)] == [13] * 20
    for start in (NOON, NOON + DAY):
        usage.fold(ACME, Period(start, start + DAY))
    assert list(usage.unfolded(NOON + 9 * DAY, 10)) == []
    assert [total.n for total in everything(usage)] == [260]
    assert [total.n for total in everything(usage, group_by=GroupBy.KEY)] == [13] * 20


@pytest.mark.campaign("sqlite", "postgresql")
def test_a_large_flush_is_added_and_folded_whole(usage: Plain) -> None:
    cells = [
        cell(key, at=MIDNIGHT + number * QUARTER, n=key + 1, units=number)
        for key in range(1_200)
        for number in (-1, 0, 50, 95)
    ]
    usage.add(flush(*cells))

    by_day = ask(Period(MIDNIGHT, MIDNIGHT + DAY), group_by=GroupBy.KEY, limit=5_000)
    found = usage.totals(by_day)
    assert [(total.n, total.units) for total in found] == [
        (3 * (key + 1), 145) for key in range(1_200)
    ]
    usage.fold(ACME, Period(MIDNIGHT, MIDNIGHT + DAY))
    assert list(usage.totals(by_day)) == list(found)
    assert list(usage.unfolded(ALWAYS.end, 10)) == [(ACME, MIDNIGHT - QUARTER)]


def test_a_flush_that_was_counted_before_its_writer_was_given_up_is_not_counted_again(
    usage: Plain,
) -> None:
    usage.add(flush(cell(n=3)))
    usage.leave("one")
    usage.add(flush(cell(n=3)))
    assert [total.n for total in everything(usage)] == [3]
    assert list(usage.writers()) == []

    usage.add(flush(cell(n=4), seq=2))
    assert [total.n for total in everything(usage)] == [7]
    assert [writer.id for writer in usage.writers()] == ["one"]


def test_writers_that_left_long_ago_are_forgotten(store: Any, usage: Plain) -> None:
    usage.add(flush(writer="old", until=NOON - 36 * DAY))
    usage.add(flush(writer="new", until=NOON - 34 * DAY))
    usage.add(flush(writer="silent", until=NOON - 99 * DAY))
    usage.add(flush(writer="live", until=NOON))
    for writer in ("old", "new"):
        usage.leave(writer)

    with store.database.reads.connect() as connection:
        found = connection.exec_driver_sql("SELECT writer FROM keyguard_usage_writers ORDER BY 1")
        assert [row[0] for row in found] == ["live", "new", "silent"]


class LossyLink(Link):
    """A link that may hang up in place of passing on the answer to a commit."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.loses = False
        self._committing: set[socket.socket] = set()

    def _pass(self, source: socket.socket, sink: socket.socket, note: Callable[[], object]) -> None:
        with suppress(OSError):
            while sent := source.recv(65536):
                if self.loses and re.search(rb"\bCOMMIT\b", sent):
                    self._committing.add(sink)
                if source in self._committing:
                    self._committing.clear()
                    self._hang_up()
                    return
                note()
                sink.sendall(sent)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_flush_whose_acknowledgement_got_lost_is_counted_once(
    kind: str, flavour: str, migrated: Callable[[str], Database], runner: asyncio.Runner
) -> None:
    database = migrated(kind)
    emptied(database)
    link = LossyLink(address(database.url))
    url = through(database.url if flavour == "sync" else database.async_url, link)
    store = opened(flavour, url, runner)
    kept = store.backend.usage()
    usage = Plain(kept) if flavour == "sync" else Awaited(kept, runner)
    for seq in range(1, 4):
        sent = flush(cell(n=1), cell(2, at=NOON + DAY, n=2), seq=seq)
        link.loses = True
        with pytest.raises(StoreUnavailableError):
            usage.add(sent)
        link.loses = False
        assert [total.n for total in everything(usage)] == [3 * seq]
        usage.add(sent)
        assert [total.n for total in everything(usage)] == [3 * seq]
    store.close()
    link.close()


KILLED = """
import os, signal, sys
from sqlalchemy import event
from keyguard.stores.sql import open_store
from tests.usage.test_sql_store import FLUSH

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

store = open_store(sys.argv[1])
store.usage().writers()
statements = iter(range(int(sys.argv[2])))
event.listen(
    store.database.writes, "before_cursor_execute",
    lambda *_: die() if next(statements, None) is None else None,
)
store.usage().add(FLUSH)
die()
"""
FLUSH = flush(*(cell(key, at=NOON + key * QUARTER) for key in range(50)))


@pytest.mark.campaign("postgresql-1", "sqlite-2")
@pytest.mark.parametrize("statements", [0, 1, 2, 3, 9])
def test_a_flush_of_a_process_that_was_killed_is_counted_once_when_it_is_sent_again(
    database: Database, usage: Plain, statements: int
) -> None:
    """Killed before one of its statements, or after the commit."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, database.url, str(statements)], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert [total.n for total in everything(usage)] == ([50] if statements == 9 else [])
    usage.add(FLUSH)
    assert [total.n for total in everything(usage)] == [50]


# Reports


@given(st.integers(-500, 500), st.integers(0, 500))
def test_pieces_hold_each_quarter_of_a_period_once(start: int, length: int) -> None:
    period = Period(MIDNIGHT + start * QUARTER, MIDNIGHT + (start + length) * QUARTER)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    found = [
        epoch + (row + quarter) * QUARTER
        for piece in pieces_of(period)
        for row in range(piece.first, piece.last + 1, QUARTERS_A_ROW)
        for quarter in piece.quarters
    ]
    assert sorted(found) == [period.start + number * QUARTER for number in range(length)]
    assert len([*pieces_of(period)]) <= 3


@pytest.mark.campaign("postgresql-0", "sqlite-1", "mariadb-2")
@pytest.mark.parametrize("seed", range(3))
def test_totals_are_those_of_the_cells(usage: Plain, seed: int) -> None:
    """Compared with a count of the cells, before and after some days are folded."""
    rng = random.Random(seed)
    cells = {
        (key, start, outcome, tag): cell(
            key,
            at=MIDNIGHT + start * QUARTER,
            n=rng.randrange(1, 9),
            units=rng.randrange(9),
            outcome=outcome,
            tag=tag,
        )
        for key, start, outcome, tag in (
            (
                rng.randrange(30),
                rng.randrange(-200, 400),
                rng.choice(("allowed", "rate_limited")),
                rng.choice(("", "large")),
            )
            for _ in range(400)
        )
    }
    usage.add(flush(*cells.values()))

    def expected(question: Question) -> list[Total]:
        sums: dict[tuple[int, str], tuple[int, int]] = {}
        names = {"": "", "key": "key_id"}
        for found in cells.values():
            for number, (start, end) in enumerate(question.periods):
                if start <= found.start < end and question.key_id in (None, found.key_id):
                    by = str(question.group_by)
                    group = getattr(found, names.get(by, by)) if by else ""
                    n, units = sums.get((number, group), (0, 0))
                    sums[number, group] = n + found.n, units + found.units
        return [Total(*group, *counts) for group, counts in sorted(sums.items())]

    steps = {
        "day in Kolkata": [(n * 96 - 22, n * 96 + 74) for n in range(-1, 4)],
        "day": [(n * 96, n * 96 + 96) for n in range(-2, 4)],
        "hour": [(n * 4, n * 4 + 4) for n in range(-40, 90)],
        "quarter": [(n, n + 1) for n in range(-200, 400)],
        "gaps": [(-150, -149), (-100, 3), (7, 7), (90, 290), (290, 300)],
    }

    def compare(names: list[str]) -> None:
        for name in names:
            periods = [
                Period(MIDNIGHT + start * QUARTER, MIDNIGHT + end * QUARTER)
                for start, end in steps[name]
            ]
            for group_by in GroupBy:
                for key_id in (None, f"{7:016}"):
                    question = ask(*periods, group_by=group_by, key_id=key_id, limit=10_000)
                    assert list(usage.totals(question)) == expected(question)

    compare([*steps])
    for number in range(-2, 3):
        start = MIDNIGHT + number * DAY - 22 * QUARTER
        usage.fold(ACME, Period(start, start + DAY))
    compare(["day in Kolkata"])


STATISTICS = (
    None,
    "800 800 20 1 1 1",
    "1 1 1 1 1 1",
    "1600 40 1 1 1 1",
    "100000 2 2 1 1 1",
    "100000 100000 1000 1000 1 1",
    "10000000 10000000 1000000 1000 1 1",
)
"""What ANALYZE may have counted in each table of usage, now or when it held other rows."""


class Statements:
    """What a store asks its database, with the plan that the database has for it."""

    def __init__(self, store: Any, kind: str) -> None:
        self.kind = kind
        self.engine = store.database.reads
        self.sent: list[tuple[str, Any]] = []
        event.listen(self.engine, "before_cursor_execute", self._note)

    def _note(self, _c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        self.sent.append((statement, values))

    def plans(self) -> list[Any]:
        explain = "EXPLAIN QUERY PLAN "
        if self.kind == "postgresql":
            explain = "EXPLAIN (ANALYZE, FORMAT JSON) "
        sent, found = self.sent[:], []
        with self.engine.connect() as connection:
            if self.kind == "postgresql":  # it would read small tables whole
                connection.exec_driver_sql("SET enable_seqscan = off")
            for statement, values in sent:
                rows = connection.exec_driver_sql(explain + statement, values).fetchall()
                found.append(rows[0][0][0]["Plan"] if self.kind == "postgresql" else rows)
        return found

    def steps(self) -> Iterator[list[str]]:
        """Yield the steps in which SQLite reports, under statistics of each kind."""
        sent = self.sent[:]  # the first one finds where rows are
        for counted in STATISTICS:
            with self.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM sqlite_stat1")
                for table in KEPT[0] + KEPT[1] if counted else ():
                    values = (table.name, table.name, counted)
                    connection.exec_driver_sql("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", values)
            self.engine.dispose()  # a connection reads the statistics as it begins
            self.sent = sent[:]
            _, *plans = self.plans()
            yield from ([str(row[-1]) for row in plan] for plan in plans)


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows of usage a plan of PostgreSQL has read."""
    read = 0
    if plan.get("Relation Name", "").startswith("keyguard_usage"):
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        each += plan.get("Rows Removed by Join Filter", 0)
        read = round(each * plan["Actual Loops"])
    return read + sum(rows_read(part) for part in plan.get("Plans", ()))


@pytest.fixture(params=["sqlite", "postgresql"])
def busy(request: pytest.FixtureRequest, migrated: Callable[[str], Database]) -> Iterator[Any]:
    """A store with 40 days of usage of two organizations with 20 keys each."""
    database = migrated(request.param)
    emptied(database)
    store = Plain(database.backend())
    usage = store.usage()
    for number in range(40):
        cells = [
            cell(key, owner=owner, at=MIDNIGHT + number * DAY + quarter * QUARTER)
            for owner in (ACME, OTHER)
            for key in range(20)
            for quarter in (0, 80)
        ]
        usage.add(flush(*cells, seq=number + 1))
    with store.database.writes.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    yield store, request.param
    store.close()


REPORTS: list[tuple[dict[str, Any], str, int]] = [
    ({}, "keyguard_usage_totals", 5 * 36),
    ({"group_by": GroupBy.OUTCOME}, "keyguard_usage_totals", 5 * 36),
    ({"group_by": GroupBy.KEY}, "keyguard_usage", 5 * 36 * 20),
    ({"key_id": f"{7:016}"}, "keyguard_usage", 5 * 36 * 20),
]


def test_a_report_reads_a_row_for_each_day_and_not_for_each_cell(busy: Any) -> None:
    """Days in Kolkata, which begin and end within rows; another organization's are not read."""
    store, kind = busy
    days = [Period(KOLKATA.start + n * DAY, KOLKATA.end + n * DAY) for n in range(1, 36)]
    for fields, table, bound in REPORTS:
        statements = Statements(store, kind)
        found = store.usage().totals(ask(*days, limit=10_000, **fields))
        assert len(found) == 35 * (20 if fields.get("group_by") is GroupBy.KEY else 1)
        if kind == "postgresql":
            _, *plans = statements.plans()  # the first one finds where rows are
            assert plans
            for plan in plans:
                assert rows_read(plan) <= bound, json.dumps(plan, indent=1)
            continue
        search = rf"SEARCH {table} .*(organization=\? AND start=\?|start=\? AND organization=\?)"
        for steps in statements.steps():
            assert any(re.match(search, step) for step in steps), "\n".join(steps)
            assert not any(step.startswith("SCAN keyguard_usage") for step in steps), steps


def test_a_report_of_one_key_reads_its_folded_days_alone(busy: Any) -> None:
    """The starts of days are found in the index, one behind the other; each is a row of the key."""
    store, kind = busy
    days = [Period(MIDNIGHT + n * DAY, MIDNIGHT + (n + 1) * DAY) for n in range(40)]
    for day in days:
        store.usage().fold(ACME, day)
    with store.database.writes.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    statements = Statements(store, kind)

    found = store.usage().totals(ask(*days, key_id=f"{7:016}"))

    assert [(total.period, total.n) for total in found] == [(number, 2) for number in range(40)]
    if kind == "postgresql":
        _, *plans = statements.plans()
        for plan in plans:
            assert rows_read(plan) <= 3 * 40, json.dumps(plan, indent=1)
        return
    search = (
        "SEARCH keyguard_usage_days USING PRIMARY KEY (organization=? AND start=? AND key_id=?)"
    )
    for steps in statements.steps():
        assert any(step.startswith(search) for step in steps), "\n".join(steps)
        assert not any(step.startswith("SCAN keyguard_usage") for step in steps), steps


@pytest.mark.parametrize(("is_mariadb", "values"), [(True, "VALUES("), (False, "VALUESROW(")])
def test_mysql_gets_rows_of_numbers_as_it_spells_them(is_mariadb: bool, values: str) -> None:
    sent: list[str] = []

    def answer(statement: Any) -> list[Any]:
        sent.append(str(statement.compile(dialect=dialect)).replace(" ", ""))
        start = 24 * ((MIDNIGHT - datetime(1970, 1, 1, tzinfo=UTC)) // (24 * QUARTER))
        return [] if len(sent) > 1 else [(start, start + 96, start, start)]

    dialect = mysql.dialect()
    dialect.is_mariadb = is_mariadb
    session: Any = FakeSession(answer, dialect)
    asked = ask(KOLKATA, Period(KOLKATA.end, KOLKATA.end + DAY))
    assert run_sync(totals(session, asked)) == []
    assert sent[1].count(f"UNIONALL{values}") == 2


@pytest.mark.parametrize("fields", [{}, {"group_by": GroupBy.KEY}], ids=["all", "keys"])
def test_periods_without_rows_cost_nothing(busy: Any, fields: dict[str, Any]) -> None:
    """Days among a thousand weeks are asked for as if there were no other weeks."""
    store, kind = busy
    for number in (3, 4, 17):
        day = MIDNIGHT + number * DAY
        store.usage().fold(ACME, Period(day, day + DAY))
    with store.database.writes.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    weeks = [Period(MIDNIGHT + 7 * n * DAY, MIDNIGHT + 7 * (n + 1) * DAY) for n in range(-900, 100)]
    statements = Statements(store, kind)
    found = store.usage().totals(ask(*weeks, limit=10_000, **fields))

    groups = 20 if fields else 1
    assert [total.period for total in found] == [
        900 + week for week in range(6) for _ in range(groups)
    ]
    assert [total.n for total in found[::groups]] == [14 * 20 // groups] * 5 + [10 * 20 // groups]
    _, asked = statements.sent
    assert len(asked[0]) < 10_000
    if kind == "postgresql":
        bounds, plan = statements.plans()
        assert rows_read(bounds) <= 4, json.dumps(bounds, indent=1)
        assert rows_read(plan) <= 40 * 2 * groups, json.dumps(plan, indent=1)

    for question in (ask(*weeks[:899]), ask(*weeks[907:]), ask(*weeks, owner="nobody")):
        assert store.usage().totals(question) == []
        assert store.usage().largest(question) == []
    assert [total.period for total in store.usage().totals(ask(*weeks, after=(902, "")))] == [
        903,
        904,
        905,
    ]


def test_days_that_are_folded_while_they_are_asked_for_are_found(
    store: Any, usage: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the statement that finds where rows are and the one that reads them."""
    usage.add(flush(cell(at=MIDNIGHT, n=3), cell(at=MIDNIGHT + DAY - QUARTER, n=4)))
    day = Period(MIDNIGHT - 22 * QUARTER, MIDNIGHT + 74 * QUARTER)
    weeks = [Period(day.start + 7 * n * DAY, day.start + 7 * (n + 1) * DAY) for n in range(-9, 9)]
    execute, sent = SyncSession.execute, []

    async def fold_between(session: Any, statement: Any, values: Any = None) -> Any:
        sent.append(statement)
        if len(sent) == 2:
            for number in range(2):
                usage.fold(ACME, Period(day.start + number * DAY, day.end + number * DAY))
        return await execute(session, statement, values)

    monkeypatch.setattr(SyncSession, "execute", fold_between)
    assert [(total.period, total.n) for total in usage.totals(ask(*weeks))] == [(9, 7)]


class Held:
    """Reads that wait inside for each other, and what waits there at most."""

    def __init__(self, read: Callable[..., Any], wait: Callable[[], Any]) -> None:
        self.read = read
        self.wait = wait
        self.inside: list[object] = []
        self.most = 0

    async def __call__(self, *args: Any) -> Any:
        mark = object()
        self.inside.append(mark)
        self.most = max(self.most, len(self.inside))
        waited = self.wait()
        if waited is not None:
            await waited
        self.inside.remove(mark)
        return await self.read(*args)


def waits(*whats: threading.Barrier | threading.Event) -> None:
    for what in whats:
        what.wait(20)


def test_two_threads_at_once_read_usage(
    store: Any, usage: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So reports leave connections to the look-ups of keys."""
    assert everything(usage) == []
    pair = threading.Barrier(2)
    held = Held(store.database.read, lambda: waits(pair))
    monkeypatch.setattr(store.database, "read", held)
    usage.together([lambda usage: usage.totals(ask())] * 12)
    assert held.most == 2

    begun, end = threading.Barrier(3), threading.Event()
    held.wait = lambda: waits(begun, end)
    with ThreadPoolExecutor(2) as threads:
        reports = [threads.submit(usage.totals, ask()) for _ in range(2)]
        begun.wait(20)
        with within(0.01), pytest.raises(StoreUnavailableError):
            usage.totals(ask())
        end.set()
        assert [list(report.result()) for report in reports] == [[], []]
    monkeypatch.undo()
    assert everything(usage) == []


def test_two_tasks_at_once_read_usage(database: Database, runner: asyncio.Runner) -> None:
    store = opened("async", database.async_url, runner).backend
    usage = store.usage()

    async def report_at_once() -> None:
        pair = asyncio.Barrier(2)
        held = Held(store.database.read, pair.wait)
        store.database.read = held
        await asyncio.gather(*(usage.totals(ask()) for _ in range(12)))
        assert held.most == 2

        begun, end = asyncio.Barrier(3), asyncio.Event()

        async def wait() -> None:
            await begun.wait()
            await end.wait()

        held.wait = wait
        reports = [asyncio.create_task(usage.totals(ask())) for _ in range(2)]
        await begun.wait()
        with within(0.01), pytest.raises(StoreUnavailableError):
            await usage.totals(ask())
        end.set()
        assert [list(found) for found in await asyncio.gather(*reports)] == [[], []]
        store.database.read = held.read
        assert list(await usage.totals(ask())) == []
        await store.aclose()

    runner.run(report_at_once())


def test_what_is_to_be_folded_is_found_by_an_index(busy: Any) -> None:
    store, kind = busy
    statements = Statements(store, kind)
    assert len(store.usage().unfolded(MIDNIGHT + QUARTER, 10)) == 2
    for plan in statements.plans():
        if kind == "postgresql":
            assert rows_read(plan) <= 2, json.dumps(plan, indent=1)
        else:
            assert any("ix_keyguard_usage_totals_start (start<?)" in row[-1] for row in plan), plan


def test_names_that_are_none_find_nothing(usage: Plain) -> None:
    usage.add(flush(cell()))
    for name in ("\0", "a b", "\N{ROCKET}", "x" * 64):
        assert everything(usage, owner=name) == []
        for field in ("key_id", "family", "outcome"):
            assert everything(usage, **{field: name}) == []


# What the tables hold


def test_keys_and_their_changes_are_left_alone(store: Any, usage: Plain) -> None:
    """Usage locks no row of a table that a commit or a look-up needs."""
    sent: list[str] = []
    everything(usage)
    for engine in (store.database.reads, store.database.writes):
        event.listen(engine, "before_cursor_execute", lambda _c, _cursor, sql, *_: sent.append(sql))
    usage.add(flush(cell()))
    usage.fold(ACME, Period(NOON, NOON + DAY))
    usage.forget(ACME, NOON + DAY)
    usage.dismiss(ACME, "hint", NOON)
    usage.leave("one")
    assert len(sent) > 10
    assert not [
        sql
        for sql in sent
        for name in ("feed", "keys", "organizations", "audit")
        if f"keyguard_{name}" in sql
    ]


def test_days_before_a_time_and_old_dismissals_are_forgotten(store: Any, usage: Plain) -> None:
    usage.add(flush(*(cell(at=NOON + number * DAY) for number in range(3))))
    for number in range(3):
        usage.fold(ACME, Period(NOON + number * DAY, NOON + (number + 1) * DAY))
    usage.dismiss(ACME, "old", NOON)
    usage.dismiss(ACME, "new", NOON + 2 * DAY)

    usage.forget(ACME, NOON + 2 * DAY)

    assert [total.n for total in everything(usage)] == [1]
    assert [total.n for total in everything(usage, group_by=GroupBy.KEY)] == [1]
    assert usage.dismissed(ACME, NOON - DAY) == {"new"}
    assert list(usage.unfolded(NOON + 9 * DAY, 10)) == []
    with store.database.reads.connect() as connection:
        for name in ("keyguard_usage", "keyguard_usage_totals"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() == 0


DAMAGE = {
    "sqlite": "UPDATE keyguard_usage_writers SET until = 'yesterday'",
    "postgresql": "UPDATE keyguard_usage_writers SET until = 'infinity'",
    "mariadb": "UPDATE keyguard_usage_writers SET until = '0000-00-00'",
}


def test_a_writer_that_can_not_be_read_is_named(
    store: Any, usage: Plain, database: Database
) -> None:
    usage.add(flush(cell()))
    with store.database.writes.connect() as connection:
        if database.kind == "mariadb":
            connection.exec_driver_sql("SET sql_mode = ''")
        connection.exec_driver_sql(DAMAGE[database.kind])
        connection.commit()
    with pytest.raises(CorruptDataError):
        usage.writers()
    assert [total.n for total in everything(usage)] == [1]
    usage.add(flush(cell(), seq=2))
    assert [writer.id for writer in usage.writers()] == ["one"]


@pytest.mark.parametrize("value", ["x'ff41'", "CAST(x'ff41' AS TEXT)"])
def test_a_group_that_can_not_be_read_is_told(
    runner: asyncio.Runner, migrated: Callable[[str], Database], value: str
) -> None:
    database = migrated("sqlite")
    emptied(database)
    store = opened("sync", database.url, runner)
    usage = store.usage()
    usage.add(flush(cell(), cell(2)))
    with store.database.writes.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE keyguard_usage SET family = {value} WHERE key_id LIKE '%2'"
        )
    with pytest.raises(CorruptDataError):
        usage.totals(ask(group_by=GroupBy.FAMILY))
    assert [total.n for total in usage.totals(ask(group_by=GroupBy.KEY))] == [1, 1]
    store.close()
