"""A burst of one key is counted exactly, and is no outage for the others, on real servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pymysql  # type: ignore[import-untyped]  # it has no types
import pytest
from sqlalchemy.engine import make_url

from keyguard import AsyncKeyguard, Keyguard, Limit
from keyguard.adapters import asgi, wsgi
from keyguard.runtime.events import LimiterFailed
from tests.adapters.stacks import Request, call_wsgi
from tests.stores.conftest import Database, make_database

BURST, LIMIT, VICTIMS = 100, 20, 15
PATIENT = {
    "store_timeout": 60.0,
    "limiter_timeout": 60.0,
    "on_limiter_error": "closed",
    "failure_limit": None,
}
"""A busy machine is not what these tests are about; any failure of a call would be a 503."""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return make_database(request.param, request, tmp_path, migrated=True)


def again_and_again(test: Callable[..., None]) -> Any:
    """Make ten bursts in a campaign, and one in the suite."""
    turns = pytest.mark.parametrize("turn", range(10))
    return pytest.mark.campaign("sqlite-0", "postgresql-0", "mariadb-0", "redis-0")(turns(test))


def limited_to(count: int) -> list[Limit]:
    return [Limit("lasting", f"{count}/year")]  # which ends in next to no run of the tests


def ok(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def issued(guard: Keyguard, limits: dict[str, int]) -> dict[str, bytes]:
    """Issue a key for an organization of each name, with a limit."""
    guard.migrate()
    tokens = {}
    for name, limit in limits.items():
        guard.organizations.create(name)
        key = guard.keys.issue(organization=name, name=name, limits=limited_to(limit))
        tokens[name] = key.token.reveal().encode()
    return tokens


def allowed(statuses: list[int]) -> tuple[int, int]:
    """Return how many requests were let in, and how many were refused by a limit."""
    return statuses.count(200), statuses.count(429)


@again_and_again
def test_threads_that_come_at_once_are_admitted_to_the_unit(database: Database, turn: int) -> None:
    del turn
    told: list[Any] = []
    with Keyguard(database.url, hooks=[told.append], **PATIENT) as guard:
        tokens = issued(guard, {"a": LIMIT, "b": 1000})

        guarded = wsgi.KeyguardMiddleware(ok, guard)

        def ask(name: str) -> Any:
            return call_wsgi(guarded, Request(authorization=(b"Bearer " + tokens[name],)))

        for name in tokens:
            ask(name)  # their keys are known from now on
        together = threading.Barrier(BURST + VICTIMS)

        def at_once(name: str) -> Any:
            together.wait(60)
            return ask(name)

        with ThreadPoolExecutor(BURST + VICTIMS) as pool:
            burst = [pool.submit(at_once, "a") for _ in range(BURST)]
            others = [pool.submit(at_once, "b") for _ in range(VICTIMS)]
            attacker = [future.result() for future in burst]
            victim = [future.result() for future in others]
    assert allowed([answer.status for answer in attacker]) == (LIMIT - 1, BURST - LIMIT + 1)
    assert allowed([answer.status for answer in victim]) == (VICTIMS, 0)
    # Each was counted by the store, and only once.
    remaining = {answer.header("ratelimit").split(";")[1] for answer in victim}
    assert remaining == {f"r={999 - number}" for number in range(1, VICTIMS + 1)}
    assert not any(isinstance(event, LimiterFailed) for event in told)


@again_and_again
def test_tasks_that_come_at_once_are_admitted_to_the_unit(database: Database, turn: int) -> None:
    del turn
    told: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run() -> dict[str, list[int]]:
        async with AsyncKeyguard(database.async_url, hooks=[told.append], **PATIENT) as guard:
            await guard.migrate()
            tokens = {}
            for name, limit in (("a", LIMIT), ("b", 1000)):
                await guard.organizations.create(name)
                issued = await guard.keys.issue(
                    organization=name, name=name, limits=limited_to(limit)
                )
                tokens[name] = issued.token.reveal().encode()
            guarded = asgi.KeyguardMiddleware(app, guard)

            async def ask(name: str) -> int:
                statuses: list[int] = []

                async def send(message: Any) -> None:
                    statuses.append(message.get("status", 0))

                headers = [(b"authorization", b"Bearer " + tokens[name])]
                scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
                await guarded({**scope, "client": ("192.0.2.1", 1)}, _nothing, send)
                return statuses[0]

            names = ["a"] * BURST + ["b"] * VICTIMS
            statuses = await asyncio.gather(*map(ask, names))
            return {
                name: [status for status, of in zip(statuses, names, strict=True) if of == name]
                for name in tokens
            }

    statuses = asyncio.run(run())
    assert allowed(statuses["a"]) == (LIMIT, BURST - LIMIT)
    assert allowed(statuses["b"]) == (VICTIMS, 0)
    assert not any(isinstance(event, LimiterFailed) for event in told)


async def _nothing() -> Any:
    raise AssertionError("nobody reads the body")


@pytest.fixture
def holder(database: Database) -> Iterator[Any]:
    """A connection of another program to the database."""
    url = make_url(database.url)
    if database.kind == "postgresql":
        connection: Any = psycopg.connect(
            host=url.query["host"], user=url.username, dbname=url.database
        )
    elif database.kind == "mariadb":
        connection = pymysql.connect(
            unix_socket=url.query["unix_socket"], user=url.username, database=url.database
        )
    else:
        pytest.skip("it has no locks of rows")
    yield connection
    connection.close()


@pytest.mark.campaign("postgresql", "redis")
def test_a_bucket_that_somebody_holds_is_no_outage_for_the_others(
    database: Database, holder: Any
) -> None:
    told: list[Any] = []
    impatient = {**PATIENT, "limiter_timeout": 1.0}
    with Keyguard(database.url, hooks=[told.append], **impatient) as guard:
        tokens = issued(guard, {"a": 1_000_000, "b": 1_000_000})

        guarded = wsgi.KeyguardMiddleware(ok, guard)

        def ask(name: str) -> int:
            return call_wsgi(guarded, Request(authorization=(b"Bearer " + tokens[name],))).status

        assert [ask("a"), ask("b")] == [200, 200]
        organization = guard.organizations.get("a").id
        with holder.cursor() as cursor:
            # By its id, so that no gap beside it is locked.
            cursor.execute("SELECT id FROM keyguard_counters")
            (held,) = [row[0] for row in cursor.fetchall() if organization in row[0]]
            holder.rollback()
            cursor.execute("SELECT id FROM keyguard_counters WHERE id = %s FOR UPDATE", (held,))
            assert len(cursor.fetchall()) == 1
        with ThreadPoolExecutor(8) as pool:
            burst = [pool.submit(ask, "a") for _ in range(8)]
            while not all(future.done() for future in burst):
                assert ask("b") == 200
            assert [future.result() for future in burst] == [503] * 8
        assert ask("b") == 200
        holder.rollback()
        assert [ask("a"), ask("b")] == [200, 200]
