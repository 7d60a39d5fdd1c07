"""What the SQL store makes of a database that is down, slow, or talks nonsense."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.exceptions import StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql import AsyncSqlStore, SqlStore
from keyguard.stores.sql.turns import MOST_READS
from tests.stores.conftest import DEADLINE, Async, Awaited, Call, Database, Plain, bounded, opened
from tests.stores.records import NOON, key, organization, record, revoked

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)

# Drivers that give up on a server leave sockets for the garbage collector, and it warns.
LEAKY = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def find(store: Any) -> Any:
    return store.find_key(key().id)


def revoke(store: Any) -> Any:
    return store.revoke_key(key().id, NOON, None)


@pytest.fixture
def store(served: Database, flavour: str, runner: asyncio.Runner) -> Generator[Plain | Awaited]:
    """A store with one key, on a server."""
    store = opened(flavour, served.url if flavour == "sync" else served.async_url, runner)
    store.add_organization(organization())
    store.add_key(record())
    yield store
    store.close()


@pytest.mark.campaign("postgresql-sync", "mariadb-async")
@WATCHDOG
@pytest.mark.parametrize("call", [find, revoke])
def test_a_server_that_falls_silent_does_not_hold_a_call(
    store: Any, served: Database, call: Call
) -> None:
    assert served.server is not None
    find(store)
    with served.server.suspended():
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                bounded(store, call)
    assert find(store) == record()


@pytest.mark.campaign("postgresql-sync", "mariadb-async")
@WATCHDOG
def test_a_server_that_is_silent_from_the_start_does_not_hold_a_call(
    served: Database, flavour: str, runner: asyncio.Runner
) -> None:
    assert served.server is not None
    store = opened(flavour, served.url if flavour == "sync" else served.async_url, runner)
    with served.server.suspended(), pytest.raises(StoreUnavailableError):
        bounded(store, find)
    store.migrate()
    assert find(store) is None
    store.close()


@pytest.fixture
def listener() -> Generator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.campaign("sync-mysql", "async-postgresql", "async-mariadb")
@WATCHDOG
@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
def test_a_port_that_never_answers_does_not_hold_a_call(
    scheme: str, flavour: str, runner: asyncio.Runner, listener: socket.socket
) -> None:
    store = opened(flavour, f"{scheme}://user:hunter2@{address_of(listener)}/db", runner)
    with pytest.raises(StoreUnavailableError) as caught:
        bounded(store, find)
    assert "hunter2" not in str(caught.value)
    store.close()


@WATCHDOG
@LEAKY
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0" * 64, b"\xff" * 4096]
)
def test_a_port_that_talks_nonsense_is_a_store_error(
    scheme: str, flavour: str, runner: asyncio.Runner, listener: socket.socket, answer: bytes
) -> None:
    def talk() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(answer)

    thread = threading.Thread(target=talk)
    thread.start()
    store = opened(flavour, f"{scheme}://user:hunter2@{address_of(listener)}/db", runner)
    try:
        with pytest.raises(StoreError) as caught:
            bounded(store, find)
        assert "hunter2" not in str(caught.value)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        store.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_port_where_nobody_listens_is_a_store_error(
    scheme: str, flavour: str, runner: asyncio.Runner
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address_of(listener)
    option = "application_name" if scheme == "postgresql" else "program_name"
    store = opened(flavour, f"{scheme}://user:hunter2@{address}/db?{option}=hunter3", runner)
    with pytest.raises(StoreUnavailableError) as caught:
        find(store)
    assert "hunter" not in str(caught.value)
    driver = {"postgresql": "psycopg"}.get(scheme, "pymysql" if flavour == "sync" else "asyncmy")
    assert str(caught.value) == (
        f"{scheme}+{driver}://user:***@{address}/db is down, slow or overloaded; check that it "
        "runs, can be reached and lets this user in, then try again"
    )
    store.close()


@pytest.mark.campaign("postgresql-async", "mariadb-sync")
@pytest.mark.parametrize("call", [find, revoke])
def test_a_server_that_was_restarted_goes_unnoticed(
    store: Any, served: Database, call: Call
) -> None:
    assert served.server is not None
    expected = find(store) if call is find else revoked()
    served.server.kill()
    served.server.start()
    assert call(store) == expected


@pytest.mark.campaign("postgresql-async", "mariadb-sync")
@LEAKY
def test_a_server_that_is_down_is_unavailable_until_it_is_up(store: Any, served: Database) -> None:
    assert served.server is not None
    served.server.kill()
    try:
        for call in (find, revoke):
            with pytest.raises(StoreUnavailableError) as caught:
                bounded(store, call)
            assert "hunter2" not in str(caught.value)
            assert caught.value.__cause__ is not None
    finally:
        served.server.start()
    assert find(store) == record()


@pytest.mark.campaign("postgresql-sync", "mariadb-async")
@WATCHDOG
def test_a_row_that_another_holds_does_not_hold_a_call(store: Any, served: Database) -> None:
    other: SqlStore = served.backend()
    with other.database.writes.begin() as connection:
        connection.execute(text("UPDATE keyguard_keys SET name = 'held'"))
        with pytest.raises(StoreUnavailableError):
            bounded(store, revoke)
        assert find(store) == record()
    assert revoke(store).name == "held"
    other.close()


def test_a_call_that_was_cancelled_leaves_the_store_usable(
    served: Database, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        store = Async(open_async_store(served.async_url))
        await store.migrate()
        await store.add_organization(organization())
        await store.add_key(record())
        for _ in range(MOST_READS * 2):
            task = asyncio.create_task(store.revoke_key(key().id, NOON, None))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await store.find_key(key().id) is not None
        await store.aclose()

    runner.run(scenario())


# The pool


@WATCHDOG
def test_waiting_for_a_connection_ends_with_the_deadline(served: Database) -> None:
    store: Any = served.backend()
    store.migrate()
    turns = store.database.turns.reads
    for _ in range(MOST_READS):
        assert turns.acquire(timeout=0)
    with within(DEADLINE), pytest.raises(StoreUnavailableError, match=r"^all connections to "):
        find(store)
    turns.release()
    assert find(store) is None
    store.close()


@WATCHDOG
def test_waiting_for_a_connection_ends_with_the_deadline_on_an_event_loop(
    served: Database, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        store: Any = open_async_store(served.async_url)
        await store.migrate()
        held = [await store.database.reads.connect() for _ in range(MOST_READS)]
        with pytest.raises(TimeoutError):
            async with awithin(DEADLINE):
                await find(store)
        for connection in held:
            await connection.close()
        assert await find(store) is None
        await store.aclose()

    runner.run(scenario())


def test_no_more_connections_are_opened_than_allowed(served: Database) -> None:
    store: Any = served.backend()
    store.migrate()
    Plain(store).together([find] * (MOST_READS * 2))
    assert store.database.reads.pool.checkedin() <= MOST_READS
    assert store.database.reads.pool.checkedout() == 0
    store.close()


def test_a_hosts_pool_that_is_exhausted_is_unavailable(database: Database) -> None:
    own: SqlStore = database.backend()
    own.migrate()
    engine = create_engine(own.database.reads.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    store = open_store(engine)
    with (
        engine.connect(),
        pytest.raises(StoreUnavailableError, match=r"^all connections to .* are in use; try"),
    ):
        find(store)
    assert find(store) is None
    engine.dispose()
    own.close()


def test_a_hosts_async_pool_that_is_exhausted_is_unavailable(
    served: Database, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        own = open_async_store(served.async_url)
        assert isinstance(own, AsyncSqlStore)
        await own.migrate()
        engine = create_async_engine(
            own.database.reads.url, pool_size=1, max_overflow=0, pool_timeout=0.01
        )
        store = open_async_store(engine)
        async with engine.connect():
            with pytest.raises(StoreUnavailableError, match=r"^all connections to "):
                await find(store)
        assert await find(store) is None
        await engine.dispose()
        await own.aclose()

    runner.run(scenario())
