"""What every key store does with entries of the audit trail that are old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard.core.keys.audit import TRAIL, Action
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Organization
from keyguard.stores.base import News
from tests.stores.changes import adding, changing, deleting, trail_of
from tests.stores.conftest import DATABASES, REDISES, Awaited, Plain
from tests.stores.records import key, organization, record

pytestmark = pytest.mark.campaign(  # the other flavours are left to `make chaos`
    "memory-sync",
    "sqlite-sync",
    "postgresql-async",
    "mariadb-sync",
    "redis-async",
    "redis_cluster-async",
)

DAY = timedelta(days=1)
START = datetime(2001, 1, 1, tzinfo=UTC)
NOW = START + 100 * DAY


@pytest.fixture(params=("memory", *DATABASES, *REDISES))
def store(
    request: pytest.FixtureRequest, flavour: str, kept: Callable[[str, str], Plain | Awaited]
) -> Plain | Awaited:
    return kept(request.param, flavour)


@pytest.fixture
def acme(store: Any) -> Organization:
    acme = organization()
    assert store.commit(adding(acme, at=START)) is True
    return acme


def issued(store: Any, *days: int) -> None:
    """Add a key on each of these days after the start; its number is the day."""
    for day in days:
        assert store.commit(adding(record(day), at=START + day * DAY)) is True


def deletion(kept: int = 30, **fields: Any) -> AuditDeletion:
    return AuditDeletion(**{"at": NOW, "kept": kept * DAY, "actor": "cron"} | fields)


def subjects(store: Any, **wanted: Any) -> list[str]:
    return [entry.subject for entry in trail_of(store, **wanted)]


def test_old_entries_leave_the_trail_and_it_tells_how_many(store: Any, acme: Organization) -> None:
    issued(store, 10, 20, 69, 70, 80)
    part = store.delete_audit(deletion())
    assert part.deleted == 3
    told, *others = trail_of(store)
    assert [entry.subject for entry in others] == [key(n).id for n in (80, 70, 69)]
    assert (told.action, told.subject, told.organization) == (Action.AUDIT_DELETED, TRAIL, TRAIL)
    assert (told.actor, told.at, told.before) == ("cron", NOW, None)
    assert told.after == {"entries": 3, "before": "2001-03-12T00:00:00Z"}
    assert subjects(store, subject=key(10).id) == subjects(store, subject=acme.id) == []
    assert subjects(store, organization=acme.id) == [key(n).id for n in (80, 70, 69)]
    assert trail_of(store, subject=TRAIL) == trail_of(store, organization=TRAIL) == [told]


def test_deleting_again_deletes_and_tells_nothing_more(store: Any, acme: Organization) -> None:
    issued(store, 10, 80)
    store.delete_audit(deletion())
    before = trail_of(store)
    assert store.delete_audit(deletion()) == AuditPart(0, None)
    assert trail_of(store) == before


def test_to_count_deletes_nothing(store: Any, acme: Organization) -> None:
    issued(store, 10, 20, 80)
    before = trail_of(store)
    assert store.delete_audit(deletion(dry_run=True)).deleted == 2
    assert trail_of(store) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_parts_leave_out_and_repeat_nothing(store: Any, acme: Organization, dry_run: bool) -> None:
    issued(store, *range(1, 12), 80)
    counts: list[int] = []
    after = None
    while True:
        part = store.delete_audit(deletion(limit=4, after=after, dry_run=dry_run))
        counts.append(part.deleted)
        after = part.next
        if after is None:
            break
    assert sum(counts) == 11
    assert max(counts) == 3
    assert len(trail_of(store)) == (13 if dry_run else 2 + counts.count(3) + counts.count(2))
    assert subjects(store, organization=acme.id)[:2] == [key(80).id, key(11).id]


def test_an_entry_of_a_clock_that_was_wrong_holds_back_no_others(
    store: Any, acme: Organization
) -> None:
    issued(store, 10, 5000, 20, 30, 40, 90)
    assert store.delete_audit(deletion()).deleted == 3
    assert subjects(store, organization=acme.id) == [key(n).id for n in (90, 40, 5000, 10)]


def deleted_in_parts(store: Any, **fields: Any) -> tuple[int, int]:
    """Return how many entries were deleted, and in how many parts the trail was read."""
    deleted = parts = 0
    after = None
    while parts == 0 or after is not None:
        part = store.delete_audit(deletion(after=after, **fields))
        deleted, parts, after = deleted + part.deleted, parts + 1, part.next
    return deleted, parts


@pytest.mark.parametrize("dry_run", [True, False])
def test_many_entries_of_a_clock_that_was_ahead_hold_back_no_others(
    store: Any, acme: Organization, dry_run: bool
) -> None:
    issued(store, *range(5000, 5012), 20, 30, 40, 90)
    assert deleted_in_parts(store, limit=4, dry_run=dry_run)[0] == 2


def test_the_search_for_old_entries_ends_at_one_that_is_young(
    store: Any, acme: Organization
) -> None:
    issued(store, 10, *range(5000, 5006), 71, 72, *range(73, 95))
    _, parts = deleted_in_parts(store, limit=4, dry_run=True)
    assert parts <= 4  # and not the 10 that the whole trail would take


def test_the_search_for_old_entries_ends_with_the_trail(store: Any, acme: Organization) -> None:
    issued(store, *range(5000, 5009))
    assert deleted_in_parts(store, limit=4) == (0, 4)


def test_nothing_of_a_trail_whose_last_entry_is_old_but_what_is_before_it(
    store: Any, acme: Organization
) -> None:
    issued(store, 10)
    assert store.delete_audit(deletion()).deleted == 1
    assert store.delete_audit(deletion()).deleted == 0
    assert subjects(store) == [TRAIL, key(10).id]


def test_a_reader_at_the_last_entry_goes_on(store: Any, acme: Organization) -> None:
    issued(store, 10, 20)
    feed = store.feed()
    if feed is None:
        pytest.skip("only this process can change the store")
    position = feed.read(None, 0).position
    while store.delete_audit(deletion()).next is not None:
        pass
    news = feed.read(position, 0)
    assert news == News(news.position, (TRAIL,))
    issued(store, 90)
    assert feed.read(news.position, 0).subjects == (key(90).id,)
    assert set(feed.read(position, 0).subjects) == {TRAIL, key(90).id}
    feed.close()


def test_a_reader_at_an_entry_that_is_gone_knows_that_it_missed_something(
    store: Any, acme: Organization
) -> None:
    feed = store.feed()
    if feed is None:
        pytest.skip("only this process can change the store")
    issued(store, 10)
    gone = feed.read(None, 0).position
    issued(store, 20, 80)
    store.delete_audit(deletion())
    news = feed.read(gone, 0)
    assert news.subjects is None
    assert feed.read(news.position, 0) == News(news.position, ())
    feed.close()


def test_pages_of_the_trail_cross_its_deletion(store: Any, acme: Organization) -> None:
    issued(store, 10, 20, 30, 80, 90)
    for wanted in ({}, {"organization": acme.id}):
        pages = {"organization": None, "subject": None} | wanted
        page = store.list_audit(**pages, after=None, limit=100)
        place = next(entry.id for entry in page if entry.subject == key(20).id)
        behind = subjects(store, after=place, **wanted)
        assert behind[0] == key(10).id
    store.delete_audit(deletion())
    for wanted in ({}, {"organization": acme.id}):
        assert subjects(store, after=place, **wanted) == []
    ids = {entry.id for entry in trail_of(store)}
    issued(store, 91)
    assert trail_of(store)[0].id not in ids


def test_the_trail_goes_on_with_ids_that_rise(store: Any, acme: Organization) -> None:
    issued(store, 10, 20, 80)
    highest = store.list_audit(organization=None, subject=None, after=None, limit=1).items[0].id
    store.delete_audit(deletion())
    told = trail_of(store)[0]
    assert subjects(store, after=told.id)[0] == key(80).id
    assert told.id > highest or len(told.id) > len(highest)


def test_the_clock_of_the_server_counts_where_it_is_behind(
    store: Any, acme: Organization, request: pytest.FixtureRequest
) -> None:
    issued(store, 10, 20)
    early = deletion(at=datetime(9000, 1, 1, tzinfo=UTC), kept=365 * 2000)
    own = request.node.callspec.params["store"] not in ("memory", "sqlite")
    assert store.delete_audit(early).deleted == (0 if own else 2)


def test_of_deletions_at_once_each_entry_is_counted_once(store: Any, acme: Organization) -> None:
    issued(store, *range(1, 20), 80)
    parts = store.together([lambda backend: backend.delete_audit(deletion())] * 6)
    assert sum(part.deleted for part in parts) == 19
    told = [entry.after["entries"] for entry in trail_of(store, subject=TRAIL)]
    assert sum(told) == 19
    assert subjects(store, organization=acme.id) == [key(80).id, key(19).id]


def test_a_list_of_keys_goes_on_behind_one_that_was_deleted_lately(
    store: Any, acme: Organization
) -> None:
    store.commit(adding(record(1, revoked_at=START), record(2), at=START))
    store.commit(deleting(record(1, revoked_at=START).key, at=NOW - DAY))
    store.delete_audit(deletion())
    page = store.list_keys(KeyFilter(), after=key(1).id, limit=10)
    assert [each.id for each in page] == [key(2).id]


def test_a_commit_follows_a_deletion(store: Any, acme: Organization) -> None:
    issued(store, 10, 80)
    store.delete_audit(deletion())
    assert store.commit(changing(acme, name="new")) is True
    assert subjects(store)[0] == acme.id
