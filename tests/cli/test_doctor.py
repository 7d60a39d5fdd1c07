"""What the doctor finds."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from keyguard import Keyguard
from keyguard.cli.doctor import _of_clock, _of_time
from tests.cli.conftest import Program, Run
from tests.services import (
    MariaDB,
    PostgreSQL,
    PostgresStandby,
    RedisCluster,
    RedisPair,
    RedisSentinel,
    RedisServer,
    free_port,
    running,
    until,
)

# Redis takes no changes while it waits for a replica that is not there.
COUNTED_HERE = ("--limiter", "memory://")
WELL = {"appendonly": "yes", "appendfsync": "everysec", "min-replicas-to-write": "1"}


@pytest.fixture
def own_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A primary whose changes wait for its replica."""
    monkeypatch.setenv("KEYGUARD_DURABLE_REPLICAS", "1")
    with running(RedisPair) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
        yield servers.primary


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d (ms|s)\b", r"N \1", text)


def test_a_healthy_database_is_reported_as_ok(keyguard: Program, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with Keyguard(url) as guard:
        guard.migrate()
    findings = [
        "the key store answers, and its version (0001) fits this keyguard",
        "a change that SQLite has acknowledged is on the disk (synchronous=FULL)",
        "a look-up takes N ms, as the median of 5; a request gives up after 60000 ms "
        "(store_timeout)",
        "new tokens are stored as sha256; the peppers that are set: none",
        "the counters of limits are in the key store",
        "the store of the counters answers",
        "a hit takes N ms, as the median of 5; a request gives up after 10000 ms (limiter_timeout)",
        "the clocks of this machine and of the counters are N s apart",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYGUARD_LIMITER_TIMEOUT", "10")
        run = keyguard("doctor", "--url", url)
        document = keyguard("doctor", "--url", url, "--json").json
    assert (run.status, without_times(run.stdout).splitlines()) == (
        0,
        [f"ok       {finding}" for finding in findings],
    )
    assert document["healthy"]
    told = [(finding["ok"], without_times(finding["text"])) for finding in document["findings"]]
    assert told == [(True, finding) for finding in findings]


def test_a_database_without_tables_is_a_problem(keyguard: Program, tmp_path: Path) -> None:
    (tmp_path / "keys.db").touch()
    run = keyguard("doctor", "--url", f"sqlite:///{tmp_path}/keys.db")
    assert run.status == 1
    assert run.stdout.startswith("problem  the database has no keyguard tables yet; run")


def test_a_file_that_does_not_exist_is_a_problem_and_is_not_made(
    keyguard: Program, tmp_path: Path
) -> None:
    run = keyguard("doctor", "--url", "sqlite:///keys.db")
    assert run.status == 1
    assert run.stdout.startswith(f"problem  there is no file '{tmp_path}/keys.db': check the URL")
    assert list(tmp_path.iterdir()) == []


def test_keys_in_memory_are_a_problem(keyguard: Program) -> None:
    run = keyguard("doctor", "--url", "memory://")
    assert run.status == 1
    assert "keys in memory are lost when the process ends" in run.stdout


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"appendonly": "no"}, "keeps no append-only file: a crash loses every change"),
        ({"appendfsync": "no"}, "lets the system decide when changes reach the disk"),
        (
            {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"},
            "has a maxmemory and the policy allkeys-lru: when it is full, it drops keys",
        ),
        ({"min-replicas-to-write": "0"}, "acknowledges changes that no replica has"),
        ({"replica-read-only": "no"}, "takes changes as a replica, too, so a former primary"),
    ],
)
def test_each_setting_that_loses_keys_is_one_line(
    settings: dict[str, str], says: str, own_redis: RedisServer, keyguard: Program
) -> None:
    for name, value in (WELL | settings).items():
        own_redis.call("CONFIG", "SET", name, value)
    run = keyguard("doctor", "--url", own_redis.url, *COUNTED_HERE)
    assert run.status == 1
    [problem] = [line for line in run.stdout.splitlines() if line.startswith("problem")]
    assert says in problem


def test_a_redis_that_loses_nothing_is_reported_as_ok(
    own_redis: RedisServer, keyguard: Program
) -> None:
    for name, value in WELL.items():
        own_redis.call("CONFIG", "SET", name, value)
    run = keyguard("doctor", "--url", own_redis.url, *COUNTED_HERE)
    assert (run.status, run.stdout.count("problem")) == (0, 0)


