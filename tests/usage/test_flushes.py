"""How the store is told what was counted, and how what is old is folded; stepped by hand."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import Allow, CorruptDataError, Deny, Reason, StoreUnavailableError
from keyguard.core.usage.values import QUARTER, Cell, Flush, NotAddedError, Period, Question
from keyguard.freshness.usage_cells import MOST_CELLS
from keyguard.freshness.usage_counts import UsageCounts
from keyguard.freshness.usage_work import TELL_EVERY, TIDY_EVERY, UsageWork
from keyguard.runtime.sync import run_sync
from keyguard.stores.memory.usage import MemoryUsage
from tests.freshness.test_background import Beside
from tests.usage.test_counts import Counted
from tests.world import World

DAY = timedelta(days=1)


class Stopping(MemoryUsage):
    """A store of usage that can be stopped, or lose its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.loses_answers = False
        self.calls = 0
        self.flushes: list[Flush] = []

    async def add(self, flush: Flush) -> None:
        self.calls += 1
        if self.is_down:
            raise StoreUnavailableError("stopped")
        self.flushes.append(flush)
        await super().add(flush)
        if self.loses_answers:
            raise StoreUnavailableError("the answer was lost")

    def total(self, owner: str, *periods: Period) -> int:
        everything = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
        question = Question(owner, periods or (everything,))
        return sum(total.n for total in run_sync(self.totals(question)))


