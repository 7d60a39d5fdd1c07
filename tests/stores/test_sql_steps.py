"""The SQL store without a database: deadlines by a clock that stands, operations by fakes."""

from __future__ import annotations

import socket
import sqlite3
import ssl
from types import SimpleNamespace
from typing import Any

import psycopg
import pymysql  # type: ignore[import-untyped]
import pytest
from psycopg.pq import ConnStatus
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import within
from keyguard.runtime.sync import run_sync
from keyguard.stores.sql import SqlStore, commits, queries, sqlite
from keyguard.stores.sql.mysql import MySqlConnection
from keyguard.stores.sql.postgresql import PostgresConnection
from tests.stores.changes import adding, revoking
from tests.stores.records import NOON, key, organization, record
from tests.stores.sessions import COMMIT, ROLLBACK, FakeDatabase, FakeSession

# Deadlines, without waiting for any


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its one item is changed."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_psycopg_waits_for_what_is_left(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(gen: Any, *_: Any, interval: float, **__: Any) -> None:
        next(gen)
        for _ in range(5):  # the server is silent
            waits.append(interval)
            clock[0] += interval
            gen.send(0)

    def exchange() -> Any:
        while True:
            yield 1

    monkeypatch.setattr("psycopg.waiting.wait", wait)
    connection = PostgresConnection.__new__(PostgresConnection)
    connection.pgconn = SimpleNamespace(socket=0, status=ConnStatus.BAD)  # type: ignore[assignment]
    with within(0.25), pytest.raises(psycopg.OperationalError, match="did not answer in time"):
        connection.wait(exchange())
    assert waits == pytest.approx([0.25 / 3] * 3)
    waits.clear()
    with within(0.05):
        clock[0] += 1
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            connection.wait(exchange())
    assert waits == [0.001]
    waits.clear()
    connection.wait(exchange())
    assert waits == [0.1] * 5


def test_pymysql_reads_no_certificates_that_it_does_not_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(**_: Any) -> ssl.SSLContext:
        raise AssertionError("it reads them")

    monkeypatch.setattr("ssl.create_default_context", read)
    connection = MySqlConnection(defer_connect=True)
    if pymysql.VERSION >= (1, 2):  # older ones use TLS only where the URL asks for it
        assert connection.ctx.verify_mode is ssl.CERT_NONE
    with pytest.raises(AssertionError):
        MySqlConnection(defer_connect=True, ssl_verify_cert=True)


def test_pymysql_waits_for_what_is_left(clock: list[float]) -> None:
    ours, theirs = socket.socketpair()
    connection = MySqlConnection(defer_connect=True)
    connection._sock, connection._closed, connection._current_timeout = ours, False, None
    with within(0.25):
        connection._write_bytes(b"")
        assert ours.gettimeout() == pytest.approx(0.25)
        clock[0] += 0.2
        connection._write_bytes(b"")
        assert ours.gettimeout() == pytest.approx(0.05)
        clock[0] += 1
        connection._write_bytes(b"")
        assert ours.gettimeout() == pytest.approx(0.001)
    connection._write_bytes(b"")
    assert ours.gettimeout() is None
    connection._sock = None
    ours.close()
    theirs.close()


def test_sqlite_waits_for_what_is_left(clock: list[float]) -> None:
    class Entry:
        info: dict[str, Any] = {}  # noqa: RUF012 - one entry, one test

    entry: Any = Entry()
    connection = sqlite3.connect(":memory:")

    def patience() -> Any:
        sqlite._set_patience(connection, entry)
        return connection.execute("PRAGMA busy_timeout").fetchone()[0]

    assert patience() == 5000
    with within(0.26):
        assert patience() == 200
        clock[0] += 0.15
        assert patience() == 95
        clock[0] += 1
        assert patience() == 0
    assert patience() == 5000
    connection.close()


# Operations, on sessions without a database


class Lost(Exception):
    """What a driver might raise."""


def lost() -> DBAPIError:
    return OperationalError("SELECT", {}, Lost(), connection_invalidated=True)


class Rows:
    """What a database might answer: some rows, and how many it changed."""

    rowcount = 1

    def __init__(self, *rows: Any) -> None:
        self.rows = rows

    def all(self) -> Any:
        return list(self.rows)

    def first(self) -> Any:
        return None

    def scalars(self) -> Any:
        return self.rows

    def scalar_one_or_none(self) -> Any:
        return self.rows[0]


