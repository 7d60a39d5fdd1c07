"""How keys that ended long ago are deleted, and old entries of the audit trail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keyguard import (
    Action,
    DeletedAudit,
    DeletedKeys,
    InvalidValueError,
    NotFoundError,
    Person,
    Reason,
    RefusedError,
    StoreUnavailableError,
)
from keyguard.core.management import deletion
from tests.damage import Damage
from tests.stored import FLAVOURS, Interposed, Stored, open_stored

DAY = timedelta(days=1)
YEAR = 400 * DAY
TOKEN = "AbCdEfGh.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
NAMES = {
    "sqlite": Damage("sqlite", "key", "name", "CAST(x'ff41' AS TEXT)"),
    "postgresql": Damage("postgresql", "key", "created_at", "'infinity'"),
    "mariadb": Damage("mariadb", "key", "limits", "'{'"),
    "redis": Damage("redis", "key", "created_at", None),
}


@pytest.fixture(params=[f"{kind}-{flavour}" for kind in NAMES for flavour in FLAVOURS])
def durable(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path
) -> Iterator[Stored]:
    """A new store of each kind that outlives its process, long ago by its guard's clock."""
    kind, flavour = request.param.split("-")
    for stored in open_stored(kind, flavour, runner, request, tmp_path):
        stored.clock.now = datetime(2001, 1, 1, tzinfo=UTC)
        yield stored


def revoked(stored: Stored, number: int = 1) -> list[Any]:
    """Issue keys and revoke them, and return what was issued."""
    issued = [stored.issue() for _ in range(number)]
    for each in issued:
        stored.guard.keys.revoke(each.key.id)
    return issued


def ids(stored: Stored) -> set[str]:
    return {key.id for key in stored.guard.keys.list(limit=1000)}


# Keys


def test_keys_that_ended_long_ago_are_unknown_and_others_stay_as_they_are(stored: Stored) -> None:
    [gone] = revoked(stored)
    expired = stored.issue(expires_in=DAY)
    rotated = stored.issue()
    successor = stored.guard.keys.rotate(rotated.key.id)
    live = stored.issue(expires_in=YEAR + 2 * DAY)
    stored.clock.advance(YEAR)
    [lately] = revoked(stored)
    stored.clock.advance(DAY + timedelta(seconds=1))

    deleted = stored.guard.keys.delete_ended(ended_for=YEAR)

    assert deleted == DeletedKeys(count=3, before=stored.clock.now - YEAR, damaged=())
    for issued in (gone, expired, rotated):
        assert stored.refusal(issued.token) is Reason.KEY_UNKNOWN
        with pytest.raises(NotFoundError):
            stored.guard.keys.get(issued.key.id)
    assert stored.refusal(lately.token) is Reason.KEY_REVOKED
    assert stored.lets_in(live.token)
    assert stored.lets_in(successor.token)
    assert ids(stored) == {live.key.id, lately.key.id, successor.key.id}


def test_the_trail_says_who_deleted_which_keys(stored: Stored) -> None:
    gone = revoked(stored, 2)
    stored.clock.advance(YEAR + DAY)
    stored.guard.keys.delete_ended(ended_for=YEAR, actor="cron")

    told = [entry for entry in stored.trail() if entry.action is Action.KEY_DELETED]
    assert {entry.subject for entry in told} == {issued.key.id for issued in gone}
    assert {(entry.actor, entry.at) for entry in told} == {("cron", stored.clock.now)}
    trail = stored.trail(organization="acme", subject=gone[0].key.id)
    assert [entry.action for entry in trail] == ["key.issued", "key.revoked", "key.deleted"]


