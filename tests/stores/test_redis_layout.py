"""How keys lie in Redis: what a commit writes, and how a store is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Organization
from keyguard.core.limits.limit import Limit
from keyguard.core.values import Page
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis.scripts import VERSION
from tests.services import RedisServer, running
from tests.stores.changes import adding, changing, trail_of
from tests.stores.conftest import opened
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


@pytest.mark.campaign("sync")
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
    assert [item.id for item in page] == [key(n).id for n in (0, 1000, 2000, 3000)]
    assert store.list_keys(wanted, after=page.next, limit=4) == Page((key(4000, expires_at=NOON),))
    assert commands_of(url) - asked <= 8
    store.close()


def commands_of(url: str) -> int:
    with client_of(url) as client:
        stats: dict[str, Any] = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in SCRIPTS)


SCRIPTS = ("eval", "evalsha")


def test_listing_one_trail_does_not_search_all_entries(
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
    assert [entry.subject for entry in trail_of(store, organization=owners[0].id)] == [
        key(1).id, owners[0].id,
    ]  # fmt: skip
    assert len(trail_of(store, subject=key(1).id, limit=1)) == 1
    assert commands_of(url) - asked <= 4
    with client_of(url) as client:
        client.xtrim(f"{STORE}audit", maxlen=0)  # trimming loses the entries and nothing else
    assert trail_of(store) == trail_of(store, organization=owners[0].id) == []
    store.close()


def test_a_store_is_the_same_after_its_server_was_killed(runner: asyncio.Runner) -> None:
    with running(lambda: RedisServer(appendfsync="always")) as server:
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


# Making a store


def test_several_processes_may_make_a_store_at_once(
    flavour: str, url: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, url, runner)
    store.together([lambda backend: backend.migrate()] * 20)
    with client_of(url) as client:
        assert client.get(f"{STORE}schema") == VERSION
        assert client.xlen(f"{STORE}audit") == 1
    assert trail_of(store) == []
    store.close()


def test_making_a_store_again_keeps_what_is_in_it(
    flavour: str, url: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, url, runner)
    store.migrate()
    store.add_organization(organization())
    store.migrate()
    assert list(store.list_organizations(after=None, limit=9)) == [organization()]
    assert len(trail_of(store)) == 1
    store.close()
