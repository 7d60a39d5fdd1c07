"""Read replicas: they answer look-ups of requests, and never say what the primary would not."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
import sqlalchemy
import sqlalchemy.ext.asyncio

from keyguard import Allow, AsyncKeyguard, ConfigurationError, Keyguard, Reason
from keyguard.exceptions import SchemaError
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.events import Event, ReplicaFailed, ReplicaRecovered
from tests.links import Address, Link
from tests.services import (
    MariaDBReplica,
    MariaDBSource,
    PostgresStandby,
    RedisPair,
    running,
    until,
)
from tests.stores.test_redis_roles import STALENESS, Followed
from tests.stores.test_sql_distance import address, through

pytestmark = pytest.mark.usefixtures("no_garbage")


class Pair(ABC):
    """A database, and a replica of its server that tests can have stand still.

    Attributes:
        url: The database on the primary, by way of a link.
        read: The database on the replica, by way of another.
        name: The database's name.
    """

    url: str
    read: str

    def __init__(self, primary: Address, replica: Address) -> None:
        self.primary, self.replica = Link(primary), Link(replica)

    @abstractmethod
    def pause(self) -> None:
        """Have the replica take no more changes; it answers on, with what it has."""

    @abstractmethod
    def resume(self) -> None:
        """Have the replica catch up."""

    @abstractmethod
    def plain(self) -> str:
        """Return the URL of the primary, without the link."""

    def close(self) -> None:
        self.resume()
        self.primary.close()
        self.replica.close()


class PostgresPair(Pair):
    def __init__(self, standby: PostgresStandby) -> None:
        self._standby = standby
        self._name = standby.primary.create_named()
        self._plain = standby.primary.urls(self._name)[0]
        self.resume()
        standby.catch_up()
        super().__init__(address(self._plain), address(standby.urls(self._name)[0]))
        self.url = through(self._plain, self.primary)
        self.read = through(self._plain, self.replica)

    def pause(self) -> None:
        self._standby.catch_up()
        self._standby.execute("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        until(lambda: self._standby.execute(state) == [("paused",)])

    def resume(self) -> None:
        self._standby.execute("SELECT pg_wal_replay_resume()")

    def plain(self) -> str:
        return self._plain


class MariaDBPair(Pair):
    def __init__(self, replica: MariaDBReplica) -> None:
        self._replica = replica
        self._plain = replica.source.create_database()[0]
        super().__init__(address(self._plain), str(replica.sockets / "mariadb"))
        self.url = through(self._plain, self.primary)
        self.read = through(self._plain, self.replica)
        self._caught_up()

    def _caught_up(self) -> None:
        [file, place, *_] = self._replica.source.execute("SHOW MASTER STATUS")
        self._replica.execute(f"SELECT MASTER_POS_WAIT('{file}', {place})")

    def pause(self) -> None:
        self._caught_up()
        self._replica.execute("STOP SLAVE SQL_THREAD")

    def resume(self) -> None:
        self._replica.execute("START SLAVE SQL_THREAD")

    def plain(self) -> str:
        return self._plain


class RedisReplicaPair(Pair):
    def __init__(self, servers: RedisPair) -> None:
        self._servers = servers
        self._name = urlsplit(servers.primary.create_database()[0]).path
        super().__init__(("127.0.0.1", servers.primary.port), ("127.0.0.1", servers.replica.port))
        self.url = f"redis://127.0.0.1:{self.primary.port}{self._name}"
        self.read = f"redis://127.0.0.1:{self.replica.port}{self._name}"

    def pause(self) -> None:
        primary, replica = self._servers.primary, self._servers.replica
        primary.call("SET", "last", self._name)
        until(lambda: replica.call("GET", "last") == self._name.encode())
        self._servers.link.cut()

    def resume(self) -> None:
        self._servers.link.mend()
        self._servers.wait_for_replica()

    def plain(self) -> str:
        return self._servers.primary.url.rpartition("/")[0] + self._name


@pytest.fixture(scope="module")
def mariadb_replica() -> Iterator[MariaDBReplica]:
    with (
        running(MariaDBSource) as source,
        running(partial(MariaDBReplica, source)) as replica,
    ):
        yield replica


@pytest.fixture(scope="module")
def redis_pair() -> Iterator[RedisPair]:
    with running(RedisPair) as servers:
        yield servers


KINDS: dict[str, tuple[str, Callable[[Any], Pair]]] = {
    "postgresql": ("standby", PostgresPair),
    "mariadb": ("mariadb_replica", MariaDBPair),
    "redis": ("redis_pair", RedisReplicaPair),
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    server, make = KINDS[request.param]
    pair = make(request.getfixturevalue(server))
    yield pair
    pair.close()


class Served(Followed):
    """A guard with a read replica, which counts what it asks of whom."""

    def __init__(self, flavour: str, pair: Pair, runner: asyncio.Runner, **options: Any) -> None:
        self.pair = pair
        self.events: list[Event] = []
        options = {"read": pair.read, "hooks": [self.events.append]} | options
        super().__init__(flavour, pair.url, runner, **options)
        self.looks = {"primary": 0, "replica": 0}
        ports: Any = self.guard._ports
        ports._raw.find_key = self._looking("primary", ports._raw.find_key)
        self.port = ports._replica
        # Not the background work's own question.
        self.port._find = ports._find_nearby
        self.port._read = self._seeing(self.port._read)

    def _looking(self, whom: str, look: Callable[[str], Any]) -> Callable[[str], Any]:
        def looking(key_id: str) -> Any:
            self.looks[whom] += 1
            return look(key_id)

        return looking

    def _seeing(self, see: Callable[[str, float], Any]) -> Callable[[str, float], Any]:
        def seeing(key_id: str, seconds: float) -> Any:
            self.looks["replica"] += key_id.strip("0") != ""
            return see(key_id, seconds)

        return seeing

    def issue_in_step(self) -> Any:
        """Issue a key that the replica has, and which the feed has not told of since."""
        issued = self.issue()
        assert isinstance(self.decision_on(issued), Allow)  # which starts the background work
        self.come_into_step()
        self.events.clear()  # it may have failed while it had not got the tables yet
        return issued

    def come_into_step(self) -> None:
        self.turn_until(lambda: self.port._is_in_step)
        self.pass_seconds(0)  # by now the changes were told of before the feed was last asked
        self.turn_until(lambda: self.port._is_in_step)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        until(condition, lambda: self.pass_seconds(0))

    def asked_for(self, issued: Any) -> tuple[Any, set[str]]:
        """Return a decision, and who was asked for it."""
        self.looks.update(primary=0, replica=0)
        decision = self.decision_on(issued)
        return decision, {whom for whom, times in self.looks.items() if times}

    def elsewhere(self, change: Callable[[Any], Any]) -> Any:
        """Make a change as another process would."""
        with (
            Keyguard(self.pair.plain(), management_timeout=60.0) as guard,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(VerifiedTokens, "forget", lambda subjects: None)  # it hears of nothing
            return change(guard)

    def told(self) -> list[type[Event]]:
        return [type(event) for event in self.events if "Replica" in type(event).__name__]


@pytest.fixture
def served(flavour: str, pair: Pair, runner: asyncio.Runner) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(**options: Any) -> Served:
        made.append(Served(flavour, pair, runner, **options))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.mark.campaign("async-postgresql", "async-redis", "sync-mariadb")
def test_a_look_up_is_one_round_trip_to_the_replica_and_none_to_the_primary(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    trips: list[int] = []
    for _ in range(5):  # a connection that is being opened beside them makes trips, too
        before = pair.replica.trips
        decision, asked = service.asked_for(issued)
        trips.append(pair.replica.trips - before)
        assert isinstance(decision, Allow)
        assert asked == {"replica"}
    assert min(trips) == 1


@pytest.mark.campaign("async-postgresql", "async-redis", "sync-mariadb")
def test_a_key_that_was_revoked_elsewhere_is_refused_though_the_replica_stands_still(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    service.pass_seconds(0)
    decision, asked = service.asked_for(issued)
    assert decision.reason is Reason.KEY_REVOKED
    assert "primary" in asked


@pytest.mark.campaign("async-postgresql", "async-redis")
def test_a_process_that_starts_while_the_replica_stands_still_does_not_believe_it(
    served: Callable[..., Served], pair: Pair
) -> None:
    issued = served().issue_in_step()
    pair.pause()
    later = served(cache_size=0)
    later.elsewhere(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    assert later.decision_on(issued).reason is Reason.KEY_REVOKED
    later.turn_until(lambda: later.port._behind_since is not None)
    assert later.decision_on(issued).reason is Reason.KEY_REVOKED


@pytest.mark.campaign("async-postgresql-0", "sync-mariadb-100", "async-redis-0")
@pytest.mark.parametrize("cache_size", [0, 100])
def test_max_staleness_bounds_a_revocation_of_which_the_feed_can_not_tell(
    cache_size: int, served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=cache_size)
    issued = service.issue_in_step()
    pair.pause()
    pair.primary.cut()
    service.pass_seconds(0)
    service.elsewhere(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    service.pass_seconds(0.95 * STALENESS)
    assert isinstance(service.decision_on(issued), Allow)
    service.pass_seconds(0.05 * STALENESS)
    assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
    pair.primary.mend()
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED


@pytest.mark.campaign("async-redis")
def test_a_change_in_this_process_is_felt_on_the_next_request(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served()
    issued = service.issue_in_step()
    pair.pause()
    service.do(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    assert service.decision_on(issued).reason is Reason.KEY_REVOKED


@pytest.mark.campaign("sync-mariadb")
def test_a_disabled_organization_is_refused_though_the_replica_stands_still(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.organizations.disable("acme"))
    service.pass_seconds(0)
    assert service.decision_on(issued).reason is Reason.ORGANIZATION_DISABLED


@pytest.mark.campaign("async-postgresql")
def test_a_key_is_let_in_as_soon_as_it_was_issued_though_the_replica_has_not_got_it(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served()
    service.issue_in_step()
    pair.pause()
    new = service.elsewhere(lambda guard: guard.keys.issue(organization="acme", name="new"))
    decision, asked = service.asked_for(new)
    assert isinstance(decision, Allow)
    assert asked == {"primary", "replica"}
    rotated = service.elsewhere(lambda guard: guard.keys.rotate(new.key.id))
    assert isinstance(service.decision_on(rotated), Allow)


@pytest.mark.campaign("async-redis")
def test_the_replica_only_lets_in(served: Callable[..., Served], pair: Pair) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    service.elsewhere(lambda guard: guard.organizations.disable("acme"))
    service.come_into_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.organizations.enable("acme"))
    decision, asked = service.asked_for(issued)
    assert isinstance(decision, Allow)
    assert asked == {"primary", "replica"}


@pytest.mark.campaign("sync-mariadb")
def test_a_replica_that_is_behind_is_believed_of_what_has_not_changed(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.keys.issue(organization="acme", name="new"))
    service.pass_seconds(0)
    service.pass_seconds(STALENESS / 2)
    decision, asked = service.asked_for(issued)
    assert isinstance(decision, Allow)
    assert asked == {"replica"}


@pytest.mark.campaign("async-postgresql", "async-redis", "sync-mariadb")
def test_a_replica_that_does_not_answer_is_left_alone_and_used_again(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.replica.cut()
    assert isinstance(service.decision_on(issued), Allow)
    decision, asked = service.asked_for(issued)
    assert isinstance(decision, Allow)
    assert asked == {"primary"}
    service.turn_until(lambda: service.told() == [ReplicaFailed])
    service.pass_seconds(STALENESS / 2)
    assert service.told() == [ReplicaFailed]
    pair.replica.mend()
    service.come_into_step()
    assert service.asked_for(issued)[1] == {"replica"}
    assert service.told() == [ReplicaFailed, ReplicaRecovered]


@pytest.mark.campaign("async-postgresql", "async-redis")
def test_a_replica_that_is_far_behind_is_told_of(
    served: Callable[..., Served], pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyguard.freshness.verified_tokens._RECENT_POSITIONS", 1)
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.keys.issue(organization="acme", name="new"))
    service.pass_seconds(0)
    assert isinstance(service.decision_on(issued), Allow)
    service.turn_until(lambda: service.port._behind_since is not None)
    assert service.told() == []
    assert service.asked_for(issued)[1] == {"primary"}
    service.pass_seconds(STALENESS)
    assert service.told() == [ReplicaFailed]
    [event] = [event for event in service.events if isinstance(event, ReplicaFailed)]
    assert "is behind the primary" in str(event.cause)
    pair.resume()
    service.come_into_step()
    assert service.told() == [ReplicaFailed, ReplicaRecovered]


@pytest.mark.campaign("async-postgresql", "async-redis", "sync-mariadb")
def test_a_replica_of_another_database_is_never_believed(
    served: Callable[..., Served], pair: Pair, request: pytest.FixtureRequest, flavour: str
) -> None:
    server, make = KINDS[request.node.callspec.params["pair"]]
    another = make(request.getfixturevalue(server))
    with Keyguard(another.plain(), management_timeout=60.0) as guard:
        guard.migrate()
        guard.organizations.create("other")
    another.pause()  # once it has all of that
    another.resume()
    service = served(read=another.read, cache_size=0)
    issued = service.issue()
    assert isinstance(service.decision_on(issued), Allow)
    service.turn_until(lambda: service.told() == [ReplicaFailed])
    [event] = [event for event in service.events if isinstance(event, ReplicaFailed)]
    assert "holds another history than the key store" in str(event.cause)
    assert service.asked_for(issued)[1] == {"primary"}
    another.close()


@pytest.mark.campaign("async-postgresql", "async-redis", "sync-mariadb")
def test_a_replica_without_tables_is_told_of_and_the_primary_serves(
    served: Callable[..., Served], pair: Pair, request: pytest.FixtureRequest
) -> None:
    server, make = KINDS[request.node.callspec.params["pair"]]
    empty = make(request.getfixturevalue(server))
    service = served(read=empty.read)
    issued = service.issue()
    assert isinstance(service.decision_on(issued), Allow)
    service.turn_until(lambda: service.told() == [ReplicaFailed])
    [event] = [event for event in service.events if isinstance(event, ReplicaFailed)]
    assert isinstance(event.cause, SchemaError)
    empty.close()


@pytest.mark.campaign("sync-mariadb")
def test_the_primary_may_be_its_own_replica(served: Callable[..., Served], pair: Pair) -> None:
    service = served(read=None, read_url=f" {pair.url}\n", cache_size=0)
    issued = service.issue_in_step()
    decision, asked = service.asked_for(issued)
    assert isinstance(decision, Allow)
    assert asked == {"replica"}


def _engine(flavour: str, url: str) -> Any:
    make: Any = sqlalchemy.create_engine
    if flavour == "async":
        make = sqlalchemy.ext.asyncio.create_async_engine
    drivers = {"postgresql": "psycopg", "mysql": "pymysql" if flavour == "sync" else "asyncmy"}
    scheme, rest = url.split("://")
    more = {} if scheme == "postgresql" else {"connect_args": {"charset": "utf8mb4"}}
    return make(f"{scheme}+{drivers[scheme]}://{rest}", **more)


@pytest.mark.campaign("async-postgresql", "async-redis")
def test_an_engine_or_a_client_may_lead_to_the_replica(
    flavour: str, pair: Pair, runner: asyncio.Runner
) -> None:
    target: Any
    if pair.read.startswith("redis"):
        module: Any = redis if flavour == "sync" else redis.asyncio
        target = module.Redis.from_url(pair.read)
    else:
        target = _engine(flavour, pair.read)
    service = Served(flavour, pair, runner, read=target, cache_size=0)
    issued = service.issue_in_step()
    decision, asked = service.asked_for(issued)
    assert isinstance(decision, Allow)
    assert asked == {"replica"}
    service.close()
    if flavour == "sync":
        getattr(target, "dispose", getattr(target, "close", None))()
    else:
        runner.run(getattr(target, "dispose", getattr(target, "aclose", None))())


@pytest.mark.campaign("async-redis")
def test_fresh_look_ups_and_management_ask_the_primary(
    served: Callable[..., Served], pair: Pair
) -> None:
    service = served(cache_size=0)
    issued = service.issue_in_step()
    pair.pause()
    service.elsewhere(lambda guard: guard.keys.revoke(issued.key.id, force=True))
    assert service.decision_on(issued, fresh=True).reason is Reason.KEY_REVOKED
    assert service.do(lambda guard: guard.keys.get(issued.key.id)).revoked_at is not None


@pytest.mark.parametrize(
    ("store", "read"),
    [
        ("memory://", "redis://localhost"),
        ("redis://localhost", "memory://"),
        ("postgresql://localhost/app", "sqlite:///keys.db"),
        ("redis://localhost", object()),
        ("postgresql://localhost/app", "redis://localhost"),
        ("redis://localhost", "redis+cluster://localhost"),
        ("redis://localhost", "rediss+sentinel://localhost/service"),
    ],
)
def test_what_has_no_replicas_or_is_none_is_refused(store: str, read: Any, flavour: str) -> None:
    guard: Any = Keyguard if flavour == "sync" else AsyncKeyguard
    with pytest.raises(ConfigurationError):
        guard(store, read=read)


def test_a_guard_that_believes_nothing_takes_no_replica(flavour: str) -> None:
    guard: Any = Keyguard if flavour == "sync" else AsyncKeyguard
    with pytest.raises(ConfigurationError, match="max_staleness=0 looks every key up anew"):
        guard("redis://localhost", read_url="redis://localhost:1", max_staleness=0)


def test_the_setting_shows_no_password() -> None:
    with Keyguard("redis://localhost", read_url="redis://:hunter2@localhost:1") as guard:
        assert "hunter2" not in repr(guard.settings)


def test_sessions_that_read_in_parts_are_refused(
    flavour: str, mariadb_replica: MariaDBReplica, runner: asyncio.Runner
) -> None:
    pair = MariaDBPair(mariadb_replica)
    with Keyguard(pair.plain(), management_timeout=60.0) as guard:
        guard.migrate()
    pair.pause()  # once it has the tables
    pair.resume()
    mariadb_replica.execute("SET GLOBAL tx_isolation = 'READ-UNCOMMITTED'")
    try:
        service = Served(flavour, pair, runner)
        issued = service.issue()
        assert isinstance(service.decision_on(issued), Allow)
        service.turn_until(lambda: service.told() == [ReplicaFailed])
        [event] = [event for event in service.events if isinstance(event, ReplicaFailed)]
        assert "READ UNCOMMITTED" in str(event.cause)
        service.close()
    finally:
        mariadb_replica.execute("SET GLOBAL tx_isolation = 'REPEATABLE-READ'")
        pair.close()
