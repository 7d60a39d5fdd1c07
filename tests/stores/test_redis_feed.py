"""How a process follows what happens in Redis, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis as redis_py

from keyguard.exceptions import (
    ConfigurationError,
    CorruptDataError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)
from keyguard.stores.base import News
from tests.services import (
    RedisCluster,
    RedisSentinel,
    RedisServer,
    free_port,
    python,
    running,
    until,
)
from tests.stores.changes import adding
from tests.stores.conftest import Awaited, Plain, opened
from tests.stores.records import key, organization, record
from tests.stores.test_redis import close_client

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A read that does not come back ends with the test's own watchdog, but
# first with what a test waits for in vain.
WATCHDOG = pytest.mark.timeout(150, func_only=True)
STREAM = "keyguard:{store}:audit"
LONG = 600.0


def filled(url: str, flavour: str, runner: asyncio.Runner) -> Plain | Awaited:
    """Open a store that holds an organization."""
    store = opened(flavour, url, runner)
    store.migrate()
    store.add_organization(organization())
    return store


def while_reading(feed: Any, position: str, act: Callable[[], Any]) -> News:
    """Do something while a feed is read, and return what it tells.

    Where what is done waits in vain for a read that has failed, the failure of the read is told.
    """
    if not isinstance(feed, Awaited):
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(feed.read, position, LONG)
            try:
                act()
            except RuntimeError:
                if reading.done():
                    reading.result()
                feed.close()  # which ends the read
                raise
            return reading.result()

    async def read() -> News:
        task = asyncio.create_task(feed.backend.read(position, LONG))
        try:
            await asyncio.to_thread(act)
        except RuntimeError:
            if task.done():
                await task
            raise
        return await task

    return feed.runner.run(read())


def is_waited_at(server: RedisServer, readers: int = 1) -> bool:
    return f"blocked_clients:{readers}\r".encode() in server.call("INFO", "clients")


def started(server: RedisServer, readers: int = 1) -> None:
    until(lambda: is_waited_at(server, readers))


def opened_by(store: Plain | Awaited) -> Any:
    """Return the client that a store has opened."""

    async def client() -> Any:
        return store.backend.port.open()

    return store.runner.run(client()) if isinstance(store, Awaited) else store.backend.port.open()


def commit(url: str, *new: Any) -> None:
    store = opened("sync", url, None)  # type: ignore[arg-type]  # which needs no event loop
    assert store.commit(adding(*new)) is True
    store.close()


# What it tells


@WATCHDOG
def test_a_reader_that_waits_is_told_at_once(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    feed = store.feed()
    start = feed.read(None, LONG)

    def act() -> None:
        started(redis)
        commit(url, record(1), record(2))

    told = while_reading(feed, start.position, act)
    assert set(told.subjects or ()) == {key(1).id, key(2).id}
    assert feed.read(told.position, 0) == News(told.position, ())
    feed.close()
    store.close()


@pytest.mark.parametrize("kind", ["redis_cluster", "redis_sentinel", "client", "socket"])
@WATCHDOG
def test_a_feed_waits_wherever_the_store_is(
    kind: str, flavour: str, request: pytest.FixtureRequest, runner: asyncio.Runner
) -> None:
    if kind in ("client", "socket"):
        server: Any = request.getfixturevalue("redis")
        url, _ = server.create_database()
        servers = [server]
    else:
        server = request.getfixturevalue(kind)
        server.flush()
        url, servers = (
            server.url,
            server.servers[:3] if kind == "redis_cluster" else [server.primary],
        )
    target: Any = url
    if kind == "client":
        module = redis_py if flavour == "sync" else redis_py.asyncio
        target = module.Redis.from_url(url, decode_responses=True, socket_timeout=60.0)
    elif kind == "socket":
        target = f"redis+unix://{server.sockets}/redis?db={url.rpartition('/')[2]}"
    store = filled(target, flavour, runner)
    if kind == "client":  # from here on, as no connection can be opened within this
        impatient = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), 1e-9)
        target.connection_pool.connection_kwargs |= impatient
    feed = store.feed()
    position = feed.read(None, 0).position

    def act() -> None:
        until(lambda: any(is_waited_at(each) for each in servers))
        commit(url, record(1))

    assert while_reading(feed, position, act).subjects == (key(1).id,)
    feed.close()
    store.close()
    if kind == "client":
        close_client(target, runner)


@WATCHDOG
def test_a_reader_waits_no_longer_than_its_patience(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(redis.create_database()[0], flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    for patience in (0.02, 0.0001, 0, -1):
        assert feed.read(position, patience) == News(position, ())
    feed.close()
    store.close()


@WATCHDOG
def test_readers_take_no_connection_from_anybody(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    feeds = [store.feed() for _ in range(60)]
    position = feeds[0].read(None, 0).position

    def act() -> None:
        started(redis, 60)
        commit(url, record())

    readers = [getattr(feed, "backend", feed) for feed in feeds]
    calls = [lambda _, reader=reader: reader.read(position, LONG) for reader in readers]
    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(act)
        for told in store.together(calls):
            assert told.subjects == (key().id,)
        acting.result()
    for feed in feeds:
        feed.close()
    store.close()


# When the trail is a different one


def test_a_store_that_was_emptied_says_so(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(redis.create_database()[0], flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    redis.flush()
    for asked in (position, None):
        with pytest.raises(SchemaError, match="no keyguard store yet, or lost it"):
            feed.read(asked, LONG)
    store.migrate()
    told = feed.read(position, LONG)
    assert told.subjects is None
    assert feed.read(told.position, 0) == News(told.position, ())
    # Also where nothing had ever happened in it, nor has since.
    redis.flush()
    store.migrate()
    assert feed.read(told.position, LONG).subjects is None
    feed.close()
    store.close()


def test_a_trail_that_lost_where_a_reader_stood_may_have_lost_anything(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    feed = store.feed()
    before = feed.read(None, 0).position
    store.add_key(record(1))
    position = feed.read(before, 0).position
    with redis_py.Redis.from_url(url) as client:
        client.xdel(STREAM, position)  # as a promoted replica that had not got it yet
        assert feed.read(position, LONG) == News(before, None)
        assert feed.read(before, 0) == News(before, ())
        store.add_key(record(2))
        told = feed.read(position, LONG)
        assert told.subjects is None
        assert feed.read(told.position, 0) == News(told.position, ())
        client.delete(STREAM)
        assert feed.read(told.position, LONG) == News("0-0", None)
        assert feed.read("0-0", 0.01) == News("0-0", ())
        assert feed.read(None, 0) == News("0-0", ())
        store.add_key(record(3))
        assert feed.read("0-0", LONG).subjects is None
        client.delete(STREAM)
        client.set(STREAM, "x")
        with pytest.raises(CorruptDataError):
            feed.read("0-0", LONG)
    feed.close()
    store.close()


def test_a_malformed_position_is_an_error(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(redis.create_database()[0], flavour, runner)
    feed = store.feed()
    with pytest.raises(StoreError):
        feed.read("nonsense", 0)
    feed.close()
    store.close()


# When the server is gone


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_server_that_falls_silent_is_given_up_and_followed_again(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    with own_redis.suspended():
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="is down, slow or overloaded"):
                feed.read(position, 0.01)
    store.add_key(record())
    assert feed.read(position, LONG).subjects == (key().id,)
    feed.close()
    store.close()


@WATCHDOG
def test_a_server_that_dies_while_it_is_waited_for_is_followed_again(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position

    def act() -> None:
        started(own_redis)
        own_redis.kill()

    with pytest.raises(StoreUnavailableError, match="is down, slow or overloaded"):
        while_reading(feed, position, act)
    with pytest.raises(StoreUnavailableError):
        feed.read(position, LONG)
    own_redis.start()
    commit(own_redis.url, record())
    assert feed.read(position, LONG).subjects == (key().id,)
    feed.close()
    store.close()


@WATCHDOG
def test_a_primary_that_becomes_a_replica_is_left(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position

    def act() -> None:
        started(own_redis)
        own_redis.call("REPLICAOF", "127.0.0.1", str(free_port()))

    with pytest.raises(StoreUnavailableError):
        while_reading(feed, position, act)
    own_redis.call("REPLICAOF", "NO", "ONE")
    assert feed.read(position, 0) == News(position, ())
    feed.close()
    store.close()


@pytest.mark.campaign("sync-silent", "async-killed")
@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["killed", "silent"])
def test_the_replica_that_took_over_is_followed(
    how: str, flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisSentinel) as servers:
        store = filled(servers.url, flavour, runner)
        feed = store.feed()
        position = feed.read(None, 0).position
        until(lambda: servers.replica.call("XLEN", STREAM) == 2)

        def followed() -> News:
            while True:  # each read is given up in time
                with suppress(StoreUnavailableError):
                    told: News = feed.read(position, 0.2)
                    if told.subjects != ():
                        return told

        def has_taken_over() -> bool:
            with suppress(redis_py.ConnectionError):  # it drops its clients as it does
                return b"role:master" in servers.replica.call("INFO", "replication")
            return False

        def commit_in_the_end() -> None:
            until(has_taken_over)
            commit(servers.replica.url, record())

        if how == "killed":
            servers.primary.kill()
            commit_in_the_end()
            assert followed().subjects == (key().id,)
        else:
            with servers.primary.suspended():
                commit_in_the_end()
                assert followed().subjects == (key().id,)
        feed.close()
        store.close()


@pytest.mark.parametrize("layout", ["fresh", "stale", "in between"])
@WATCHDOG
def test_a_reader_follows_a_slot_that_moves(
    layout: str,
    flavour: str,
    redis_cluster: RedisCluster,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redis_cluster.flush()
    redis_cluster.settle()
    store = filled(redis_cluster.url, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    servers = redis_cluster.servers
    slot = str(servers[0].call("CLUSTER", "KEYSLOT", STREAM))
    source = next(s for s in servers if s.call("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(s for s in servers if s is not source)
    ids = {s: s.call("CLUSTER", "MYID").decode() for s in servers}

    def begin() -> None:
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        for name in source.call("KEYS", "*"):
            source.call("MIGRATE", "127.0.0.1", str(target.port), name.decode(), "0", "5000")

    def end() -> None:
        for server in (target, source, *servers):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        started(target)
        commit(redis_cluster.url, record())

    def act() -> None:
        if layout == "in between":
            until(lambda: b"errorstat_ASK:" in source.call("INFO", "errorstats"))
        else:
            started(source)
            begin()
        end()

    if layout == "in between":  # the reader comes when the trail is on neither node for good
        source.call("CONFIG", "RESETSTAT")
        begin()
    readings: list[int] = []
    if layout == "stale":  # read from a node that has not heard of the move, however often
        manager = opened_by(store).nodes_manager
        read = type(manager).initialize

        def read_in_vain(self: Any, *args: Any, **options: Any) -> Any:
            if self is not manager:
                return read(self, *args, **options)
            readings.append(1)
            return None if isinstance(store, Plain) else asyncio.sleep(0)

        monkeypatch.setattr(type(manager), "initialize", read_in_vain)
    told = while_reading(feed, position, act)
    assert told.subjects == (key().id,)
    assert bool(readings) is (layout == "stale")
    feed.close()
    store.close()
    for server in servers:  # as it was, for the next test
        server.flush()
    redis_cluster.assign(slot, source)


# Its end


@pytest.mark.parametrize("kind", ["redis", "redis_cluster", "redis_sentinel"])
@WATCHDOG
def test_closing_ends_a_read_that_is_under_way(
    kind: str, flavour: str, request: pytest.FixtureRequest, runner: asyncio.Runner
) -> None:
    server: Any = request.getfixturevalue(kind)
    url, _ = server.create_database()
    store = filled(url, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    servers = getattr(server, "servers", [server])
    servers = servers if kind == "redis_cluster" else servers[:1]

    def is_waiting() -> bool:
        return any(is_waited_at(each) for each in servers)

    until(lambda: not is_waiting())
    if isinstance(feed, Awaited):

        async def close_meanwhile() -> None:
            task = asyncio.create_task(feed.backend.read(position, LONG))
            await asyncio.to_thread(until, is_waiting)
            await feed.backend.aclose()
            with pytest.raises(StoreUnavailableError, match="was closed"):
                await task

        runner.run(close_meanwhile())
    else:

        def act() -> None:
            until(is_waiting)
            feed.close()

        with pytest.raises(StoreUnavailableError, match="was closed"):
            while_reading(feed, position, act)
    with pytest.raises(StoreUnavailableError, match="was closed"):
        feed.read(position, 0)
    feed.close()
    store.close()


@WATCHDOG
def test_closing_at_any_moment_harms_no_reader(redis: RedisServer, runner: asyncio.Runner) -> None:
    store = filled(redis.create_database()[0], "sync", runner)
    assert isinstance(store, Plain)
    position = store.backend.feed().read(None, 0).position
    for _ in range(200):
        feed = store.backend.feed()
        barrier = threading.Barrier(2)

        def read(feed: Any = feed, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(3):
                feed.read(position, 0.001)

        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(read)
            barrier.wait()
            feed.close()
            with suppress(StoreUnavailableError):
                reading.result()
    store.close()


@WATCHDOG
def test_a_reader_that_is_cancelled_leaves_nothing_open(
    redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(redis.create_database()[0], "async", runner)
    feed = store.backend.feed()

    async def cancel() -> None:
        position = (await feed.read(None, 0)).position
        task = asyncio.create_task(feed.read(position, LONG))
        await asyncio.to_thread(started, redis)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await feed.read(position, 0) == News(position, ())
        await feed.aclose()

    runner.run(cancel())
    until(lambda: is_waited_at(redis, 0))
    store.close()


def test_a_feed_works_on_after_a_fork(redis: RedisServer) -> None:
    code = """
