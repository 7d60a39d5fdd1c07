"""The connections to a Redis: on which event loop, how many, how far, and for how long."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from keyguard import Allow, AsyncKeyguard, Keyguard
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import Patience, awithin, within
from keyguard.runtime.sync import run_sync
from keyguard.stores.opening import open_async_store, open_store
from tests.links import Link
from tests.loops import event_loop
from tests.services import RedisServer, running, until
from tests.stores.conftest import Plain, opened
from tests.stores.records import key, organization, record
from tests.stores.test_redis_tls import TlsServer

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)
PATIENCE = 30.0
CHARGE = Charge("k:{far}:x", "x", 1000, 3600, Strategy.FIXED_WINDOW, enforce=True, cost=1)
PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 60.0}


@pytest.fixture(autouse=True)
def openings_are_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no other connection opened because a busy machine opens one slowly."""
    monkeypatch.setattr("keyguard.runtime.connecting._SOON", math.inf)


class Way:
    """A Redis that holds one key, and a link to it.

    Args:
        server: The server.
        url: A database of it.
        port: The server's port in the URL.
    """

    def __init__(self, server: RedisServer, url: str, port: int) -> None:
        self.server = server
        self.direct = url
        store = opened("sync", self.direct, None)  # type: ignore[arg-type]  # needs no event loop
        store.migrate()
        store.add_organization(organization())
        store.add_key(record())
        store.find_key(key().id)  # so that the server knows the script
        store.close()
        self.link = Link(("127.0.0.1", port))
        self.url = url.replace(str(port), str(self.link.port))

    @property
    def open_now(self) -> int:
        """How many connections to the database are open."""
        database = f" db={self.direct.rpartition('/')[2].partition('?')[0]} "
        clients: bytes = self.server.call("CLIENT", "LIST")
        return clients.decode().count(database)


@pytest.fixture
def way(redis: RedisServer) -> Iterator[Way]:
    way = Way(redis, redis.create_database()[0], redis.port)
    yield way
    way.link.close()


@pytest.fixture
def tls_way() -> Iterator[Way]:
    with running(TlsServer) as server:
        url = server.secured(ssl_ca_certs=server.authority.certificate)
        way = Way(server, url, server.tls_port)
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
    assert way.link.opened <= 2 * 2  # one that is used and one that is kept ready
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
    assert way.link.opened <= 3 * 2  # those, and the feed's
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


# Distance


class Far:
    """A store and its counters, called with a deadline as guards do, in either flavour.

    Args:
        flavour: The flavour.
        url: Where the store is.
        runner: The event loop of async calls.
        options: What opens the store takes more.
    """

    def __init__(self, flavour: str, url: str, runner: asyncio.Runner, **options: Any) -> None:
        self._runner = runner if flavour == "async" else None
        open_any: Any = open_async_store if self._runner else open_store
        self.store: Any = open_any(url, **options)
        self.counters = self.store.counters(owned=False)

    def call(self, seconds: float, call: Callable[[], Any]) -> Any:
        if self._runner is None:
            with within(seconds):
                return call()

        async def awaited() -> Any:
            async with awithin(seconds):
                return await call()

        try:
            return self._runner.run(awaited())
        except TimeoutError as late:
            raise StoreUnavailableError("late") from late

    def lender(self) -> Any:
        """Return what lends the connections of the store."""

        async def lender() -> Any:
            return self.store.port.open().connection_pool.lender

        return run_sync(lender()) if self._runner is None else self._runner.run(lender())

    def find(self, seconds: float) -> Any:
        return self.call(seconds, lambda: self.store.find_key(key().id))

    def hit(self, seconds: float) -> Any:
        return self.call(seconds, lambda: self.counters.hit([CHARGE]))

    def pause(self) -> None:
        """Let what was begun beside the calls go on."""
        if self._runner is None:
            time.sleep(0.01)
        else:
            self._runner.run(asyncio.sleep(0.01))

    def settle(self) -> None:
        """Wait until no connection is being opened."""
        while self.lender()._begun:
            self.pause()

    def comes_to(self, call: Callable[[float], Any], seconds: float) -> Any:
        """Call until it is answered in time; the test's watchdog bounds it."""
        while True:
            try:
                return call(seconds)
            except StoreUnavailableError:
                self.pause()

    def close(self) -> None:
        if self._runner is None:
            self.store.close()
        else:
            self._runner.run(self.store.aclose())


