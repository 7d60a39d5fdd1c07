"""The SQL store stepped by hand: deadlines by a standing clock, operations by no database."""

from __future__ import annotations

import socket
import sqlite3
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg.pq import ConnStatus
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from keyguard.exceptions import StoreError
from keyguard.runtime.deadlines import within
from keyguard.stores.sql import SqlStore, operations, sqlite
from keyguard.stores.sql.flows import ConnectionLost
from keyguard.stores.sql.mysql import DeadlineConnection as MySqlConnection
from keyguard.stores.sql.postgresql import DeadlineConnection as PostgresConnection
from tests.stores.changes import adding, revoking
from tests.stores.records import NOON, key, organization, record

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
    waits: list[float | None] = []

    def wait(gen: Any, *_: Any, interval: float, timeout: float | None) -> None:
        waits.append(timeout)

    for name in ("wait", "wait_conn"):
        monkeypatch.setattr(f"psycopg.waiting.{name}", wait)
    connection = PostgresConnection.__new__(PostgresConnection)
    connection.pgconn = SimpleNamespace(socket=0, status=ConnStatus.BAD)  # type: ignore[assignment]
    exchange: Any = None
    with within(0.25):
        connection.wait(exchange)
        clock[0] += 0.2
        connection.wait(exchange)
        assert list(PostgresConnection._connect_gen()) == []
        clock[0] += 1
        connection.wait(exchange)
    connection.wait(exchange)
    assert waits == [pytest.approx(0.25), *[pytest.approx(0.05)] * 2, 0.0, None]


def test_pymysql_reads_no_certificates_that_it_does_not_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(**_: Any) -> ssl.SSLContext:
        raise AssertionError("it reads them")

    monkeypatch.setattr("ssl.create_default_context", read)
    connection = MySqlConnection(defer_connect=True)
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
        assert patience() == 250
        clock[0] += 0.15
        assert patience() == 110
        clock[0] += 1
        assert patience() == 0
    assert patience() == 5000
    connection.close()


# Operations, stepped by hand


class Lost(Exception):
    """What a driver might raise."""


def lost() -> DBAPIError:
    return OperationalError("SELECT", {}, Lost(), connection_invalidated=True)


class Rows:
    """What a database might answer: no row, and that it did what it was told."""

    rowcount = 1

    def __init__(self, *rows: Any) -> None:
        self.rows = rows

    def all(self) -> Any:
        return self.rows

    def first(self) -> Any:
        return None

    def scalars(self) -> Any:
        return self.rows


class Standing:
    """A row that says that a key stands as it was read."""

    id = key().id
    version = 1


def answered(flow: Any, answers: list[Any]) -> Any:
    """Step a flow, and return the first step that there is no answer for."""
    step = next(flow)
    for answer in answers:
        step = flow.send(answer)
    return step


REVOKED = (None, 1, Rows(Standing()), Rows(), Rows(), None)
"""Answers to a commit: begun, claimed, looked at, changed, entered, told."""


@pytest.mark.parametrize("statements", range(len(REVOKED)))
def test_a_connection_lost_before_the_commit_may_be_tried_again(statements: int) -> None:
    flow = operations.commit(revoking(key(), NOON)).flow()
    answered(flow, [*REVOKED[:statements]])
    with pytest.raises(ConnectionLost):
        flow.throw(lost())


def test_a_connection_lost_at_the_commit_is_not_tried_again() -> None:
    flow = operations.commit(revoking(key(), NOON)).flow()
    assert answered(flow, [*REVOKED]) is Connection.commit
    with pytest.raises(OperationalError):
        flow.throw(lost())


def test_what_was_changed_behind_keyguard_s_back_is_rolled_back() -> None:
    flow = operations.commit(revoking(key(), NOON)).flow()
    none = Rows()
    none.rowcount = 0
    assert answered(flow, [*REVOKED[:3], none]) is Connection.rollback
    assert flow.send(None) is Connection.commit  # of nothing
    with pytest.raises(StopIteration) as end:
        flow.send(None)
    assert end.value.value is False


@pytest.mark.parametrize("new", [record(), organization()])
def test_a_violation_that_no_row_explains_stays_an_error(new: Any) -> None:
    flow = operations.commit(adding(new)).flow()
    answered(flow, [None, 1, *([Rows(Owner())] if new == record() else [])])
    step = flow.throw(IntegrityError("INSERT", {}, Lost()))
    assert step is Connection.rollback
    step = flow.send(None)
    with pytest.raises(IntegrityError):
        while True:
            step = flow.send(Rows())


class Owner:
    """A row that says that an organization stands as it was read."""

    id = organization().id
    version = 1


def test_a_lookup_is_one_statement() -> None:
    flow = operations.find_key(key().id).flow()
    next(flow)
    with pytest.raises(StopIteration):
        flow.send(type("Nothing", (), {"one_or_none": lambda self: None})())


def test_a_lookup_of_what_can_be_no_key_asks_nothing() -> None:
    with pytest.raises(StopIteration) as end:
        next(operations.find_key("no key").flow())
    assert end.value.value is None


def test_a_change_is_not_tried_again_where_each_statement_is_committed() -> None:
    """On a host's engine a lost answer may hide a change that was made."""
    store = SqlStore(create_engine("sqlite://"))
    store._checked = True
    course = store._course(operations.commit(revoking(key(), NOON)))
    next(course)
    with pytest.raises(StoreError):
        course.throw(ConnectionLost())


def test_a_look_up_is_tried_again_everywhere() -> None:
    store = SqlStore(create_engine("sqlite://"))
    store._checked = True
    course = store._course(operations.find_key(key().id))
    first = next(course)
    assert course.throw(ConnectionLost()) is first
    course.close()