import os, sys
from keyguard.stores.opening import open_store
from tests.stores.changes import adding
from tests.stores.records import organization
backend = open_store(sys.argv[1])
backend.migrate()
feed = backend.feed()
position = feed.read(None, 0).position
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    backend.commit(adding(organization()))
for _ in range(20):
    assert feed.read(position, 30).subjects == (organization().id,)
if child:
    print("done")
else:
    os._exit(0)
"""
    process = python(code, redis.create_database()[0])
    assert process.communicate()[0] == "done\n"


@WATCHDOG
def test_a_feed_works_on_after_a_fork_during_a_read(redis: RedisServer) -> None:
    code = """
import os, sys, threading
from contextlib import suppress
from keyguard.stores.opening import open_store
from tests.stores.changes import adding
from tests.stores.records import organization
backend = open_store(sys.argv[1])
backend.migrate()
feed = backend.feed()
position = feed.read(None, 0).position
def read():
    with suppress(Exception):  # closing ends it
        feed.read(position, 600)
threading.Thread(target=read, daemon=True).start()
sys.stdin.readline()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    feed.close()
    print("done")
else:
    backend.commit(adding(organization()))
    assert feed.read(position, 30).subjects == (organization().id,)
    os._exit(0)
"""
    process = python(code, redis.create_database()[0])
    started(redis)
    assert process.communicate("go\n")[0] == "done\n"


def test_under_trio_it_says_what_to_do() -> None:
    import trio

    from keyguard.stores.opening import open_async_store

    async def read() -> None:
        await open_async_store(f"redis://127.0.0.1:{free_port()}").feed().read(None, 0)

    with pytest.raises(ConfigurationError, match="need asyncio"):
        trio.run(read)