@pytest.fixture
def far(flavour: str, runner: asyncio.Runner) -> Iterator[Callable[..., Far]]:
    opened: list[Far] = []

    def open_far(url: str, **options: Any) -> Far:
        opened.append(Far(flavour, url, runner, **options))
        return opened[-1]

    yield open_far
    for there in opened:
        there.close()


@WATCHDOG
@pytest.mark.campaign("sync-plain-0.02", "async-plain-0.02", "sync-tls-0.02", "async-tls-0.02")
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("distance", [0.001, 0.005, 0.02, 0.08])
def test_a_redis_at_a_distance_comes_to_work_and_stays_so(
    kind: str, distance: float, far: Callable[..., Far], request: pytest.FixtureRequest
) -> None:
    way: Way = request.getfixturevalue("way" if kind == "plain" else "tls_way")
    way.link.delay = distance
    there = far(way.url)
    enough = 3 * distance + 0.02  # for a round trip, and not for opening a connection too
    assert there.comes_to(there.find, enough) == record()
    assert there.comes_to(there.hit, enough).admitted
    there.settle()
    opened = way.link.opened
    for _ in range(5):
        assert there.find(PATIENCE) == record()
        assert there.hit(PATIENCE).admitted
    assert way.link.opened - opened <= 1  # the one that is kept ready


@WATCHDOG
def test_a_connection_that_comes_too_late_serves_the_next_call(
    way: Way, far: Callable[..., Far]
) -> None:
    way.link.delay = 0.1
    there = far(way.url)
    with pytest.raises(StoreUnavailableError):
        there.find(0.05)
    way.link.delay = 0.0
    assert there.find(PATIENCE) == record()
    assert there.find(PATIENCE) == record()
    assert way.link.opened <= 2  # the late one, and one to be kept


@WATCHDOG
def test_a_warm_look_up_and_a_hit_are_one_round_trip_each(
    way: Way, far: Callable[..., Far]
) -> None:
    there = far(way.url)
    for call in (there.find, there.hit):
        for _ in range(3):  # until one is kept ready, and the script is known
            call(PATIENCE)
        there.settle()
        before = way.link.trips
        call(PATIENCE)
        assert way.link.trips - before == 1


@WATCHDOG
@pytest.mark.parametrize("kind", ["way", "tls_way"])
def test_a_new_connection_takes_few_round_trips_before_its_first_use(
    kind: str, far: Callable[..., Far], request: pytest.FixtureRequest
) -> None:
    way: Way = request.getfixturevalue(kind)
    there = far(way.url)
    assert there.find(PATIENCE) == record()
    assert way.link.opened == 1
    assert way.link.trips <= 4 + 1  # beside that of TCP; the look-up is the last


@WATCHDOG
def test_a_way_that_is_cut_and_mended_is_got_over(way: Way, far: Callable[..., Far]) -> None:
    there = far(way.url)
    assert there.find(PATIENCE) == record()
    way.link.cut()
    with pytest.raises(StoreUnavailableError):
        there.find(PATIENCE)
    way.link.mend()
    assert there.comes_to(there.find, PATIENCE) == record()


