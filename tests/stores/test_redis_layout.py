"""How keys lie in Redis: what a commit leaves behind, and stores of an older layout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard.core.keys.records import (
    Key,
    KeyDigest,
    KeyFilter,
    Organization,
    Page,
    RevocationReason,
    Use,
)
from keyguard.core.limits.limit import Limit
from keyguard.exceptions import CorruptDataError, SchemaError
from keyguard.stores.redis import migrating
from tests.services import RedisCluster, RedisSentinel, RedisServer, python, running
from tests.stores.changes import adding, changing, revoking
from tests.stores.conftest import Awaited, Plain, opened
from tests.stores.records import LATER, NOON, key, organization, record

ALL = KeyFilter()
STORE = "keyguard:{store}:"
LIMITS = (Limit("burst", "5 per second"),)
OLD_TIME = "2026-03-01T12:00:00.123456Z"

Client = Any


@pytest.fixture
def url(redis: RedisServer) -> str:
    return redis.create_database()[0]


def client_of(url: str) -> Client:
    import redis as redis_py

    return redis_py.Redis.from_url(url, decode_responses=True)


def trail_of(store: Any, **wanted: Any) -> list[Any]:
    default: dict[str, Any] = {"organization": None, "subject": None, "after": None, "limit": 1000}
    return list(store.list_audit(**default | wanted))


def old_organization(number: int = 1) -> dict[str, str]:
    return {
        "id": organization(number).id,
        "slug": f"acme-{number}",
        "name": f"Acme {number}",
        "created_at": OLD_TIME,
        "disabled_at": "",
        "limits": '[{"name":"burst","rate":"5 per second","per":"key"}]',
    }


def old_key(number: int, **columns: str) -> dict[str, str]:
    return {
        "id": key(number).id,
        "family": key(number).family,
        "organization": organization().id,
        "name": f"key {number}",
        "scopes": "models:read",
        "created_at": OLD_TIME,
        "not_before": "",
        "expires_at": "",
        "revoked_at": "",
        "revoked_reason": "",
        "metadata": '{"a": "\\ud800"}',
        "limits": "[]",
        "digest": f"$sha256$digest-{number}",
        **columns,
    }


def write_layout_1(client: Client, keys: list[dict[str, str]]) -> None:
    """Write a store as keyguard did before there was a trail."""
    pipe = client.pipeline(transaction=False)
    owner = old_organization()
    pipe.set(f"{STORE}schema", "1")
    pipe.hset(f"{STORE}slugs", owner["slug"], owner["id"])
    pipe.zadd(f"{STORE}organizations", {f"{OLD_TIME} {owner['id']}": 0})
    pipe.hset(f"{STORE}organization:{owner['id']}", mapping=owner)
    for one in keys:
        entry = {f"{one['created_at']} {one['id']}": 0}
        pipe.zadd(f"{STORE}keys", entry)
        pipe.zadd(f"{STORE}keys:{one['organization']}", entry)
        pipe.hset(f"{STORE}key:{one['id']}", mapping=one)
    pipe.execute()


OLD_KEYS = [
    old_key(1),
    old_key(2, revoked_at=OLD_TIME, revoked_reason="lost \N{ROCKET}"),
    old_key(3, revoked_at=OLD_TIME),
    old_key(4, revoked_at=OLD_TIME, revoked_reason="superseded", scopes=""),
    old_key(5, family=key(1).family),
]


def new_key(number: int, **fields: Any) -> Key:
    return key(number, metadata={"a": "\ud800"}, **fields)


UNSPECIFIED = {"revoked_at": NOON, "revoked_reason": RevocationReason.UNSPECIFIED}
NEW_KEYS = [
    new_key(1),
    new_key(2, **UNSPECIFIED, revoked_note="lost \N{ROCKET}"),
    new_key(3, **UNSPECIFIED),
    new_key(4, **UNSPECIFIED, revoked_note="superseded", scopes=frozenset()),
    new_key(5, family=key(1).family),
]
OWNER = organization(limits=(Limit("burst", "5 per second"),))


def check_brought_up(store: Plain | Awaited) -> None:
    assert list(store.list_organizations(after=None, limit=9)) == [OWNER]
    assert list(store.list_keys(ALL, after=None, limit=9)) == NEW_KEYS
    family = KeyFilter(family=key(1).family)
    assert list(store.list_keys(family, after=None, limit=9)) == [NEW_KEYS[0], NEW_KEYS[4]]
    assert store.list_digests(after=None, limit=9) == Page(
        (KeyDigest(key(1).id, "$sha256$digest-1"), KeyDigest(key(5).id, "$sha256$digest-5"))
    )
    assert trail_of(store) == []


# An older layout


def test_a_store_of_version_1_is_brought_up_to_date(
    flavour: str, url: str, runner: asyncio.Runner
) -> None:
    with client_of(url) as client:
        write_layout_1(client, OLD_KEYS)
    store = opened(flavour, url, runner)
    with pytest.raises(SchemaError, match=r"version '1', which is older .* run 'keyguard migrate'"):
        store.find_key(key().id)
    store.migrate()
    check_brought_up(store)
    store.migrate()
    check_brought_up(store)
    # And is like any other.
    assert store.commit(revoking(NEW_KEYS[0], NOON, "gone"))
    assert store.find_key(key(1).id).key.revoked_note == "gone"
    assert store.change_organization(OWNER.slug, scopes=frozenset()).scopes == frozenset()
    assert store.find_organization(OWNER.slug).scopes == frozenset()
    store.mark_used([Use(key(5).id, NOON)])
    assert store.find_key(key(5).id).key.last_used_at == NOON
    assert len(trail_of(store)) == 2
    store.close()


@pytest.mark.parametrize("kind", ["redis_cluster", "redis_sentinel"])
def test_a_cluster_and_what_sentinels_watch_are_brought_up_too(
    kind: str, flavour: str, request: pytest.FixtureRequest, runner: asyncio.Runner
) -> None:
    servers: RedisCluster | RedisSentinel = request.getfixturevalue(kind)
    servers.flush()
    import redis as redis_py

    client: Client = (
        redis_py.RedisCluster(host="127.0.0.1", port=servers.servers[0].port, decode_responses=True)
        if isinstance(servers, RedisCluster)
        else client_of(servers.primary.url)
    )
    with client:
        keys = {f"{STORE}key:{one['id']}": one for one in OLD_KEYS}
        owner = old_organization()
        client.set(f"{STORE}schema", "1")
        client.hset(f"{STORE}organization:{owner['id']}", mapping=owner)
        client.zadd(f"{STORE}organizations", {f"{OLD_TIME} {owner['id']}": 0})
        for name, one in keys.items():
            client.hset(name, mapping=one)
            client.zadd(f"{STORE}keys", {f"{OLD_TIME} {one['id']}": 0})
    store = opened(flavour, servers.url, runner)
    store.migrate()
    check_brought_up(store)
    store.close()


def test_a_large_store_is_brought_up_in_parts(url: str, runner: asyncio.Runner) -> None:
    many = [old_key(number) for number in range(1, 1501)]
    with client_of(url) as client:
        write_layout_1(client, many)
        client.delete(f"{STORE}key:{key(7).id}")  # what a crash leaves in an index
        store = opened("sync", url, runner)
        store.migrate()
        assert client.zcard(f"{STORE}ids") == 1499
        assert client.zrange(f"{STORE}family:{key(1500).family}", 0, -1) == [
            f"{OLD_TIME} {key(1500).id}"
        ]
    assert len(store.list_digests(after=None, limit=2000)) == 1499
    store.close()


KILLED = """
import os, signal, sys
from keyguard.stores.opening import open_store
from keyguard.stores.redis import migrating
from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.connections import Connections
migrating._BATCH = 2
url, step, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
call, count = Connections.call, 0
def dying(self, command, key):
    global count
    if command.parts[0] == "EVALSHA":
        command = Command("EVAL", texts[command.parts[1]], *command.parts[2:])
    count += 1
    if count == step and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return call(self, command, key)
    finally:
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
texts = {one.name: one.text for one in vars(migrating).values() if hasattr(one, "writes")}
Connections.call = dying
open_store(url).migrate()
print("done")
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 12))
def test_a_migration_that_is_killed_at_any_step_can_be_done_again(
    step: int, when: str, url: str, runner: asyncio.Runner
) -> None:
    with client_of(url) as client:
        write_layout_1(client, OLD_KEYS)
        process = python(KILLED, url, str(step), when)
        output, _ = process.communicate()
        assert (process.returncode, output) == (-9, "")
        is_whole = (step, when) == (11, "after")
        assert (client.get(f"{STORE}schema") == migrating.VERSION) is is_whole
    store = opened("sync", url, runner)
    if not is_whole:
        with pytest.raises(SchemaError, match="'keyguard migrate'"):
            store.find_key(key().id)
        with pytest.raises(SchemaError, match="'keyguard migrate'"):
            store.commit(adding(organization(2)))
    store.migrate()
    check_brought_up(store)
    store.close()


