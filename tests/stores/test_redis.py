"""Keys in Redis: URLs, clients, layout, faults, failovers and crashes."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from keyguard import Keyguard
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.lists import KeyFilter
from keyguard.exceptions import (
    ConfigurationError,
    CorruptDataError,
    NotDurableError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)
from keyguard.runtime.deadlines import within
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.redis import parse
from keyguard.stores.redis.clients import make_client, place_of
from keyguard.stores.redis.deployment import Topology
from tests.services import (
    RedisCluster,
    RedisSentinel,
    RedisServer,
    free_port,
    python,
    running,
    until,
)
from tests.stores.changes import adding, changing
from tests.stores.conftest import DEADLINE, Awaited, Plain, bounded, opened
from tests.stores.records import NOON, key, organization, record

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)
STORE = "keyguard:{store}:"
# What has a client not tell the server which driver it is, in the version of redis-py at hand.
SILENT: dict[str, Any] = dict.fromkeys(
    ["driver_info"] if hasattr(redis, "DriverInfo") else ["lib_name", "lib_version"]
)


def filled(target: Any, flavour: str, runner: asyncio.Runner) -> Plain | Awaited:
    """Open a store that holds an organization and a key."""
    store = opened(flavour, target, runner)
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    return store


def close_client(client: Any, runner: asyncio.Runner) -> None:
    """Close a client of redis-py, which is its owner's to close."""
    closing = getattr(client, "aclose", client.close)()
    if closing is not None:
        runner.run(closing)


def find(store: Any) -> Any:
    return store.find_key(key().id)


def revoke(store: Any) -> Any:
    return store.revoke_key(key().id, NOON, None)


# URLs and clients


@pytest.mark.parametrize(
    ("url", "topology", "nodes", "place"),
    [
        ("redis://", Topology.STANDALONE, None, None),
        ("redis://h", Topology.STANDALONE, [("h", 6379)], "redis://h:6379/0"),
        ("redis://:p%40ss@h:1/2", Topology.STANDALONE, [("h", 1)], "redis://h:1/2"),
        ("rediss://u:p@[::1]:1", Topology.STANDALONE, [("::1", 1)], "rediss://[::1]:1/0"),
        (
            "redis+sentinel://u:p@a,b:2/main/3?sentinel_password=s",
            Topology.SENTINEL,
            [("a", 26379), ("b", 2)],
            "redis+sentinel://a:26379,b:2/main/3",
        ),
        ("redis+cluster://a,b", Topology.CLUSTER, [("a", 6379), ("b", 6379)], None),
        ("rediss+cluster://a:7", Topology.CLUSTER, [("a", 7)], "rediss+cluster://a:7"),
        ("redis+unix:///run/r.sock?db=4", Topology.STANDALONE, [], "redis+unix:///run/r.sock"),
    ],
)
def test_a_url_says_where_the_server_is(
    url: str, topology: Topology, nodes: Any, place: Any
) -> None:
    if nodes is None and place is None:
        with pytest.raises(ConfigurationError, match="names a host"):
            parse(url)
        return
    deployment = parse(url)
    assert (deployment.topology, deployment.nodes) == (topology, tuple(nodes))
    assert place in (None, deployment.place)


