"""How long a request waits for counters that fail, and when they count again."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks import calls, contestants
from keyguard import AsyncKeyguard, Keyguard
from keyguard.adapters import asgi, wsgi
from keyguard.runtime.events import Event, LimiterRecovered
from tests.services import MariaDB, PostgreSQL, RedisServer, running

__all__ = ["CALLERS", "OUTAGE", "Outage", "measure"]

OUTAGE = 1.5
"""Seconds for which the store of counters does not answer."""

_Gone: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Makes the store stop answering while it is entered."""

CALLERS = 4
"""How many send requests at once."""

_PAUSE = 0.002
_RATE = "1000000/hour"
_PATIENCE = 10.0


@dataclass
class Outage:
    """What callers felt of one outage.

    Args:
        longest: Seconds of the longest request among those that began before the store was back.
        hits: How many requests there were.
        recovered: Seconds from the store's return until it counted again.
    """

    longest: float = 0.0
    hits: int = 0
    recovered: float = 0.0


def measure() -> dict[str, dict[str, Outage]]:
    """Stop stores and let them go on, while several callers send requests that are counted there.

    Returns:
        What the callers felt, by what happened and by flavour.
    """
    # The collector's passes over all the frameworks that this process has imported take 30 to 70
    # ms. They would be mistaken for waiting.
    gc.collect()
    gc.freeze()
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        redis = stack.enter_context(running(RedisServer))
        postgresql = stack.enter_context(running(PostgreSQL))
        mariadb = stack.enter_context(running(MariaDB))
        ways: dict[str, tuple[tuple[str, str], _Gone]] = {
            "Redis is stopped": (redis.create_database(), redis.suspended),
            "Redis is killed": (redis.create_database(), lambda: _killed(redis)),
            "Redis is read-only": (redis.create_database(), lambda: _read_only(redis)),
            "PostgreSQL is stopped": (postgresql.create_database(), postgresql.suspended),
            "MariaDB is stopped": (mariadb.create_database(), mariadb.suspended),
        }
        return {
            name: {"sync": _felt(urls[0], gone), "async": asyncio.run(_afelt(urls[1], gone))}
            for name, (urls, gone) in ways.items()
        }


@contextmanager
def _killed(server: RedisServer) -> Generator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def _read_only(server: RedisServer) -> Generator[None]:
    server.call("REPLICAOF", "127.0.0.1", "1")
    yield
    server.call("REPLICAOF", "NO", "ONE")


class _Watch:
    """The times of requests and of the recovery."""

    def __init__(self) -> None:
        self.hits: list[tuple[float, float]] = []
        self.recovered = threading.Event()
        self.recovered_at = 0.0
        self.over = False

    def hook(self, event: Event) -> None:
        if isinstance(event, LimiterRecovered):
            self.recovered_at = time.monotonic()
            self.recovered.set()

    def outage(self, gone: _Gone) -> Outage:
        """Stop the store for a while, and return what was felt, once it counts again."""
        try:
            time.sleep(OUTAGE / 3)
            with gone():
                time.sleep(OUTAGE)
            back = time.monotonic()
            if not self.recovered.wait(_PATIENCE):
                raise RuntimeError(f"the store did not count again within {_PATIENCE:g} seconds")
        finally:
            self.over = True
        longest = max(ended - began for began, ended in self.hits if began < back)
        return Outage(longest, len(self.hits), self.recovered_at - back)


def _felt(url: str, gone: _Gone) -> Outage:
    watch = _Watch()
    with Keyguard("memory://", limiter=url, hooks=[watch.hook], default_limits=[_RATE]) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        token = guard.keys.issue(organization="acme", name="caller").token.reveal()
        app = wsgi.KeyguardMiddleware(contestants.wsgi_app, guard)
        request = calls.wsgi(app, [f"Bearer {token}"])

        def work() -> None:
            while not watch.over:
                began = time.monotonic()
                request(1)
                watch.hits.append((began, time.monotonic()))
                time.sleep(_PAUSE)

        callers = [threading.Thread(target=work) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            return watch.outage(gone)
        finally:
            for caller in callers:
                caller.join()


async def _afelt(url: str, gone: _Gone) -> Outage:
    watch = _Watch()
    options: dict[str, Any] = {"limiter": url, "hooks": [watch.hook], "default_limits": [_RATE]}
    async with AsyncKeyguard("memory://", **options) as guard:
        await guard.migrate()
        await guard.organizations.create("acme")
        issued = await guard.keys.issue(organization="acme", name="caller")
        app = asgi.KeyguardMiddleware(contestants.asgi_app, guard)
        request = calls.one_asgi(app, f"Bearer {issued.token.reveal()}")

        async def work() -> None:
            while not watch.over:
                began = time.monotonic()
                await request()
                watch.hits.append((began, time.monotonic()))
                await asyncio.sleep(_PAUSE)

        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(work())
            return await asyncio.to_thread(watch.outage, gone)