def test_several_bring_up_one_store_at_once(
    flavour: str, url: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_BATCH", 2)
    with client_of(url) as client:
        write_layout_1(client, OLD_KEYS)
        store = opened(flavour, url, runner)
        store.together([lambda backend: backend.migrate()] * 20)
        check_brought_up(store)
        assert client.xlen(f"{STORE}audit") == 1
    store.close()


def test_one_who_is_late_does_not_undo_what_happened_since(
    url: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_BATCH", 2)
    with client_of(url) as client:
        write_layout_1(client, OLD_KEYS)
    store = opened("sync", url, runner)
    assert isinstance(store, Plain)
    late = migrating.migrate()
    call = next(late)
    for _ in range(3):  # up to where it would write
        call = late.send(store.backend.ask(call))
    store.migrate()
    revoked = revoking(NEW_KEYS[0], NOON)
    assert store.commit(revoked)
    while True:
        try:
            call = late.send(store.backend.ask(call))
        except StopIteration:
            break
    assert store.find_key(key(1).id).key == revoked.changes[0].after
    store.close()


# What a commit writes


def written(client: Client) -> dict[str, Any]:
    read: dict[str, Callable[[str], Any]] = {
        "hash": client.hgetall,
        "zset": lambda name: client.zrange(name, 0, -1),
        "stream": client.xrange,
        "string": client.get,
    }
    return {name: read[client.type(name)](name) for name in client.keys("*")}


def test_a_change_writes_only_what_differs(flavour: str, url: str, runner: asyncio.Runner) -> None:
    store = opened(flavour, url, runner)
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    name = f"{STORE}key:{key().id}"
    with client_of(url) as client:
        client.hset(name, mapping={"scopes": "written:meanwhile", "last_used_at": OLD_TIME})
        assert store.commit(changing(key(), name="new", last_used_at=LATER))
        row = client.hgetall(name)
    assert (row["name"], row["version"]) == ("new", "2")
    assert (row["scopes"], row["last_used_at"]) == ("written:meanwhile", OLD_TIME)
    store.close()


@pytest.mark.parametrize(
    "spoiled",
    [
        *("audit", "slugs", "keys", "ids", "organizations", "organization:ORG"),
        *("keys:ORG", "family:FAM", "trail:KEY", "owned:ORG", "key:OLD"),
    ],
)
def test_what_keyguard_never_wrote_stops_a_commit_before_it_writes(
    spoiled: str, flavour: str, url: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, url, runner)
    store.migrate()
    store.add_organization(organization())
    store.add_key(record(2))
    new = adding(organization(3), record())
    commit = changing(key(2), name="new")
    whole = type(new)(
        entries=(*new.entries, *commit.entries),
        organizations=new.organizations,
        keys=new.keys,
        changes=commit.changes,
        unchanged=new.unchanged,
    )
    names = {"ORG": organization().id, "FAM": key().family, "KEY": key().id, "OLD": key(2).id}
    for short, long in names.items():
        spoiled = spoiled.replace(short, long)
    with client_of(url) as client:
        client.delete(f"{STORE}{spoiled}")
        client.set(f"{STORE}{spoiled}", "x")
        before = written(client)
        with pytest.raises(CorruptDataError):
            store.commit(whole)
        assert written(client) == before
    store.close()


def test_a_filter_that_admits_few_of_many_is_quick(
    flavour: str, url: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, url, runner)
    store.migrate()
    store.add_organization(organization())
    for start in range(0, 5000, 500):
        records = (
            record(number, expires_at=LATER if number % 1000 else NOON)
            for number in range(start, start + 500)
        )
        assert store.commit(adding(*records))
    asked = commands_of(url)
    wanted = KeyFilter(ends_before=LATER)
    page = store.list_keys(wanted, after=None, limit=4)
    assert [one.id for one in page] == [key(n).id for n in (0, 1000, 2000, 3000)]
    assert store.list_keys(wanted, after=page.next, limit=4) == Page((key(4000, expires_at=NOON),))
    assert commands_of(url) - asked <= 8
    store.close()


def commands_of(url: str) -> int:
    with client_of(url) as client:
        stats: dict[str, Any] = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in SCRIPTS)


SCRIPTS = ("eval", "evalsha")


def test_the_trail_of_one_is_not_searched_for_in_that_of_all(
    flavour: str, url: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, url, runner)
    store.migrate()
    owners: list[Organization] = [organization(1), organization(2)]
    assert store.commit(adding(*owners))
    assert store.commit(adding(record(1)))
    for start in range(10, 3010, 500):
        new = (record(n, owner=owners[1]) for n in range(start, start + 500))
        assert store.commit(adding(*new))
    asked = commands_of(url)
    assert [one.subject for one in trail_of(store, organization=owners[0].id)] == [
        key(1).id, owners[0].id,
    ]  # fmt: skip
    assert len(trail_of(store, subject=key(1).id, limit=1)) == 1
    assert commands_of(url) - asked <= 4
    with client_of(url) as client:
        client.xtrim(f"{STORE}audit", maxlen=0)  # whoever does that loses it, and no more
    assert trail_of(store) == trail_of(store, organization=owners[0].id) == []
    store.close()


def test_a_store_is_the_same_after_its_server_was_killed(runner: asyncio.Runner) -> None:
    with running(lambda: RedisServer(appendfsync="always")) as server:
        with client_of(server.url) as client:
            write_layout_1(client, OLD_KEYS)
        store = opened("sync", server.url, runner)
        store.migrate()
        feed = store.feed()
        position = feed.read(None, 0).position
        store.add_organization(organization(2, max_key_lifetime=timedelta(days=1)))
        before = trail_of(store)
        server.kill()
        server.start()
        assert trail_of(store) == before
        assert feed.read(position, 0).subjects == (organization(2).id,)
        feed.close()
        store.close()
