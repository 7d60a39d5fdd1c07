"""PostgreSQL behind PgBouncer in transaction mode, where each transaction has another server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]  # it has no types
import pytest
from sqlalchemy.engine import make_url

from keyguard.exceptions import ConfigurationError
from keyguard.runtime.deadlines import within
from keyguard.stores.base import News
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql.mysql import MySqlConnection
from tests.services import python
from tests.stores.conftest import Database, Plain, make_database, opened
from tests.stores.records import organization, record

WATCHDOG = pytest.mark.timeout(120, func_only=True)

# Four threads look up keys and organizations, and count under one limit, for all they are worth.
WORKER = """
import json, sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.runtime.deadlines import within
from keyguard.stores.opening import open_store

store = open_store(sys.argv[1])
counters = store.counters(owned=False)
charge = Charge("k:{all}:x", "x", 100, 3600, Strategy.FIXED_WINDOW, enforce=True, cost=1)

def work(thread):
    seen = Counter()
    for turn in range(60):
        with within(60):
            wanted = f"{(turn * 7 + thread) % 20:016}"
            found = store.find_key(wanted)
            seen["right" if found and found.key.id == wanted else "wrong"] += 1
            name = f"org_{(turn + thread) % 2:016}"
            owner = store.find_organization(name)
            seen["right" if owner and owner.id == name else "wrong"] += 1
            if turn % 3 == 0:
                seen["admitted"] += counters.hit([charge]).admitted
            if turn % 10 == 0:
                seen["listed"] += len(store.list_organizations(after=None, limit=9).items)
    return seen

with ThreadPoolExecutor(4) as threads:
    seen = sum(threads.map(work, range(4)), Counter())
store.close()
print(json.dumps(seen))
"""


@pytest.fixture
def pooled(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A new database, reached through the pooler."""
    return make_database("pgbouncer", request, tmp_path)


@pytest.fixture
def store(pooled: Database, flavour: str, runner: asyncio.Runner) -> Iterator[Any]:
    store = opened(flavour, pooled.url, runner)
    store.migrate()
    store.add_organization(organization())
    yield store
    store.close()


@WATCHDOG
def test_no_statement_is_taken_for_another_s(pooled: Database) -> None:
    store = Plain(open_store(pooled.url))
    store.migrate()
    for number in range(2):
        store.add_organization(organization(number))
    for number in range(20):
        store.add_key(record(number, owner=organization(number % 2)))
    store.close()

    workers = [python(WORKER, pooled.url) for _ in range(2)]
    told = [worker.communicate()[0] for worker in workers]
    seen = [json.loads(output.splitlines()[-1]) for output in told]

    assert [counts["right"] for counts in seen] == [480, 480], told
    assert sum(counts["admitted"] for counts in seen) == 100


@WATCHDOG
def test_a_feed_asks_where_it_can_not_listen(store: Any) -> None:
    feed = store.feed()
    position = feed.read(None, 0.0).position

    assert feed.read(position, 60.0) == News(position, ())  # at once, for nothing would wake it
    store.change_organization("acme-1", name="Acme")
    told = feed.read(position, 60.0)

    assert told.subjects == (organization().id,)
    feed.close()


@WATCHDOG
def test_statements_are_prepared_where_nothing_stands_between(
    request: pytest.FixtureRequest, tmp_path: Path, flavour: str, runner: asyncio.Runner
) -> None:
    direct = make_database("postgresql", request, tmp_path)
    store = opened(flavour, f"{direct.url}&prepare_threshold=0", runner)
    store.migrate()
    assert store.find_key("key") is None
    store.close()


@WATCHDOG
def test_statements_are_not_prepared_through_a_pooler(
    pooled: Database, flavour: str, runner: asyncio.Runner
) -> None:
    opened("sync", pooled.url, runner).migrate()
    store = opened(flavour, f"{pooled.url}?prepare_threshold=5", runner)
    with pytest.raises(ConfigurationError, match="leave prepare_threshold out of the database URL"):
        store.find_key("key")
    store.close()


def test_a_diagnosis_names_the_pooler(pooled: Database) -> None:
    store: Any = open_store(pooled.url)
    store.migrate()
    assert any("a pooler stands before PostgreSQL" in told.text for told in store.diagnose())
    store.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://h/db?frobnicate=1", "has an option 'frobnicate', which keyguard does not"),
        ("postgresql://h/db?Frob%20nicate=1", "has an option whose name is not shown here"),
        ("postgresql://h/db?connect_timeout=soon", "'connect_timeout' in the database URL takes a"),
        ("postgresql://h/db?prepare_threshold=-1", "'prepare_threshold' in the database URL takes"),
        ("postgresql://h/db?client_encoding=latin1", "keyguard speaks UTF-8"),
        ("postgresql://h/db?autocommit=1", "begins and ends its transactions itself"),
        ("postgresql://h/db?cursor_factory=x", "has an option 'cursor_factory'"),
        ("mysql://h/db?frobnicate=1", "has an option 'frobnicate', which keyguard does not"),
        ("mysql://h/db?read_timeout=1", "by the settings store_timeout"),
        ("mysql://h/db?charset=latin1", "as utf8mb4"),
        ("mysql://h/db?prepare_threshold=5", "has an option 'prepare_threshold'"),
        ("mysql://h/db?connect_timeout=1&connect_timeout=2", "takes a number"),
    ],
)
def test_an_option_that_would_not_be_honoured_is_refused(url: str, says: str) -> None:
    for open_any in (open_store, open_async_store):
        with pytest.raises(ConfigurationError) as refused:
            open_any(url)
        assert says in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db?application_name=web&connect_timeout=3&sslmode=require&keepalives=1",
        "postgresql:///db?host=one:5432&host=two:5432&target_session_attrs=read-write",
        "mysql://h/db?charset=utf8mb4&connect_timeout=3&unix_socket=%2Ftmp%2Fx&program_name=web",
    ],
)
def test_an_option_of_a_driver_is_taken(url: str) -> None:
    assert open_store(url)
    assert open_async_store(url)


def test_a_first_host_that_hangs_is_got_past(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database("postgresql", request, tmp_path)
    url = make_url(database.url)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        hosts = (f"127.0.0.1:{silent.getsockname()[1]}", str(url.query["host"]))
        hanging = url.set(query={"host": hosts, "connect_timeout": "2"})
        store = open_store(hanging.render_as_string(hide_password=False))
        with within(60):
            store.migrate()
            assert store.find_key("a" * 16) is None
        store.close()


def test_pymysql_connects_within_its_own_timeout_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymysql.connections.Connection, "connect", lambda *_: None)
    connection = MySqlConnection(defer_connect=True, connect_timeout=3)
    with within(60):
        connection.connect()
    assert connection.connect_timeout == 3
    with within(1):
        connection.connect()
    assert 0 < connection.connect_timeout <= 1
