"""What is particular to counters in an SQL database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import CorruptDataError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql import open_async_store, open_store
from keyguard.stores.sql.counters import AsyncSqlRateLimiter, SqlRateLimiter
from keyguard.stores.sql.session import begin_hastily
from keyguard.stores.sql.tables import COUNTERS
from tests.limits.conftest import Store, charge
from tests.services import Server
from tests.stores.conflicts import spoil
from tests.stores.conftest import Database, make_database
from tests.stores.sessions import COMMIT, FakeDatabase, FakeSession

pytestmark = pytest.mark.usefixtures("no_garbage")

DATABASES = pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
# Only to end a call that hangs. A mere refusal takes a fraction of it.
WATCHDOG = pytest.mark.timeout(60, func_only=True)
DEADLINE = 0.25


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return make_database(kind, request, tmp_path, migrated=True)


@pytest.fixture
def limiter(database: Database) -> Iterator[SqlRateLimiter]:
    limiter = open_store(database.url).counters(owned=True)
    yield limiter
    limiter.close()


def database_of(limiter: Any) -> Any:
    """Return the database that a limiter's operations reach in the end."""
    database = getattr(limiter, "counters", limiter).database
    return getattr(database, "database", database)  # SQLite's is a thread away


@contextmanager
def aside(store: Store) -> Iterator[Connection]:
    """Connect to a store's database, in a transaction, beside its limiter."""
    url = database_of(store.limiter).writes.url
    engine = create_engine(url.set(drivername=url.drivername.replace("asyncmy", "pymysql")))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def left(limiter: SqlRateLimiter, one: Any) -> int:
    return limiter.adjust([one], [0], [0]).tallies[0].remaining


def rows_of(limiter: SqlRateLimiter) -> list[Any]:
    with database_of(limiter).writes.connect() as connection:
        return list(connection.execute(select(COUNTERS)))


def within_the_deadline(store: Store, call: Callable[[], Any]) -> Any:
    """Call the way the gate does."""
    if isinstance(store.limiter, SqlRateLimiter):
        with within(DEADLINE):
            return call()

    async def awaited() -> Any:
        try:
            async with awithin(DEADLINE):
                return await call()
        except TimeoutError as late:
            raise StoreUnavailableError("late") from late

    return store.call(awaited)


# Together


@DATABASES
def test_buckets_in_any_order_get_into_nobodys_way(limiter: SqlRateLimiter) -> None:
    ones = [charge(number, amount=1000) for number in range(4)]

    def work(worker: int) -> None:
        for n in range(5):
            turned = ones[(worker + n) % 4 :] + ones[: (worker + n) % 4]
            assert limiter.hit(turned if worker % 2 else turned[::-1]).admitted

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert [left(limiter, one) for one in ones] == [960] * 4


@SERVERS
def test_rows_are_made_and_locked_in_one_order(kind: str) -> None:
    limiter = SqlRateLimiter(open_store(f"{kind}://localhost/keys").database)
    ones = [charge(number) for number in (3, 1, 2, 1)]
    keys = [charge(number).key for number in (1, 2, 3)]
    locked: list[str] = []
    inserted: list[list[str]] = []

    def perform(step: Any) -> Any:
        rows: list[Any] = []
        if getattr(step, "is_insert", False):
            names = [value for value in step.compile().params.values() if value in keys]
            inserted.append(names)
        elif getattr(step, "is_select", False):
            locked.append(str(step).partition("ORDER BY ")[2].strip())
            if inserted:
                rows = [SimpleNamespace(id=key, state="[]", now=1_000_000_000) for key in keys]
        return SimpleNamespace(all=lambda: rows)

    session = FakeSession(perform, database_of(limiter).reads.dialect)
    run_sync(limiter.counters._hit_all(session, [ones]))
    assert locked == ["keyguard_counters.id FOR UPDATE"] * 2
    assert inserted == [keys, keys]
    limiter.close()


@pytest.mark.campaign("None", "SERIALIZABLE-postgresql", "AUTOCOMMIT-sqlite", "AUTOCOMMIT-mariadb")
@DATABASES
@pytest.mark.parametrize("level", [None, "SERIALIZABLE", "AUTOCOMMIT"])
def test_a_hosts_isolation_level_lets_none_through_too_many(
    database: Database, level: str | None
) -> None:
    own = open_store(database.url)
    own.migrate()
    engine = create_engine(
        own.database.reads.url, **({} if level is None else {"isolation_level": level})
    )
    limiter = open_store(engine).counters(owned=False)
    one = charge(amount=20, window=3600, strategy=Strategy.FIXED_WINDOW)
    with ThreadPoolExecutor(5) as threads:
        hits = list(threads.map(lambda _: limiter.hit([one]).admitted, range(40)))
    assert sum(hits) == 20
    limiter.close()
    assert engine.pool.checkedout() == 0
    engine.dispose()
    own.close()


