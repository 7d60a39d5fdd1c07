"""Changes that an SQL database undid, because others got in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from keyguard.core.keys.audit import TRAIL
from keyguard.core.keys.audit_deletion import AuditDeletion
from keyguard.core.keys.records import Use
from keyguard.core.keys.temporary import Temporary
from keyguard.core.usage.values import Period
from keyguard.exceptions import StoreUnavailableError
from tests.stores.changes import adding, changing, deleting
from tests.stores.conflicts import spoil
from tests.stores.conftest import Awaited, Database, Plain, opened
from tests.stores.records import LATER, NOON, key, organization, record
from tests.usage.test_store_contract import ACME, DAY, ask, cell, flush
from tests.usage.test_store_contract import NOON as COUNTED

pytestmark = pytest.mark.usefixtures("no_garbage")

MOST_TRIES = 5
TODAY = Period(COUNTED, COUNTED + DAY)
DIGEST = "a" * 64
GONE = record(2, expires_at=NOON + DAY)


class Stores(NamedTuple):
    """A store of keys and its store of usage."""

    keys: Any
    usage: Any


@pytest.fixture
def stores(served: Database, flavour: str, runner: asyncio.Runner) -> Iterator[Stores]:
    """Stores with two keys and a flush."""
    store = opened(flavour, served.url if flavour == "sync" else served.async_url, runner)
    kept = store.backend.usage()
    usage = Plain(kept) if flavour == "sync" else Awaited(kept, runner)
    for new in (organization(), record(), GONE):
        assert store.commit(adding(new))
    usage.add(flush(cell(n=3), writer="before"))
    yield Stores(store, usage)
    store.close()


def counted(stores: Stores) -> list[int]:
    return [total.n for total in stores.usage.totals(ask(TODAY))]


def subjects(stores: Stores) -> list[str]:
    page = stores.keys.list_audit(organization=None, subject=None, after=None, limit=100)
    return [entry.subject for entry in page.items]


def commit(stores: Stores) -> Any:
    added, renamed = adding(record(3)), changing(key(), name="renamed")
    entries = (*added.entries, *renamed.entries)
    return stores.keys.commit(replace(added, changes=renamed.changes, entries=entries))


def made(stores: Stores) -> Any:
    found = stores.keys.find_key(key().id).key
    return found.name, found.version, subjects(stores)[:-3]


CHANGES: dict[str, tuple[tuple[str, str], Callable[[Stores], Any], Callable[[Stores], Any], Any]]
CHANGES = {
    "commit": (
        ("keyguard_audit", "INSERT"), commit, made, ("renamed", 2, [key(1).id, key(3).id])
    ),
    "key deletion": (
        ("keyguard_keys", "DELETE"),
        lambda stores: stores.keys.commit(deleting(GONE.key, at=NOON + 9 * DAY)),
        lambda stores: (stores.keys.find_key(GONE.key.id), subjects(stores)[0]),
        (None, GONE.key.id),
    ),
    "audit deletion": (
        ("keyguard_audit", "DELETE"),
        lambda stores: stores.keys.delete_audit(
            AuditDeletion(at=NOON + 99 * DAY, kept=30 * DAY, actor="cron")
        ),
        subjects,
        [TRAIL, GONE.key.id],  # the last of the old entries stays
    ),
    "mark of use": (
        ("keyguard_keys", "UPDATE"),
        lambda stores: stores.keys.mark_used([Use(key().id, LATER), Use(GONE.key.id, LATER)]),
        lambda stores: stores.keys.find_key(GONE.key.id).key.last_used_at,
        LATER,
    ),
    "temporary value": (
        ("keyguard_temporary", "INSERT"),
        lambda stores: stores.keys.put_temporary(
            Temporary("session", DIGEST, "value", NOON + DAY), NOON
        ),
        lambda stores: stores.keys.find_temporary("session", DIGEST, NOON).value,
        "value",
    ),
    "flush": (
        ("keyguard_usage_totals", "UPDATE"),
        lambda stores: stores.usage.add(flush(cell(n=4))),
        counted,
        [7],
    ),
    "leaving": (
        ("keyguard_usage_writers", "UPDATE"),
        lambda stores: stores.usage.leave("before"),
        lambda stores: list(stores.usage.writers()),
        [],
    ),
    "fold": (
        ("keyguard_usage_totals", "DELETE"),
        lambda stores: stores.usage.fold(ACME, TODAY),
        lambda stores: (counted(stores), list(stores.usage.unfolded(TODAY.end, 9))),
        ([3], []),
    ),
}  # fmt: skip
"""By name: the rows whose change meets a deadlock, the change, what it leaves, and what it must."""


@pytest.mark.campaign("postgresql-sync", "mariadb-async")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_met_a_deadlock_is_tried_again_and_made_once(
    name: str, stores: Stores, served: Database
) -> None:
    rows, change, left, expected = CHANGES[name]
    spoil(served.url, *rows, times=MOST_TRIES - 1)
    change(stores)
    assert left(stores) == expected


def test_a_change_that_meets_nothing_but_deadlocks_is_given_up(
    stores: Stores, served: Database
) -> None:
    spoil(served.url, "keyguard_audit", "INSERT", times=MOST_TRIES)
    with pytest.raises(StoreUnavailableError):
        commit(stores)
    assert made(stores) == ("key 1", 1, [])
    assert commit(stores) is True


@pytest.mark.parametrize("served", ["postgresql"], indirect=True)
def test_a_commit_that_the_server_refused_for_a_conflict_is_tried_again(
    stores: Stores, served: Database
) -> None:
    spoil(served.url, "keyguard_audit", "INSERT", times=MOST_TRIES - 1, at_commit=True)
    assert commit(stores) is True
    assert made(stores) == ("renamed", 2, [key(1).id, key(3).id])
