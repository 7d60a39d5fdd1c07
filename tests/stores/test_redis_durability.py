"""A change that too few replicas have is made, and not acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio

from keyguard import (
    Allow,
    AsyncKeyguard,
    ConfigurationError,
    Deny,
    Keyguard,
    NotDurableError,
    Reason,
)
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.sync import run_sync
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.scripts import STORE, Command, Reply
from tests.services import RedisCluster, RedisPair, RedisSentinel, RedisServer, running
from tests.stores.conftest import opened
from tests.stores.records import NOON, key, organization, record
from tests.stores.sent import parts_of

pytestmark = pytest.mark.usefixtures("no_garbage")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
WATCHDOG = pytest.mark.timeout(60, func_only=True)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisPair]:
    # Changes wait for a replica that is there, however busy the machine is.
    monkeypatch.setattr("keyguard.stores.redis.durability._LONGEST", 60.0)
    with running(RedisPair) as servers:
        yield servers


@contextmanager
def hasty() -> Iterator[None]:
    """Have changes wait a tenth of a second at most for replicas that will not have them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("keyguard.stores.redis.durability._LONGEST", 0.1)
        yield


class Guarded:
    """A guard of either flavour that waits for one replica."""

    def __init__(self, flavour: str, target: Any, runner: asyncio.Runner, **options: Any) -> None:
        self._runner = runner
        patience = {"store_timeout": 60.0}  # a busy machine is no outage
        options = {"durable_replicas": 1, "failure_limit": None} | patience | options
        self.guard: Any = (Keyguard if flavour == "sync" else AsyncKeyguard)(target, **options)
        self._is_sync = flavour == "sync"

    def do(self, call: Callable[[Any], Any]) -> Any:
        async def awaited() -> Any:
            return await call(self.guard)

        return call(self.guard) if self._is_sync else self._runner.run(awaited())

    def decision_on(self, issued: Any, **options: Any) -> Any:
        fields = [f"Bearer {issued.token.reveal()}"]
        return self.do(lambda guard: guard.authenticate(fields, **options))

    def issue(self) -> Any:
        """Make the store and an organization with one key, which every replica has."""
        self.do(lambda guard: guard.migrate())
        self.do(lambda guard: guard.organizations.create("acme"))
        return self.do(lambda guard: guard.keys.issue(organization="acme", name="a"))

    def close(self) -> None:
        self.do(lambda guard: guard.close() if self._is_sync else guard.aclose())


@pytest.mark.campaign("async-client", "sync-url")
@WATCHDOG
@pytest.mark.parametrize("by", ["url", "client"])
def test_a_change_is_acknowledged_when_the_replica_has_it(
    by: str, flavour: str, pair: RedisPair, runner: asyncio.Runner
) -> None:
    module: Any = redis if flavour == "sync" else redis.asyncio
    client = module.Redis.from_url(pair.url)
    service = Guarded(flavour, pair.url if by == "url" else client, runner)
    issued = service.issue()
    service.do(lambda guard: guard.keys.revoke(issued.key.id))
    # The replica has it by now: nothing here waits for it.
    assert pair.replica.call("HGET", f"{STORE}key:{issued.key.id}", "revoked_at")
    service.close()
    client.close() if flavour == "sync" else runner.run(client.aclose())


def suspended_replica(pair: RedisPair) -> AbstractContextManager[None]:
    return pair.replica.suspended()


def cut_link(pair: RedisPair) -> AbstractContextManager[Any]:
    pair.link.cut()
    return ExitStack()


@WATCHDOG
@pytest.mark.parametrize("lost", [suspended_replica, cut_link])
def test_a_change_that_the_replica_lacks_is_made_and_not_acknowledged(
    lost: Callable[[RedisPair], AbstractContextManager[None]],
    flavour: str,
    pair: RedisPair,
    runner: asyncio.Runner,
) -> None:
    service = Guarded(flavour, pair.url, runner)
    issued = service.issue()
    assert isinstance(service.decision_on(issued), Allow)
    with lost(pair), hasty():
        says = r"made the change, but fewer than one replica had it within [\d.]+ seconds"
        with pytest.raises(NotDurableError, match=says):
            service.do(lambda guard: guard.keys.revoke(issued.key.id))
        refused = service.decision_on(issued)
        assert isinstance(refused, Deny)
        assert refused.reason is Reason.KEY_REVOKED
    service.close()


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_revocation_that_is_repeated_is_acknowledged_only_when_the_replica_has_it(
    flavour: str, pair: RedisPair, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, pair.url, runner)
    issued = service.issue()
    pair.lose_replica()
    family = issued.key.family
    again: list[Callable[[Any], Any]] = [
        lambda guard: guard.keys.revoke(issued.key.id),
        lambda guard: guard.keys.revoke(issued.key.id, force=True),
        lambda guard: guard.keys.revoke_family(family),
    ]
    for revoke in again:
        with hasty(), pytest.raises(NotDurableError):
            service.do(revoke)
    pair.link.mend()
    pair.wait_for_replica()
    service.do(again[0])
    assert pair.replica.call("HGET", f"{STORE}key:{issued.key.id}", "revoked_at")
    service.close()


def changes_of(server: RedisServer) -> bytes:
    info: bytes = server.call("INFO", "persistence")
    return info.partition(b"rdb_changes_since_last_save:")[2].split()[0]


