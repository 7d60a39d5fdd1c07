"""The connections to a Redis: on which event loop, how many, how far, and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keyguard import Allow, AsyncKeyguard
from keyguard.stores.opening import open_async_store
from tests.links import Link
from tests.loops import event_loop
from tests.services import RedisServer, until
from tests.stores.conftest import opened
from tests.stores.records import key, organization, record

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)
PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 60.0}


class Way:
    """A Redis that holds one key, and a link to it.

    Args:
        server: The server.
    """

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.direct, _ = server.create_database()
        store = opened("sync", self.direct, None)  # type: ignore[arg-type]  # needs no event loop
        store.migrate()
        store.add_organization(organization())
        store.add_key(record())
        store.close()
        self.link = Link(("127.0.0.1", server.port))
        self.url = self.direct.replace(str(server.port), str(self.link.port))

    @property
    def open_now(self) -> int:
        """How many connections to the database are open."""
        database = f" db={self.direct.rpartition('/')[2]} "
        clients: bytes = self.server.call("CLIENT", "LIST")
        return clients.decode().count(database)


@pytest.fixture
def way(redis: RedisServer) -> Iterator[Way]:
    way = Way(redis)
    yield way
    way.link.close()


# Event loops


class Loops:
    """Two event loops that live at the same time, on threads of their own."""

    def __init__(self) -> None:
        self._runners = [asyncio.Runner() for _ in range(2)]
        self._loops = [runner.get_loop() for runner in self._runners]
        self._threads = [threading.Thread(target=loop.run_forever) for loop in self._loops]
        for thread in self._threads:
            thread.start()

    def run(self, number: int, call: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loops[number]).result()

    def close(self) -> None:
        for loop, thread, runner in zip(self._loops, self._threads, self._runners, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.close()


@pytest.fixture
def loops() -> Iterator[Loops]:
    loops = Loops()
    yield loops
    loops.close()


@WATCHDOG
def test_event_loops_that_take_turns_keep_their_connections(way: Way, loops: Loops) -> None:
    store = open_async_store(way.url)
    for _ in range(5):
        for number in range(2):
            assert loops.run(number, store.find_key(key().id)) == record()
    assert way.link.opened == 2
    loops.run(0, store.aclose())
    until(lambda: way.open_now == 0)
    assert loops.run(1, store.find_key(key().id)) == record()  # a store that is used again opens
    loops.run(0, store.aclose())
    until(lambda: way.open_now == 0)


@WATCHDOG
def test_a_guard_serves_several_event_loops_at_once(way: Way, loops: Loops) -> None:
    guard = AsyncKeyguard(way.url, **PATIENT)

    async def issue() -> str:
        issued = await guard.keys.issue(organization="acme-1", name="ci")
        return issued.token.reveal()

    token = loops.run(0, issue())

    def requests(number: int) -> list[Any]:
        ask = [f"Bearer {token}"]
        return [loops.run(number, guard.authenticate(ask, fresh=True)) for _ in range(20)]

    with ThreadPoolExecutor(2) as threads:
        for decisions in threads.map(requests, range(2)):
            assert all(isinstance(decision, Allow) for decision in decisions)
    assert way.link.opened <= 2 * 2  # a pool and a feed for each loop
    for number in range(2):
        loops.run(number, guard.aclose())
    until(lambda: way.open_now == 0)


@WATCHDOG
def test_connections_end_with_their_event_loop(way: Way) -> None:
    store = open_async_store(way.url)
    for _ in range(3):
        with event_loop() as runner:
            assert runner.run(store.find_key(key().id)) == record()
        until(lambda: way.open_now == 0)
    assert way.link.opened == 3
