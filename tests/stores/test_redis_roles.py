"""Two Redis behind one name, whose roles are swapped while old connections stay open."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError

from keyguard import Allow, AsyncKeyguard, Keyguard, Reason, StoreUnavailableError
from keyguard.stores.redis.scripts import STORE
from tests.links import Link
from tests.services import (
    RedisCluster,
    RedisPair,
    RedisSentinel,
    RedisServer,
    free_port,
    running,
    until,
)
from tests.stores.conftest import opened
from tests.stores.records import NOON, key
from tests.stores.test_redis_durability import Guarded
from tests.world import StandingClock

PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 60.0}


def _offset(server: RedisServer, whose: str) -> bytes:
    info: bytes = server.call("INFO", "replication")
    return info.partition(f"{whose}_repl_offset:".encode())[2].split()[0]


def _swap(before: RedisServer, after: RedisServer) -> None:
    until(lambda: _offset(before, "master") == _offset(after, "slave"))
    after.call("REPLICAOF", "NO", "ONE")
    before.call("REPLICAOF", "127.0.0.1", str(after.port))
    until(lambda: b"master_link_status:up" in before.call("INFO", "replication"))


def _cut_off(replica: RedisServer) -> None:
    """Have a replica follow nobody. It answers on, with what it has."""
    replica.call("REPLICAOF", "127.0.0.1", str(free_port()))


def _is_loading(server: RedisServer) -> bool:
    try:
        server.call("EXISTS", "schema")
    except BusyLoadingError:
        return True
    return False


def _revoke_elsewhere(url: str, key_id: str) -> None:
    """Revoke a key as another process would: nothing in this one hears of it but by the store."""
    store = opened("sync", url, None)  # type: ignore[arg-type]  # which needs no event loop
    store.revoke_key(key_id, NOON)
    store.close()


class Name:
    """The name of the primary: a port that leads to it."""

    def __init__(self, servers: RedisPair) -> None:
        self.servers = servers
        self._link = Link(("127.0.0.1", servers.primary.port))
        self.url = f"redis://127.0.0.1:{self._link.port}/0"

    def swap(self) -> None:
        """Swap the roles, and cut the former primary off from the new one.

        Connections that are open still lead to the former primary, and new ones as well until the
        name follows.
        """
        _swap(self.servers.primary, self.servers.replica)
        _cut_off(self.servers.primary)

    def follow(self) -> None:
        """Have new connections lead to what was the replica at first."""
        self._link.lead_to(("127.0.0.1", self.servers.replica.port))

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def name() -> Iterator[Name]:
    with running(RedisPair) as servers:
        name = Name(servers)
        yield name
        name.close()


STALENESS = 200.0
"""In seconds of a clock that stands; a quarter of them bounds real waits, on a busy machine."""


class Followed(Guarded):
    """A guard that follows the feed while its clock stands."""

    def __init__(self, flavour: str, url: str, runner: asyncio.Runner, **options: Any) -> None:
        self.clock = StandingClock()
        options = {"durable_replicas": 0, "max_staleness": STALENESS, "clock": self.clock} | options
        super().__init__(flavour, url, runner, **options)
        self._turns = 0
        background = self.guard._ports.background
        background._patience = 0.01
        background._apply = self._counted(background._apply)
        background._note_failure = self._counted(background._note_failure)

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            result = step(*args)
            self._turns += 1
            return result

        return counted

    def issue_and_remember(self) -> Any:
        """Issue a key that the feed vouches for, after its first answer."""
        issued = self.issue()
        for _ in range(2):
            assert isinstance(self.decision_on(issued), Allow)
            self.pass_seconds(0)
        return issued

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, and the feed be asked afterwards."""
        self.clock.advance(timedelta(seconds=seconds))
        # The next answer may be one for which it asked before.
        ended = self._turns + 2
        self._runner.run(asyncio.to_thread(until, lambda: self._turns >= ended))


def test_changes_reach_the_new_primary_in_sync_code(name: Name) -> None:
    with Keyguard(name.url, **PATIENT) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        old = guard.keys.issue(organization="acme", name="old").key
        name.swap()
        name.follow()
        assert guard.keys.revoke(old.id).revoked_at is not None
        new = guard.keys.issue(organization="acme", name="new").key
    with Keyguard(name.url, **PATIENT) as guard:  # on new connections
        assert guard.keys.get(old.id).revoked_at is not None
        assert guard.keys.get(new.id).name == "new"


def test_changes_reach_the_new_primary_on_an_event_loop(name: Name) -> None:
    async def run() -> None:
        async with AsyncKeyguard(name.url, **PATIENT) as guard:
            await guard.migrate()
            await guard.organizations.create("acme")
            old = (await guard.keys.issue(organization="acme", name="old")).key
            name.swap()
            name.follow()
            assert (await guard.keys.revoke(old.id)).revoked_at is not None
            await guard.keys.issue(organization="acme", name="new")
        async with AsyncKeyguard(name.url, **PATIENT) as guard:
            assert (await guard.keys.get(old.id)).revoked_at is not None

    asyncio.run(run())


