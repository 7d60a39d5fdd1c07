"""Measure the stores as they are in production, and print the tables of docs/stores.md.

``python -m benchmarks.production`` starts servers of its own on this machine. A distance is a proxy
that delays what passes.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.report import table
from keyguard import AsyncKeyguard, Keyguard, KeyguardError, Limit, StoreUnavailableError
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.runtime.deadlines import awithin, within
from keyguard.stores.opening import open_async_store, open_store
from tests.links import Link
from tests.services import (
    MariaDB,
    PgBouncer,
    PostgreSQL,
    PostgresStandby,
    RedisPair,
    RedisServer,
    running,
)
from tests.stores.test_sql_distance import address, through

WAYS = (0.0, 0.001, 0.005, 0.02, 0.08)
CALLS = 15
THREADS = 4
SECONDS = 5.0
BURST, ADMITTED, VICTIMS = 100, 20, 15
LONG: dict[str, Any] = {"store_timeout": 60.0, "limiter_timeout": 60.0, "failure_limit": None}


def charge(amount: int) -> Charge:
    """Return what a hit counts."""
    return Charge("k:{far}:x", "x", amount, 3600, Strategy.FIXED_WINDOW, enforce=True, cost=1)


@contextmanager
def distant(server: Any) -> Generator[tuple[str, Link]]:
    """Make a store with one key, and a link to it; give its URL by way of the link."""
    _, url = server.create_database()
    redis = url.startswith("redis")
    link = Link(("127.0.0.1", server.port) if redis else address(url))
    linked = url.replace(str(server.port), str(link.port)) if redis else through(url, link)
    try:
        yield linked, link
    finally:
        link.close()


async def timed(call: Callable[[], Any]) -> float:
    """Return the milliseconds that a call takes."""
    began = time.perf_counter()
    async with awithin(30.0):
        await call()
    return (time.perf_counter() - began) * 1000


async def at_distance(url: str, link: Link, way: float) -> list[str]:
    """Return what a first look-up, a look-up and a hit take."""
    link.delay = way
    store = open_async_store(url)
    counters: Any = store.counters(owned=False)  # type: ignore[attr-defined]  # these stores count
    trips = link.trips
    first = await timed(lambda: store.find_key("0" * 16))
    opening = link.trips - trips - 1
    for _ in range(3):
        await timed(lambda: counters.hit([charge(10**6)]))
    look_ups, hits = [], []
    for _ in range(CALLS):
        look_ups.append(await timed(lambda: store.find_key("0" * 16)))
        hits.append(await timed(lambda: counters.hit([charge(10**6)])))
    link.delay = 0.0
    await store.aclose()
    medians = [f"{statistics.median(calls):.1f}" for calls in (look_ups, hits)]
    return [f"{first:.0f} ({opening} round trips)", *medians]


def distances() -> str:
    """Measure calls at distances."""
    rows = []
    for kind in (PostgreSQL, MariaDB, RedisServer):
        with running(kind) as server, distant(server) as (url, link):
            with Keyguard(url.replace("asyncmy", "pymysql")) as guard:
                guard.migrate()
            for way in WAYS:
                cells = asyncio.run(at_distance(url, link, way))
                rows.append([server.name, f"{way * 1000:.0f} ms", *cells])
    head = ["store", "each way", "first look-up, ms (opening)", "look-up, ms", "hit, ms"]
    return table(head, rows)


def work(url: str) -> Counter[str]:
    """Look keys up and count hits for a time, on threads; return what became of them."""
    ends = time.monotonic() + SECONDS
    store: Any = open_store(url)
    counters = store.counters(owned=False)
    with Keyguard(url) as guard:
        known = guard.keys.list(organization="acme").items[0].id

    def call() -> Counter[str]:
        seen: Counter[str] = Counter()
        while time.monotonic() < ends:
            try:
                with within(0.25):
                    found = store.find_key(known)
                    seen["found" if found is not None else "not found"] += 1
                    counters.hit([charge(10**6)])
                    seen["counted"] += 1
            except KeyguardError:
                seen["failed"] += 1
        return seen

    with ThreadPoolExecutor(THREADS) as threads:
        seen = sum(
            (each.result() for each in [threads.submit(call) for _ in range(THREADS)]), Counter()
        )
    store.close()
    return seen


def poolers() -> str:
    """Measure PostgreSQL through a pooler in transaction mode, and without one."""
    rows = []
    with running(PostgreSQL) as server, running(partial(PgBouncer, server)) as pooler:
        for name, source in (("direct", server), ("PgBouncer", pooler)):
            url, _ = source.create_database()
            with Keyguard(url) as guard:
                guard.migrate()
                guard.organizations.create("acme")
                guard.keys.issue(organization="acme", name="one")
            seen = work(url)
            kinds = ("found", "not found", "counted", "failed")
            rows.append([name, *(f"{seen[kind] / SECONDS:.0f}" for kind in kinds)])
    head = ["connection", "found a second", "not found", "counted", "failed"]
    return table(head, rows)


async def burst(url: str) -> tuple[list[bool], list[bool], float]:
    """Send one key's requests at once, with another's among them."""
    async with AsyncKeyguard(url, on_limiter_error="closed", **LONG) as guard:
        breaker: Any = guard.breaker
        at_once = [charge(ADMITTED)] * BURST
        other = charge(10**6)._replace(key="k:{other}:x")
        await breaker.hit([other])
        began = time.perf_counter()
        outcomes = await asyncio.gather(
            *(breaker.hit([each]) for each in [*at_once, *[other] * VICTIMS])
        )
        took = (time.perf_counter() - began) * 1000
        passed = [outcome is not None and outcome.admitted for outcome in outcomes]
        return passed[:BURST], passed[BURST:], took


def bursts() -> str:
    """Measure a burst of one key on each store."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (None, PostgreSQL, MariaDB, RedisServer):
            with running(kind or RedisServer) as server:
                url = server.create_database()[1] if kind else f"sqlite:///{folder}/keys.db"
                with Keyguard(url.replace("asyncmy", "pymysql")) as guard:
                    guard.migrate()
                one, other, took = asyncio.run(burst(url))
                name = server.name if kind else "sqlite"
                rows.append(
                    [name, f"{sum(one)} of {BURST}", f"{sum(other)} of {VICTIMS}", f"{took:.0f}"]
                )
    return table(["store", "admitted of the burst", "of the others", "all within, ms"], rows)


