"""How long a page of keys takes in an organization that has a million.

Run ``python -m benchmarks.listing sqlite`` (or ``postgresql``), with another number of keys behind
it if wanted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, literal_column, text

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Organization
from keyguard.core.keys.requests import OPEN, RequestFilter
from keyguard.stores.sql import open_store
from keyguard.stores.sql.rows import organization_columns
from keyguard.stores.sql.tables import KEYS, ORGANIZATIONS, REQUESTS
from tests.services import PostgreSQL, running

NOW = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(days=3650)
ACME = Organization(id="org_0000000000000001", slug="acme", name="Acme", created_at=NOW)
OTHER = Organization(id="org_0000000000000002", slug="other", name="Other", created_at=NOW)
ROUNDS = 11
LIMIT = 100
TIDY = {"sqlite": "ANALYZE", "postgresql": "VACUUM ANALYZE"}
STARTS = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', 1700000000 + n, 'unixepoch')",
    "postgresql": "to_timestamp(1700000000 + n)",
}


def fill(store: Any, kind: str, keys: int) -> None:
    """Make keys, one in five hundred of them of another organization, and as many requests."""
    start, zeros = literal_column(STARTS[kind]), "'0000000000000000'"
    if kind == "sqlite":
        numbers = text("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT :m)")
        number = f"substr({zeros} || n, -16)"
        source = "s"
    else:
        numbers, number = text(""), "lpad(n::text, 16, '0')"
        source = "generate_series(1, :m) AS s(n)"
    owner = "CASE n % 500 WHEN 7 THEN 'org_0000000000000002' ELSE 'org_0000000000000001' END"
    rows = {
        "id": number,
        "family": f"'fam_' || {number}",
        "organization_id": owner,
        "name": f"'key ' || substr({number}, 15) || ' of ' || {number}",
        "scopes": "'models:read'",
        "created_at": str(start),
        "metadata": "'{}'",
        "digest": f"'$sha256$' || {number}",
        "owner": "'person ' || (n % 20000)",
        "version": "1",
    }
    asked = {
        "id": f"'req_' || {number}",
        "organization_id": owner,
        "requester": "'person ' || (n % 20000)",
        "name": "'key'",
        "asked": """'{"scopes": ["models:read"]}'""",
        "created_at": str(start),
        "pending_until": str(start),
        "state": "CASE WHEN n % 10000 = 9999 THEN 'pending' ELSE 'denied' END",
        "decided_by": "'[]'",
        "version": "1",
        "digest": "'$sha256$x'",
        "open_until": f"CASE WHEN n % 10000 = 9999 THEN {start} END",
    }
    with store.database.writes.connect() as connection:
        connection.execute(
            insert(ORGANIZATIONS), [organization_columns(one) for one in (ACME, OTHER)]
        )
        for table, columns in ((KEYS, rows), (REQUESTS, asked)):
            names, values = ", ".join(columns), ", ".join(columns.values())
            made = f"{numbers} INSERT INTO {table.name} ({names}) SELECT {values} FROM {source}"
            connection.execute(text(made), {"m": keys})
        connection.commit()
    with store.database.writes.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(TIDY[kind])


def questions(store: Any, keys: int) -> Iterator[tuple[str, Any]]:
    """Return what is asked: a name, and a function that returns a page."""

    def listed(after: int | None = None, **wanted: Any) -> Any:
        asked = KeyFilter(**{"organization": ACME.id} | wanted)
        behind = None if after is None else f"{after:016}"
        return lambda: store.list_keys(asked, after=behind, limit=LIMIT)

    middle = keys // 2 // 500 * 500
    yield "first page", listed()
    yield "page in the middle", listed(middle)
    yield "last page", listed(keys // 500 * 500 - LIMIT // 2)
    yield "first page of all organizations", listed(organization=None)
    yield "of an organization with few, its middle", listed(middle + 7, organization=OTHER.id)
    yield "of a person", listed(owner="person 77")
    yield "of a person in all organizations", listed(owner="person 77", organization=None)
    yield "names that begin with 'k', all", listed(search="k")
    yield "the same, in the middle", listed(middle, search="k")
    yield "names that begin with 'key 42', one in a hundred", listed(search="key 42")
    yield "names that begin with a whole one", listed(search=f"key 00 of {middle:016}")
    yield "no name begins so", listed(search="zebra")
    yield "ids that begin with ten digits", listed(search=f"{middle:016}"[:10])
    yield "an id", listed(search=f"{middle:016}")

    def requested(**wanted: Any) -> Any:
        asked = RequestFilter(
            **{"at": NOW - timedelta(days=3650), "organization": ACME.id} | wanted
        )
        return lambda: store.list_requests(asked, after=None, limit=LIMIT)

    yield "requests that are open", requested(statuses=OPEN)
    yield "open ones of all organizations", requested(statuses=OPEN, organization=None)
    yield "open ones of a person", requested(statuses=OPEN, requester="person 9999")
    yield "requests of a person", requested(requester="person 77")
    yield "first page of requests", requested()


def measure(kind: str, url: str, keys: int) -> None:
    store: Any = open_store(url)
    store.migrate()
    began = time.perf_counter()
    fill(store, kind, keys)
    print(f"{kind}: {keys} keys and requests made in {time.perf_counter() - began:.0f} s")
    for name, ask in questions(store, keys):
        took = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            page = ask()
            took.append(1000 * (time.perf_counter() - began))
        print(
            f"  {name}: {len(page)}, {statistics.median(took):.1f} ms ({min(took):.1f})", flush=True
        )
    store.close()


def main() -> None:
    wanted, keys = sys.argv[1], int(sys.argv[2] if sys.argv[2:] else 1_000_000)
    with ExitStack() as stack:
        if wanted == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            measure(wanted, f"sqlite:///{folder}/keys.db", keys)
            return
        url, _ = stack.enter_context(running(PostgreSQL)).create_database()
        measure(wanted, url, keys)


if __name__ == "__main__":
    main()
