"""The change feed of SQL databases: how it waits, and what becomes of it when things break."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.exceptions import CorruptDataError, RefusedError, StoreUnavailableError
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import News
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql.feed import SqlFeed, SyncListeningFeed
from keyguard.stores.sql.tables import AUDIT, FEED, ORGANIZATIONS
from tests.services import python
from tests.stores.changes import adding, changing
from tests.stores.conftest import DATABASES, Async, Awaited, Database, Plain, make_database, opened
from tests.stores.records import organization, record
from tests.stores.sessions import FakeDatabase, FakeSession

LONG = 60.0
"""Seconds that no test waits for: who would, runs into its watchdog."""

WATCHDOG = pytest.mark.timeout(60, func_only=True)


@pytest.fixture
def postgresql_database(request: pytest.FixtureRequest, tmp_path: Any) -> Database:
    return make_database("postgresql", request, tmp_path, migrated=True)


@pytest.fixture
def store(
    postgresql_database: Database, flavour: str, runner: asyncio.Runner
) -> Generator[Plain | Awaited]:
    """A store in a new PostgreSQL database."""
    store = opened(flavour, postgresql_database.url, runner)
    yield store
    store.close()


@pytest.fixture
def other(store: Any, postgresql_database: Database) -> Generator[Plain]:
    """Another process's store in the same database, by and large."""
    other = Plain(postgresql_database.backend())
    yield other
    other.close()


def listeners(other: Plain) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    with other.database.reads.connect() as connection:
        count: int = connection.scalar(text(query))
        return count


def while_it_waits(store: Any, feed: Any, position: str, then: Callable[[], Any]) -> Any:
    """Read a feed that has nothing to tell, do something once it waits, return what it told."""
    asked = threading.Event()
    inner = feed._awaited if isinstance(store, Plain) else feed.backend
    ask = inner._ask

    async def noted(position: str | None) -> News:
        try:
            news: News = await ask(position)
            return news
        finally:
            if isinstance(store, Plain):
                asked.set()
            else:
                asyncio.get_running_loop().call_soon(asked.set)

    inner._ask = noted
    with ThreadPoolExecutor(1) as threads:

        def act() -> Any:
            while not asked.wait():
                pass
            return then()

        acting = threads.submit(act)
        try:
            return feed.read(position, LONG)
        finally:
            inner._ask = ask
            acting.result()


@WATCHDOG
def test_a_feed_that_waits_is_woken_by_a_commit(store: Any, other: Plain) -> None:
    feed = store.feed()
    position = feed.read(None, 0).position
    for number in range(3):
        news = while_it_waits(
            store, feed, position, lambda n=number: other.add_organization(organization(n))
        )
        assert news.subjects == (organization(number).id,)
        position = news.position
    feed.close()


@WATCHDOG
def test_what_happened_before_it_waits_is_told_at_once(store: Any, other: Plain) -> None:
    feed = store.feed()
    position = feed.read(None, LONG).position
    other.add_organization(organization())
    assert feed.read(position, LONG).subjects == (organization().id,)
    feed.close()


@WATCHDOG
def test_patience_comes_to_an_end(store: Any, other: Plain) -> None:
    feed = store.feed()
    position = feed.read(None, 0).position
    assert feed.read(position, 0.01) == News(position, ())
    assert feed.read(position, 0) == News(position, ())
    feed.close()


@WATCHDOG
def test_a_feed_takes_a_connection_of_its_own_and_gives_it_back(store: Any, other: Plain) -> None:
    feed = store.feed()
    position = feed.read(None, LONG).position
    assert listeners(other) == 0  # nothing before it has to wait
    for _ in range(3):
        feed.read(position, 0.01)
    assert listeners(other) == 1
    assert store.backend.database.reads.pool.checkedout() == 0
    feed.close()
    for _ in range(5000):  # the server learns of an end in its own time
        if listeners(other) == 0:
            break
    assert listeners(other) == 0
    feed.close()
    assert feed.read(position, LONG) == News(position, ())  # it waits no more


@WATCHDOG
def test_a_feed_that_waits_may_be_closed_from_elsewhere(store: Any, other: Plain) -> None:
    for _ in range(5):
        feed = store.feed()
        position = feed.read(None, 0).position

        def close(feed: Any = feed) -> None:
            if isinstance(store, Plain):
                feed.close()
            else:
                loop = store.runner.get_loop()
                asyncio.run_coroutine_threadsafe(feed.backend.aclose(), loop).result()

        assert while_it_waits(store, feed, position, close) == News(position, ())
        feed.close()