def test_they_are_kept_for_as_long_as_is_set_and_for_ever_if_nothing_is(stored: Stored) -> None:
    revoked(stored)
    stored.clock.advance(30 * DAY)
    with pytest.raises(InvalidValueError, match="pass ended_for, such as ended_for=timedelta"):
        stored.guard.keys.delete_ended()
    assert stored.another(keep_ended_keys=31 * 86_400).keys.delete_ended().count == 0
    assert stored.another(keep_ended_keys=29.5 * 86_400).keys.delete_ended().count == 1


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (timedelta(0), "must be at least 13 days"),
        (-YEAR, "must be at least 13 days"),
        (13 * DAY - timedelta(microseconds=1), "must be at least 13 days"),
        (400, r"takes a timedelta, such as timedelta\(days=400\), not 400$"),
        ("400d", "takes a timedelta"),
    ],
)
def test_a_span_that_is_too_short_or_none_deletes_nothing(
    stored: Stored, span: Any, message: str
) -> None:
    revoked(stored)
    stored.clock.advance(YEAR)
    with pytest.raises(InvalidValueError, match=f"^ended_for {message}"):
        stored.guard.keys.delete_ended(ended_for=span)
    assert len(ids(stored)) == 1


def test_a_dry_run_only_counts(stored: Stored) -> None:
    revoked(stored, 2)
    stored.clock.advance(YEAR + DAY)
    before = stored.trail()
    assert stored.guard.keys.delete_ended(ended_for=YEAR, dry_run=True).count == 2
    assert (len(ids(stored)), stored.trail()) == (2, before)


@pytest.mark.parametrize("dry_run", [True, False])
def test_only_the_service_and_operators_delete(stored: Stored, dry_run: bool) -> None:
    admin = stored.issue("admin")
    revoked(stored)
    stored.clock.advance(YEAR + DAY)
    principal = stored.principal(admin)
    person = Person(id="ann", roles={"acme": "administrator"})
    for actor in (principal, person):
        for delete in (stored.guard.keys.delete_ended, stored.guard.audit.delete):
            span = {"ended_for" if "ended" in str(delete) else "older_than": YEAR}
            with pytest.raises(RefusedError, match="can't delete what all organizations share"):
                delete(**span, dry_run=dry_run, actor=actor)
    assert len(ids(stored)) == 2
    operator = Person(id="bob", operator=True)
    assert stored.guard.keys.delete_ended(ended_for=YEAR, actor=operator).count == 1
    assert stored.trail()[-1].actor == "person:bob"