@pytest.mark.parametrize(
    ("settings", "on_disk"),
    [
        ({"appendfsync": "always"}, "by then"),
        ({"appendfsync": "everysec"}, "within about a second"),
        ({"appendonly": "no"}, "only with the next snapshot"),
    ],
)
def test_what_the_acknowledgement_of_redis_is_worth_is_said(
    settings: dict[str, str], on_disk: str, own_redis: RedisServer, keyguard: Program
) -> None:
    for name, value in (WELL | settings).items():
        own_redis.call("CONFIG", "SET", name, value)
    assert (
        f"ok       a change that {own_redis.url} has acknowledged is on the disk {on_disk}, and "
        "on 1 replicas (durable_replicas); 1 are connected\n"
    ) in keyguard("doctor", "--url", own_redis.url).stdout


def test_replicas_for_which_no_change_waits_are_a_problem_and_so_are_missing_ones(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(RedisPair) as servers:
        for name, value in WELL.items():
            servers.primary.call("CONFIG", "SET", name, value)
        with Keyguard(servers.url) as guard:
            guard.migrate()
        assert "problem  " + servers.url + " has replicas, and no change waits for them" in (
            keyguard("doctor", "--url", servers.url).stdout
        )
        monkeypatch.setenv("KEYGUARD_DURABLE_REPLICAS", "1")
        run = keyguard("doctor", "--url", servers.url)
        assert (run.status, run.stdout.count("problem")) == (0, 0)
        assert "on 1 replicas (durable_replicas); 1 are connected" in run.stdout
        monkeypatch.setenv("KEYGUARD_DURABLE_REPLICAS", "2")
        run = keyguard("doctor", "--url", servers.url)
        assert run.status == 1
        assert "has 1 replicas, so each change waits in vain for 2" in run.stdout


@pytest.mark.parametrize(
    ("commit", "says"),
    [
        (
            "on",
            "ok       a change that PostgreSQL has acknowledged is on its disk alone, so that a "
            "failover may lose it: no synchronous standby is named (synchronous_commit=on)",
        ),
        ("off", "problem  PostgreSQL acknowledges changes that are not on the disk yet"),
    ],
)
def test_what_the_acknowledgement_of_postgresql_is_worth_is_said(
    commit: str, says: str, postgresql: PostgreSQL, keyguard: Program
) -> None:
    url, _ = postgresql.create_database()
    with Keyguard(url) as guard:
        guard.migrate()
    run = keyguard("doctor", "--url", f"{url}&options=-csynchronous_commit%3D{commit}")
    assert says in run.stdout


@pytest.mark.parametrize(
    ("flush", "says"),
    [
        ("1", "ok       a change that the database has acknowledged is on its disk"),
        ("2", "problem  the database acknowledges changes that are not on the disk yet"),
    ],
)
def test_what_the_acknowledgement_of_mariadb_is_worth_is_said(
    flush: str, says: str, mariadb: MariaDB, keyguard: Program
) -> None:
    url, _ = mariadb.create_database()
    with Keyguard(url) as guard:
        guard.migrate()
    mariadb.execute(f"SET GLOBAL innodb_flush_log_at_trx_commit = {flush}")
    try:
        run = keyguard("doctor", "--url", url)
    finally:
        mariadb.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    assert f"{says} (innodb_flush_log_at_trx_commit={flush})" in run.stdout


def test_keys_that_redis_evicted_for_lack_of_memory_are_reported(
    own_redis: RedisServer, keyguard: Program
) -> None:
    own_redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    own_redis.call("SET", "other", "x" * 1_000_000)
    used = own_redis.call("INFO", "memory").partition(b"used_memory:")[2].split()[0]
    own_redis.call("CONFIG", "SET", "maxmemory", str(int(used) - 100_000))
    own_redis.call("SET", "one", "more")
    own_redis.call("CONFIG", "SET", "maxmemory", "0")
    run = keyguard("doctor", "--url", own_redis.url)
    assert "entries already, for lack of memory" in run.stdout
    assert run.status == 1


def test_an_unreachable_store_is_named_without_its_password(keyguard: Program) -> None:
    port = free_port()
    run = keyguard("doctor", "--url", f"redis://:hunter2@127.0.0.1:{port}")
    assert run.status == 1
    assert run.stdout.startswith(f"problem  redis://127.0.0.1:{port}/0 is down, slow or overloaded")
    assert run.stdout.count("problem") == 1
    assert "hunter2" not in run.stdout + run.stderr


def test_the_store_of_the_counters_is_checked_too(keyguard: Program, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with Keyguard(url) as guard:
        guard.migrate()
    run = keyguard("doctor", "--url", url, "--limiter", url)
    assert "ok       the store of the counters answers\n" in run.stdout
    assert "the counters of limits are in the key store" not in run.stdout
    run = keyguard("doctor", "--url", url, "--limiter", f"redis://127.0.0.1:{free_port()}")
    assert run.status == 1
    assert "problem  limits: redis://127.0.0.1:" in run.stdout


def test_every_node_of_a_cluster_is_checked(redis_cluster: RedisCluster, keyguard: Program) -> None:
    redis_cluster.flush()
    with Keyguard(redis_cluster.url) as guard:
        guard.migrate()
    run = keyguard("doctor", "--url", redis_cluster.url)
    for server in redis_cluster.servers:
        assert f"ok       redis://127.0.0.1:{server.port}/0 answers, Redis" in run.stdout
        assert f"ok       redis://127.0.0.1:{server.port}/0 has no replica" in run.stdout


def test_sentinels_are_checked_and_a_replica_is_refused_as_a_store(
    redis_sentinel: RedisSentinel, keyguard: Program
) -> None:
    redis_sentinel.flush()
    with Keyguard(redis_sentinel.url) as guard:
        guard.migrate()
    gone = free_port()
    url = redis_sentinel.url.replace("/mymaster", f",127.0.0.1:{gone}/mymaster")
    run = keyguard("doctor", "--url", url)
    assert (
        f"ok       the Sentinel redis://127.0.0.1:{redis_sentinel.sentinel.port} answers"
        in run.stdout
    )
    assert f"problem  the Sentinel redis://127.0.0.1:{gone} is down" in run.stdout
    run = keyguard("doctor", "--url", redis_sentinel.replica.url)
    assert "is a replica and can't be written to" in run.stdout
    assert run.status == 1


@pytest.mark.parametrize("forbidden", ["-info", "-config", "-role", "-info -config -role"])
def test_what_the_user_may_not_ask_is_said_and_is_no_problem(
    forbidden: str, own_redis: RedisServer, keyguard: Program
) -> None:
    for name, value in WELL.items():
        own_redis.call("CONFIG", "SET", name, value)
    rights = f"on >hunter2 ~* &* +@all {forbidden}"
    own_redis.call("ACL", "SETUSER", "service", *rights.split())
    url = own_redis.url.replace("//", "//service:hunter2@")
    run = keyguard("doctor", "--url", url, *COUNTED_HERE)
    assert (run.status, run.stdout.count("problem")) == (0, 0)
    assert ("refuses this user INFO, so that keyguard can't tell" in run.stdout) == (
        "info" in forbidden
    )
    assert ("is on the disk as its settings say, which keyguard may not read" in run.stdout) == (
        forbidden == "-config"
    )


def test_how_far_a_standby_is_behind_is_said(
    postgresql: PostgreSQL, standby: PostgresStandby, keyguard: Program
) -> None:
    alone, _ = postgresql.create_database()
    url, _ = standby.primary.create_database()
    for database in (alone, url):
        with Keyguard(database) as guard:
            guard.migrate()
    assert "follow PostgreSQL" not in keyguard("doctor", "--url", alone).stdout
    followed = keyguard("doctor", "--url", url)
    on_standby = url.replace(str(standby.primary.sockets), str(standby.sockets))
    standby.catch_up()
    run = keyguard("doctor", "--url", on_standby)
    standby.primary.execute("CREATE ROLE guest LOGIN")
    granted = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest"
    standby.primary.execute(granted, make_url(url).database or "")
    guest = keyguard("doctor", "--url", url.replace("keyguard:hunter2@", "guest@"))
    assert re.search(
        "ok       1 standbys follow PostgreSQL; the last of them is [0-9]+ bytes behind",
        followed.stdout,
    )
    assert "is a replica, or otherwise read-only, and can't be written to" in run.stdout
    assert run.status == 1
    assert "or this user may not see it (pg_monitor may)" in guest.stdout


def test_how_the_replication_of_mariadb_stands_is_said(mariadb: MariaDB, keyguard: Program) -> None:
    url, _ = mariadb.create_database()
    with Keyguard(url) as guard:
        guard.migrate()
    mariadb.execute("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_USER = 'nobody'")
    try:
        run = keyguard("doctor", "--url", url)
    finally:
        mariadb.execute("RESET SLAVE ALL")
    assert "problem  the database is a replica whose replication does not run" in run.stdout


def test_how_far_a_replica_is_behind_is_said(keyguard: Program) -> None:
    with running(RedisPair) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
        run = keyguard("doctor", "--url", servers.url)
    replica = f"the replica 127.0.0.1:{servers.replica.port} of {servers.url}"
    assert re.search(
        f"ok       {replica} is [0-9]+ bytes behind, as it said [01] s ago", run.stdout
    )


def test_a_call_that_takes_most_of_a_request_s_time_is_a_problem() -> None:
    assert _of_time("a hit", 0.02, "limiter_timeout", 0.04).is_fine
    found = _of_time("a hit", 0.021, "limiter_timeout", 0.04)
    assert not found.is_fine
    assert found.text == (
        "a hit takes 21.0 ms, as the median of 5; a request gives up after 40 ms (limiter_timeout),"
        " which a busy moment will exceed; bring the store nearer, or raise "
        "KEYGUARD_LIMITER_TIMEOUT"
    )


def test_clocks_that_are_seconds_apart_are_a_problem() -> None:
    for theirs in (90.0, 112.0):
        found = _of_clock(theirs, before=100.0, after=102.0)
        assert not found.is_fine
        assert "10.0 s apart: one is wrong" in found.text
    assert _of_clock(101.0, before=100.0, after=102.0).is_fine


def test_peppers_that_are_missing_are_a_problem(
    keyguard: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    pepper = secrets.token_urlsafe(48)
    with Keyguard(url, peppers=[pepper]) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        for name in ("ci", "bot"):
            guard.keys.issue(organization="acme", name=name)
        [needed] = guard.settings.token_hasher.pepper_ids
    run = keyguard("doctor", "--url", url)
    assert run.status == 1
    assert f"problem  2 of the first 2 keys can't be verified: the pepper {needed} is" in run.stdout
    monkeypatch.setenv("KEYGUARD_PEPPER", pepper)
    run = keyguard("doctor", "--url", url)
    assert run.status == 0
    assert f"stored as hmac-sha256:{needed}; the peppers that are set: {needed}\n" in run.stdout


def of_read_replica(run: Run) -> list[str]:
    lines = without_times(run.stdout).splitlines()
    return [line for line in lines if "read replica" in line or "another history" in line]


def test_a_read_replica_is_reported(keyguard: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(RedisPair) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
            guard.organizations.create("acme")
        replica = servers.replica
        monkeypatch.setenv("KEYGUARD_READ_URL", replica.url)
        until(lambda: replica.call("XLEN", "keyguard:{store}:audit") == 2)
        asking = (
            "ok       a look-up on the read replica takes N ms, as the median of 5; a request "
            "gives up after 60000 ms (store_timeout)"
        )
        run = keyguard("doctor", "--url", servers.url, *COUNTED_HERE)
        says = f"ok       the read replica {replica.url} answers, and has every change"
        assert of_read_replica(run) == [says, asking]
        servers.link.cut()
        with Keyguard(servers.url) as guard:
            guard.organizations.create("other")
        run = keyguard("doctor", "--url", servers.url, *COUNTED_HERE)
        says = (
            f"ok       the read replica {replica.url} answers, and is behind: it lacks changes of "
            "1 keys or organizations, for which the primary is asked"
        )
        assert of_read_replica(run) == [says, asking]
        replica.call("REPLICAOF", "NO", "ONE")
        with Keyguard(replica.url) as guard:
            guard.organizations.create("different")
        run = keyguard("doctor", "--url", servers.url, *COUNTED_HERE)
        assert run.status == 1
        assert of_read_replica(run)[0].startswith(f"problem  {replica.url} holds another history")
        replica.kill()
        run = keyguard("doctor", "--url", servers.url, *COUNTED_HERE)
        assert run.status == 1
        assert "problem  the read replica: " in run.stdout