@WATCHDOG
def test_a_revocation_that_is_repeated_writes_nothing_if_no_replica_is_waited_for(
    flavour: str, own_redis: RedisServer, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, own_redis.url, runner, durable_replicas=0)
    issued = service.issue()
    again: list[Callable[[Any], Any]] = [
        lambda guard: guard.keys.revoke(issued.key.id),
        lambda guard: guard.keys.revoke(issued.key.id, force=True),
        lambda guard: guard.keys.revoke_family(issued.key.family),
    ]
    service.do(again[0])
    before = changes_of(own_redis)
    for revoke in again:
        service.do(revoke)
    assert changes_of(own_redis) == before
    service.close()


@WATCHDOG
def test_an_exposed_key_whose_revocation_is_not_durable_counts_as_revoked(
    flavour: str, pair: RedisPair, runner: asyncio.Runner
) -> None:
    service = Guarded(flavour, pair.url, runner, require_https=True, revoke_exposed=True)
    issued = service.issue()
    pair.lose_replica()
    with hasty():
        refused = service.decision_on(issued, secure=False)
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.revoked) == (Reason.TRANSPORT_INSECURE, True)
    service.close()


@WATCHDOG
def test_behind_a_sentinel_the_primary_waits_for_its_replica(
    flavour: str, redis_sentinel: RedisSentinel, runner: asyncio.Runner
) -> None:
    redis_sentinel.flush()
    url = f"{redis_sentinel.url.rpartition('/')[0]}/0"
    service = Guarded(flavour, url, runner)
    issued = service.issue()
    service.do(lambda guard: guard.keys.revoke(issued.key.id))
    name = f"{STORE}key:{issued.key.id}"
    assert redis_sentinel.replica.call("HGET", name, "revoked_at")
    service.close()


@WATCHDOG
def test_a_cluster_without_replicas_makes_changes_that_are_not_durable(
    flavour: str, redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    store = opened(flavour, redis_cluster.url, runner, durable_replicas=1)
    store.migrate()
    for add in (
        lambda: store.add_organization(organization()),
        lambda: store.add_key(record()),
        lambda: store.revoke_key(key().id, NOON),
    ):
        with hasty(), pytest.raises(NotDurableError):
            add()
    assert store.find_key(key().id).key.revoked_at == NOON
    store.close()


@pytest.mark.campaign("async")
@WATCHDOG
def test_a_change_finds_the_server_to_which_the_slot_moves(
    flavour: str, redis_cluster: RedisCluster, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    servers = redis_cluster.servers
    store = opened(flavour, redis_cluster.url, runner, durable_replicas=1)
    store.migrate()
    for add in (
        lambda: store.add_organization(organization()),
        lambda: store.add_key(record()),
    ):
        with hasty(), pytest.raises(NotDurableError):
            add()
    slot = str(servers[0].call("CLUSTER", "KEYSLOT", f"{STORE}schema"))
    source = next(s for s in servers if s.call("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(s for s in servers if s is not source)
    ids = {s: s.call("CLUSTER", "MYID").decode() for s in servers}
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    names = [name.decode() for name in source.call("KEYS", "*")]
    for name in names:
        source.call("MIGRATE", "127.0.0.1", str(target.port), name, "0", "5000")
    with hasty(), pytest.raises(NotDurableError):  # the old server says ASK
        store.revoke_key(key().id, NOON)
    assert store.find_key(key().id).key.revoked_at == NOON
    redis_cluster.assign(slot, target)
    with hasty(), pytest.raises(NotDurableError):  # the old server says MOVED
        store.add_organization(organization(2))
    found = store.list_organizations(after=None, limit=9)
    assert [item.slug for item in found] == ["acme-1", "acme-2"]
    store.close()
    for server in servers:  # as it was, for the next test
        server.flush()
    redis_cluster.assign(slot, source)


class Primary:
    """Answers what a change asks for after it was made, and records it."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.limits: list[float | None] = []

    async def ask(self, command: Command) -> Reply:
        self.asked.append(parts_of(command))
        self.limits.append(remaining())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        reply: Reply = answer
        return reply


def confirm(primary: Primary, reply: Reply) -> None:
    run_sync(Durability(2, "redis://h:1/0").confirm(reply, primary.ask))


def test_a_change_waits_no_longer_than_half_of_what_remains_and_at_most_a_second() -> None:
    primary = Primary(2, 2)
    with within(600):
        confirm(primary, [b"done"])
    with within(1):
        confirm(primary, [b"done"])
    long, short = primary.asked
    assert long == ["WAIT", "2", "1000"]
    assert 0 < int(short[2]) <= 500
    assert all(limit is not None and limit <= 1.5 for limit in primary.limits)


def test_nothing_is_waited_for_if_nothing_was_changed() -> None:
    primary = Primary()
    confirm(primary, [b"conflict"])
    assert primary.asked == []


@pytest.mark.parametrize("answer", [1, b"", redis.ConnectionError(), redis.ResponseError("NOPERM")])
def test_whatever_happens_after_a_change_it_is_not_durable(answer: Any) -> None:
    with pytest.raises(NotDurableError, match="fewer than 2 replicas had it within 1 seconds"):
        confirm(Primary(answer), [b"done"])


@pytest.mark.parametrize("open_it", [open_store, open_async_store])
@pytest.mark.parametrize("target", ["memory://", "sqlite:///keys.db"])
def test_a_store_without_replicas_of_redis_can_not_wait_for_them(
    target: str, open_it: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigurationError, match="durable_replicas is for a key store in Redis"):
        open_it(target, durable_replicas=1)