def test_user_password_and_options_are_read_and_not_shown() -> None:
    deployment = parse(
        "rediss+sentinel://us%3Aer:hunt%2Fer2@a/main/3"
        "?sentinel_username=watch&sentinel_password=hunter3&ssl_check_hostname=false"
    )
    assert deployment.options == {
        "username": "us:er",
        "password": "hunt/er2",
        "db": 3,
        "ssl_check_hostname": False,
    }
    assert deployment.sentinel_options == {
        "username": "watch",
        "password": "hunter3",
        "ssl_check_hostname": False,
    }
    assert deployment.tls
    assert "hunt" not in repr(deployment) + deployment.place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://u:hunter2@a,b", "names one server"),
        ("redis://u:hunter2@h:port", "a host in the redis:// URL can't be read"),
        ("redis://u:hunter2@[::1", "can't be read"),
        ("redis://u:hunter2@h/one", "is a number"),
        ("redis://u:hunter2@h/1/2", "is a number"),
        ("redis://h?hunter2=1", "an option whose name is not shown here, which keyguard does not"),
        ("redis://h?lib_name=hunter2", "an option 'lib_name', which keyguard does not know"),
        ("redis://h?password=hunter2", "leave the option 'password' out .* a place of its own"),
        ("redis://h?socket_timeout=3", "'socket_timeout' .* ends by the settings store_timeout"),
        ("redis+cluster://h?health_check_interval=3", "'health_check_interval' .* each connection"),
        ("redis://h?socket_keepalive=hunter2", "'socket_keepalive' .* can't be read"),
        ("redis://h?client_name=", "'client_name' .* can't be read"),
        ("rediss://h?ssl_cert_reqs=hunter2", "'ssl_cert_reqs' .* can't be read"),
        ("rediss://h?ssl_min_version=hunter2", "'ssl_min_version' .* can't be read"),
        ("redis://h?ssl_ca_certs=hunter2", "'ssl_ca_certs' is for TLS, .* begin it with rediss://"),
        ("redis+unix:///r?socket_timeout=3", "'socket_timeout' .* ends by the settings"),
        ("redis+unix:///r?client_name=hunter2", "an option 'client_name', .* it takes db"),
        ("redis+cluster://u:hunter2@h/1", "a cluster has no databases"),
        ("redis+sentinel://u:hunter2@h", "names the service"),
        ("redis+nonsense://u:hunter2@h", "can't be read; one looks like redis://"),
        ("redis+unix://u:hunter2@h", "names a socket"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_secrets(url: str, says: str) -> None:
    for open_any in (open_store, open_async_store):
        with pytest.raises(ConfigurationError, match=says) as raised:
            open_any(url)
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_a_client_is_named_without_its_secrets(module: Any) -> None:
    password = "hunter2"
    client = module.Redis(host="h", port=7, db=2, password=password)
    assert place_of(client) == "redis://h:7/2"
    client = module.Redis(host="::1", ssl=True, password=password)
    assert place_of(client) == "rediss://[::1]:6379/0"
    assert place_of(module.Redis(unix_socket_path="/r.sock")) == "redis+unix:///r.sock"


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel])
def test_a_client_that_a_sentinel_made_is_named_by_the_sentinels(module: Any) -> None:
    sentinel = module.Sentinel([("a", 1), ("b", 2)], sentinel_kwargs={"password": "s"})
    client = sentinel.master_for("main", db=3, password="p")
    assert place_of(client) == "redis+sentinel://a:1,b:2/main/3"
    client = sentinel.master_for("main", ssl=True)
    assert place_of(client) == "rediss+sentinel://a:1,b:2/main/0"


