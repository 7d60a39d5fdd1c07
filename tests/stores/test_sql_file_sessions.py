"""A look-up in an SQLite file has the driver's connection, as the pool lends it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from keyguard.exceptions import StoreError
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql import SqlStore, open_store, queries
from keyguard.stores.sql.session import FileSession
from keyguard.stores.sql.turns import FreeTurns
from tests.stores.records import key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def engine(store: Any) -> Engine:
    return store.database.reads  # type: ignore[no-any-return]


def test_a_look_up_makes_no_connection_of_sqlalchemy_s(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.find_key(key().id) is None  # which checked the schema
    monkeypatch.setattr(Connection, "__init__", lambda *_: pytest.fail("it makes one"))
    assert store.find_key(key().id) is None


def test_each_session_gives_its_connection_and_its_turn_back(engine: Engine) -> None:
    turns = FreeTurns(1)

    async def use(looks_up: bool, calls: bool) -> None:
        turns.pop()
        session = FileSession(engine, turns)
        if looks_up:
            assert await queries.find_key(session, key().id) is None
        if calls:
            assert (await session.execute(text("SELECT 1"))).scalar() == 1
        if looks_up:
            assert await queries.find_key(session, key().id) is None
        await session.close()

    for looks_up in (False, True):
        for calls in (False, True):
            run_sync(use(looks_up, calls))
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert len(turns) == 1


def test_a_connection_that_is_lost_is_replaced(store: SqlStore, engine: Engine) -> None:
    assert store.find_key(key().id) is None
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
    driver.close()  # type: ignore[union-attr]
    assert store.find_key(key().id) is None  # sent again, on a new connection


def test_an_interrupted_look_up_drops_its_connection(engine: Engine) -> None:
    class Interrupted:
        def execute(self, *_: object) -> None:
            raise KeyboardInterrupt

    async def use() -> None:
        session = FileSession(engine, FreeTurns(0))
        session._lent.cursor = Interrupted  # type: ignore[method-assign]
        driver = session._lent.dbapi_connection
        with pytest.raises(KeyboardInterrupt):
            await queries.find_key(session, key().id)
        await session.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            driver.execute("SELECT 1")  # type: ignore[union-attr]

    run_sync(use())
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_failure_to_open_the_file_is_that_of_sqlalchemy(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/none/keys.db")
    with pytest.raises(OperationalError, match="unable to open") as caught:
        FileSession(engine, FreeTurns(0))
    with pytest.raises(OperationalError) as usual:
        engine.connect()
    assert str(caught.value) == str(usual.value)
    assert caught.value.statement is usual.value.statement is None
    assert not caught.value.connection_invalidated


def test_a_turn_is_free_again_where_the_file_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"no database, but long enough to be read as one" * 100)
    store: Any = open_store(f"sqlite:///{tmp_path}/keys.db")
    for _ in range(15):
        with pytest.raises(StoreError, match="failed in a way"):
            store.find_key(key().id)
    store.close()
