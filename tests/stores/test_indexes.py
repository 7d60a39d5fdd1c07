"""Lists that few rows meet are found by an index of theirs, and not by reading all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.requests import OPEN, RequestFilter
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


@pytest.mark.parametrize(("index", "ask"), LISTS, ids=range(len(LISTS)))
def test_a_list_uses_its_index(
    index: str, ask: Callable[[Any], Any], store: tuple[Any, str]
) -> None:
    backend, kind = store
    engine, sent = backend.database.reads, []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        ask(backend)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if kind == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        if kind == "postgresql":  # it would read small tables whole
            for way in ("enable_seqscan", "enable_bitmapscan"):
                connection.exec_driver_sql(f"SET {way} = off")
        statement, values = sent[-1]
        plan = str(connection.exec_driver_sql(explain + statement, values).fetchall())
        if kind == "postgresql":
            for way in ("enable_seqscan", "enable_bitmapscan"):
                connection.exec_driver_sql(f"RESET {way}")

    # Which index PostgreSQL takes, it decides by how many rows there are: here few.
    assert (index if kind == "sqlite" else "Index Scan") in plan
    assert "SCAN keyguard" not in plan