def test_a_revocation_that_only_the_former_primary_has_is_made_again(
    flavour: str, name: Name, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, name.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    primary, replica = name.servers.primary, name.servers.replica
    until(lambda: _offset(primary, "master") == _offset(replica, "slave"))
    name.servers.link.cut()
    service.do(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    replica.call("REPLICAOF", "NO", "ONE")
    _cut_off(primary)
    name.follow()
    revoked = service.do(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    assert revoked.revoked_at is not None
    service.close()


def test_a_name_that_leads_to_a_replica_is_told_as_such() -> None:
    with running(RedisPair) as servers, Keyguard(servers.url, **PATIENT) as guard:
        guard.migrate()
        primary, replica = servers.primary, servers.replica
        until(lambda: _offset(primary, "master") == _offset(replica, "slave"))
        replica.call("REPLICAOF", "NO", "ONE")
        primary.call("REPLICAOF", "127.0.0.1", str(replica.port))
        with pytest.raises(StoreUnavailableError, match="is a replica and can't be written to"):
            guard.organizations.create("acme")


def test_look_ups_over_old_connections_are_answered_by_the_new_primary(
    flavour: str, name: Name, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, name.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    assert isinstance(service.decision_on(issued), Allow)
    name.swap()
    name.follow()
    _revoke_elsewhere(name.servers.replica.url, issued.key.id)
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED
    assert service.do(lambda guard: guard.keys.get(issued.key.id)).revoked_at == NOON
    service.close()


def _look_up(service: Guarded, issued: Any, primary: RedisServer) -> None:
    _revoke_elsewhere(primary.url, issued.key.id)
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED


def _change(service: Guarded, issued: Any, primary: RedisServer) -> None:
    service.do(lambda guard: guard.organizations.create("new"))
    assert primary.call("HEXISTS", f"{STORE}slugs", "new") == 1


@pytest.mark.campaign("async-_change", "sync-_look_up")
@pytest.mark.parametrize("act", [_look_up, _change])
def test_old_connections_to_what_a_sentinel_called_the_primary_are_left(
    act: Callable[[Guarded, Any, RedisServer], None], flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisSentinel) as servers:
        service = Guarded(flavour, servers.url, runner, durable_replicas=0, max_staleness=0)
        issued = service.issue()
        # While the Sentinel watches nothing, it ends no connection.
        servers.sentinel.call("SENTINEL", "REMOVE", "mymaster")
        _swap(servers.primary, servers.replica)
        _cut_off(servers.primary)
        port = str(servers.replica.port)
        servers.sentinel.call("SENTINEL", "MONITOR", "mymaster", "127.0.0.1", port, "1")
        act(service, issued, servers.replica)
        service.close()


def test_a_replica_answers_no_look_up(flavour: str, name: Name, runner: asyncio.Runner) -> None:
    service = Guarded(flavour, name.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    name.swap()
    assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
    calls: list[Any] = [
        lambda guard: guard.keys.get(issued.key.id),
        lambda guard: guard.keys.list(),
        lambda guard: guard.organizations.get("acme"),
        lambda guard: guard.organizations.list(),
        lambda guard: guard.audit.list(),
        lambda guard: guard.audit.list(subject=issued.key.id),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="is a replica"):
            service.do(call)
    service.close()


def test_a_user_who_may_not_persist_is_told_so(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    own_redis.call("ACL", "SETUSER", "default", "resetkeys", "~keyguard:*", "-@dangerous", "+acl")
    service = Guarded(flavour, own_redis.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    assert isinstance(service.decision_on(issued), Allow)
    own_redis.call("ACL", "SETUSER", "default", "-persist")
    with pytest.raises(
        StoreUnavailableError, match="have its ACL allow what the page on stores lists"
    ):
        service.do(lambda guard: guard.keys.get(issued.key.id))
    service.close()


def test_a_revocation_is_felt_though_old_connections_lead_to_what_was_the_primary(
    flavour: str, name: Name, runner: asyncio.Runner
) -> None:
    service = Followed(flavour, name.url, runner)
    issued = service.issue_and_remember()
    name.swap()
    name.follow()
    _revoke_elsewhere(name.servers.replica.url, issued.key.id)
    service.pass_seconds(STALENESS)
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED
    service.close()


def test_what_only_a_replica_vouches_for_is_believed_no_longer_than_max_staleness(
    flavour: str, name: Name, runner: asyncio.Runner
) -> None:
    service = Followed(flavour, name.url, runner)
    issued = service.issue_and_remember()
    name.swap()
    _revoke_elsewhere(name.servers.replica.url, issued.key.id)
    service.pass_seconds(0.75 * STALENESS)
    assert isinstance(service.decision_on(issued), Allow)
    service.pass_seconds(0.25 * STALENESS)
    assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
    name.follow()
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED
    service.close()


@pytest.mark.campaign("sync")
def test_a_primary_that_is_cut_off_from_its_replica_vouches_for_nothing(
    flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisPair) as servers:
        for setting in ("min-replicas-to-write", "min-replicas-max-lag"):
            servers.primary.call("CONFIG", "SET", setting, "1")
        name = Name(servers)
        service = Followed(flavour, name.url, runner)
        issued = service.issue_and_remember()
        servers.primary.call("SET", "last", "1")
        until(lambda: servers.replica.call("GET", "last") == b"1")  # all before it is there, too
        # It goes on as a primary, for it hears nothing of the one that takes over.
        servers.link.cut()
        servers.replica.call("REPLICAOF", "NO", "ONE")
        _revoke_elsewhere(servers.replica.url, issued.key.id)
        until(lambda: b"min_slaves_good_slaves:0" in servers.primary.call("INFO", "replication"))
        service.pass_seconds(STALENESS)
        assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
        with pytest.raises(StoreUnavailableError, match="may have been replaced"):
            service.do(lambda guard: guard.keys.get(issued.key.id))
        name.follow()
        assert service.decision_on(issued).reason is Reason.KEY_REVOKED
        service.close()
        name.close()


def test_a_primary_of_a_cluster_without_enough_replicas_answers_nothing(
    flavour: str, redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    store = opened(flavour, redis_cluster.url, runner)
    store.migrate()
    feed = store.feed()
    position = feed.read(None, 0).position
    try:
        for server in redis_cluster.servers:
            server.call("CONFIG", "SET", "min-replicas-to-write", "1")
        for call in (lambda: store.find_key(key().id), lambda: feed.read(position, 0)):
            with pytest.raises(StoreUnavailableError, match="has too few replicas"):
                call()
    finally:
        for server in redis_cluster.servers:
            server.call("CONFIG", "SET", "min-replicas-to-write", "0")
    assert store.find_key(key().id) is None
    assert feed.read(position, 0).subjects == ()
    feed.close()
    store.close()


@pytest.mark.campaign("async")
def test_a_replica_that_takes_over_in_a_cluster_is_asked(
    flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisCluster) as cluster, running(RedisCluster.node) as replica:
        first = cluster.servers[0]
        slot = first.call("CLUSTER", "KEYSLOT", f"{STORE}schema")
        before = cluster.servers[slot * 3 // 16384]
        name = before.call("CLUSTER", "MYID").decode()
        bus = first.options["cluster-port"]
        replica.call("CLUSTER", "MEET", "127.0.0.1", str(first.port), bus)
        until(lambda: name in replica.call("CLUSTER", "NODES").decode())
        replica.call("CLUSTER", "REPLICATE", name)
        service = Guarded(flavour, cluster.url, runner, durable_replicas=0, max_staleness=0)
        issued = service.issue()
        until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"))
        for server in cluster.servers:  # each has a say in who takes over
            until(lambda server=server: f"slave {name}" in server.call("CLUSTER", "NODES").decode())
        replica.call("CLUSTER", "FAILOVER")
        until(lambda: b"master_link_status:up" in before.call("INFO", "replication"))
        _revoke_elsewhere(cluster.url, issued.key.id)
        assert service.decision_on(issued).reason is Reason.KEY_REVOKED
        service.do(lambda guard: guard.organizations.create("new"))
        assert replica.call("HEXISTS", f"{STORE}slugs", "new") == 1
        service.close()


def test_a_primary_whose_disk_fails_answers_look_ups(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, own_redis.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    # It takes no more writes once it has failed to save.
    own_redis.call("CONFIG", "SET", "save", "3600 1")
    own_redis.data.chmod(0o500)
    own_redis.call("BGSAVE")
    until(lambda: b"rdb_last_bgsave_status:err" in own_redis.call("INFO", "persistence"))
    with pytest.raises(StoreUnavailableError, match="no changes at present"):
        service.do(lambda guard: guard.keys.revoke(issued.key.id))
    assert isinstance(service.decision_on(issued), Allow)
    own_redis.call("CONFIG", "SET", "min-replicas-to-write", "1")  # it has none
    assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
    service.close()


@pytest.mark.campaign("sync")
def test_a_server_that_is_just_loading_its_data_is_left(
    flavour: str, name: Name, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, name.url, runner, durable_replicas=0, max_staleness=0)
    issued = service.issue()
    before, after = name.servers.primary, name.servers.replica
    for number in range(100):
        before.call("SET", f"another:{number}", secrets.token_hex(512))  # which can't be compressed
    until(lambda: _offset(before, "master") == _offset(after, "slave"))
    after.call("REPLICAOF", "NO", "ONE")
    name.follow()
    # It has what the new primary never had, so it loads all data anew, for ten seconds.
    before.call("SET", "another", "x")
    before.call("CONFIG", "SET", "key-load-delay", "100000")
    before.call("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    before.call("REPLICAOF", "127.0.0.1", str(after.port))
    until(lambda: _is_loading(before))
    assert service.do(lambda guard: guard.organizations.create("new")).slug == "new"
    assert isinstance(service.decision_on(issued), Allow)
    service.close()
