"""The SQL store beside other processes, in a host's engine, and under a deadline."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import sqlite3
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Use
from keyguard.exceptions import (
    ConfigurationError,
    RefusedError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.events import LimiterFailed
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql.database import SyncDatabase
from keyguard.stores.sql.session import Session
from tests.services import python
from tests.stored import Stored
from tests.stores.changes import adding, changing, revoking
from tests.stores.conftest import DATABASES, Async, Database, Plain, make_database
from tests.stores.records import LATER, NOON, key, organization, record, revoked

# Nothing here measures time. What does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)

FORK = """
import os, sys
from keyguard.stores.opening import open_store

backend = open_store(sys.argv[1])
for round in range(3):
    assert backend.find_key(sys.argv[2]) is not None
    child = os.fork()
    for _ in range(30):
        assert backend.find_key(sys.argv[2]) is not None
        backend.rehash_key("0" * 16, "old", "new")
    if child == 0:
        backend.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(10):
        assert backend.find_key(sys.argv[2]) is not None
backend.close()
print("done")
"""

FORK_AND_LEAVE = """
import os, sys
from keyguard.stores.opening import open_store
from tests.stores.conftest import Plain
from tests.stores.records import record
from tests.stores.test_sql import WRITE
from tests.services import python
from tests.stored import Stored

backend = Plain(open_store(sys.argv[1]))
assert backend.find_key(sys.argv[2]) is not None
(heard, ready), (begun, begin) = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    backend.add_key(record(4000))
    os.write(ready, b"1")
    os.read(begun, 1)
    backend.add_key(record(5000))
    os._exit(0)
os.read(heard, 1)
backend.close()
python(WRITE, sys.argv[1], "1000").communicate("\\n")
os.write(begin, b"1")
assert os.waitpid(child, 0)[1] == 0
assert backend.find_key(f"{5000:016}") is not None
backend.close()
print("done")
"""

FORK_BESIDE_A_CHANGE = """
import os, sys, threading
from keyguard.stores.opening import open_store
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql.session import begin
from tests.stores.conftest import Plain
from tests.stores.records import record

backend = Plain(open_store(sys.argv[1]))
begun, end = threading.Event(), threading.Event()

async def change(session):
    await session.call(begin)
    begun.set()
    end.wait()

changing = threading.Thread(target=lambda: run_sync(backend.database.write(change)))
changing.start()
begun.wait()
os.register_at_fork(before=end.set)
sys.setswitchinterval(60)  # so it goes on only when this thread waits for it
child = os.fork()
backend.add_key(record(2 if child else 3))
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
changing.join()
print("done")
"""

FORK_DURING_A_CHANGE = """
import os, sys
from keyguard.stores.opening import open_store
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql import turns
from keyguard.stores.sql.session import begin
from keyguard.exceptions import StoreUnavailableError
from tests.stores.conftest import Plain
from tests.stores.records import record

turns.LONGEST_WAIT = 0.0
backend = Plain(open_store(sys.argv[1]))

def fork(connection):
    if os.fork():
        assert os.wait()[1] == 0
        return
    for store in (backend, Plain(open_store(sys.argv[1]))):
        try:
            store.find_key(sys.argv[2])
        except StoreUnavailableError as refused:
            assert "forked" in str(refused), refused
        else:
            os._exit(1)
    os._exit(0)

async def change(session):
    await session.call(begin)
    await session.call(fork)

run_sync(backend.database.write(change))
backend.add_key(record(2))
assert backend.find_key(f"{2:016}") is not None
backend.close()
print("done")
"""

FORK_AS_A_FILE_IS_MADE = """
import os, sys, threading
from sqlalchemy import create_engine
from keyguard.stores.opening import open_store
from keyguard.stores.sql import sqlite

backend = open_store(sys.argv[1])
another = sys.argv[2]
engine = create_engine(f"sqlite:///{another}")
sqlite.prepare(engine, writes=True)
begun, end = threading.Event(), threading.Event()

