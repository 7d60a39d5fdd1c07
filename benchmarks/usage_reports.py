"""How long a report of usage takes, over a million cells of 35 days, and what they occupy.

Run ``python -m benchmarks.usage_reports``. It starts the servers that it finds.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from keyguard.core.usage.values import QUARTER, Cell, Flush, GroupBy, Period, Question
from keyguard.stores.sql import open_store
from tests.services import MariaDB, PostgreSQL, running

ORGANIZATION = "org_0000000000000001"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 35
DAY = timedelta(days=1)
KEYS = 300
ROUNDS = 5
KOLKATA = ZoneInfo("Asia/Kolkata")


def cells(start: datetime) -> Iterator[Cell]:
    """Return what each key did in a quarter."""
    for number in range(KEYS):
        n = random.randrange(1, 500)
        key_id, family = f"{number:016}", f"fam_{number // 2:016}"
        yield Cell(ORGANIZATION, start, key_id, family, "allowed", "", n, 3 * n)


def fill(usage: Any, step: int) -> float:
    """Fill the store with a flush each so many quarters; return the seconds that each took."""
    took = []
    for number in range(0, 96 * DAYS, step):
        start = FIRST + number * QUARTER
        flush = Flush("writer", number + 1, start + QUARTER, tuple(cells(start)))
        began = time.perf_counter()
        usage.add(flush)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def days(zone: ZoneInfo) -> tuple[Period, ...]:
    """Return the days of a zone, the first and the last of them as far as they were counted."""
    offset = zone.utcoffset(FIRST)
    assert offset is not None
    return tuple(
        Period(FIRST - offset + number * DAY, FIRST - offset + (number + 1) * DAY)
        for number in range(1, DAYS)
    )


WHOLE = (Period(FIRST, FIRST + DAYS * DAY),)
HOURS = tuple(
    Period(FIRST + n * timedelta(hours=1), FIRST + (n + 1) * timedelta(hours=1))
    for n in range(24 * DAYS)
)
QUARTERS = tuple(Period(FIRST + n * QUARTER, FIRST + (n + 1) * QUARTER) for n in range(96 * DAYS))


def questions() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Return reports by their names."""

    def asking(periods: tuple[Period, ...], **fields: Any) -> Callable[[Any], Any]:
        question = Question(ORGANIZATION, periods, **{"limit": 10_000, **fields})
        return lambda usage: usage.totals(question)

    yield "all of 35 days", asking(WHOLE)
    yield "by outcome, days in Kolkata", asking(days(KOLKATA), group_by=GroupBy.OUTCOME)
    yield "by quarter", asking(QUARTERS)
    yield (
        "the 10 largest keys",
        lambda usage: usage.largest(Question(ORGANIZATION, WHOLE, GroupBy.KEY, limit=10)),
    )
    yield "by key", asking(WHOLE, group_by=GroupBy.KEY)
    yield "by key and day in UTC", asking(days(ZoneInfo("UTC")), group_by=GroupBy.KEY)
    yield "by key and day in Kolkata", asking(days(KOLKATA), group_by=GroupBy.KEY)
    yield "by family and day in Kolkata", asking(days(KOLKATA), group_by=GroupBy.FAMILY)
    yield "by key and hour, first 1000", asking(HOURS, group_by=GroupBy.KEY, limit=1000)
    yield "one key by hour", asking(HOURS, key_id=f"{7:016}")


SIZES = {
    "sqlite": "SELECT name, page_count * page_size FROM sqlite_master, pragma_page_count,"
    " pragma_page_size WHERE name = 'keyguard_usage'",
    "postgresql": "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
    " WHERE relkind = 'r' AND relname LIKE 'keyguard_usage%'",
    "mariadb": "SELECT table_name, data_length + index_length FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name LIKE 'keyguard_usage%'",
}


def sizes_of(store: Any, kind: str, tidy: str) -> dict[str, int]:
    """Return the bytes that the tables and their indexes occupy; on SQLite those of the file."""
    with store.database.reads.connect() as connection:
        connection.exec_driver_sql(tidy)
        return {str(name): int(size) for name, size in connection.execute(text(SIZES[kind]))}


TIDY = {
    "sqlite": ("PRAGMA wal_checkpoint", "VACUUM"),
    "postgresql": ("VACUUM ANALYZE", "VACUUM FULL"),
    "mariadb": ("ANALYZE TABLE keyguard_usage", "OPTIMIZE TABLE keyguard_usage_days"),
}


def measure(kind: str, url: str, step: int) -> None:
    store: Any = open_store(url)
    store.migrate()
    usage = store.usage()
    print(f"{kind}: a flush of {KEYS} cells takes {1000 * fill(usage, step):.0f} ms")
    print("  bytes", sizes_of(store, kind, TIDY[kind][0]))
    for name, ask in questions():
        took = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            rows = ask(usage)
            took.append(1000 * (time.perf_counter() - began))
        print(f"  {name}: {len(rows)} totals, {statistics.median(took):.0f} ms ({min(took):.0f})")
    began = time.perf_counter()
    for day in days(KOLKATA):
        usage.fold(ORGANIZATION, day)
    print(f"  a day is folded in {(time.perf_counter() - began) / (DAYS - 1):.2f} s")
    print("  bytes", sizes_of(store, kind, TIDY[kind][1]))
    store.close()


def main() -> None:
    wanted, step = sys.argv[1], 4 if "hours" in sys.argv[2:] else 1
    with ExitStack() as stack:
        if wanted == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            measure(wanted, f"sqlite:///{folder}/usage.db", step)
            return
        server = {"postgresql": PostgreSQL, "mariadb": MariaDB}[wanted]
        url, _ = stack.enter_context(running(server)).create_database()
        measure(wanted, url, step)


if __name__ == "__main__":
    main()