KEY_STANDS = Rows(SimpleNamespace(id=key().id, version=1))
"""The row that says that a key is as it was read."""

OWNER_STANDS = Rows(SimpleNamespace(id=organization().id, version=1))
"""The row that says that an organization is as it was read."""

REVOKED = (None, Rows(1), KEY_STANDS, Rows(), Rows(), Rows())
"""Answers to a commit: begun, claimed, looked at, changed, entered, told."""


class Script:
    """A session that gives some answers in turn, then the same answer to whatever follows.

    Args:
        answers: What it answers; an exception is raised.
        last: What it answers after these.
    """

    def __init__(self, *answers: Any, last: Any = None) -> None:
        self.left = list(answers)
        self.last = last
        self.steps: list[Any] = []
        self.session = FakeSession(self.answer)

    def answer(self, step: Any) -> Any:
        self.steps.append(step)
        answer = self.left.pop(0) if self.left else self.last
        if isinstance(answer, Exception):
            raise answer
        return answer


def database(*scripts: Script, kind: str = "postgresql+psycopg://h/db") -> FakeDatabase:
    return FakeDatabase(create_engine(kind), *(script.session for script in scripts))


@pytest.mark.parametrize("statements", range(len(REVOKED)))
def test_a_connection_lost_before_the_commit_is_tried_again(statements: int) -> None:
    first, second = Script(*REVOKED[:statements], lost()), Script(*REVOKED)
    store = SqlStore(database(first, second))
    assert store.commit(revoking(key(), NOON)) is True
    assert COMMIT not in first.steps
    assert second.steps.count(COMMIT) == 1


def test_no_second_try_is_made_when_the_time_is_over() -> None:
    first, second = Script(lost()), Script(*REVOKED)
    with within(0), pytest.raises(StoreUnavailableError):
        SqlStore(database(first, second)).commit(revoking(key(), NOON))
    assert second.steps == []


def test_a_connection_lost_at_the_commit_is_not_tried_again() -> None:
    first, second = Script(*REVOKED, lost()), Script(*REVOKED)
    with pytest.raises(StoreUnavailableError):
        SqlStore(database(first, second)).commit(revoking(key(), NOON))
    assert first.steps[-1] is COMMIT
    assert second.steps == []


def test_what_was_changed_behind_keyguard_s_back_is_rolled_back() -> None:
    none = Rows()
    none.rowcount = 0
    script = Script(*REVOKED[:3], none)
    assert SqlStore(database(script)).commit(revoking(key(), NOON)) is False
    assert script.steps[4:] == [ROLLBACK, COMMIT]  # of nothing


@pytest.mark.parametrize("new", [record(), organization()])
def test_a_violation_that_no_row_explains_stays_an_error(new: Any) -> None:
    violation = IntegrityError("INSERT", {}, Lost())
    looked_at = [OWNER_STANDS] if new == record() else []
    script = Script(None, Rows(1), *looked_at, violation, last=Rows())
    with pytest.raises(IntegrityError):
        run_sync(commits.apply(script.session, adding(new)))
    assert ROLLBACK in script.steps


def test_a_look_up_is_one_statement() -> None:
    script = Script(None)
    assert SqlStore(database(script)).find_key(key().id) is None
    assert len(script.steps) == 1


def test_a_look_up_of_an_id_that_no_key_can_have_asks_nothing() -> None:
    script = Script()
    assert run_sync(queries.find_key(script.session, "no key")) is None
    assert script.steps == []


def test_a_change_is_not_tried_again_where_each_statement_is_committed() -> None:
    """On a host's engine a lost answer may hide a change that was made."""
    first, second = Script(lost()), Script(*REVOKED)
    with pytest.raises(StoreUnavailableError):
        SqlStore(database(first, second, kind="sqlite://")).commit(revoking(key(), NOON))
    assert second.steps == []


def test_a_look_up_is_tried_again_everywhere_but_only_once() -> None:
    store = SqlStore(database(Script(lost()), Script(None), kind="sqlite://"))
    assert store.find_key(key().id) is None
    store = SqlStore(database(Script(lost()), Script(lost()), Script(None), kind="sqlite://"))
    with pytest.raises(StoreUnavailableError):
        store.find_key(key().id)
