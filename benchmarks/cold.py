"""What a key that the process has not seen costs, beside one SELECT of its row by primary key.

The SELECT goes through the very engine that the guard looks the key up with, so it takes a
connection from the same pool and gives it back likewise. In memory there is no SELECT; there the
hand-written middleware's whole request is the measure.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from time import perf_counter, thread_time
from typing import Any

from sqlalchemy import Engine, MetaData, Table, bindparam, select
from sqlalchemy.pool import PoolProxiedConnection

from benchmarks import calls, contestants
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import Burst, Series, race
from keyguard import AsyncKeyguard, IssuedKey, Keyguard
from keyguard.adapters import asgi, wsgi
from tests.services import PostgreSQL, running

__all__ = ["measure"]

KEYS = 500
MOST_TIMES_SELECT = 2.0
BEFORE = {"SQLite": "7.4", "PostgreSQL": "3.7"}
IN_MEMORY_BEFORE = {"sync": 41.7, "async": 37.7}
"""The whole request in memory, in hand-written requests, before the redesign."""

MOST_OF_BEFORE = 0.8
SCOPE = "inference:read"


def measure(loop: asyncio.AbstractEventLoop, settings: dict[str, Any]) -> Section:
    """Send a different live key in every request, with nothing remembered.

    Args:
        loop: Where async code runs.
        settings: The guards' settings.
    """
    forgetful = settings | {"cache_size": 0}
    rows: list[list[str]] = []
    verdicts: list[Verdict] = []
    for flavour, found in _in_memory(loop, forgetful).items():
        ratio = found["keyguard"] / found["hand-written"]
        name = f"memory, {flavour}"
        rows.append([name, found["keyguard"].spell(1), f"hand-written, {ratio}"])
        before = IN_MEMORY_BEFORE[flavour]
        verdicts.append(
            Verdict(
                f"cold, {name}: at most {MOST_OF_BEFORE} of {before:.1f} hand-written requests",
                ratio.median,
                MOST_OF_BEFORE * before,
                str(ratio),
                f"{before:.1f}",
            )
        )
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgresql = stack.enter_context(running(PostgreSQL)).create_database()
        urls = {"SQLite": (f"sqlite:///{folder}/keys.db",) * 2, "PostgreSQL": postgresql}
        for store, (url, async_url) in urls.items():
            found = _in_sql(loop, url, async_url, forgetful, waits=store != "SQLite")
            ratio = found["sync"] / found["SELECT"]
            rows.append([f"{store}, SELECT by primary key", found["SELECT"].spell(1)])
            rows.append([f"{store}, sync", found["sync"].spell(1), f"SELECT, {ratio}"])
            rows.append([f"{store}, async", found["async"].spell(1)])
            verdicts.append(
                Verdict(
                    f"cold, {store}, sync: at most {MOST_TIMES_SELECT:g} times one SELECT of the "
                    "row by its primary key",
                    ratio.median,
                    MOST_TIMES_SELECT,
                    str(ratio),
                    BEFORE[store],
                )
            )
    return Section(table(["cold", "µs per request", "ratio to"], rows), verdicts)


def _in_memory(
    loop: asyncio.AbstractEventLoop, settings: dict[str, Any]
) -> dict[str, dict[str, Series]]:
    with Keyguard("memory://", **settings) as guard:
        issued = _issue(guard)
        hand_wsgi = contestants.HandWrittenWsgi(contestants.wsgi_app, _known(issued))
        guarded_wsgi = wsgi.KeyguardMiddleware(contestants.wsgi_app, guard)
        bursts = {
            "hand-written": calls.wsgi(hand_wsgi, _fields(issued)),
            "keyguard": calls.wsgi(guarded_wsgi, _fields(issued)),
        }
        found = {"sync": race(bursts)}
    async_guard = AsyncKeyguard("memory://", **settings)
    issued = loop.run_until_complete(_aissue(async_guard))
    hand = contestants.HandWrittenAsgi(contestants.asgi_app, _known(issued))
    guarded = asgi.KeyguardMiddleware(contestants.asgi_app, async_guard)
    bursts = {
        "hand-written": calls.asgi(loop, hand, _fields(issued)),
        "keyguard": calls.asgi(loop, guarded, _fields(issued)),
    }
    found["async"] = race(bursts)
    loop.run_until_complete(async_guard.aclose())
    return found


def _in_sql(
    loop: asyncio.AbstractEventLoop,
    url: str,
    async_url: str,
    settings: dict[str, Any],
    *,
    waits: bool,
) -> dict[str, Series]:
    async_guard = AsyncKeyguard(async_url, **settings)
    try:
        with Keyguard(url, **settings) as guard:
            guard.migrate()
            issued = _issue(guard)
            fields = _fields(issued)
            app = wsgi.KeyguardMiddleware(contestants.wsgi_app, guard)
            sync = calls.wsgi(app, fields, waits=waits)
            async_app = asgi.KeyguardMiddleware(contestants.asgi_app, async_guard)
            return race(
                {
                    "SELECT": _selecting(
                        _engine_of(guard, sync), [key.key.id for key in issued], waits=waits
                    ),
                    "sync": sync,
                    "async": calls.asgi(loop, async_app, fields, waits=True),
                }
            )
    finally:
        loop.run_until_complete(async_guard.aclose())


def _engine_of(guard: Keyguard, burst: Burst) -> Engine:
    """Return the engine that a request's look-up takes its connection from.

    A listener to the class ``Engine`` would find it, too. But the class would keep a mark that it
    has listeners: every later SELECT would ask for them at each step, and take a quarter longer.
    """
    store: Any = guard._ports._raw
    engine: Engine = store._awaited.database.reads
    connect, lent = engine.pool.connect, itertools.count()

    def counted() -> PoolProxiedConnection:
        next(lent)
        return connect()

    engine.pool.connect = counted  # type: ignore[method-assign]
    try:
        burst(1)
    finally:
        del engine.pool.connect
    if not next(lent):
        raise RuntimeError("a cold request took no connection from the engine that looks keys up")
    return engine


def _selecting(engine: Engine, ids: Sequence[str], *, waits: bool) -> Burst:
    clock = perf_counter if waits else thread_time
    keys = Table("keyguard_keys", MetaData(), autoload_with=engine)
    statement = select(keys).where(keys.c.id == bindparam("id"))

    def burst(size: int) -> float:
        begin = clock()
        for key_id in itertools.islice(itertools.cycle(ids), size):
            with engine.connect() as connection:
                connection.execute(statement, {"id": key_id}).one()
        return clock() - begin

    return burst


def _issue(guard: Keyguard) -> list[IssuedKey]:
    guard.organizations.create("acme")
    return [
        guard.keys.issue(organization="acme", name=f"key {n}", scopes=[SCOPE]) for n in range(KEYS)
    ]


async def _aissue(guard: AsyncKeyguard) -> list[IssuedKey]:
    await guard.organizations.create("acme")
    return [
        await guard.keys.issue(organization="acme", name=f"key {n}", scopes=[SCOPE])
        for n in range(KEYS)
    ]


def _known(issued: Sequence[IssuedKey]) -> dict[str, str]:
    return {sha256(key.token.reveal().encode()).hexdigest(): "acme" for key in issued}


def _fields(issued: Sequence[IssuedKey]) -> list[str]:
    return [f"Bearer {key.token.reveal()}" for key in issued]