@WATCHDOG
def test_closing_waits_for_a_held_reader_only_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyguard.stores.sql.feed.ASKING", 0.01)
    asked, answers = threading.Event(), threading.Event()

    def answer(_: Any) -> Any:
        asked.set()
        answers.wait()
        return SimpleNamespace(one_or_none=lambda: SimpleNamespace(last=7, mark="ab"))

    class Listening:
        closed = False

        def close(self) -> None:
            self.closed = True

    engine = create_engine("postgresql+psycopg://localhost/keys")
    feed = SyncListeningFeed(FakeDatabase(engine, FakeSession(answer)))
    feed._driver = connection = Listening()
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(lambda: run_sync(feed.read(None, 0)))
        asked.wait()
        run_sync(feed.aclose())
        assert not reading.done()
        assert not connection.closed  # the reader may be using it
        answers.set()
        assert reading.result() == News("7-ab", ())
    assert connection.closed


@WATCHDOG
def test_a_broken_connection_is_an_error_and_the_next_read_reconnects(
    store: Any, other: Plain
) -> None:
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    def cut() -> None:
        with other.database.reads.connect() as connection:
            while not listeners(other):
                pass
            connection.execute(text(kill)).all()

    feed = store.feed()
    position = feed.read(None, 0).position
    with pytest.raises(StoreUnavailableError, match=r"is down, slow or overloaded"):
        while_it_waits(store, feed, position, cut)
    other.add_organization(organization())
    news = feed.read(position, LONG)
    assert news.subjects == (organization().id,)
    # Also one that broke while nobody was reading.
    cut()
    other.add_organization(organization(2))
    with_news = []
    for _ in range(2):
        try:
            with_news.append(feed.read(news.position, LONG))
        except StoreUnavailableError:
            continue
    assert with_news[-1].subjects == (organization(2).id,)
    feed.close()


@WATCHDOG
def test_a_server_that_is_down_is_unavailable_until_it_is_up(
    store: Any, postgresql_database: Database
) -> None:
    feed = store.feed()
    position = feed.read(None, 0).position
    feed.read(position, 0.01)
    postgresql_database.server.kill()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                feed.read(position, 0.01)
    finally:
        postgresql_database.server.start()
    store.add_organization(organization())
    assert feed.read(position, LONG).subjects == (organization().id,)
    feed.close()


@WATCHDOG
def test_a_commit_that_is_not_made_wakes_nobody(store: Any, other: Plain) -> None:
    store.add_organization(organization())
    feed = store.feed()
    position = feed.read(None, 0).position
    feed.read(position, 0.01)
    assert other.commit(changing(organization(version=7), name="Other")) is False
    assert feed.read(position, 0.01) == News(position, ())
    feed.close()


@WATCHDOG
def test_a_hosts_engine_can_wait_too(postgresql_database: Database) -> None:
    own: Any = open_store(postgresql_database.url)
    own.migrate()
    engine = create_engine(own.database.reads.url, pool_size=1, max_overflow=0)
    store = Plain(open_store(engine))
    feed = store.feed()
    assert feed.read("0-", 0.01) == News("0-", ())
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert while_it_waits(
        store, feed, "0-", lambda: own.commit(adding(organization()))
    ).subjects == (organization().id,)
    feed.close()
    engine.dispose()
    own.close()


