"""Stores of counters of every kind and flavour, called alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete

from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.redis import AsyncRedisStore, RedisStore
from keyguard.stores.redis.counters import AsyncRedisRateLimiter, RedisRateLimiter
from keyguard.stores.sql import AsyncSqlStore, SqlStore, counters
from keyguard.stores.sql.counters import AsyncSqlRateLimiter, SqlRateLimiter
from keyguard.stores.sql.tables import COUNTERS
from tests.loops import event_loop
from tests.stores.conftest import Database, make_database
from tests.world import StandingClock

KINDS = ("memory", "sqlite", "postgresql", "mariadb", "redis", "redis_cluster", "redis_sentinel")


LASTING = 10**9
"""Seconds of a window that ends in no run of the tests, though a server's clock counts it."""


def charge(
    number: int = 1, *, owner: str = "org_1", window: int = LASTING, **fields: Any
) -> Charge:
    strategy = fields.get("strategy", "")
    default: dict[str, Any] = {
        "key": f"keyguard:{{{owner}}}:limit:{strategy}:{window}:{number}",
        "name": f"limit-{number}",
        "amount": 10,
        "window": window,
        "strategy": Strategy.SLIDING_WINDOW_COUNTER,
        "enforce": True,
        "cost": 1,
    }
    return Charge(**default | fields)


def limiter_of(backend: Any, **options: Any) -> Any:
    """Return a limiter of a backend's kind and flavour, which closes the backend with itself."""
    if isinstance(backend, SqlStore):
        return SqlRateLimiter(backend.database, owned=True, **options)
    if isinstance(backend, AsyncSqlStore):
        return AsyncSqlRateLimiter(backend.database, owned=True, **options)
    kind: Any = {RedisStore: RedisRateLimiter, AsyncRedisStore: AsyncRedisRateLimiter}[
        type(backend)
    ]
    return kind(backend.port, owned=True, **options)


WHENEVER = 9e9
"""Until when it can be given back, where that is no matter."""


@dataclass
class Store:
    """A store of counters on a clock that stands, whatever its flavour."""

    clock: StandingClock
    limiter: Any
    call: Callable[[Callable[[], Any]], Any]

    def hit(self, *charges: Charge) -> Any:
        return self.call(lambda: self.limiter.hit(charges))

    def adjust(self, charges: list[Charge], units: list[int], ends_at: float = WHENEVER) -> Any:
        ends = [ends_at] * len(charges)
        return self.call(lambda: self.limiter.adjust(charges, units, ends))

    def remaining(self, one: Charge) -> int:
        left: int = self.adjust([one], [0]).tallies[0].remaining
        return left

    def sweep(self) -> None:
        if hasattr(self.limiter, "sweep"):  # Redis sweeps by itself
            self.call(self.limiter.sweep)


@pytest.fixture(autouse=True)
def sweeps_begin_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no sweep begin by chance: it would hold locks while the event loop rests."""
    monkeypatch.setattr(counters, "random", SimpleNamespace(randrange=lambda _: 0))


@pytest.fixture
def clock() -> StandingClock:
    clock = StandingClock()
    clock.uptime = clock.now.timestamp() // 86400 * 86400.0
    return clock


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def emptied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Database]:
    """Return a database of a kind that has tables and counts nothing, the same for all tests."""
    made: dict[str, Database] = {}

    def get(kind: str) -> Database:
        is_new = kind not in made
        if is_new:
            made[kind] = make_database(kind, request, tmp_path_factory.mktemp(kind))
        if kind.startswith("redis"):
            made[kind].server.flush()
            return made[kind]
        with closing(made[kind].backend()) as backend:
            if is_new:
                limiter_of(backend).migrate()
            with backend.database.writes.begin() as connection:
                connection.execute(delete(COUNTERS))
        return made[kind]

    return get


@pytest.fixture
def made(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Make the database of a test."""
    return lambda: make_database(kind, request, tmp_path)


@pytest.fixture
def store(
    kind: str, flavour: str, clock: StandingClock, made: Callable[[], Database]
) -> Iterator[Store]:
    """An empty store of counters."""
    if kind == "memory":
        memory = MemoryRateLimiter(clock=clock)
        yield Store(clock, memory, lambda call: call())
        memory.close()
        return
    database = made()
    if flavour == "sync":
        limiter = limiter_of(open_store(database.url), now=clock.monotonic)
        limiter.migrate()
        yield Store(clock, limiter, lambda call: call())
        limiter.close()
        return
    with event_loop() as runner:

        def awaited(call: Callable[[], Any]) -> Any:
            async def on_the_loop() -> Any:
                return await call()

            return runner.run(on_the_loop())

        async def opened() -> Any:
            return limiter_of(open_async_store(database.async_url), now=clock.monotonic)

        other = runner.run(opened())
        awaited(other.migrate)
        yield Store(clock, other, awaited)
        awaited(other.aclose)