@pytest.mark.parametrize("make", ["url", "client", "socket"])
def test_a_server_is_reached_in_every_way(
    make: str, flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    import redis as redis_py

    url, _ = redis.create_database()
    target: Any = url
    if make == "client" and flavour == "sync":
        target = redis_py.Redis.from_url(url, decode_responses=True, protocol=3)
    elif make == "client":
        target = redis_py.asyncio.Redis.from_url(url, decode_responses=True, protocol=3)
    elif make == "socket":
        target = f"redis+unix://{redis.sockets}/redis?db={url.rpartition('/')[2]}"
    store = opened(flavour, target, runner)
    store.migrate()
    store.add_organization(organization())
    assert store.find_organization("acme-1") == organization()
    store.close()
    if make == "client":
        close_client(target, runner)


def test_a_cluster_client_is_reached(
    flavour: str, redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    import redis as redis_py

    redis_cluster.flush()
    port = redis_cluster.servers[0].port
    if flavour == "sync":
        client: Any = redis_py.RedisCluster(host="127.0.0.1", port=port)
    else:
        client = redis_py.asyncio.RedisCluster(host="127.0.0.1", port=port)
    store = opened(flavour, client, runner)
    store.migrate()
    store.add_organization(organization())
    assert store.find_organization("acme-1") == organization()
    store.close()
    close_client(client, runner)


def client_for(flavour: str, url: str, **options: Any) -> Any:
    module = redis if flavour == "sync" else redis.asyncio
    return module.Redis.from_url(url, **options)


def test_a_client_is_used_and_left_open(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    client = client_for(flavour, own_redis.url, client_name="the-owners")
    store = filled(client, flavour, runner)
    assert find(store) == record()
    names = [
        line for line in own_redis.call("CLIENT", "LIST").splitlines() if b"name= " not in line
    ]
    assert {b"name=the-owners " in line for line in names} == {True}
    store.close()
    assert find(store) == record()
    close_client(client, runner)


@WATCHDOG
def test_a_client_that_tries_again_sends_no_change_twice(
    flavour: str, runner: asyncio.Runner
) -> None:
    received: list[bytes] = []

    def hang_up(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    received.append(connection.recv(100_000))

    retry = (Retry if flavour == "sync" else AsyncRetry)(NoBackoff(), 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        client = client_for(flavour, url, retry=retry, protocol=2, **SILENT)
        store = opened(flavour, client, runner)
        with pytest.raises(StoreUnavailableError):
            store.commit(adding(organization()))
        assert [b"EVALSHA" in command for command in received] == [True]
        store.close()
        close_client(client, runner)


@WATCHDOG
def test_a_client_waits_for_a_reply_no_longer_than_the_call_may(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    client = client_for(flavour, own_redis.url, socket_timeout=600)
    store = filled(client, flavour, runner)
    with own_redis.suspended(), pytest.raises(StoreUnavailableError):
        bounded(store, revoke)
    assert bounded(store, find, 60.0).key.id == key().id
    store.close()
    close_client(client, runner)


@WATCHDOG
@pytest.mark.parametrize("by", ["server", "socket", "sentinel"])
def test_a_client_with_redis_py_s_defaults_waits_for_a_silent_server_no_longer_than_the_call_may(
    by: str, tmp_path: Path, runner: asyncio.Runner
) -> None:
    path = str(tmp_path / "redis")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.socket(socket.AF_UNIX) as silent_socket,
    ):
        silent_socket.bind(path)
        silent_socket.listen()
        port = silent.getsockname()[1]
        client: Any = {
            "server": lambda: redis.Redis(port=port),
            "socket": lambda: redis.Redis(unix_socket_path=path),
            "sentinel": lambda: redis.sentinel.Sentinel([("127.0.0.1", port)]).master_for("main"),
        }[by]()
        store = opened("sync", client, runner)
        for call in (find, revoke):
            with pytest.raises(StoreUnavailableError, match="is down, slow or overloaded"):
                bounded(store, call)
        feed: Any = store.backend.feed()
        with within(DEADLINE), pytest.raises(StoreUnavailableError):
            feed.read(None, 0)
        feed.close()
        store.close()


@WATCHDOG
def test_a_cluster_client_waits_for_silent_nodes_no_longer_than_the_call_may(
    redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    client = redis.RedisCluster(host="127.0.0.1", port=redis_cluster.servers[0].port)
    store = filled(client, "sync", runner)
    with redis_cluster.suspended(), pytest.raises(StoreUnavailableError):
        bounded(store, find)
    store.close()
    client.close()


@pytest.mark.parametrize("is_cluster", [False, True])
def test_a_client_s_own_options_are_kept(is_cluster: bool, redis_cluster: RedisCluster) -> None:
    options: dict[str, Any] = {"client_name": "the-owners", "protocol": 3, "decode_responses": True}
    if is_cluster:
        port = redis_cluster.servers[0].port
        client: Any = redis.RedisCluster(host="127.0.0.1", port=port, **options)
    else:
        client = redis.Redis(host="h", username="user", password="p", ssl=True, db=0, **options)
    made: Any = make_client(client)
    pool = (
        made.get_nodes()[0].redis_connection.connection_pool if is_cluster else made.connection_pool
    )
    connection = pool.connection_class(**pool.connection_kwargs)
    assert connection.client_name == "the-owners"
    assert connection.retry_on_error == []
    if not is_cluster:
        assert isinstance(connection, redis.SSLConnection)
        assert (connection.host, connection.username, connection.password) == ("h", "user", "p")
    client.close()
    made.close()


def test_a_client_of_the_other_flavour_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"one of redis\.asyncio is for AsyncKeyguard"):
        open_store(redis.asyncio.Redis())
    with pytest.raises(ConfigurationError, match="one of redis is for Keyguard"):
        open_async_store(redis.Redis())


# Layout


def test_an_empty_server_is_refused_instead_of_calling_every_key_unknown(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(redis.create_database()[0], flavour, runner)
    assert find(store) == record()
    redis.flush()
    with pytest.raises(SchemaError, match="no keyguard store yet, or lost it"):
        find(store)
    store.close()


def test_a_store_of_another_version_is_refused(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    with client_of(url) as client:
        client.set(f"{STORE}schema", "99")
    for call in (find, lambda store: store.migrate()):
        with pytest.raises(SchemaError, match="version '99'"):
            call(store)
    store.close()


def client_of(url: str) -> Any:
    import redis as redis_py

    return redis_py.Redis.from_url(url, decode_responses=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c, k: c.hset(k, "scopes", 'a "b"'), "keyguard did not write the record"),
        (lambda c, k: c.hset(k, "created_at", "yesterday"), "keyguard did not write the record"),
        (lambda c, k: c.hset(k, "metadata", "[" * 10_000), "keyguard did not write the record"),
        (lambda c, k: c.hdel(k, "digest"), "it has no digest"),
        (lambda c, k: c.hset(k, "name", b"\xff"), "keyguard did not write the record"),
        (lambda c, k: c.hset(k, "organization", organization(9).id), "its organization is missing"),
        (lambda c, k: c.delete(k) and c.set(k, "x"), "that keyguard never wrote"),
    ],
)
def test_a_corrupt_record_is_an_error_and_not_an_unknown_key(
    spoil: Any, says: str, flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    with client_of(url) as client:
        spoil(client, f"{STORE}key:{key().id}")
    with pytest.raises(CorruptDataError, match=says):
        find(store)
    store.close()


def test_an_index_without_a_record_is_passed_over(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()
    store = filled(url, flavour, runner)
    for number in (2, 3, 4):
        store.add_key(record(number))
    with client_of(url) as client:
        client.delete(f"{STORE}key:{key(2).id}", f"{STORE}key:{key(3).id}")
        client.hset(f"{STORE}slugs", "acme-7", "org_of_a_crash")
    page = store.list_keys(KeyFilter(), after=None, limit=2)
    assert [item.id for item in page] == [key(1).id, key(4).id]
    assert page.next is None
    store.add_organization(organization(7))
    assert store.find_organization("acme-7") == organization(7)
    store.close()


# Faults


@WATCHDOG
def test_a_trail_that_takes_no_more_entries_leaves_nothing_half_done(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    last = f"{2**64 - 1}-{2**64 - 1}"
    with redis.Redis.from_url(own_redis.url) as client:
        client.xadd(f"{STORE}audit", {"made": "2"}, id=last)

    with pytest.raises(StoreError):
        revoke(store)
    assert find(store) == record()
    store.close()


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_server_that_is_silent_is_given_up_in_time(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    with own_redis.suspended():
        for call in (find, revoke, find):
            with pytest.raises(StoreUnavailableError):
                bounded(store, call)
    assert bounded(store, find, 60.0).key.id == key().id
    store.close()


@pytest.mark.campaign("sync")
@pytest.mark.parametrize("target", ["url", "client"])
@pytest.mark.parametrize("start", [b"$9999999\r\n", b"+"])
@WATCHDOG
def test_a_server_whose_reply_never_ends_is_given_up_in_time(
    flavour: str, runner: asyncio.Runner, start: bytes, target: str
) -> None:
    def reply_for_ever(server: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(1)
                connection.sendall(start)
                while True:
                    connection.sendall(b"1")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=reply_for_ever, args=(server,), daemon=True).start()
        url: Any = f"redis://127.0.0.1:{server.getsockname()[1]}"
        client = client_for(flavour, url, protocol=2, **SILENT)
        store = opened(flavour, url if target == "url" else client, runner)
        with pytest.raises(StoreError):
            bounded(store, find)
        store.close()
        close_client(client, runner)


@WATCHDOG
def test_a_late_reply_never_answers_another_call(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    store.add_key(record(2))
    with own_redis.suspended(), pytest.raises(StoreUnavailableError):
        bounded(store, find)
    for _ in range(3):
        assert bounded(store, lambda store: store.find_key(key(2).id), 60.0).key.id == key(2).id
    store.close()


@WATCHDOG
def test_a_server_that_was_restarted_is_found_again(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = filled(own_redis.url, flavour, runner)
    own_redis.kill()
    with pytest.raises(StoreUnavailableError, match="is down, slow or overloaded"):
        bounded(store, find)
    own_redis.start()
    assert bounded(store, find, 60.0) == record()
    own_redis.kill()
    own_redis.start()
    for _ in range(5):  # an event loop sees in passing that a connection ended
        runner.run(asyncio.sleep(0))
    assert bounded(store, revoke, 60.0).revoked_at == NOON
    store.close()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("maxmemory", "1", "is out of memory"),
        ("min-replicas-to-write", "1", "has too few replicas"),
        ("requirepass", "hunter2", "does not let keyguard in"),
    ],
)
def test_a_server_that_refuses_says_why(
    setting: str,
    value: str,
    says: str,
    flavour: str,
    own_redis: RedisServer,
    runner: asyncio.Runner,
) -> None:
    store = filled(own_redis.url, flavour, runner)
    own_redis.call("CONFIG", "SET", setting, value)
    if setting == "requirepass":
        store.close()
    call = find if setting == "requirepass" else revoke
    with pytest.raises(StoreUnavailableError, match=says):
        call(store)
    store.close()


def test_a_replica_is_named_as_such(
    flavour: str, redis_sentinel: RedisSentinel, runner: asyncio.Runner
) -> None:
    redis_sentinel.flush()
    primary = filled(f"{redis_sentinel.primary.url}", flavour, runner)
    replica = opened(flavour, redis_sentinel.replica.url, runner)
    for call in (find, revoke):
        with pytest.raises(StoreUnavailableError, match="is a replica"):
            call(replica)
    primary.close()
    replica.close()


@pytest.mark.campaign("sync")
@pytest.mark.timeout(60)
def test_the_replica_that_took_over_is_found(flavour: str, runner: asyncio.Runner) -> None:
    with running(RedisSentinel) as servers:
        store = filled(f"{servers.url.rpartition('/')[0]}/0", flavour, runner)
        until(lambda: bool(servers.replica.call("EXISTS", f"{STORE}key:{key().id}")))
        servers.primary.kill()

        def is_found() -> bool:
            try:
                return bool(bounded(store, revoke).revoked_at == NOON)
            except StoreError:
                return False

        until(is_found)
        assert b"role:master" in servers.replica.call("INFO", "replication")
        store.close()


def test_a_layout_of_the_cluster_that_is_old_is_read_again(
    redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    store = filled(redis_cluster.url, "sync", runner)
    assert isinstance(store, Plain)
    manager = store.backend.port.open().nodes_manager
    nodes = list(manager.slots_cache.values())
    for slot in manager.slots_cache:
        manager.slots_cache[slot] = next(n for n in nodes if n != manager.slots_cache[slot])
    assert find(store) == record()
    store.close()


@WATCHDOG
def test_no_thread_waits_longer_because_another_waits_for_a_silent_cluster(
    redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    store = filled(redis_cluster.url, "sync", runner)
    assert isinstance(store, Plain)
    store.close()

    def look(store: Any, seconds: float = DEADLINE) -> str:
        try:
            with within(seconds):
                store.find_key(key().id)
        except StoreUnavailableError:
            return "given up"
        return "found"

    with redis_cluster.suspended():
        assert store.together([look] * 60) == ["given up"] * 60
    assert look(store, 60.0) == "found"
    store.close()


async def opened_by(store: Any) -> Any:
    """Return the client that an async store has on the running event loop."""
    return store.backend.port.open()


@WATCHDOG
def test_after_a_call_that_was_late_the_layout_of_the_cluster_is_read_anew(
    redis_cluster: RedisCluster, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_cluster.flush()
    store = filled(redis_cluster.url, "async", runner)
    manager = runner.run(opened_by(store)).nodes_manager
    readings: list[int] = []
    read = type(manager).initialize

    async def counted(self: Any, *args: Any, **options: Any) -> None:
        readings.append(1)
        await read(self, *args, **options)

    monkeypatch.setattr(type(manager), "initialize", counted)
    assert find(store) == record()
    assert readings == []
    with redis_cluster.suspended(), pytest.raises(StoreUnavailableError):
        bounded(store, find)
    readings.clear()
    assert store.find_key(key().id) == record()  # however long reading it takes
    assert readings == [1]
    assert store.find_key(key().id) == record()
    assert readings == [1]
    store.close()


@pytest.mark.campaign("async")
def test_while_a_slot_moves_nothing_passes_for_missing(
    redis_cluster: RedisCluster, flavour: str, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    store = filled(redis_cluster.url, flavour, runner)
    servers = redis_cluster.servers
    slot = str(servers[0].call("CLUSTER", "KEYSLOT", f"{STORE}schema"))
    source = next(s for s in servers if s.call("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(s for s in servers if s is not source)
    ids = {s: s.call("CLUSTER", "MYID").decode() for s in servers}
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    names = sorted(name.decode() for name in source.call("KEYS", "*"))
    names.remove(f"{STORE}schema")
    for name in (f"{STORE}schema", *names):
        source.call("MIGRATE", "127.0.0.1", str(target.port), name, "0", "5000")
        with suppress(StoreError):  # it can't tell, and says so
            assert bounded(store, find) == record()
    redis_cluster.assign(slot, target)
    assert store.find_key(key().id) == record()
    assert [item.slug for item in store.list_organizations(after=None, limit=9)] == ["acme-1"]
    store.close()
    for server in servers:  # as it was, for the next test
        server.flush()
    redis_cluster.assign(slot, source)


@pytest.mark.campaign("sync")
@WATCHDOG
@pytest.mark.parametrize("replicas", [0, 1])
def test_a_call_waits_for_keys_that_are_just_moving(
    replicas: int, redis_cluster: RedisCluster, flavour: str, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    redis_cluster.settle()
    filled(redis_cluster.url, flavour, runner).close()
    store = opened(flavour, redis_cluster.url, runner, durable_replicas=replicas)
    servers = redis_cluster.servers
    slot = str(servers[0].call("CLUSTER", "KEYSLOT", f"{STORE}schema"))
    source = next(s for s in servers if s.call("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(s for s in servers if s is not source)
    ids = {s: s.call("CLUSTER", "MYID").decode() for s in servers}

    def move(*names: str) -> None:
        for name in names:
            source.call("MIGRATE", "127.0.0.1", str(target.port), name, "0", "5000")

    async def move_the_rest(seconds: float) -> None:
        assert seconds > 0
        move(*(name.decode() for name in source.call("KEYS", "*")))
        for server in (target, *servers):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    store.backend.port.pause = move_the_rest
    calls: list[Any] = [find, lambda store: store.add_organization(organization(2))]
    for call in calls:
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        move(f"{STORE}schema")
        with suppress(NotDurableError):  # no node has a replica
            call(store)
        assert source.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        source, target = target, source
    assert find(store) == record()
    assert store.find_organization("acme-2") == organization(2)
    store.close()
    for server in servers:  # as it was, for the next test
        server.flush()
    redis_cluster.assign(slot, source)


@WATCHDOG
def test_a_sentinel_that_is_silent_leaves_time_for_the_next(
    redis_sentinel: RedisSentinel, flavour: str, runner: asyncio.Runner
) -> None:
    redis_sentinel.flush()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = redis_sentinel.url.replace("://", f"://127.0.0.1:{silent.getsockname()[1]},")
        primary = filled(redis_sentinel.primary.url, "sync", runner)
        store = opened(flavour, url, runner)
        assert bounded(store, find, 60.0) == record()
        store.close()
        primary.close()


def test_an_idle_connection_to_what_was_the_primary_is_left(
    redis_sentinel: RedisSentinel, runner: asyncio.Runner
) -> None:
    redis_sentinel.flush()
    store = filled(redis_sentinel.url, "sync", runner)
    assert isinstance(store, Plain)
    pool = store.backend.port.open().connection_pool
    connection = pool.get_connection()
    pool.release(connection)
    left: list[Any] = []
    connection.disconnect = lambda disconnect=connection.disconnect: left.append(disconnect())
    pool.proxy.master_address = ("127.0.0.1", 1)  # as another connection has learned
    assert find(store) == record()
    assert left == [None]
    store.close()


@pytest.mark.parametrize(
    ("query", "checks_name", "verifies"),
    [
        ("", True, ssl.CERT_REQUIRED),
        ("?ssl_check_hostname=no", False, ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", False, ssl.CERT_NONE),
    ],
)
def test_the_connections_of_a_cluster_have_the_options_of_tls(
    query: str, checks_name: bool, verifies: ssl.VerifyMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(redis.RedisCluster, "from_url", lambda _, **options: given.update(options))
    make_client(parse(f"rediss+cluster://h:1{query}"))
    connection = given["connection_class"](host="h", port=1)
    assert connection.check_hostname is checks_name
    assert connection.cert_reqs is verifies


# Crashes

DIES = """
import os, signal, sys
from keyguard.stores.opening import open_store
from keyguard.stores.redis.sync_port import SyncScriptPort
from tests.stores.test_redis import COMMITS
url, step, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
backend = open_store(url)
send, count = SyncScriptPort.send, 0
async def dying(self, commands, key, durability=None):
    global count
    count += 1
    if count == step and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if count == step and when == "halfway":
        connection = self.open().connection_pool.get_connection()
        connection.send_packed_command(commands)
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return await send(self, commands, key)
    finally:
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
SyncScriptPort.send = dying
for commit in COMMITS:
    assert backend.commit(commit) is True
print("done")
"""


def rotation() -> Commit:
    """A commit of several records and entries."""
    new = adding(record(2, family=key().family))
    old = changing(key(), successor=key(2).id, grace_ends_at=NOON)
    return replace(new, changes=old.changes, entries=(*old.entries, *new.entries))


COMMITS = (adding(organization()), adding(record()), rotation())


def everything(store: Any) -> Any:
    """All that can be read of a store, but the ids of entries."""
    keys = store.list_keys(KeyFilter(), after=None, limit=9).items
    trail = store.list_audit(organization=None, subject=None, after=None, limit=9)
    return (
        store.list_organizations(after=None, limit=9),
        keys,
        store.list_keys(KeyFilter(family=key().family), after=None, limit=9).items == keys,
        [store.find_key(key(number).id) for number in (1, 2)],
        [digest.id for digest in store.list_digests(after=None, limit=9)],
        [(entry.subject, entry.before, entry.after) for entry in trail],
    )


@pytest.mark.campaign("1-before", "2-halfway", "3-halfway", "4-halfway", "4-after")
@pytest.mark.parametrize("when", ["before", "halfway", "after"])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_process_that_dies_at_any_step_leaves_nothing_half_done(
    step: int, when: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    store = opened("sync", own_redis.url, runner)
    stages = []
    for commits in (COMMITS[:0], COMMITS[:1], COMMITS[:2], COMMITS):
        own_redis.flush()
        store.migrate()
        assert all(store.commit(commit) for commit in commits)
        stages.append(everything(store))
    own_redis.flush()
    store.migrate()
    own_redis.call("SCRIPT", "FLUSH")  # so that the first commit takes two commands
    process = python(DIES, own_redis.url, str(step), when)
    output, _ = process.communicate()
    assert (process.returncode, output) == (-9, "")
    found = everything(store)
    assert found in stages
    # And it can be done again.
    for commit in COMMITS[stages.index(found) :]:
        assert store.commit(commit) is True
    assert everything(store) == stages[-1]
    store.close()


def test_what_was_acknowledged_outlives_the_server(runner: asyncio.Runner) -> None:
    with running(lambda: RedisServer(appendfsync="always")) as server:
        store = filled(server.url, "sync", runner)
        for number in range(2, 40):
            store.add_key(record(number))
            store.change_key(key(number).id, name=f"changed {number}")
        server.kill()
        server.start()
        keys = store.list_keys(KeyFilter(organization=organization().id), after=None, limit=100)
        assert [item.name for item in keys][1:] == [f"changed {number}" for number in range(2, 40)]
        store.close()


def test_a_guard_works_on_after_a_fork(redis: RedisServer) -> None:
    code = """
import os, sys
from keyguard import Keyguard
guard = Keyguard(sys.argv[1])
guard.migrate()
guard.organizations.create("acme")
child = os.fork()
for _ in range(50):
    assert guard.organizations.get("acme").slug == "acme"
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("done")
else:
    os._exit(0)
"""
    process = python(code, redis.create_database()[0])
    assert process.communicate()[0] == "done\n"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the connection that was left behind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_under_another_loop_it_connects_anew(redis: RedisServer) -> None:
    backend: Any = open_async_store(redis.create_database()[0])

    async def used(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    asyncio.run(used(backend.migrate))
    asyncio.run(used(lambda: backend.commit(adding(organization()))))

    async def last() -> Any:
        found = await backend.find_organization("acme-1")
        await backend.aclose()
        return found

    assert asyncio.run(last()) == organization()
    gc.collect()


def test_under_trio_it_says_what_to_do() -> None:
    import trio

    async def look() -> None:
        await open_async_store(f"redis://127.0.0.1:{free_port()}").find_key(key().id)

    with pytest.raises(ConfigurationError, match="need asyncio"):
        trio.run(look)


def test_a_password_shows_nowhere(own_redis: RedisServer) -> None:
    own_redis.call("CONFIG", "SET", "requirepass", "hunter2")
    guard = Keyguard(f"redis://:wrong-hunter2@127.0.0.1:{own_redis.port}/0")
    with pytest.raises(StoreUnavailableError) as raised:
        guard.organizations.list()
    shown: list[str] = []
    failure: BaseException | None = raised.value
    while failure is not None:
        shown.append(repr(failure))
        trace = failure.__traceback__
        while trace is not None:
            if "keyguard" in trace.tb_frame.f_code.co_filename:
                shown.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        failure = failure.__cause__
    assert "wrong-hunter2" not in "".join(shown)
    guard.close()