def until_made(call: Callable[[], Any]) -> float:
    """Return the milliseconds until a call succeeds."""
    began = time.perf_counter()
    while True:
        try:
            call()
        except StoreUnavailableError:
            continue
        return (time.perf_counter() - began) * 1000


def failovers() -> str:
    """Measure how long a process needs after a failover."""
    rows = []
    with running(RedisPair) as servers:
        link = Link(("127.0.0.1", servers.primary.port))
        rows.append(
            [
                "Redis",
                *_taken_over(f"redis://127.0.0.1:{link.port}/0", partial(_swap, servers, link)),
            ]
        )
        link.close()
    with running(PostgreSQL) as server:
        url, _ = server.create_database()
        with Keyguard(url) as guard:
            guard.migrate()
        link = Link(address(url))
        with running(partial(PostgresStandby, server)) as standby:
            rows.append(
                ["PostgreSQL", *_taken_over(through(url, link), partial(_promote, standby, link))]
            )
        link.close()
    return table(["store", "first look-up after it, ms", "first change after it, ms"], rows)


def _swap(servers: RedisPair, link: Link) -> None:
    servers.replica.call("REPLICAOF", "NO", "ONE")
    servers.primary.call("REPLICAOF", "127.0.0.1", str(servers.replica.port))
    link.lead_to(("127.0.0.1", servers.replica.port))  # what is open still leads to the former one


def _promote(standby: PostgresStandby, link: Link) -> None:
    standby.execute("SELECT pg_promote()")
    link.lead_to(f"{standby.sockets}/.s.PGSQL.5432")
    link.cut()  # the former primary is gone
    link.mend()


def _taken_over(url: str, fail_over: Callable[[], None]) -> list[str]:
    with Keyguard(url, max_staleness=0, **LONG) as guard:
        guard.migrate()
        guard.organizations.create("acme", limits=[Limit("hour", "1000/hour")])
        keys = [guard.keys.issue(organization="acme", name="one").key for _ in range(2)]
        guard.keys.get(keys[0].id)
        time.sleep(1)  # for replication
        fail_over()
        found = until_made(lambda: guard.keys.get(keys[0].id))
        changed = until_made(lambda: guard.keys.revoke(keys[1].id))
    return [f"{found:.1f}", f"{changed:.1f}"]


if __name__ == "__main__":
    for measure in (poolers, distances, bursts, failovers):
        print(f"## {measure.__name__}\n\n{measure()}\n", flush=True)
