"""Counters in Redis: round trips, expiry and outages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
import redis as redis_py

from keyguard import AsyncKeyguard, Keyguard, Limit, Reason
from keyguard.adapters import asgi, wsgi
from keyguard.core.limits.charges import Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import CorruptDataError, StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.events import LimiterFailed, LimiterRecovered
from keyguard.runtime.sync import run_sync
from keyguard.stores.failover import ASK_AGAIN_AFTER, CircuitBreaker
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.redis.counters import AsyncRedisRateLimiter, RedisRateLimiter
from keyguard.stores.redis.scripts import ScriptCall, parted
from tests.limits.conftest import WHENEVER, charge, limiter_of
from tests.services import RedisCluster, RedisSentinel, RedisServer, free_port, running, until
from tests.world import StandingClock

WATCHDOG = pytest.mark.timeout(60, func_only=True)


@pytest.fixture
def limiter(redis: RedisServer) -> Iterator[RedisRateLimiter]:
    store: Any = open_store(redis.create_database()[0])
    limiter = RedisRateLimiter(store.port, owned=True)
    yield limiter
    limiter.close()


class Guarded:
    """A guard of either flavour over a Redis, called through its pure adapter."""

    def __init__(self, flavour: str, url: str, limits: int, **options: Any) -> None:
        self.clock = StandingClock()
        self.events: list[Any] = []
        options = {
            "clock": self.clock,
            "hooks": [self.events.append],
            "default_limits": [Limit(f"limit-{n}", f"100/{n} hours") for n in range(1, limits + 1)],
            "limiter_timeout": 10.0,  # a slow machine is no outage
            **options,
        }
        with Keyguard(url, **options) as guard:
            guard.migrate()
            guard.organizations.create("acme")
            self.token = guard.keys.issue(organization="acme", name="a").token.reveal()
        self.runner = asyncio.Runner()
        if flavour == "sync":
            self.guard: Any = Keyguard(url, **options)
            app = wsgi.KeyguardMiddleware(wsgi_app, guard=self.guard)
            self.client: Any = httpx.Client(transport=httpx.WSGITransport(app))
        else:
            self.guard = self.runner.run(self._made(url, options))
            aapp: Any = asgi.KeyguardMiddleware(asgi_app, guard=self.guard)
            self.client = httpx.AsyncClient(transport=httpx.ASGITransport(aapp))
        self.flavour = flavour
        # Background work would add commands, and meet failures, at times of its own.
        self.guard._ports.background.start = lambda: None

    async def _made(self, url: str, options: Any) -> AsyncKeyguard:
        return AsyncKeyguard(url, **options)

    def get(self) -> httpx.Response:
        fields = {"Authorization": f"Bearer {self.token}"}
        answer = self.client.get("http://test/", headers=fields)
        return answer if self.flavour == "sync" else self.runner.run(answer)

    def close(self) -> None:
        if self.flavour == "sync":
            self.guard.close()
        else:
            self.runner.run(self.guard.aclose())
            self.runner.run(asyncio.sleep(0))
        self.runner.close()


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def connected(server: RedisServer) -> redis_py.Redis:
    client = redis_py.Redis(port=server.port)
    client.ping()
    return client


@pytest.mark.parametrize("limits", [1, 5])
def test_a_limited_request_is_one_command(limits: int, flavour: str, redis: RedisServer) -> None:
    url, _ = redis.create_database()
    guarded = Guarded(flavour, url, limits)
    guarded.get()  # the look-up, and the script's first use
    with (
        connected(redis) as client,
        connected(redis) as watcher,
        watcher.monitor() as monitor,
    ):
        for _ in range(3):
            assert guarded.get().status_code == 200
        client.echo("that is all")
        seen: list[str] = []
        for command in monitor.listen():
            if command["command"].startswith("ECHO"):
                break
            # SELECT is of a connection that is opened to be kept ready.
            if command["client_type"] == "lua" or command["command"].startswith("SELECT"):
                continue
            seen.append(command["command"].split()[0])
    assert seen == ["EVALSHA"] * 3
    guarded.close()


@pytest.mark.parametrize("owners", [1, 20])
def test_hits_of_one_turn_of_the_loop_are_one_command(owners: int, redis: RedisServer) -> None:
    url, _ = redis.create_database()
    buckets = [charge(owner=f"org_{number % owners}", amount=100) for number in range(20)]

    async def run() -> list[bool]:
        store: Any = open_async_store(url)
        breaker = CircuitBreaker(
            AsyncRedisRateLimiter(store.port, owned=True),
            awaited=True,
            timeout=60.0,
            fails_open=False,
            clock=StandingClock(),
            tell=pytest.fail,
        )
        assert await breaker.hit([buckets[0]])  # the script's first use
        outcomes = await asyncio.gather(*[breaker.hit([bucket]) for bucket in buckets])
        await store.aclose()
        return [outcome is not None and outcome.admitted for outcome in outcomes]

    with connected(redis) as client, connected(redis) as watcher, watcher.monitor() as monitor:
        assert asyncio.run(run()) == [True] * 20
        client.echo("that is all")
        seen: list[str] = []
        for command in monitor.listen():
            if command["command"].startswith("ECHO"):
                break
            if command["client_type"] != "lua" and command["command"].startswith("EVAL"):
                seen.append(command["command"].split()[0])
    assert seen.count("EVALSHA") == 2  # the first hit, which may take an EVAL as well, and the 20


def test_a_hit_that_fails_leaves_those_beside_it_as_they_are(redis: RedisServer) -> None:
    url, _ = redis.create_database()
    store: Any = open_store(url)
    limiter = RedisRateLimiter(store.port, owned=True)
    buckets = [charge(number) for number in range(5)]
    with redis_py.Redis.from_url(url) as client:
        client.set(buckets[1].key, "nonsense")
        client.rpush(buckets[3].key, "another kind of value")
    for remaining in (9, 8):
        answers: Any = limiter.hit_all([[bucket, buckets[4]] for bucket in buckets[:4]])
        assert [type(answer) for answer in answers] == [Outcome, CorruptDataError] * 2
        assert [answer.tallies[0].remaining for answer in answers[::2]] == [remaining] * 2
    assert limiter.hit([buckets[4]]).tallies[0].remaining == 10 - 4 - 1
    limiter.close()


def test_a_server_that_refuses_keys_of_two_slots_counts_hits_one_by_one(
    redis_cluster: RedisCluster,
) -> None:
    redis_cluster.flush()
    server = redis_cluster.servers[0]
    owners = [
        owner
        for owner in (f"org_{number}" for number in range(50))
        if server.call("CLUSTER", "KEYSLOT", f"{{{owner}}}") < 16384 // 3
    ]
    store: Any = open_store(server.url)  # which says nothing of a cluster
    limiter = RedisRateLimiter(store.port, owned=True)
    for remaining in (9, 8):
        answers: Any = limiter.hit_all([[charge(owner=owner)] for owner in owners[:3]])
        assert [answer.tallies[0].remaining for answer in answers] == [remaining] * 3
    limiter.close()


def test_every_counter_expires_and_those_of_one_owner_share_a_slot(
    redis_cluster: RedisCluster,
) -> None:
    redis_cluster.flush()
    store: Any = open_store(redis_cluster.url)
    limiter = RedisRateLimiter(store.port, owned=True)
    for owner in ("org_1", "org_2", "org_3", "org_4"):
        charges = [
            charge(n, owner=owner, window=60, strategy=strategy)
            for n, strategy in enumerate(Strategy)
        ]
        limiter.hit(charges)
        limiter.adjust(charges, [5, -5, 3], [WHENEVER] * 3)
        limiter.adjust(charges, [-1, -1, -20], [WHENEVER] * 3)
    limiter.close()
    holding = 0
    for server in redis_cluster.servers:
        with redis_py.Redis(port=server.port) as client:
            keys = client.keys("*")
            assert [key for key in keys if not 0 < client.ttl(key) <= 122] == []
            assert all(key.startswith(b"keyguard:{org_") for key in keys)
            holding += bool(keys)
    assert holding > 1


def test_the_servers_clock_counts(
    limiter: RedisRateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = charge(amount=1, window=3600, strategy=Strategy.FIXED_WINDOW)
    assert limiter.hit([bucket]).admitted
    monkeypatch.setattr("time.time", lambda: 9e9)
    monkeypatch.setattr("time.monotonic", lambda: 9e9)
    assert not limiter.hit([bucket]).admitted


def test_a_script_that_the_server_forgot_is_sent_again(
    limiter: RedisRateLimiter, redis: RedisServer
) -> None:
    bucket = charge(strategy=Strategy.FIXED_WINDOW)  # which begins with the first hit
    assert limiter.hit([bucket]).tallies[0].remaining == 9
    redis.call("SCRIPT", "FLUSH")
    assert limiter.hit([bucket]).tallies[0].remaining == 8


@pytest.mark.parametrize("hits", [1, 2])
def test_a_server_out_of_memory_is_named_whether_it_counts_one_hit_or_several(
    hits: int, own_redis: RedisServer
) -> None:
    store: Any = open_store(own_redis.url)
    limiter = RedisRateLimiter(store.port, owned=True)
    own_redis.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="is out of memory"):
        limiter.hit_all([[charge(owner=f"org_{owner}")] for owner in range(hits)])
    with pytest.raises(StoreUnavailableError, match="is out of memory"):
        limiter.adjust([charge()], [1], [WHENEVER])
    limiter.close()


def test_a_right_that_lacks_for_one_owner_leaves_the_hits_of_others_together(
    own_redis: RedisServer,
) -> None:
    own_redis.call("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~keyguard:{org_0}*")
    store: Any = open_store(own_redis.url.replace("redis://", "redis://app:secret@"))
    limiter = RedisRateLimiter(store.port, owned=True)
    mine, others = [charge(owner="org_0")], [charge(owner="org_1")]
    for remaining in (9, 8):
        counted, refused = limiter.hit_all([mine, others])
        assert isinstance(counted, Outcome)
        assert counted.tallies[0].remaining == remaining
        assert isinstance(refused, StoreError)
    assert all(isinstance(answer, Outcome) for answer in limiter.hit_all([mine, mine]))
    assert store.port._takes_joined
    limiter.close()


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("value", ["nonsense", "1 2 3 4", "-1", ""])
def test_nonsense_in_a_counter_is_said_to_be(
    strategy: Strategy, value: str, redis: RedisServer
) -> None:
    url, _ = redis.create_database()
    store: Any = open_store(url)
    limiter = RedisRateLimiter(store.port, owned=True)
    bucket = charge(strategy=strategy)
    with redis_py.Redis.from_url(url) as client:
        client.set(bucket.key, value)
    with pytest.raises(CorruptDataError, match="that keyguard never wrote"):
        limiter.hit([bucket])
    limiter.close()


class Answering:
    """A store whose port, which is itself, answers every script alike."""

    is_cluster = False

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.port = self

    async def run_all(self, calls: Sequence[ScriptCall]) -> Any:
        return [self.answer for _ in calls]

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("answer", [None, ["what", "is", "this"], b"1", b"1 2 3", b"1 1 1 x 1"])
def test_an_answer_that_is_not_counts_is_refused(answer: Any) -> None:
    store: Any = Answering(answer)
    counters = AsyncRedisRateLimiter(store.port)
    with pytest.raises(CorruptDataError, match="something other than counts"):
        run_sync(counters.hit([charge()]))


@pytest.mark.parametrize("answer", [b"1 1 9 0 0 0", b"", 1, None, [b"1 1 9 0 0 0"]])
def test_an_answer_to_joined_hits_that_is_not_one_for_each_is_refused(answer: Any) -> None:
    assert parted(answer, 2) == [None, None]


@pytest.mark.campaign("async-closed", "sync-open")
@WATCHDOG
@pytest.mark.parametrize("how", ["stopped", "killed", "read-only", "full"])
@pytest.mark.parametrize("on_error", ["open", "closed"])
def test_in_an_outage_requests_pass_or_get_503_and_then_counting_resumes(
    how: str,
    on_error: str,
    flavour: str,
    own_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = own_redis.url
    # Only a server that says nothing is given up after a while. Whatever answers may be slow.
    guarded = Guarded(flavour, url, 1, on_limiter_error=on_error)
    assert guarded.get().headers["ratelimit"].startswith('"limit-1";r=99')
    status = 200 if on_error == "open" else 503

    def refused() -> None:
        for _ in range(3):
            assert guarded.get().status_code == status

    if how == "stopped":
        with own_redis.suspended(), monkeypatch.context() as impatient:
            impatient.setattr(guarded.guard.breaker, "_timeout", 0.05)
            refused()
    elif how == "killed":
        own_redis.kill()
        refused()
        own_redis.start()
    elif how == "read-only":
        own_redis.call("REPLICAOF", "127.0.0.1", str(free_port()))
        refused()
        own_redis.call("REPLICAOF", "NO", "ONE")
    else:
        own_redis.call("CONFIG", "SET", "maxmemory", "1")
        refused()
        own_redis.call("CONFIG", "SET", "maxmemory", "0")
    assert guarded.get().status_code == status  # it is left alone for a second
    guarded.clock.advance(timedelta(seconds=ASK_AGAIN_AFTER))
    if flavour == "async":
        guarded.runner.run(asyncio.sleep(0))
    assert guarded.get().status_code == 200
    kinds = [type(e) for e in guarded.events if isinstance(e, LimiterFailed | LimiterRecovered)]
    assert kinds == [LimiterFailed, LimiterRecovered]
    if on_error == "closed":
        assert Reason.LIMITER_UNAVAILABLE in [getattr(e, "reason", None) for e in guarded.events]
    guarded.close()


@WATCHDOG
def test_no_call_waits_longer_than_it_may(own_redis: RedisServer) -> None:
    store: Any = open_store(own_redis.url)
    limiter = RedisRateLimiter(store.port, owned=True)
    limiter.hit([charge()])
    with own_redis.suspended(), within(0.05):
        for _ in range(5):
            with pytest.raises(StoreUnavailableError):
                limiter.hit([charge()])
    limiter.close()


@pytest.mark.campaign("async")
@pytest.mark.timeout(60)
def test_the_replica_that_took_over_counts_on(flavour: str, runner: asyncio.Runner) -> None:
    with running(RedisSentinel) as servers:
        url = f"{servers.url.rpartition('/')[0]}/0"

        async def made() -> Any:
            return limiter_of(open_async_store(url))

        limiter = limiter_of(open_store(url)) if flavour == "sync" else runner.run(made())

        async def awaited() -> Any:
            async with awithin(1.0):
                return await limiter.hit([charge()])

        def hit() -> Any:
            if flavour == "async":
                return runner.run(awaited())
            with within(1.0):
                return limiter.hit([charge()])

        def counts_on() -> bool:
            try:
                remaining: int = hit().tallies[0].remaining
            except (StoreError, TimeoutError):
                return False
            return remaining == 8

        assert hit().tallies[0].remaining == 9
        until(lambda: servers.replica.call("DBSIZE") == 1)
        servers.primary.kill()
        until(counts_on)
        assert b"role:master" in servers.replica.call("INFO", "replication")
        limiter.close() if flavour == "sync" else runner.run(limiter.aclose())


def test_counters_can_be_in_redis_while_the_keys_are_elsewhere(
    flavour: str, redis: RedisServer, runner: asyncio.Runner
) -> None:
    url, _ = redis.create_database()

    async def made() -> Any:
        return AsyncKeyguard("memory://", limiter=url)

    if flavour == "sync":
        with Keyguard("memory://", limiter=redis_py.Redis.from_url(url)) as guard:
            assert isinstance(guard.limiter, RedisRateLimiter)
            assert guard.limiter.hit([charge()]).admitted
        return
    other = runner.run(made())
    assert isinstance(other.limiter, AsyncRedisRateLimiter)
    runner.run(other.aclose())