@WATCHDOG
def test_where_no_thread_can_be_started_the_call_opens_its_connection(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    store = open_store(way.direct)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert store.find_key(key().id) == record()
    store.close()


@WATCHDOG
def test_what_is_opened_as_a_store_is_closed_is_closed_too(
    way: Way, far: Callable[..., Far]
) -> None:
    way.link.delay = 0.1
    there = far(way.url)
    with pytest.raises(StoreUnavailableError):
        there.find(0.05)
    there.close()
    until(lambda: way.link.opened == 1)
    until(lambda: way.open_now == 0)


@WATCHDOG
@WATCHDOG
def test_a_call_that_waits_as_the_store_is_closed_is_told_at_once(flavour: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/1"
        if flavour == "sync":
            store: Any = open_store(url)
            lender = store.port.open().connection_pool.lender
            with ThreadPoolExecutor(1) as threads:
                asked = threads.submit(store.find_key, key().id)
                until(lambda: lender.waiting)
                store.close()
                with pytest.raises(StoreUnavailableError, match="were closed"):
                    asked.result(PATIENCE)
            return

        async def run() -> None:
            store: Any = open_async_store(url)
            lender = store.port.open().connection_pool.lender
            asked = asyncio.create_task(store.find_key(key().id))
            await asyncio.sleep(0)
            assert lender.waiting
            await store.aclose()
            with pytest.raises(StoreUnavailableError, match="were closed"):
                await asked

        asyncio.run(run())


def test_concurrent_calls_get_a_connection_each_and_keep_them(way: Way) -> None:
    store = Plain(open_store(way.url))
    for _ in range(2):
        calls: list[Any] = [lambda store: store.find_key(key().id)] * 60
        assert store.together(calls) == [record()] * 60
    assert way.link.opened <= 50
    store.close()
    until(lambda: way.open_now == 0)


@WATCHDOG
def test_the_feed_has_a_connection_ready_also_after_a_failure(
    way: Way, far: Callable[..., Far]
) -> None:
    there = far(way.url)
    feed = there.store.feed()

    def read(seconds: float) -> Any:
        return there.call(seconds, lambda: feed.read(None, 0))

    for _ in range(2):
        while way.open_now < 1 + 1:  # the feed's, and one for whoever calls
            there.comes_to(read, PATIENCE)
            there.pause()
        opened = way.link.opened
        assert there.find(PATIENCE) == record()
        assert way.link.opened <= opened + 1  # for the next call
        way.link.cut()
        with pytest.raises(StoreUnavailableError):
            read(PATIENCE)
        way.link.mend()
    there.call(PATIENCE, getattr(feed, "aclose", None) or feed.close)


# Age


@WATCHDOG
def test_a_connection_that_is_old_is_replaced(
    way: Way, far: Callable[..., Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = far(way.url, patience=Patience(max_age=60.0))
    for _ in range(3):
        assert there.find(PATIENCE) == record()
    while len(there.lender()._ready) < 2:  # one is kept ready
        there.pause()
    assert way.link.opened == 2
    later = time.monotonic() + 61
    with monkeypatch.context() as patched:
        for module in ("runtime.connecting", "stores.redis.lending"):
            patched.setattr(f"keyguard.{module}.time", SimpleNamespace(monotonic=lambda: later))
        assert there.find(PATIENCE) == record()
    assert way.link.opened > 2
    while way.open_now > 2:  # on an event loop a connection closes as the loop goes on
        there.pause()


def test_the_setting_of_the_age_reaches_a_redis() -> None:
    guard = Keyguard("redis://localhost", connection_max_age=7.0)
    store: Any = guard._store
    assert store.port._terms.max_age == 7.0


def test_openings_that_are_cancelled_before_they_begin_leave_their_places(
    way: Way, far: Callable[..., Far], runner: asyncio.Runner
) -> None:
    there = far(way.url)
    if there._runner is None:
        pytest.skip("threads begin at once")

    async def run() -> None:
        lender = there.store.port.open().connection_pool.lender
        for _ in range(3):
            lender._open_more(20)
            assert len(lender._begun) == 20
            await lender.aclose()
            assert not lender._begun
            assert not lender._opened_at

    there._runner.run(run())
    assert there.find(PATIENCE) == record()


@WATCHDOG
def test_where_calls_lose_what_was_opened_a_connection_is_kept_ready(
    way: Way, far: Callable[..., Far]
) -> None:
    there = far(way.url)

    run: Any = run_sync if there._runner is None else there._runner.run
    lent = there.lender()
    taken = [run(lent.take()) for _ in range(2)]
    for connection in taken:  # both were late, and come back closed

        async def lose(late: Any = connection) -> None:
            closing = late.disconnect()
            if closing is not None:
                await closing
            lent.give(late)

        run(lose())
    assert there.find(PATIENCE) == record()
    while len(lent._ready) < 2:
        there.pause()
    assert there.find(PATIENCE) == record()
