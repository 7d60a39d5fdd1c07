"""What a guard counts, without any store: cells, moves and units, and what metrics read."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import Allow, Deny, Principal, Reason
from keyguard.core.identity.scopes import ScopeGrant
from keyguard.core.usage.sightings import Sighting
from keyguard.core.usage.values import ALLOWED, Flush
from keyguard.freshness import usage_cells, usage_counts
from keyguard.freshness.entry import Entry
from keyguard.freshness.usage_counts import UsageCounts
from tests.world import StandingClock, World

ACME = "org_0000000000000001"


class Recalled:
    """A memory of verified tokens that lets in whom a test names."""

    def __init__(self) -> None:
        self.allowed: Counter[Principal] = Counter()
        self.recalled = 0
        self.dropped: list[Any] = []

    def take_counted(self) -> list[Entry]:
        taken, self.allowed = self.allowed, Counter()
        return [
            Entry(
                allow=Allow(principal),
                digest="",
                not_before=0.0,
                ends_at=0.0,
                fresh_until=0.0,
                dies_at=0.0,
                is_timed=False,
                allowed=n,
            )
            for principal, n in taken.items()
        ]


def principal(number: int = 1, owner: str = ACME) -> Principal:
    return Principal(
        key_id=f"{number:016}",
        family=f"fam_{number:016}",
        organization=owner,
        grant=ScopeGrant(frozenset()),
        metadata={},
    )


class Counted:
    """Counts that tests step, and all that the store was told."""

    def __init__(self, **options: Any) -> None:
        self.clock = StandingClock()
        self.memory = Recalled()
        memory: Any = self.memory
        self.counts = UsageCounts(memory, clock=self.clock, **options)
        self.told: Counter[tuple[str, str, str]] = Counter()
        self.units: Counter[str] = Counter()
        self.starts: set[datetime] = set()

    def warm(self, number: int = 1, n: int = 1, owner: str = ACME) -> Allow:
        self.memory.allowed[principal(number, owner)] += n
        return Allow(principal(number, owner))

    def cold(self, number: int = 1) -> Allow:
        allow = Allow(principal(number))
        self.counts.count(allow)
        return allow

    def tell(self) -> list[Flush]:
        flushes: list[Flush] = []
        while flush := self.counts.next_flush():
            flushes.append(flush)
            for cell in flush.cells:
                assert cell.n >= 0
                assert cell.units >= 0
                self.told[cell.key_id, cell.outcome, cell.tag] += cell.n
                self.units[cell.key_id] += cell.units
                self.starts.add(cell.start)
            self.counts.told(flush)
        return flushes

    def of(self, outcome: str = ALLOWED, tag: str = "", number: int = 1) -> int:
        return self.told[f"{number:016}", outcome, tag]


def limited(allow: Allow) -> Deny:
    return Deny(Reason.RATE_LIMITED, allow.principal.key_id, allow.principal.organization)


def test_warm_and_cold_requests_are_told_once() -> None:
    counted = Counted()
    counted.warm(n=5)
    counted.cold()
    counted.tell()
    counted.warm(n=2)
    counted.tell()
    counted.tell()

    assert counted.of() == 8
    assert counted.units[f"{1:016}"] == 8


def test_a_refusal_of_a_known_key_is_told_and_of_an_unknown_one_is_not() -> None:
    counted = Counted()
    counted.counts.count(Deny(Reason.KEY_REVOKED, f"{1:016}", ACME, family=f"fam_{1:016}"))
    counted.counts.count(Deny(Reason.KEY_UNKNOWN, f"{2:016}"))
    counted.counts.count(Deny(Reason.CREDENTIALS_MISSING))
    _, flush = counted.tell()

    assert [cell[2:] for cell in flush.cells] == [
        (f"{1:016}", f"fam_{1:016}", "key_revoked", "", 1, 0)
    ]
    assert counted.counts.outcomes() == {
        "key_revoked": 1,
        "key_unknown": 1,
        "credentials_missing": 1,
        "allowed": 0,
    }


def test_a_request_that_is_refused_after_it_was_let_in_is_counted_as_refused_only() -> None:
    counted = Counted()
    for _ in range(3):
        counted.counts.refuse(limited(counted.warm()), Allow(principal()))
    counted.warm(n=2)
    counted.tell()

    assert (counted.of(), counted.of("rate_limited")) == (2, 3)
    assert counted.units[f"{1:016}"] == 2
    assert counted.counts.outcomes() == {"allowed": 2, "rate_limited": 3}


def test_a_refusal_after_its_request_was_told_waits_for_another_of_the_key() -> None:
    counted = Counted()
    allow = counted.warm()
    counted.tell()

    counted.counts.refuse(limited(allow), allow)
    assert counted.tell() == []
    counted.warm()
    counted.tell()

    assert (counted.of(), counted.of("rate_limited")) == (1, 1)
    assert counted.units[f"{1:016}"] == 1


def test_a_refusal_that_waits_is_not_paid_by_another_key() -> None:
    counted = Counted()
    allow = counted.warm(1)
    counted.tell()
    counted.counts.refuse(limited(allow), allow)
    counted.warm(2, n=5)
    counted.tell()

    assert (counted.of(), counted.of(number=2), counted.of("rate_limited")) == (1, 5, 0)


def test_tags_and_units_stay_with_the_request() -> None:
    counted = Counted()
    for tag, units in (("large", 1000), ("large", 1), ("small", 0)):
        allow = counted.warm()
        counted.counts.tag(allow.principal, tag)
        counted.counts.weigh(allow.principal, tag, units - 1)
    refused = counted.warm()
    counted.counts.tag(refused.principal, "small")
    counted.counts.weigh(refused.principal, "small", 49)
    counted.counts.refuse(limited(refused), refused, "small", 50)
    counted.tell()

    assert counted.told == {
        (f"{1:016}", ALLOWED, "large"): 2,
        (f"{1:016}", ALLOWED, "small"): 1,
        (f"{1:016}", "rate_limited", "small"): 1,
    }
    assert counted.units[f"{1:016}"] == 1001


def test_units_that_come_after_their_request_was_told_are_told_alone() -> None:
    counted = Counted()
    allow = counted.warm()
    counted.tell()
    counted.counts.weigh(allow.principal, "", 99)
    (flush,) = counted.tell()

    assert [(cell.n, cell.units) for cell in flush.cells] == [(0, 99)]


def test_a_refund_that_comes_after_its_request_was_told_waits_for_units() -> None:
    counted = Counted()
    allow = counted.warm()
    counted.tell()
    counted.counts.weigh(allow.principal, "", -1)
    assert counted.tell() == []
    counted.warm(n=3)
    counted.tell()

    assert counted.of() == 4
    assert counted.units[f"{1:016}"] == 3


def test_counts_land_in_the_quarter_in_which_they_began_to_be_collected() -> None:
    counted = Counted()
    first = counted.clock.now
    counted.warm()
    counted.clock.advance(timedelta(minutes=15, seconds=1))
    assert counted.counts.is_over
    counted.counts.collect()
    assert not counted.counts.is_over
    counted.warm()
    counted.tell()

    assert counted.starts == {first, first + timedelta(minutes=15)}


def test_a_refusal_stays_in_the_quarter_of_its_request() -> None:
    counted = Counted()
    first = counted.clock.now
    allow = counted.warm()
    counted.counts.refuse(limited(allow), allow)
    counted.clock.advance(timedelta(minutes=16))
    counted.tell()

    assert counted.starts == {first}
    assert counted.of("rate_limited") == 1


def test_buckets_may_be_hours() -> None:
    counted = Counted(bucket=3600)
    counted.clock.advance(timedelta(minutes=40))
    counted.counts.collect()
    counted.warm()
    counted.tell()

    assert counted.starts == {datetime(2026, 11, 22, 12, tzinfo=UTC)}


def test_a_flush_is_sent_again_unchanged_until_it_was_told() -> None:
    counted = Counted()
    counted.warm()
    counted.counts.told(counted.counts.next_flush() or pytest.fail("nothing to tell"))
    first = counted.counts.next_flush()
    counted.warm(n=7)
    assert counted.counts.next_flush() is first
    assert first is not None
    counted.counts.told(first)
    second = counted.counts.next_flush()
    assert second is not None

    assert (first.seq, second.seq, first.writer) == (2, 3, second.writer)
    assert [cell.n for flush in (first, second) for cell in flush.cells] == [1, 7]
    assert counted.counts.pending() == 1


def test_a_flush_holds_so_many_cells_and_only_the_last_says_that_all_was_reported() -> None:
    counted = Counted()
    began = counted.clock.now
    for number in range(1200):
        counted.warm(number)
    counted.clock.advance(timedelta(seconds=10))
    flushes = counted.tell()

    assert [len(flush.cells) for flush in flushes] == [0, 500, 500, 200]
    assert [flush.until for flush in flushes] == [began] * 3 + [began + timedelta(seconds=10)]


def test_an_idle_writer_says_once_a_minute_that_it_lives() -> None:
    counted = Counted()
    counted.clock.advance(timedelta(hours=1))
    assert counted.tell() == []  # it has never told anything
    counted.warm()
    counted.tell()
    counted.clock.advance(timedelta(seconds=59))
    assert counted.tell() == []
    counted.clock.advance(timedelta(seconds=1))
    (alive,) = counted.tell()

    assert (alive.seq, alive.cells, alive.until) == (3, (), counted.clock.now)


def test_a_writer_retires_once_all_its_flushes_have_arrived() -> None:
    counted = Counted()
    assert counted.counts.retire() is None
    counted.warm()
    flush = counted.counts.next_flush()
    assert flush is not None
    assert counted.counts.retire() is None
    counted.counts.told(flush)

    assert counted.counts.retire() == flush.writer
    assert counted.counts.retire() is None
    counted.warm()
    other, _ = counted.tell()
    assert other.writer != flush.writer
    assert (other.seq, other.cells) == (1, ())


def test_a_writer_whose_flush_may_still_be_on_its_way_does_not_retire() -> None:
    counted = Counted()
    counted.warm()
    flush = counted.counts.next_flush()
    assert flush is counted.counts.next_flush()
    assert flush is not None
    counted.counts.told(flush)
    assert counted.counts.retire() is None
    counted.clock.advance(timedelta(seconds=61))

    assert counted.counts.retire() == flush.writer


def test_a_writer_that_was_given_up_loses_what_is_under_way_and_goes_on_as_another() -> None:
    counted = Counted()
    counted.warm()
    counted.tell()
    counted.warm(n=3)
    lost = counted.counts.next_flush()
    counted.warm(n=4)
    assert counted.counts.unheard is None
    counted.clock.advance(timedelta(hours=1))
    assert lost is not None
    assert counted.counts.unheard == lost.writer

    counted.counts.give_up(lost.writer)
    counted.counts.told(lost)  # an answer that comes late
    counted.tell()

    assert counted.counts.lost == 3
    assert counted.of() == 5


def test_without_memory_keys_are_counted_together_and_totals_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_cells, "MOST_CELLS", 100)
    counted = Counted()
    sent: Counter[str] = Counter()
    for number in range(1000):
        owner = f"org_{number % 3:016}"
        allow = counted.warm(number, n=2, owner=owner)
        sent[owner] += 2
        if number % 7 == 0:
            counted.counts.refuse(limited(allow), allow)
        counted.counts.collect()
        assert counted.counts.pending() <= 100
    told: Counter[str] = Counter()
    while flush := counted.counts.next_flush():
        for cell in flush.cells:
            told[cell.organization] += cell.n
        counted.counts.told(flush)

    assert told == sent
    assert counted.counts.lost == 0


def test_what_no_memory_holds_is_lost_and_the_loss_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_cells, "MOST_CELLS", 100)
    counted = Counted()
    for number in range(150):
        counted.warm(number, owner=f"org_{number:016}")
    counted.tell()

    assert sum(counted.told.values()) == 100
    assert counted.counts.lost == 50


def test_outcomes_never_fall() -> None:
    counted = Counted()
    allow = counted.warm(n=2)
    assert counted.counts.outcomes()["allowed"] == 2
    counted.counts.refuse(limited(allow), allow)
    assert counted.counts.outcomes() == {"allowed": 2, "rate_limited": 1}
    counted.warm()
    assert counted.counts.outcomes()["allowed"] == 2
    counted.warm()

    assert counted.counts.outcomes()["allowed"] == 3


def test_without_a_store_outcomes_are_counted_and_no_cell_is_kept() -> None:
    counted = Counted(keeps=False)
    allow = counted.warm(n=3)
    counted.cold()
    counted.counts.refuse(limited(allow), allow)
    counted.counts.weigh(allow.principal, "", 5)

    assert counted.counts.outcomes() == {"allowed": 3, "rate_limited": 1}
    assert counted.counts.pending() == 0
    assert counted.counts.next_flush() is None


def test_look_ups_are_counted_by_result() -> None:
    world = World({"max_staleness": 3600.0})
    issued = world.issue()
    for _ in range(4):
        world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
    world.guard._recall(f"Bearer {issued.token.reveal()}".encode())
    world.guard.authenticate([f"Bearer {issued.token.reveal()}"], fresh=True)

    assert world.guard.counts.lookups() == {"hit": 4, "miss": 2, "shared": 0}


def test_moves_that_wait_survive_that_keys_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_cells, "MOST_CELLS", 60)
    counted = Counted()
    requests = 0
    for number in range(300):
        allow = counted.warm(number, n=3)
        requests += 3
        for _ in range(1 + number % 3):
            counted.counts.refuse(limited(allow), allow)
        if number % 20 == 0:
            counted.counts.collect()
    counted.tell()

    assert counted.told.total() == requests
    assert counted.counts.lost == 0


def test_refusals_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_cells, "_MOST_WAITING", 10)
    counted = Counted()
    for number in range(50):
        counted.warm(number)
    counted.tell()
    for number in range(50):
        allow = Allow(principal(number))
        counted.counts.refuse(limited(allow), allow, "", 5)
    counted.tell()
    for number in range(50):
        counted.warm(number)
    counted.tell()

    assert counted.told.total() == 100
    assert sum(n for (_, outcome, _), n in counted.told.items() if outcome != ALLOWED) == 10


def test_where_merging_gains_nothing_it_is_not_tried_for_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_cells, "MOST_CELLS", 100)
    counted = Counted()
    merges: list[int] = []
    merge = counted.counts._cells._merge
    monkeypatch.setattr(counted.counts._cells, "_merge", lambda: (merges.append(1), merge()))
    owners = [f"org_{number:016}" for number in range(200)]
    for number, owner in enumerate(owners):
        counted.counts.count(Allow(principal(number, owner)))
    counted.counts.count(Allow(principal(999, owners[0])))  # which has room: it has a cell

    assert len(merges) == 1
    assert counted.counts.lost == 100
    counted.tell()
    assert sum(counted.told.values()) == 101
    counted.counts.count(Allow(principal(1, owners[150])))
    counted.tell()
    assert sum(counted.told.values()) == 102


def test_a_clock_that_was_far_ahead_is_followed_back() -> None:
    counted = Counted()
    now = counted.clock.now
    counted.clock.now = now + timedelta(days=365)
    counted.cold()
    counted.tell()
    counted.clock.now = now
    counted.starts.clear()
    counted.cold()
    counted.tell()
    assert {start.year for start in counted.starts} == {now.year}

    counted.clock.advance(timedelta(minutes=15))
    counted.cold()
    counted.clock.now -= timedelta(seconds=2)  # as a clock is set now and then
    counted.starts.clear()
    counted.cold()
    counted.tell()
    assert len(counted.starts) == 1


def test_a_key_that_comes_from_everywhere_takes_no_room_from_others() -> None:
    counted = Counted()
    for number in range(usage_counts.MOST_SEEN_OF_KEY + 50):
        counted.counts.see(principal(1), Sighting.NETWORK, f"2001:db8:{number:x}::/48")
    counted.counts.see(principal(2), Sighting.NETWORK, "192.0.2.0/24")
    cells = [cell for flush in counted.tell() for cell in flush.cells]
    assert sum(cell.key_id == f"{1:016}" for cell in cells) == usage_counts.MOST_SEEN_OF_KEY
    assert sum(cell.key_id == f"{2:016}" for cell in cells) == 1
