"""Lists that few rows meet are found by an index of theirs, and not by reading all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.requests import OPEN, RequestFilter
from keyguard.stores.sql.tables import KEYS
from tests.stores.changes import asking
from tests.stores.conftest import Kept
from tests.stores.records import NOON, key, organization, record, request

ACME = organization().id

LISTS: list[tuple[str, Callable[[Any], Any]]] = [
    (
        f"ix_keyguard_{index}",
        lambda store, m=method, w=wanted, a=after: getattr(store, m)(w, after=a, limit=2),
    )
    for index, method, wanted, after in (
        ("keys_organization_id", "list_keys", KeyFilter(organization=ACME), key(5).id),
        ("keys_owner", "list_keys", KeyFilter(organization=ACME, owner="ann"), None),
        ("keys_owner", "list_keys", KeyFilter(owner="ann"), None),
        ("keys_name", "list_keys", KeyFilter(organization=ACME, search="key"), key(5).id),
        (
            "requests_organization_id",
            "list_requests",
            RequestFilter(at=NOON, organization=ACME),
            request(5).id,
        ),
        (
            "requests_open",
            "list_requests",
            RequestFilter(at=NOON, organization=ACME, statuses=OPEN),
            None,
        ),
        ("requests_open_until", "list_requests", RequestFilter(at=NOON, statuses=OPEN), None),
        (
            "requests_requester",
            "list_requests",
            RequestFilter(at=NOON, organization=ACME, requester="ann", statuses=OPEN),
            None,
        ),
        ("requests_requester", "list_requests", RequestFilter(at=NOON, requester="ann"), None),
    )
]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, kept: Kept) -> tuple[Any, str]:
    """A store with some keys and requests."""
    return kept(request.param, "sync", fill), request.param


def fill(store: Any) -> None:
    store.add_organization(organization())
    for number in range(1, 9):
        store.add_key(record(number))
        assert store.commit(asking(request(number))) is True


ENDED = 3


def fill_with_many(store: Any) -> None:
    """Add many keys of which few have ended, each in another way."""
    store.add_organization(organization())
    store.add_key(record(1))
    engine = store.database.reads
    with engine.begin() as connection:
        first = dict(connection.execute(KEYS.select()).mappings().one())
        keys = [
            first | {"id": key(number).id, "created_at": NOON - timedelta(minutes=number)}
            for number in range(2, 3000)
        ]
        for ended, stop in zip(
            keys[::1000], ("revoked_at", "expires_at", "grace_ends_at"), strict=True
        ):
            ended[stop] = NOON
        for live in keys[1::2]:
            live["expires_at"] = NOON + timedelta(days=9)
        for revoked in keys[3::100]:
            revoked["revoked_at"] = NOON + timedelta(days=8)
        connection.execute(KEYS.insert(), keys)
    analyze = "ANALYZE" if engine.dialect.name in ("sqlite", "postgresql") else "ANALYZE TABLE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"{analyze} {KEYS}")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # SQLite reads each key once for all pages, in the order in which they list them.
        ("sqlite", "ix_keyguard_keys_created_at"),
        ("postgresql", "BitmapOr"),
        ("mariadb", "sort_union(ix_keyguard_keys_"),
    ],
)
def test_the_few_keys_that_ended_are_found_without_reading_all(
    kept: Kept, kind: str, expected: str
) -> None:
    store = kept(kind, "sync", fill_with_many)
    wanted = KeyFilter(ended_before=NOON + timedelta(days=1))
    asked, plan = planned(store, lambda: store.list_keys(wanted, after=None, limit=200))

    assert len(asked.items) == ENDED
    assert expected in plan
    assert kind == "sqlite" or "ix_keyguard_keys_revoked_at" in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_digests_are_listed_by_the_id_and_not_through_all_that_are_not_revoked(
    kept: Kept, kind: str
) -> None:
    store = kept(kind, "sync", fill_with_many)
    _, plan = planned(store, lambda: store.list_digests(after=key(1500).id, limit=200))

    assert "'ref'" not in plan
    assert any(
        name in plan for name in ("PRIMARY", "keyguard_keys_pkey", "autoindex_keyguard_keys")
    )


@pytest.mark.parametrize(("index", "ask"), LISTS, ids=range(len(LISTS)))
def test_a_list_uses_its_index(
    index: str, ask: Callable[[Any], Any], store: tuple[Any, str]
) -> None:
    backend, kind = store
    # It would read small tables whole.
    off = ("enable_seqscan", "enable_bitmapscan") if kind == "postgresql" else ()
    _, plan = planned(backend, lambda: ask(backend), off)

    # Which index PostgreSQL takes, it decides by how many rows there are: here few.
    assert (index if kind == "sqlite" else "Index Scan") in plan
    assert "SCAN keyguard" not in plan


def planned(store: Any, ask: Callable[[], Any], off: Sequence[str] = ()) -> tuple[Any, str]:
    """Return what a question gives, and the database's plan for its last statement.

    Args:
        store: The store.
        ask: The question.
        off: The ways to read a table that PostgreSQL may not take.
    """
    engine, sent = store.database.reads, []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        found = ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        for way in off:
            connection.exec_driver_sql(f"SET {way} = off")
        statement, values = sent[-1]
        plan = str(connection.exec_driver_sql(explain + statement, values).fetchall())
        for way in off:
            connection.exec_driver_sql(f"RESET {way}")
    return found, plan