@WATCHDOG
def test_a_hosts_async_engine_can_wait_too(
    postgresql_database: Database, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        own: Any = Async(open_async_store(postgresql_database.url))
        await own.migrate()
        engine = create_async_engine(own.database.reads.url, pool_size=1, max_overflow=0)
        feed: Any = open_async_store(engine).feed()
        assert await feed.read("0-", 0.01) == News("0-", ())
        reading = asyncio.create_task(feed.read("0-", LONG))
        await own.add_organization(organization())
        end, subjects, _ = await reading
        assert subjects == (organization().id,)
        # One whose wait is cancelled is still good. If it were cancelled while it asks, SQLAlchemy
        # would leave the connection that it asks on to the collector.
        reading = asyncio.create_task(feed.read(end, LONG))
        while feed._wake is None:  # noqa: ASYNC110 - the feed has its turn meanwhile
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await feed.read("0-", LONG) == News(end, (organization().id,))
        await feed.aclose()
        await engine.dispose()
        await own.aclose()

    runner.run(scenario())


def test_other_drivers_are_asked(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(
        postgresql_database.url.replace("postgresql://", "postgresql+psycopg://")
    )
    monkeypatch.setattr(engine.dialect, "driver", "pg8000")
    feed: Any = open_store(engine).feed()
    assert type(feed._awaited) is SqlFeed


FORK = """
import os, sys
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import News
from keyguard.stores.opening import open_store
from tests.stores.changes import adding
from tests.stores.records import organization

backend = open_store(sys.argv[1])
feed = backend.feed()
assert feed.read("0-", 0.01) == News("0-", ())
child = os.fork()
if child == 0:
    feed.close()
    own = backend.feed()
    assert own.read("0-", 0.01) == News("0-", ())
    own.close()
    assert backend.commit(adding(organization()))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
while (news := feed.read("0-", 60)) == News("0-", ()):
    pass
assert feed.read(news.position, 0.01) == News(news.position, ())
feed.close()
backend.close()
print("done")
"""


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_child_s_feed_is_its_own_and_the_parent_s_goes_on(
    store: Any, postgresql_database: Database
) -> None:
    output, _ = python(FORK, postgresql_database.url).communicate()
    assert output == "done\n"


# Where the trail is not what was left


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return make_database(request.param, request, tmp_path, migrated=True)


@pytest.fixture
def backend(database: Database) -> Generator[Plain]:
    backend = Plain(database.backend())
    yield backend
    backend.close()


def test_a_position_that_the_trail_does_not_have_means_that_all_may_have_changed(
    backend: Plain,
) -> None:
    feed = backend.feed()
    backend.add_organization(organization())
    end = feed.read(None, 0).position
    assert feed.read(end, 0) == News(end, ())
    mark = end.removeprefix("1-")
    for other in (f"7-{mark}", f"0-{mark}", "1-0123456789abcdef", "1-", "1", "", "x", "9" * 30):
        assert feed.read(other, 0).position == end
        expected = (organization().id,) if other.startswith("0-") else None
        assert feed.read(other, 0).subjects == expected
    feed.close()


@pytest.mark.campaign("sqlite", "postgresql-2", "mariadb-3")
@pytest.mark.parametrize("made_after", [1, 2, 3, 4])
def test_a_restored_backup_is_noticed_however_much_was_changed_since(
    backend: Plain, made_after: int
) -> None:
    """As many changes as were lost, and one of them a revocation, before the reader looks."""
    feed = backend.feed()
    backend.add_organization(organization())
    restored = feed.read(None, 0).position
    for number in range(2, 4):
        backend.add_organization(organization(number))
    lost = feed.read(None, 0).position

    last, mark = restored.split("-")
    with backend.database.writes.begin() as connection:  # what a restore brings back
        connection.execute(delete(AUDIT).where(AUDIT.c.id > int(last)))
        connection.execute(delete(ORGANIZATIONS).where(ORGANIZATIONS.c.id != organization().id))
        connection.execute(update(FEED).values(last=int(last), mark=mark))
    for number in range(10, 10 + made_after):
        backend.add_organization(organization(number))

    assert feed.read(lost, 0).subjects is None
    assert len(feed.read(restored, 0).subjects) == made_after
    feed.close()


def test_a_file_that_was_restored_as_documented_is_noticed(tmp_path: Path) -> None:
    path, backup = tmp_path / "keys.db", tmp_path / "backup.db"
    backend = Plain(open_store(f"sqlite:///{path}"))
    backend.migrate()
    feed = backend.feed()
    with sqlite3.connect(path) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    backend.add_organization(organization(1))
    lost = feed.read(None, 0).position

    with sqlite3.connect(backup) as source, sqlite3.connect(path) as target:
        source.backup(target)
    backend.add_organization(organization(2))

    assert feed.read(lost, 0).subjects is None
    feed.close()
    backend.close()


def test_a_trail_that_was_cut_is_noticed(backend: Plain) -> None:
    feed = backend.feed()
    positions = []
    for number in range(4):
        backend.add_organization(organization(number))
        positions.append(feed.read(None, 0).position)
    with backend.database.writes.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.id <= 2))
    for gone in positions[:2]:
        assert feed.read(gone, 0) == News(positions[3], None)
    assert feed.read(positions[2], 0).subjects == (organization(3).id,)
    with backend.database.writes.begin() as connection:
        connection.execute(delete(AUDIT))
    assert feed.read(positions[2], 0) == News(positions[3], None)
    assert feed.read(positions[3], 0) == News(positions[3], ())
    feed.close()


def test_without_the_row_that_is_the_lock_nothing_is_changed(backend: Plain) -> None:
    with backend.database.writes.begin() as connection:
        connection.execute(delete(FEED))
    with pytest.raises(CorruptDataError, match=r"^the table keyguard_feed has lost its row;"):
        backend.add_organization(organization())
    assert backend.find_organization("acme-1") is None
    assert backend.feed().read(None, 0) == News("0-", ())


@pytest.mark.campaign("sqlite", "postgresql")
def test_a_thousand_are_told_at_a_time(backend: Plain) -> None:
    backend.add_organization(organization())
    assert backend.commit(adding(*(record(number) for number in range(1500))))
    feed = backend.feed()
    first = feed.read("0-", 0)
    assert (first.position[:5], len(first.subjects), first.whole) == ("1000-", 1000, False)
    second = feed.read(first.position, 0)
    assert (second.position[:5], len(second.subjects), second.whole) == ("1501-", 501, True)
    feed.close()


def test_ids_rise_by_one_over_refusals_and_conflicts(backend: Plain) -> None:
    backend.add_organization(organization())
    assert backend.commit(changing(organization(version=9), name="x")) is False
    with pytest.raises(RefusedError):
        backend.add_organization(organization())
    backend.add_organization(organization(2))
    trail = backend.list_audit(organization=None, subject=None, after=None, limit=9)
    assert [entry.id for entry in trail] == ["2", "1"]