@SERVERS
def test_a_hosts_async_engine_that_commits_by_itself_lets_none_through_too_many(
    database: Database,
) -> None:
    async def scenario() -> None:
        own: Any = open_async_store(database.async_url)
        await own.migrate()
        engine = create_async_engine(own.database.reads.url, isolation_level="AUTOCOMMIT")
        limiter = open_async_store(engine).counters(owned=False)
        one = charge(amount=20, window=3600, strategy=Strategy.FIXED_WINDOW)
        hits = await asyncio.gather(*(limiter.hit([one]) for _ in range(40)))
        assert sum(hit.admitted for hit in hits) == 20
        await limiter.aclose()
        await engine.dispose()
        await own.aclose()

    asyncio.run(scenario())


def test_a_host_may_begin_transactions_on_sqlite_itself(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: sqlite3.Connection, _entry: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    backend = open_store(engine)
    backend.migrate()
    limiter = backend.counters(owned=False)
    one = charge(amount=20, window=3600, strategy=Strategy.FIXED_WINDOW)
    with ThreadPoolExecutor(5) as threads:
        hits = list(threads.map(lambda _: limiter.hit([one]).admitted, range(40)))
    assert sum(hits) == 20
    engine.dispose()


# Time


@DATABASES
def test_all_processes_count_on_the_databases_clock(limiter: SqlRateLimiter) -> None:
    before = time.time()
    for number in range(2):  # a row that is made, and one that is there
        limiter.hit([charge(strategy=Strategy.MOVING_WINDOW, cost=number + 1)])
    after = time.time()
    [row] = rows_of(limiter)
    first, _, second, _ = json.loads(row.state)
    # The servers of the tests are on this machine, in another time zone, and cut off nanoseconds.
    assert before - 1e-5 <= first < second <= after


@SERVERS
def test_a_hits_time_is_that_of_its_last_lock(kind: str) -> None:
    limiter = SqlRateLimiter(open_store(f"{kind}://localhost/keys").database)
    ones = [charge(number, strategy=Strategy.MOVING_WINDOW) for number in (1, 2)]
    # The first was read, and then there was a wait, in which the second was counted in.
    read = [
        SimpleNamespace(id=ones[0].key, state="[]", now=1_000_000_000),
        SimpleNamespace(id=ones[1].key, state="[1003.0,1]", now=1_003_500_000),
    ]
    written: list[Any] = []

    def perform(step: Any) -> Any:
        if getattr(step, "is_insert", False):
            written.extend(step.compile().params.values())
        return SimpleNamespace(all=lambda: read)

    session = FakeSession(perform, database_of(limiter).reads.dialect)
    run_sync(limiter.counters._hit_all(session, [ones]))
    assert "[1003.5,1]" in written
    assert "[1003.0,1,1003.5,1]" in written
    limiter.close()


# Conflicts and lost connections


def spoiled(store: Store, times: int) -> None:
    """Have the database refuse changes of counters for a deadlock, so many times."""
    url = database_of(store.limiter).writes.url
    spoil(url, "keyguard_counters", "UPDATE", times)


@pytest.mark.campaign("sync-postgresql", "async-mariadb")
@SERVERS
def test_a_hit_that_met_a_deadlock_is_tried_again(store: Store) -> None:
    store.hit(charge())
    spoiled(store, 3)
    assert store.hit(charge(), charge(2)).admitted
    assert store.remaining(charge()) == 8
    assert store.remaining(charge(2)) == 9


@pytest.mark.campaign("async-postgresql", "sync-mariadb")
@SERVERS
def test_a_hit_that_meets_nothing_but_deadlocks_is_given_up(store: Store) -> None:
    store.hit(charge())
    spoiled(store, 100)
    with pytest.raises(StoreUnavailableError):
        store.hit(charge())
    assert store.remaining(charge()) == 9


@SERVERS
@pytest.mark.parametrize("at_commit", [False, True])
def test_a_hit_is_repeated_on_a_new_connection_only_if_it_was_not_committing(
    kind: str, at_commit: bool
) -> None:
    row = SimpleNamespace(id=charge().key, state="[]", now=1_000_000_000)
    lost = OperationalError("COMMIT", {}, Exception(), connection_invalidated=True)
    engine = open_store(f"{kind}://localhost/keys").database.reads
    steps: list[Any] = []

    def fail(step: Any) -> Any:
        if (step is COMMIT) if at_commit else getattr(step, "is_insert", False):
            raise lost
        return SimpleNamespace(all=lambda: [row], rowcount=1)

    def succeed(step: Any) -> Any:
        steps.append(step)
        return SimpleNamespace(all=lambda: [row], rowcount=1)

    sessions = [FakeSession(answer, engine.dialect) for answer in (fail, succeed)]
    database = FakeDatabase(engine, *sessions, owned=True)
    database.can_swap = False
    limiter = SqlRateLimiter(database)
    if at_commit:
        with pytest.raises(StoreUnavailableError):
            limiter.hit([charge()])
        assert steps == []
    else:
        assert limiter.hit([charge()]).admitted
        assert steps[-1] is COMMIT
    limiter.close()


@pytest.mark.parametrize("at_swap", [False, True])
def test_a_swap_is_repeated_on_a_new_connection_only_if_it_had_not_begun(at_swap: bool) -> None:
    row = SimpleNamespace(id=charge().key, state="[]", now=1_000_000_000)
    lost = OperationalError("UPDATE", {}, Exception(), connection_invalidated=True)
    engine = open_store("postgresql://localhost/keys").database.reads
    steps: list[Any] = []

    def fail(step: Any) -> Any:
        if at_swap is getattr(step, "is_update", False):
            raise lost
        return SimpleNamespace(all=lambda: [row])

    def succeed(step: Any) -> Any:
        steps.append(step)
        return SimpleNamespace(all=lambda: [row], rowcount=1)

    sessions = [FakeSession(answer, engine.dialect) for answer in (fail, succeed)]
    limiter = SqlRateLimiter(FakeDatabase(engine, *sessions, owned=True))
    if at_swap:
        with pytest.raises(StoreUnavailableError):
            limiter.hit([charge()])
        assert steps == []
    else:
        assert limiter.hit([charge()]).admitted
        assert len(steps) == 2
    limiter.close()


@WATCHDOG
def test_closing_waits_for_a_held_sweep_only_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyguard.stores.sql.counters._LONGEST_SWEEP", 0.01)
    begun, goes_on = threading.Event(), threading.Event()

    def answer(_: Any) -> Any:
        begun.set()
        goes_on.wait()
        return SimpleNamespace(scalar_one=lambda: 0, scalars=lambda: SimpleNamespace(all=list))

    engine = open_store("postgresql://localhost/keys").database.reads
    limiter = SqlRateLimiter(FakeDatabase(engine, FakeSession(answer, engine.dialect), owned=True))
    limiter.counters._begin_sweep()
    begun.wait()
    (sweeper,) = limiter.counters.sweepers
    limiter.close()
    assert sweeper.is_alive()
    goes_on.set()
    sweeper.join()
    assert not limiter.counters.sweepers


@WATCHDOG
def test_closing_waits_for_a_held_sweep_on_an_event_loop_only_for_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keyguard.stores.sql.counters._LONGEST_SWEEP", 0.01)

    async def scenario() -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        class Held(FakeSession):
            async def execute(self, statement: Any, values: Any = None) -> Any:
                begun.set()
                await goes_on.wait()
                return self.answer(statement)

        def answer(_: Any) -> Any:
            return SimpleNamespace(scalar_one=lambda: 0, scalars=lambda: SimpleNamespace(all=list))

        engine = open_store("postgresql://localhost/keys").database.reads
        limiter = AsyncSqlRateLimiter(FakeDatabase(engine, Held(answer, engine.dialect)))
        limiter._begin_sweep()
        await begun.wait()
        (sweep,) = limiter._sweeps
        await limiter.aclose()
        assert not sweep.done()
        goes_on.set()
        await sweep

    asyncio.run(scenario())


# A server that is silent, and a row that another holds


@pytest.mark.campaign("sync-postgresql", "async-mariadb")
@WATCHDOG
@SERVERS
def test_a_server_that_falls_silent_does_not_hold_a_hit(
    store: Store, kind: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    store.hit(charge())
    with server.suspended():
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                within_the_deadline(store, lambda: store.limiter.hit([charge(2)]))
    assert store.hit(charge(), charge(3)).admitted
    assert store.remaining(charge()) == 8


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
@WATCHDOG
@DATABASES
def test_a_row_that_another_holds_does_not_hold_a_hit(store: Store) -> None:
    store.hit(charge())
    with aside(store) as connection:
        connection.execute(text("UPDATE keyguard_counters SET state = '[]'"))
        with pytest.raises(StoreUnavailableError):
            within_the_deadline(store, lambda: store.limiter.hit([charge()]))
        connection.rollback()
    assert store.hit(charge()).admitted
    assert store.remaining(charge()) == 8


# What is kept


@pytest.mark.campaign("sync-sqlite", "async-postgresql")
@DATABASES
def test_what_has_ended_does_not_pile_up(store: Store) -> None:
    for _ in range(4):
        for number in range(100):
            key = f"keyguard:{{o}}:{store.clock.uptime}:{number}"
            assert store.hit(charge(number, window=60, key=key))
        settle(store)
        store.clock.advance(timedelta(hours=1))
    assert count(store) <= 300


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
@DATABASES
def test_what_has_ended_is_swept_and_nothing_else(store: Store) -> None:
    store.hit(charge(1, window=60), charge(2, window=3600))
    settle(store)
    store.clock.advance(timedelta(minutes=20))
    store.sweep()
    with aside(store) as connection:
        assert connection.execute(select(COUNTERS.c.id)).scalars().all() == [
            charge(2, window=3600).key
        ]


@SERVERS
def test_the_sweep_waits_for_nobodys_lock(store: Store) -> None:
    store.hit(charge(1, window=60), charge(2, window=60))
    settle(store)
    store.clock.advance(timedelta(hours=1))
    with aside(store) as connection:
        held = select(COUNTERS).where(COUNTERS.c.id == charge(1, window=60).key)
        connection.execute(held.with_for_update())
        store.sweep()
    assert count(store) == 1


@pytest.mark.campaign("sync-postgresql", "async-sqlite", "async-mariadb")
@DATABASES
def test_closing_ends_the_sweeps(store: Store) -> None:
    getattr(store.limiter, "counters", store.limiter)._made = 63
    store.hit(charge())
    name = "close" if isinstance(store.limiter, SqlRateLimiter) else "aclose"
    store.call(getattr(store.limiter, name))
    assert "keyguard-sweeper" not in [thread.name for thread in threading.enumerate()]


@DATABASES
def test_a_limiter_beside_the_keys_leaves_them_open(limiter: SqlRateLimiter) -> None:
    pool = database_of(limiter).writes.pool
    beside = SqlRateLimiter(database_of(limiter))
    beside.migrate()
    beside.close()
    assert database_of(limiter).writes.pool is pool


@DATABASES
@pytest.mark.parametrize(
    "state",
    ["", "7", '["a"]', '{"a":1}', "[[1]]", "[null]", "[1,2]", "[1,2,3,4]"],
)
def test_a_state_that_keyguard_never_wrote_is_corrupt(limiter: SqlRateLimiter, state: str) -> None:
    limiter.hit([charge()])
    with database_of(limiter).writes.begin() as connection:
        connection.execute(COUNTERS.update().values(state=state))
    with pytest.raises(CorruptDataError) as caught:
        limiter.hit([charge()])
    assert str(caught.value) == (
        f"row {charge().key!r} of table keyguard_counters holds something that keyguard did not "
        "write; delete it"
    )
    assert rows_of(limiter)[0].state == state


def test_on_sqlite_only_counters_are_not_written_through_to_the_disk(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path}/keys.db"
    open_store(path).migrate()
    backend = open_store(path)
    limiter = backend.counters(owned=True)
    for _ in range(2):
        limiter.hit([charge()])
        with backend.database.writes.connect() as connection:
            full = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            connection.rollback()
            begin_hastily(connection)
            normal = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        assert (full, normal) == (2, 1)
    limiter.close()


def count(store: Store) -> int:
    with aside(store) as connection:
        number: int = connection.execute(select(func.count()).select_from(COUNTERS)).scalar_one()
        return number


def settle(store: Store) -> None:
    """Wait for the sweeps that are under way."""
    if isinstance(store.limiter, SqlRateLimiter):
        for sweeper in tuple(store.limiter.counters.sweepers):
            sweeper.join()
        return

    async def settled() -> None:
        await asyncio.gather(*store.limiter._sweeps)

    store.call(settled)