def hold(event, args):
    if event == "open" and args[0] == another and args[2] & os.O_CREAT:
        begun.set()
        end.wait()

sys.addaudithook(hold)
making = threading.Thread(target=lambda: engine.connect().close())
making.start()
begun.wait()
child = os.fork()
if child == 0:
    backend.migrate()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
end.set()
making.join()
print("done")
"""

FORK_BESIDE_THREADS = """
import asyncio, os, sys
from keyguard.stores.opening import open_async_store

backend = open_async_store(sys.argv[1])
assert asyncio.run(backend.find_key(sys.argv[2])) is not None
child = os.fork()
assert asyncio.run(backend.find_key(sys.argv[2])) is not None
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(backend.aclose())
print("done")
"""

WRITE = """
import sys
from keyguard.stores.opening import open_store
from tests.stores.conftest import Plain
from tests.stores.records import record

backend = Plain(open_store(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
first = int(sys.argv[2])
for number in range(first, first + 20):
    backend.add_key(record(number))
    assert backend.find_key(f"{number:016}") is not None
backend.close()
print("done")
"""


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return make_database(request.param, request, tmp_path, migrated=True)


@pytest.fixture
def backend(database: Database) -> Generator[Plain]:
    """A sync store with one key, in a database of each kind."""
    backend = Plain(database.backend())
    backend.add_organization(organization())
    backend.add_key(record())
    yield backend
    backend.close()


# Beside other processes


@pytest.mark.campaign("postgresql")
def test_a_child_process_makes_connections_of_its_own(backend: Plain, database: Database) -> None:
    output, _ = python(FORK, database.url, key().id).communicate()
    assert output == "done\n"


def test_what_a_child_changes_on_sqlite_outlives_its_parent(keys: Path) -> None:
    output, _ = python(FORK_AND_LEAVE, f"sqlite:///{keys}", key().id).communicate()
    assert output == "done\n"


def test_a_fork_on_sqlite_waits_for_the_changes_of_other_threads(keys: Path) -> None:
    output, _ = python(FORK_BESIDE_A_CHANGE, f"sqlite:///{keys}", key().id).communicate()
    assert output == "done\n"


def test_a_child_that_inherits_a_change_on_sqlite_refuses_to_work(keys: Path) -> None:
    output, _ = python(FORK_DURING_A_CHANGE, f"sqlite:///{keys}", key().id).communicate()
    assert output == "done\n"


@WATCHDOG
def test_a_child_may_make_a_file_though_its_parent_was_making_one(tmp_path: Path) -> None:
    mine, parents = tmp_path / "mine.db", tmp_path / "parents.db"
    output, _ = python(FORK_AS_A_FILE_IS_MADE, f"sqlite:///{mine}", str(parents)).communicate()
    assert output == "done\n"


def test_a_fork_leaves_the_pool_behind(backend: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = [backend.database.reads.pool, backend.database.writes.pool]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert backend.find_key(key().id) == record()
    assert backend.database._inherited == pools
    assert backend.database.reads.pool not in pools
    backend.close()
    monkeypatch.undo()
    for pool in pools:
        pool.dispose()


@pytest.mark.campaign("sqlite", "postgresql")
def test_processes_may_write_to_one_database_at_once(backend: Plain, database: Database) -> None:
    processes = [python(WRITE, database.url, str(1000 * n)) for n in range(1, 4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 3
    assert len(backend.list_keys(KeyFilter(), after=None, limit=1000)) == 61


# In a host's engine


def test_a_hosts_engine_is_not_disposed_of(backend: Plain) -> None:
    engine = create_engine(backend.database.reads.url)
    store = Plain(open_store(engine))
    assert store.find_key(key().id) == record()
    pool = engine.pool
    store.close()
    assert engine.pool is pool
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


def test_a_hosts_async_engine_is_not_disposed_of(
    backend: Plain, database: Database, runner: asyncio.Runner
) -> None:
    if database.kind == "sqlite":
        pytest.skip("asyncio reaches SQLite through keyguard's own engine only")

    async def scenario() -> None:
        own: Any = open_async_store(database.async_url)
        engine = create_async_engine(own.database.reads.url)
        await own.aclose()
        store = Async(open_async_store(engine))
        assert await store.find_key(key().id) == record()
        assert await store.revoke_key(key().id, NOON, None) == revoked()
        pool = engine.pool
        await store.aclose()
        assert engine.pool is pool
        await engine.dispose()

    runner.run(scenario())


@pytest.mark.campaign("postgresql-SERIALIZABLE", "mariadb-AUTOCOMMIT", "sqlite-None")
@pytest.mark.parametrize("level", [None, "SERIALIZABLE", "AUTOCOMMIT"])
def test_a_hosts_isolation_level_changes_nothing(backend: Plain, level: str | None) -> None:
    options: dict[str, Any] = {} if level is None else {"isolation_level": level}
    engine = create_engine(backend.database.reads.url, **options)
    store = Plain(open_store(engine))
    store.migrate()
    with pytest.raises(RefusedError):
        store.add_key(record())
    store.add_key(record(2))
    assert store.commit(adding(record(3, owner=organization(9)))) is False
    taken = adding(organization(5), record(3), record(1))
    with pytest.raises(RefusedError, match=r"^key '0000000000000001' exists already$"):
        store.commit(taken)
    assert backend.find_organization(organization(5).id) is None
    assert store.change_key(key(2).id, name="new") == key(2, name="new", version=2)
    assert store.revoke_key(key(2).id, LATER, "lost").revoked_at == LATER
    assert store.find_key(key(2).id).key.revoked_at == LATER
    assert backend.find_key(key(3).id) is None
    engine.dispose()


def test_a_host_may_begin_transactions_on_sqlite_itself(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: sqlite3.Connection, _entry: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    store = Plain(open_store(engine))
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    assert store.revoke_key(key().id, NOON, None) == revoked()
    assert open_store(f"sqlite:///{tmp_path}/keys.db").find_key(key().id) is not None
    engine.dispose()


def test_a_hosts_echo_shows_no_digest(backend: Plain, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine(backend.database.reads.url, echo=True)
    store = Plain(open_store(engine))
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store.add_key(record(2))
        assert store.find_key(key(2).id) == record(2)
    assert "INSERT INTO keyguard_keys" in caplog.text
    assert "'***'" in caplog.text
    assert "digest-2" not in caplog.text
    engine.dispose()


def test_an_error_on_a_hosts_engine_shows_no_digest(backend: Plain) -> None:
    engine = create_engine(backend.database.reads.url)
    store = Plain(open_store(engine))
    store.find_key(key().id)

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def spoil(*arguments: Any) -> Any:
        return f"{arguments[2]} nonsense", arguments[3]

    with pytest.raises(StoreError) as caught:
        store.add_key(record(2))
    assert "digest-2" not in "".join(traceback.format_exception(caught.value))
    engine.dispose()


# SQLite


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """An SQLite database with one key."""
    path = tmp_path / "keys.db"
    backend = Plain(open_store(f"sqlite:///{path}"))
    backend.migrate()
    backend.add_organization(organization())
    backend.add_key(record())
    backend.close()
    return path


def test_a_lock_on_sqlite_holds_a_change_only_until_the_deadline(keys: Path) -> None:
    store = Plain(open_store(f"sqlite:///{keys}"))
    other = sqlite3.connect(keys)
    other.execute("BEGIN IMMEDIATE")
    with within(60):
        assert store.find_key(key().id) == record()
    with (
        within(0.5),
        pytest.raises(StoreUnavailableError, match=r"^another connection has been changing "),
    ):
        store.revoke_key(key().id, NOON, None)
    other.rollback()
    assert store.revoke_key(key().id, NOON, None) == revoked()
    other.close()
    store.close()


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_transaction_of_the_application_on_its_file_is_named(
    tmp_path: Path, flavour: str, runner: asyncio.Runner
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    stored = Stored("", flavour, runner, url, {"store_timeout": 60.0, "management_timeout": 60.0})
    issued = stored.issue("inference:read")
    hasty = stored.another(management_timeout=1.0, limiter_timeout=1.0, failure_limit="9/minute")
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as application:
        application.execute("CREATE TABLE orders (id INTEGER)")
        application.execute("BEGIN")
        application.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(StoreUnavailableError) as caught:
            hasty.keys.issue(organization="acme", name="new")
        assert len(stored.guard.keys.list().items) == 1
        assert stored.lets_in(issued.token, hasty)
        hasty.authenticate(["Bearer nonsense"], address="192.0.2.1")
        application.execute("COMMIT")
    [limited] = [event for event in stored.events if isinstance(event, LimiterFailed)]
    for failure in (caught.value, limited.cause):
        assert str(failure).startswith("another connection has been changing sqlite+pysqlite:///")
        assert "commit it before you call keyguard" in str(failure)
    stored.close()


def test_a_cancelled_change_on_sqlite_is_finished_on_its_thread(
    keys: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, write = threading.Event(), SyncDatabase.write

    def noted(*args: Any) -> Any:
        begun.set()
        return write(*args)

    async def scenario() -> None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        other = sqlite3.connect(keys)
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(SyncDatabase, "write", noted)
        task = asyncio.create_task(store.commit(revoking(key(), NOON)))
        await asyncio.sleep(0)
        begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()  # it goes on only when it is known how things stand
        other.rollback()
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = await store.find_key(key().id)
        assert found is not None
        assert found.key == revoked()
        await store.aclose()

    runner.run(scenario())


@WATCHDOG
@pytest.mark.parametrize("ended_by", ["deadline", "caller"])
def test_a_change_that_meets_a_lock_as_its_deadline_passes_says_so(
    keys: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    write, passed = SyncDatabase.write, threading.Event()

    async def scenario() -> BaseException | None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        assert await store.find_key(key().id) == record()
        loop, task, limit = asyncio.get_running_loop(), asyncio.current_task(), awithin(60)

        def end() -> None:
            if ended_by == "deadline":
                limit._cancel()  # type: ignore[attr-defined]
            else:
                assert task is not None
                task.cancel()
            passed.set()

        async def late(*args: Any) -> Any:
            loop.call_soon_threadsafe(end)
            passed.wait()
            with within(0):
                return await write(*args)

        monkeypatch.setattr(SyncDatabase, "write", late)
        with closing(sqlite3.connect(keys)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises((StoreUnavailableError, asyncio.CancelledError)) as caught:
                async with limit:
                    await store.commit(revoking(key(), NOON))
        await store.aclose()
        if ended_by == "deadline":
            return caught.value
        assert isinstance(caught.value, asyncio.CancelledError)
        return caught.value.__cause__

    failure = runner.run(scenario())
    assert str(failure).startswith("another connection has been changing sqlite+pysqlite:///")
    assert isinstance(failure, StoreUnavailableError)
    assert isinstance(failure.__cause__, OperationalError)
    assert "another connection" in "".join(traceback.format_exception(failure))


@WATCHDOG
def test_a_cancelled_change_that_has_no_thread_yet_never_begins(
    keys: Path, runner: asyncio.Runner
) -> None:
    begun, end = threading.Semaphore(0), threading.Event()

    async def slow(session: Session) -> None:
        begun.release()
        end.wait()
        await session.execute(text("SELECT 1"))

    async def scenario() -> None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        assert await store.find_key(key().id) == record()
        holders = [asyncio.create_task(store.database.write(slow)) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in holders:
            begun.acquire()
        with pytest.raises(TimeoutError):
            async with awithin(0.01):
                await store.commit(revoking(key(), NOON))
        assert not any(holder.done() for holder in holders)
        end.set()
        await asyncio.gather(*holders)
        assert await store.find_key(key().id) == record()
        await store.aclose()

    try:
        runner.run(scenario())
    finally:
        end.set()


def test_the_deadline_reaches_the_thread(keys: Path, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        other = sqlite3.connect(keys)
        other.execute("BEGIN IMMEDIATE")
        with within(0.1), pytest.raises(StoreUnavailableError):
            await store.revoke_key(key().id, NOON, None)
        other.rollback()
        other.close()
        await store.aclose()

    runner.run(scenario())


@WATCHDOG
def test_a_change_that_got_no_thread_is_refused_and_never_made(
    keys: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(StoreUnavailableError, match="no thread could be started"):
                await store.commit(revoking(key(), NOON))
        await store.change_organization("acme-1", name="Renamed")
        found = await store.find_key(key().id)
        assert found is not None
        assert found.key == key()
        await store.aclose()

    runner.run(scenario())


@WATCHDOG
def test_the_threads_are_new_after_a_fork(keys: Path) -> None:
    output, _ = python(FORK_BESIDE_THREADS, f"sqlite:///{keys}", key().id).communicate()
    assert output == "done\n"


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    store = Plain(open_store(f"sqlite:///{tmp_path}/keys.db"))
    with pytest.raises(StoreError, match=r"^sqlite.*keys.db failed in a way"):
        store.find_key(key().id)
    store.close()


@pytest.mark.parametrize("kind", ["find", "commit", "use"])
def test_what_a_call_sends_to_the_server(backend: Plain, database: Database, kind: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "find": lambda: backend.find_key(key().id),
        "commit": lambda: backend.commit(next(commits)),
        "use": lambda: backend.mark_used([Use(key().id, LATER)]),
    }
    commits = iter([changing(key(), name="a"), changing(key(version=2), name="b")])
    calls[kind]()
    sent: list[str] = []
    for engine in (backend.database.reads, backend.database.writes):
        engine.update_execution_options(keyguard_direct=False)  # or events would miss the look-up
        backend.database._is_file = False
        event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2].split()[0]))
    contextvars.copy_context().run(calls[kind])
    commit = {
        "sqlite": ["BEGIN", "UPDATE", "SELECT", "UPDATE", "INSERT"],
        "postgresql": ["UPDATE", "SELECT", "UPDATE", "INSERT", "SELECT"],
        "mariadb": ["UPDATE", "SELECT", "SELECT", "UPDATE", "INSERT"],
    }
    use = ["PRAGMA", "BEGIN", "UPDATE"] if database.kind == "sqlite" else ["UPDATE"]
    assert sent == {"find": ["SELECT"], "commit": commit[database.kind], "use": use}[kind]


def test_changes_that_wait_keep_no_look_up_waiting(keys: Path, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = Async(open_async_store(f"sqlite:///{keys}"))
        assert await store.find_key(key().id) == record()
        other = sqlite3.connect(keys)
        other.execute("BEGIN IMMEDIATE")
        changes = [asyncio.create_task(store.revoke_key(key().id, NOON, None)) for _ in range(9)]
        await asyncio.sleep(0)
        assert await store.find_key(key().id) == record()
        other.rollback()
        other.close()
        await asyncio.gather(*changes)
        await store.aclose()

    runner.run(scenario())


@pytest.mark.parametrize("path", ["typo.db", "./typo.db"])
def test_a_look_up_makes_no_file(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Plain(open_store(f"sqlite:///{path}"))
    with pytest.raises(SchemaError) as caught:
        store.find_key(key().id)
    assert str(caught.value) == (
        f"there is no file {str(tmp_path / 'typo.db')!r}: check the URL, or run `keyguard init` or "
        "guard.migrate() to make a new store"
    )
    with pytest.raises(SchemaError, match="there is no file"):
        store.add_organization(organization())
    store.close()

    assert list(tmp_path.iterdir()) == []


REVOKE = """
import sys
from keyguard import Keyguard

with Keyguard(sys.argv[1]) as guard:
    guard.keys.revoke(sys.argv[2])
print("done")
"""


def test_another_connection_takes_no_lock_from_those_that_are_there(keys: Path) -> None:
    url = f"sqlite:///{keys}"
    store = Plain(open_store(url))
    store.add_key(record(2))
    store.close()
    assert store.find_key(key().id) is not None
    # This opens another connection. Without the locks of the reader, a process that leaves
    # would take itself for the last, and the log away from under both.
    store.mark_used([Use(key().id, LATER)])
    for present in (key(), key(2)):
        with python(REVOKE, url, present.id) as process:
            assert process.communicate()[0] == "done\n"
        found = store.find_key(present.id)
        assert found is not None
        assert found.key.revoked_at is not None
    store.close()


def test_a_file_that_took_another_s_place_is_read(keys: Path) -> None:
    backup = keys.with_name("backup.db")
    with closing(sqlite3.connect(keys)) as before, closing(sqlite3.connect(backup)) as after:
        before.backup(after)
    store = Plain(open_store(f"sqlite:///{keys}"))
    assert store.commit(revoking(key(), NOON))
    found = store.find_key(key().id)
    assert found is not None
    assert found.key == revoked()
    backup.replace(keys)
    keys.with_name("keys.db-wal").unlink()
    keys.with_name("keys.db-shm").unlink()
    assert store.find_key(key().id) == record()
    store.add_key(record(2))
    with closing(sqlite3.connect(keys)) as other:
        assert other.execute("SELECT count(*) FROM keyguard_keys").fetchone() == (2,)
    store.close()


def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    store = Plain(open_store(f"sqlite:///{tmp_path}/keys.db"))
    store.migrate()
    store.close()

    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600


def test_another_program_s_file_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    before = (tmp_path / "other.db").read_bytes()
    store = Plain(open_store(f"sqlite:///{tmp_path}/other.db"))
    with pytest.raises(SchemaError, match="has no keyguard tables yet"):
        store.find_key(key().id)
    store.close()

    assert (tmp_path / "other.db").read_bytes() == before


def test_under_trio_a_database_says_what_to_do(tmp_path: Path) -> None:
    store = Async(open_async_store(f"sqlite:///{tmp_path}/keys.db"))

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="under trio use memory://"):
            await store.find_key(key().id)

    trio.run(main)


_COUNTS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
}


def test_event_loops_that_are_gone_leave_no_connections(served: Database) -> None:
    migrating = served.backend()
    migrating.migrate()
    migrating.close()
    store = Async(open_async_store(served.async_url))
    with warnings.catch_warnings():
        # asyncio warns of transports that are left to a loop that is gone, which is the point.
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(8):
            asyncio.run(store.find_key(key().id))
        gc.collect()

    engine = create_engine(migrating.database.reads.url)
    with engine.connect() as connection:
        for _ in range(5000):  # the server learns of an end in its own time
            if connection.scalar(text(_COUNTS[served.kind])) <= 2:
                break
            connection.rollback()
        else:
            pytest.fail("connections were left behind")
    engine.dispose()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(store.aclose())
        gc.collect()


FORK_WITH_THREADS = """
import os, sys, threading
from keyguard.stores.opening import open_store

backend = open_store(sys.argv[1])
assert backend.find_key(sys.argv[2]) is not None
for round in range(20):
    child = os.fork()
    if child == 0:
        found = []

        def find():
            found.append(backend.find_key(sys.argv[2]))

        threads = [threading.Thread(target=find, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        os._exit(0 if len(found) == 6 and None not in found else 1)
    assert os.waitpid(child, 0)[1] == 0
backend.close()
print("done")
"""


@pytest.mark.campaign("postgresql")
def test_threads_of_a_forked_child_that_come_at_once_get_connections(served: Database) -> None:
    store = Plain(served.backend())
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    store.close()
    output, _ = python(FORK_WITH_THREADS, served.url, key().id).communicate()
    assert output == "done\n"


def test_a_database_of_asyncio_that_is_dropped_is_freed_at_once() -> None:
    async def scenario() -> None:
        store: Any = open_async_store("postgresql://localhost/keys")
        database = weakref.ref(store.database)
        assert store.database.reads  # so that this event loop has engines
        gc.disable()
        try:
            del store
            assert database() is None
        finally:
            gc.enable()

    asyncio.run(scenario())