def test_many_are_deleted_in_parts(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    for _ in range(3):
        revoked(stored, 3)
        stored.issue()
    stored.clock.advance(YEAR + DAY)
    assert stored.guard.keys.delete_ended(ended_for=YEAR, dry_run=True).count == 9
    assert stored.guard.keys.delete_ended(ended_for=YEAR).count == 9
    assert len(ids(stored)) == 3


def test_a_run_that_ends_in_the_middle_has_deleted_whole_parts_and_the_next_goes_on(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    revoked(stored, 8)
    stored.clock.advance(YEAR + DAY)
    commits: list[None] = []

    def fail_the_third() -> None:
        commits.append(None)
        if len(commits) == 3:
            raise StoreUnavailableError("down")

    store = Interposed(stored.guard.real._store, fail_the_third, times=3)
    with pytest.raises(StoreUnavailableError):
        stored.another(store).keys.delete_ended(ended_for=YEAR)
    assert len(ids(stored)) == 2
    assert stored.guard.keys.delete_ended(ended_for=YEAR).count == 2
    assert ids(stored) == set()


def test_a_key_that_is_extended_after_it_was_listed_stays(stored: Stored) -> None:
    issued = stored.issue(expires_in=DAY)
    revoked(stored, 2)
    stored.clock.advance(YEAR + 2 * DAY)
    later = stored.clock.now + DAY
    guard = stored.interposing(lambda other: other.keys.update(issued.key.id, expires_at=later))

    assert guard.keys.delete_ended(ended_for=YEAR).count == 2
    assert ids(stored) == {issued.key.id}
    assert stored.lets_in(issued.token)


def test_a_key_that_another_run_deletes_first_is_counted_once(stored: Stored) -> None:
    revoked(stored, 5)
    stored.clock.advance(YEAR + DAY)
    counts: list[int] = []
    guard = stored.interposing(lambda other: other.keys.delete_ended(ended_for=YEAR))
    counts.append(guard.keys.delete_ended(ended_for=YEAR).count)
    assert counts == [0]
    assert [entry.action for entry in stored.trail()].count(Action.KEY_DELETED) == 5


def test_runs_at_once_delete_each_key_once(stored: Stored) -> None:
    revoked(stored, 9)
    stored.clock.advance(YEAR + DAY)
    runs = stored.together([lambda guard: guard.keys.delete_ended(ended_for=YEAR)] * 4)
    assert sum(run.count for run in runs) == 9
    assert [entry.action for entry in stored.trail()].count(Action.KEY_DELETED) == 9


def test_a_key_whose_successor_is_gone_can_still_be_managed(stored: Stored) -> None:
    old = stored.issue()
    new = stored.guard.keys.rotate(old.key.id, grace=2 * YEAR, idempotency_key="spring")
    stored.guard.keys.revoke(new.key.id)
    stored.clock.advance(YEAR + DAY)
    assert stored.guard.keys.delete_ended(ended_for=YEAR).count == 1

    assert stored.lets_in(old.token)
    with pytest.raises(RefusedError, match="has a successor already"):
        stored.guard.keys.rotate(old.key.id, idempotency_key="spring")
    assert stored.guard.keys.revoke(old.key.id).successor == new.key.id
    assert {key.id for key in stored.guard.keys.revoke_family(old.key.family)} == {old.key.id}


def test_a_claimed_request_outlives_its_key(stored: Stored) -> None:
    created = stored.guard.requests.create(organization="acme", name="ci", actor="ann")
    request, ticket = created.request, created.ticket
    stored.guard.requests.approve(request.id, actor="bob")
    issued = stored.guard.requests.claim(request.id, ticket=ticket)
    stored.guard.keys.revoke(issued.key.id)
    stored.clock.advance(YEAR + DAY)
    assert stored.guard.keys.delete_ended(ended_for=YEAR).count == 1

    assert stored.guard.requests.get(request.id).key == issued.key.id
    with pytest.raises(RefusedError):
        stored.guard.requests.reclaim(request.id, ticket=ticket)


def test_an_imported_token_that_is_imported_again_works_again(stored: Stored) -> None:
    guard = stored.another(imported_formats=["drf"])
    row = {"organization": "acme", "name": "old", "format": "drf", "token": TOKEN}
    rows = [json.dumps(row)]
    assert guard.keys.import_tokens(rows).imported == 1
    [key] = guard.keys.list()
    guard.keys.revoke(key.id)
    stored.clock.advance(YEAR + DAY)
    assert guard.keys.import_tokens(rows).imported == 0
    assert guard.keys.delete_ended(ended_for=YEAR).count == 1

    assert guard.authenticate([f"Bearer {TOKEN}"]).reason is Reason.KEY_UNKNOWN
    assert guard.keys.import_tokens(rows).imported == 1
    assert guard.authenticate([f"Bearer {TOKEN}"]).principal.key_id == key.id


# Requests for keys, which rest on keys that asked and approved, and on entries that say so

LONG = {"request_lifetime": 100 * 86_400.0, "claim_lifetime": 50 * 86_400.0}


def test_what_a_request_may_need_is_kept(stored: Stored) -> None:
    guard = stored.another(**LONG)
    revoked(stored)
    stored.clock.advance(YEAR)
    too_short = 200 * DAY - timedelta(seconds=1)
    with pytest.raises(InvalidValueError, match=r"^ended_for must be at least 200 days"):
        guard.keys.delete_ended(ended_for=too_short)
    with pytest.raises(InvalidValueError, match=r"^older_than must be at least 200 days"):
        guard.audit.delete(older_than=too_short)
    assert guard.keys.delete_ended(ended_for=200 * DAY).count == 1


def test_a_request_may_need_less_than_a_day(stored: Stored) -> None:
    short = stored.another(request_lifetime=60.0, claim_lifetime=60.0)
    revoked(stored)
    stored.clock.advance(2 * DAY)
    with pytest.raises(InvalidValueError, match="at least a day"):
        short.keys.delete_ended(ended_for=DAY - timedelta(seconds=1))
    assert short.keys.delete_ended(ended_for=DAY).count == 1


@pytest.mark.parametrize("part", ["approver", "requester"])
def test_a_request_whose_entries_are_deleted_makes_no_key(stored: Stored, part: str) -> None:
    guard = stored.another(**LONG)
    approver = stored.principal(stored.issue("admin"))
    created = guard.requests.create(organization="acme", name="ci", actor="ann")
    guard.requests.approve(created.request.id, actor=approver)
    stored.clock.advance(40 * DAY)
    stored.issue()
    stored.guard.keys.revoke(approver.key_id, force=True)  # so that it may approve nothing any more
    stored.clock.advance(DAY)
    with pytest.raises(RefusedError, match="approved request"):
        guard.requests.claim(created.request.id, ticket=created.ticket)

    stored.guard.audit.delete(older_than=30 * DAY)
    proof = {"actor": "ann"} if part == "requester" else {"ticket": created.ticket}
    with pytest.raises(RefusedError, match=r"no longer tells who made .* ask for the key again"):
        guard.requests.claim(created.request.id, **proof)


def test_nobody_decides_on_an_own_request_whose_key_is_deleted(stored: Stored) -> None:
    guard = stored.another(**LONG)
    asking = stored.issue("admin", owner="ann")
    created = guard.requests.create(organization="acme", name="ci", actor=stored.principal(asking))
    successor = stored.guard.keys.rotate(asking.key.id)
    stored.guard.keys.update(successor.key.id, owner="bob")
    own = stored.principal(successor)
    with pytest.raises(RefusedError, match="nobody may decide on their own request"):
        guard.requests.approve(created.request.id, actor=own)

    stored.clock.advance(15 * DAY)
    assert stored.guard.keys.delete_ended(ended_for=13 * DAY).count == 1
    with pytest.raises(RefusedError, match=r"made request .* is deleted"):
        guard.requests.approve(created.request.id, actor=own)
    assert guard.requests.withdraw(created.request.id, ticket=created.ticket).state == "withdrawn"


@pytest.mark.parametrize("deleted", ["the entries", "the key"])
def test_a_key_still_finds_other_requests_than_those_of_which_nobody_knows_who_asked(
    stored: Stored, deleted: str
) -> None:
    first = stored.issue(owner="ann")
    old = stored.guard.requests.create(
        organization="acme", name="ci", actor=stored.principal(first)
    ).request
    key = stored.guard.keys.rotate(first.key.id)
    stored.clock.advance(YEAR + DAY)
    if deleted == "the key":
        assert stored.guard.keys.delete_ended(ended_for=YEAR - DAY).count == 1
    else:
        stored.issue()
        assert stored.guard.audit.delete(older_than=YEAR).count > 0
    own = stored.principal(key)
    new = stored.guard.requests.create(organization="acme", name="ci", actor=own).request

    assert [each.id for each in stored.guard.requests.list(asked_by=own)] == [new.id]
    with pytest.raises(NotFoundError):
        stored.guard.requests.get(old.id, asked_by=own)


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_key_that_nobody_can_read_stays_and_is_named(
    durable: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 2)
    damaged, *others = revoked(durable, 4)
    NAMES[durable.kind].do(durable.target, damaged.key.id)
    durable.clock.advance(YEAR + DAY)

    for count in (3, 0):
        deleted = durable.guard.keys.delete_ended(ended_for=YEAR)
        assert (deleted.count, deleted.damaged) == (count, (damaged.key.id,))
    page = durable.guard.keys.list()
    assert (page.items, page.damaged) == ((), (damaged.key.id,))
    assert len(others) == 3


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_guard_elsewhere_knows_a_deleted_key_no_more(durable: Stored) -> None:
    issued = durable.issue(expires_in=DAY)
    elsewhere = durable.another()
    assert durable.lets_in(issued.token, elsewhere)
    durable.clock.advance(YEAR + 2 * DAY)
    assert durable.guard.keys.delete_ended(ended_for=YEAR).count == 1
    assert durable.refusal(issued.token, elsewhere) is Reason.KEY_UNKNOWN


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async")
def test_a_machine_whose_clock_is_ahead_deletes_no_key(durable: Stored) -> None:
    durable.clock.now = datetime(9000, 1, 1, tzinfo=UTC)
    [issued] = revoked(durable)
    durable.clock.advance(YEAR + DAY)
    if durable.kind == "sqlite":  # which has the clock of this machine
        assert durable.guard.keys.delete_ended(ended_for=YEAR).count == 1
        return
    with pytest.raises(RefusedError, match="by the clock of the key store's server"):
        durable.guard.keys.delete_ended(ended_for=YEAR)
    assert durable.refusal(issued.token) is Reason.KEY_REVOKED


# The audit trail


def test_old_entries_are_deleted_and_the_trail_says_so(stored: Stored) -> None:
    revoked(stored, 2)
    stored.clock.advance(YEAR)
    lately = stored.issue()
    stored.clock.advance(DAY)

    deleted = stored.guard.audit.delete(older_than=YEAR, actor="cron")

    assert deleted == DeletedAudit(count=4, before=stored.clock.now - YEAR)
    newest_of_the_old, issued, told = stored.trail()
    assert newest_of_the_old.action is Action.KEY_REVOKED
    assert issued.subject == lately.key.id
    assert (told.action, told.actor, told.at) == ("audit.deleted", "cron", stored.clock.now)
    assert told.after["entries"] == 4
    assert stored.trail(organization="acme") == [newest_of_the_old, issued]


def test_entries_are_kept_for_as_long_as_is_set_and_for_ever_if_nothing_is(stored: Stored) -> None:
    revoked(stored)
    stored.clock.advance(40 * DAY)
    with pytest.raises(InvalidValueError, match="pass older_than, such as older_than=timedelta"):
        stored.guard.audit.delete()
    assert stored.another(keep_audit=41 * 86_400).audit.delete().count == 0
    assert stored.another(keep_audit=39 * 86_400).audit.delete().count == 2


@pytest.mark.parametrize("span", [timedelta(0), 29 * DAY, 800, "800d"])
def test_entries_of_the_last_month_stay(stored: Stored, span: Any) -> None:
    stored.clock.advance(YEAR)
    with pytest.raises(
        InvalidValueError, match=r"^older_than (must be at least 30|takes a timedelta)"
    ):
        stored.guard.audit.delete(older_than=span)
    assert len(stored.trail()) == 1


def test_a_dry_run_only_counts_entries(stored: Stored) -> None:
    revoked(stored, 3)
    stored.clock.advance(YEAR + DAY)
    before = stored.trail()
    assert stored.guard.audit.delete(older_than=YEAR, dry_run=True).count == len(before) - 1
    assert stored.trail() == before


def test_more_entries_than_one_part_has_are_deleted(stored: Stored) -> None:
    revoked(stored, 600)
    stored.clock.advance(YEAR + DAY)
    total = stored.guard.audit.delete(older_than=YEAR, dry_run=True).count
    assert total == 1200
    assert stored.guard.audit.delete(older_than=YEAR).count == total
    told = [entry.after["entries"] for entry in stored.trail(subject="audit")]
    assert (sum(told), len(told)) == (total, 2)