class Told:
    """A world whose guard's work for usage is stepped by hand."""

    def __init__(self, **options: Any) -> None:
        self.world = World(options)
        self.usage = self.world.store.kept_usage = Stopping()
        self.guard = self.world.guard
        work = self.guard._ports.background._usage
        assert work is not None
        self.work = work

    def ask(self, token: str, times: int = 1) -> None:
        for _ in range(times):
            assert isinstance(self.guard.authenticate([f"Bearer {token}"]), Allow)

    def pass_by(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass, with a turn of the worker each second."""
        for _ in range(int(seconds / step)):
            self.world.clock.advance(timedelta(seconds=step))
            while run_sync(self.work.turn()):
                pass


@pytest.fixture
def told() -> Told:
    told = Told(max_staleness=3600.0)
    told.guard._ports.background.start = lambda: None  # type: ignore[method-assign]
    return told


def test_counts_are_told_within_ten_seconds(told: Told) -> None:
    token = told.world.token()
    told.ask(token, 5)
    told.pass_by(TELL_EVERY - 1)
    assert told.usage.calls == 0

    told.pass_by(1)

    assert told.usage.total(told.world.acme.id) == 5
    assert told.usage.calls == 2  # the first made the writer known


def test_counts_are_collected_as_a_quarter_ends(told: Told) -> None:
    token = told.world.token()
    start = told.world.clock.now.replace(second=0)
    told.pass_by(15 * 60 - 2)  # now it is a second before the next quarter
    told.ask(token, 2)
    told.pass_by(1)
    told.ask(token, 3)
    told.pass_by(10)

    quarters = [Period(start + n * QUARTER, start + (n + 1) * QUARTER) for n in range(2)]
    assert [told.usage.total(told.world.acme.id, quarter) for quarter in quarters] == [2, 3]


def test_an_idle_guard_calls_the_store_once_a_minute_and_an_unused_one_never(told: Told) -> None:
    told.pass_by(300)
    assert told.usage.calls == 0
    told.ask(told.world.token())
    told.pass_by(10)
    calls = told.usage.calls

    told.pass_by(300)

    assert told.usage.calls == calls + 5
    (writer,) = run_sync(told.usage.writers())
    assert told.world.clock.now - writer.until <= timedelta(seconds=60)


def test_a_flush_whose_answer_was_lost_is_sent_again_and_counts_once(told: Told) -> None:
    token = told.world.token()
    told.ask(token, 3)
    told.usage.loses_answers = True
    told.pass_by(35)
    told.ask(token, 4)
    told.pass_by(10)
    told.usage.loses_answers = False
    told.pass_by(20)

    assert told.usage.total(told.world.acme.id) == 7
    by_number = {flush.seq: flush for flush in told.usage.flushes}
    assert all(flush == by_number[flush.seq] for flush in told.usage.flushes)


def test_a_store_that_is_stopped_for_five_minutes_gets_everything_when_it_is_back(
    told: Told,
) -> None:
    tokens = [told.world.token() for _ in range(20)]
    told.usage.is_down = True
    for _ in range(300):
        for token in tokens:
            told.ask(token)
        told.pass_by(1)
    assert told.usage.total(told.world.acme.id) == 0
    assert told.usage.calls <= 31  # it is left in peace between
    told.usage.is_down = False

    told.pass_by(10)

    assert told.usage.total(told.world.acme.id) == 20 * 300
    assert told.guard.counts.lost == told.guard.counts.pending() == 0


def test_counts_that_wait_take_less_than_64_megabytes_and_all_arrive() -> None:
    counted = Counted()
    requests = MOST_CELLS + 20_000
    tracemalloc.start()
    try:
        for number in range(requests):
            owner, key, family = f"org_{number % 50:016}", f"{number:016}", f"fam_{number:016}"
            counted.counts.count(Deny(Reason.KEY_REVOKED, key, owner, family=family))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 * 1024**2
    assert counted.counts.pending() <= MOST_CELLS
    counted.tell()
    assert counted.told.total() == requests


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_closing_tells_the_rest_and_leaves(flavour: str) -> None:
    world = World({"max_staleness": 3600.0})
    field = [f"Bearer {world.token()}"]

    async def served() -> None:
        async with world.async_guard as guard:
            for _ in range(3):
                await guard.authenticate(field)

    if flavour == "async":
        asyncio.run(served())
    else:
        with world.guard as guard:
            for _ in range(3):
                guard.authenticate(field)

    assert [item.n for item in world.guard.usage.report(organization="acme").items] == [3]
    assert run_sync(world.store.kept_usage.writers()) == []


def test_a_guard_that_is_used_after_it_was_closed_counts_on_as_another_writer() -> None:
    world = World({"max_staleness": 3600.0})
    field = [f"Bearer {world.token()}"]
    for _ in range(2):
        world.guard.authenticate(field)
        world.guard.close()

    assert [item.n for item in world.guard.usage.report(organization="acme").items] == [2]


def test_the_end_of_an_asgi_lifespan_tells_the_rest_and_leaves() -> None:
    from keyguard.adapters.asgi import KeyguardMiddleware

    world = World({"max_staleness": 3600.0})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.shutdown"

    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    async def served() -> None:
        await world.async_guard.authenticate([f"Bearer {world.token()}"])
        await KeyguardMiddleware(app, world.async_guard)({"type": "lifespan"}, receive, receive)

    asyncio.run(served())

    assert [item.n for item in world.guard.usage.report(organization="acme").items] == [1]
    assert run_sync(world.store.kept_usage.writers()) == []


def test_a_store_that_fails_at_the_end_ends_nothing() -> None:
    told = Told()
    told.ask(told.world.token())
    told.usage.is_down = True
    told.guard.close()

    assert told.guard.counts.pending() > 0


def test_the_worker_goes_on_with_the_feed_while_usage_can_t_be_told() -> None:
    beside = Beside()
    usage = beside.world.store.kept_usage = Stopping()
    usage.is_down = True
    beside.turn()
    beside.ask(beside.world.issue().token)
    asked = len(beside.feed.asked)

    beside.turn(sleeps=30)

    assert len(beside.feed.asked) >= asked + 30


# Folding, forgetting and giving up


class Kept:
    """The store of two organizations, and the work of one process on it."""

    def __init__(self, zone: str = "UTC") -> None:
        self.world = World()
        self.world.guard.organizations.update("acme", time_zone=zone)
        self.usage = self.world.store.kept_usage
        self.work = self.process()
        self._seq = 0

    def process(self) -> UsageWork:
        memory: Any = Counted().memory
        counts = UsageCounts(memory, clock=self.world.clock)
        store = self.world.guard._ports.store
        return UsageWork(counts, self.usage, store, self.world.clock)

    def write(self, at: datetime, n: int = 1, *, writer: str = "one") -> None:
        self._seq += 1
        cell = Cell(self.world.acme.id, at, "0" * 16, "fam_1", "allowed", "", n, n)
        flush = Flush(writer, self._seq, self.world.clock.now, (cell,))
        run_sync(self.usage.add(flush))

    def tidy(self, *processes: UsageWork) -> None:
        """Let an hour pass, with the turns that each process takes."""
        self.world.clock.advance(timedelta(seconds=TIDY_EVERY))
        for process in processes or (self.work,):
            turns = 1
            while run_sync(process.turn()):
                turns += 1
                assert turns < 10_000


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_quarters_older_than_35_days_become_days_of_the_organization_s_zone(zone: str) -> None:
    kept = Kept(zone)
    now = kept.world.clock.now.replace(second=0)
    quarters = [now - number * 7 * QUARTER for number in range(60 * 14)]  # about 60 days
    for number, start in enumerate(quarters):
        kept.write(start, number % 5)
    report = kept.world.guard.usage.report
    asked = {"organization": "acme", "start": (now - 70 * DAY).date()}
    before = [report(**asked, step=step).items for step in ("day", "week", "month")]

    kept.tidy(kept.work, kept.process())

    assert [report(**asked, step=step).items for step in ("day", "week", "month")] == before
    left = [place.start for place in kept.usage._quarters[kept.world.acme.id]]
    assert now - 38 * DAY < min(left) <= now - 35 * DAY
    assert run_sync(kept.usage.unfolded(now - 38 * DAY, 10)) == []


def test_days_are_forgotten_after_800_days_even_of_an_organization_that_went_silent() -> None:
    kept = Kept()
    kept.write(kept.world.clock.now.replace(second=0), 3)
    kept.world.clock.advance(799 * DAY)
    kept.tidy()
    assert kept.usage._days[kept.world.acme.id]
    kept.world.clock.advance(2 * DAY)

    kept.tidy()

    assert not kept.usage._days[kept.world.acme.id]


def test_old_days_of_many_organizations_are_forgotten_in_turn() -> None:
    kept = Kept()
    forgotten: list[str] = []

    async def forget(organization: str, before: datetime) -> None:
        if organization.startswith("org_"):
            forgotten.append(organization)

    kept.usage.forget = forget  # type: ignore[method-assign]
    for number in range(70):
        kept.world.guard.organizations.create(f"tenant-{number}")
    kept.tidy()
    kept.tidy()

    assert len(forgotten) == len(set(forgotten)) == 72


def test_a_writer_is_given_up_after_two_silent_looks_an_hour_apart() -> None:
    kept = Kept()
    kept.write(kept.world.clock.now.replace(second=0), writer="killed")
    kept.tidy()
    assert [writer.id for writer in run_sync(kept.usage.writers())] == ["killed"]
    kept.tidy()

    assert run_sync(kept.usage.writers()) == []


def test_a_process_that_was_given_up_loses_one_flush_and_counts_on() -> None:
    told = Told(max_staleness=3600.0)
    told.guard._ports.background.start = lambda: None  # type: ignore[method-assign]
    token = told.world.token()
    told.ask(token, 2)
    told.pass_by(10)
    told.ask(token, 3)
    told.usage.loses_answers = True
    told.pass_by(10)
    told.usage.loses_answers, told.usage.is_down = False, True
    told.ask(token, 4)
    told.pass_by(3600, step=60)
    (writer,) = run_sync(told.usage.writers())
    run_sync(told.usage.leave(writer.id))
    told.usage.is_down = False
    told.pass_by(20)

    assert told.usage.total(told.world.acme.id) == 9  # what was thought lost had arrived
    assert told.guard.counts.lost == 3


def test_an_outage_of_hours_loses_nothing_while_nobody_else_gave_the_writer_up() -> None:
    told = Told(max_staleness=3600.0)
    told.guard._ports.background.start = lambda: None  # type: ignore[method-assign]
    token = told.world.token()
    told.usage.is_down = True
    for _ in range(5):
        told.ask(token, 2)
        told.pass_by(3600, step=60)
    told.usage.is_down = False
    told.pass_by(120, step=10)

    assert told.usage.total(told.world.acme.id) == 10
    assert told.guard.counts.lost == 0


def test_processes_that_start_together_do_not_tidy_together() -> None:
    world = World()
    memory: Any = Counted().memory
    counts = UsageCounts(memory, clock=world.clock)
    works = [UsageWork(counts, MemoryUsage(), world.guard._ports.store, world.clock)
             for _ in range(50)]  # fmt: skip

    assert len({work._tidy_at for work in works}) > 10


def test_requests_that_never_end_make_one_flush_in_ten_seconds(told: Told) -> None:
    token = told.world.token()
    add = told.usage.add

    async def added(flush: Flush) -> None:
        told.ask(token)  # while the store is told, the next request is counted
        await add(flush)

    told.usage.add = added  # type: ignore[method-assign]
    told.ask(token)
    told.pass_by(100)

    assert told.usage.calls == 11  # the first made the writer known


def test_one_damaged_organization_keeps_nobody_else_s_days_from_being_folded(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [told.world.acme.id, told.guard.organizations.create("third").id]
    old = told.world.clock.now - 60 * DAY
    cells = tuple(
        Cell(owner, old + number * DAY, "k", "f", "allowed", "", 1, 1)
        for number, owner in enumerate(owners)
    )
    run_sync(told.usage.add(Flush("w", 1, told.world.clock.now, cells)))
    find = told.work._store.find_organization

    async def find_or_fail(name: str) -> Any:
        if name == owners[0]:
            raise CorruptDataError("a field can't be read")
        return await find(name)

    monkeypatch.setattr(told.work._store, "find_organization", find_or_fail)
    told.pass_by(2 * TIDY_EVERY, step=60.0)

    assert not run_sync(told.usage.unfolded(told.world.clock.now - 40 * DAY, 100))
    assert [told.usage.total(owner) for owner in owners] == [1, 1]


def test_a_day_that_can_t_be_folded_is_left_for_the_next_round(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = told.world.clock.now - 60 * DAY
    cell = Cell(told.world.acme.id, old, "k", "f", "allowed", "", 1, 1)
    run_sync(told.usage.add(Flush("w", 1, told.world.clock.now, (cell,))))
    folds = 0

    async def fold(organization: str, day: Period) -> None:
        nonlocal folds
        folds += 1
        raise CorruptDataError("a field can't be read")

    monkeypatch.setattr(told.usage, "fold", fold)
    told.pass_by(2 * TIDY_EVERY, step=60.0)
    assert 1 <= folds <= 3


def test_a_flush_that_the_store_can_not_take_is_lost_and_keeps_back_nothing(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = told.world.token()
    told.ask(token, 3)
    told.pass_by(TELL_EVERY - 1)
    add = told.usage.add
    told.pass_by(1)

    async def refuse(flush: Flush) -> None:
        raise NotAddedError("a field can't be read", frozenset({told.world.acme.id}))

    told.ask(token, 2)
    monkeypatch.setattr(told.usage, "add", refuse)
    told.pass_by(TELL_EVERY)
    monkeypatch.setattr(told.usage, "add", add)
    told.ask(token, 4)
    told.pass_by(TELL_EVERY)

    assert told.usage.total(told.world.acme.id) == 7
    assert told.guard.statistics().usage_lost == 2
