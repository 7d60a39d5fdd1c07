"""Usage in Redis: flushes that are lost halfway, the list of what is to be folded, clusters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as redis_py
from redis.exceptions import NoScriptError

from keyguard.core.usage.values import (
    ALLOWED,
    QUARTER,
    Cell,
    Flush,
    GroupBy,
    NotAddedError,
    Period,
    Question,
    Total,
    Writer,
)
from keyguard.exceptions import CorruptDataError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.stores.redis import scripts
from keyguard.stores.redis.scripts import Script
from tests.services import RedisCluster, RedisPair, RedisServer, running, until
from tests.stores.conftest import Awaited, Plain, bounded, opened
from tests.stores.sent import parts_of
from tests.stores.test_rights import REDIS_RIGHTS

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = (Period(NOON, NOON + DAY), Period(NOON + DAY, NOON + 2 * DAY))
ACME, OTHER = "org_0000000000000001", "org_0000000000000002"
SLOT = f"keyguard:{{{ACME}}}:usage:"
SCRIPTS = {
    script: name
    for name, script in vars(scripts).items()
    if isinstance(script, Script) and name.startswith("USAGE")
}


def cell(
    key: int = 1, owner: str = ACME, at: datetime = NOON, n: int = 1, outcome: str = ALLOWED
) -> Cell:
    return Cell(owner, at, f"{key:016}", f"fam_{key // 10:016}", outcome, "", n, 2 * n)


def flush(*cells: Cell, seq: int = 1, writer: str = "one") -> Flush:
    return Flush(writer, seq, NOON + QUARTER, cells)


def ask(*periods: Period, owner: str = ACME, **fields: Any) -> Question:
    return Question(owner, periods or DAYS, **fields)


def count(usage: Any, *periods: Period, owner: str = ACME) -> int:
    return sum(total.n for total in usage.totals(ask(*periods, owner=owner)))


@pytest.fixture(params=("sync", "async"))
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Kept:
    """A store of usage, and what the server of its keys is asked."""

    def __init__(self, flavour: str, url: str, runner: asyncio.Runner) -> None:
        self.url = url
        self.store = opened(flavour, url, runner)
        self.store.migrate()
        kept = self.store.backend.usage()
        self.usage: Any = Plain(kept) if flavour == "sync" else Awaited(kept, runner)
        self.asked: list[str] = []
        self.before: Callable[[str], object] = lambda name: None
        self.after: Callable[[str], object] = lambda name: None
        self._is_async = flavour == "async"
        port = self.store.backend.port
        self._send = port.send
        port.send = self._watched

    async def _watched(self, commands: Any, key: str, durability: Any = None) -> Any:
        if self._is_async and remaining() is None:  # it calls itself once more with a deadline
            return await self._send(commands, key, durability)
        (command,) = commands
        how, called, *_ = parts_of(command)
        known = (name for s, name in SCRIPTS.items() if called in (s.digest, s.text))
        name = next(known, "")
        if how == "EVALSHA":  # and no repetition, as the server did not know it
            self.asked.append(name)
            self.before(name)
        reply = await self._send(commands, key, durability)
        if not any(isinstance(part, NoScriptError) for part in reply):  # else it is sent again
            self.after(name)
        return reply


@pytest.fixture
def kept(flavour: str, redis: RedisServer, runner: asyncio.Runner) -> Iterator[Kept]:
    kept = Kept(flavour, redis.create_database()[0], runner)
    yield kept
    kept.store.close()


@pytest.fixture
def another(kept: Kept) -> Iterator[Any]:
    """The same store in another process."""
    store = opened("sync", kept.url, None)  # type: ignore[arg-type]  # which needs no event loop
    yield store.backend.usage()
    store.close()


def client_of(url: str) -> Any:
    return redis_py.Redis.from_url(url, decode_responses=True)


# Flushes


class Lost:
    """Has a call fail, once: before the server got it, or after it answered."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise redis_py.ConnectionError(f"{name} was lost")


MANY = [cell(key, owner, n=key) for owner in (ACME, OTHER) for key in range(1, 451)]
STEPS = 2 + 1 + 6 + 1
"""Each organization is found unlisted, both are listed, each gets three parts; the end is noted."""


@pytest.mark.campaign("async")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("by_another", [False, True])
def test_a_flush_whose_answer_was_lost_at_any_step_is_sent_again_and_added_once(
    kept: Kept, another: Any, step: int, when: str, by_another: bool
) -> None:
    kept.usage.add(flush(cell(n=1000), writer="two"))
    kept.usage.fold(ACME, DAYS[0])  # so that nobody is listed
    kept.asked.clear()
    setattr(kept, when, Lost(step))
    with pytest.raises(StoreUnavailableError):
        kept.usage.add(flush(*MANY))

    again = another if by_another else kept.usage
    for _ in range(2):
        again.add(flush(*MANY))
    again.add(flush(cell(n=7), seq=2))
    again.add(flush(*MANY))

    assert count(kept.usage) == 1000 + 450 * 451 // 2 + 7
    assert count(kept.usage, owner=OTHER) == 450 * 451 // 2
    keys = kept.usage.totals(ask(group_by=GroupBy.KEY, limit=2))
    assert [total.n for total in keys] == [1000 + 1 + 7, 2]


def test_a_flush_goes_on_where_its_deadline_ended_it(kept: Kept) -> None:
    owners = [f"org_{number:016}" for number in range(30)]
    cells = [cell(owner=owner) for owner in owners]
    kept.usage.add(flush(*cells))
    for lost in (10, 15):
        kept.before = Lost(lost)
        with pytest.raises(StoreUnavailableError):
            kept.usage.add(flush(*cells, seq=2))
    kept.asked.clear()
    kept.usage.add(flush(*cells, seq=2))

    assert kept.asked == ["USAGE_ADD"] * 7 + ["USAGE_NOTE"]
    assert [count(kept.usage, owner=owner) for owner in owners] == [2] * 30


def test_a_flush_is_a_script_for_each_organization_and_one_for_the_writer(kept: Kept) -> None:
    kept.usage.add(flush(cell(), cell(owner=OTHER)))
    kept.asked.clear()
    kept.usage.add(flush(cell(), cell(2), cell(3, at=NOON + 5 * QUARTER), seq=2))
    kept.usage.add(flush(seq=3))

    assert kept.asked == ["USAGE_ADD", "USAGE_NOTE", "USAGE_NOTE"]


@pytest.mark.campaign("async")
def test_twenty_writers_count_exactly_while_others_read_and_fold(kept: Kept) -> None:
    def writer(name: str) -> list[Flush]:
        drawn = random.Random(name)
        return [
            flush(
                *(
                    cell(key, owner, NOON + drawn.randrange(96) * QUARTER, n=drawn.randrange(9))
                    for owner in (ACME, OTHER)
                    for key in range(drawn.randrange(40))
                ),
                seq=seq,
                writer=name,
            )
            for seq in range(1, 6)
        ]

    written = {f"writer-{number}": writer(f"writer-{number}") for number in range(20)}
    for seq in range(5):
        calls: list[Any] = []
        for name in written:
            calls += [lambda usage, sent=written[name][seq]: usage.add(sent)] * 2
        calls += [lambda usage: usage.fold(ACME, DAYS[0])] * 2
        calls += [lambda usage: usage.totals(ask(group_by=GroupBy.KEY))] * 2
        kept.usage.together(calls)

    cells = [cell for flushes in written.values() for sent in flushes for cell in sent.cells]
    for owner in (ACME, OTHER):
        expected: dict[str, int] = {}
        for counted in cells:
            if counted.organization == owner:
                expected[counted.key_id] = expected.get(counted.key_id, 0) + counted.n
        for _ in range(2):
            found = kept.usage.totals(ask(DAYS[0], owner=owner, group_by=GroupBy.KEY))
            assert {total.group: total.n for total in found} == expected
            assert count(kept.usage, owner=owner) == sum(expected.values())
            kept.usage.fold(owner, DAYS[0])
    assert kept.usage.unfolded(NOON + 9 * DAY, 9) == []
    assert {writer.id for writer in kept.usage.writers()} == set(written)


def test_a_new_writer_of_a_flush_that_is_under_way_hears_of_its_own_progress(kept: Kept) -> None:
    kept.usage.add(flush(cell(), seq=2))
    kept.usage.add(Flush("one", 1, NOON, ()))

    assert kept.usage.writers() == [Writer("one", NOON + QUARTER)]


# What is to be folded


def test_an_organization_is_listed_before_anything_is_added(kept: Kept) -> None:
    kept.before = Lost(3)
    with pytest.raises(StoreUnavailableError):
        kept.usage.add(flush(cell()))

    assert kept.asked == ["USAGE_ADD", "USAGE_LIST", "USAGE_ADD"]
    assert kept.usage.unfolded(NOON + DAY, 9) == [(ACME, NOON)]
    assert kept.usage.totals(ask()) == []
    kept.usage.fold(ACME, DAYS[0])  # there is nothing, so that it was named too often
    assert kept.usage.unfolded(NOON + DAY, 9) == []


@pytest.mark.parametrize("script", ["USAGE_UNFOLDED", "USAGE_FOLD", "USAGE_FIRST"])
def test_what_is_added_while_a_day_is_folded_is_not_taken_off_the_list(
    kept: Kept, another: Any, script: str
) -> None:
    kept.usage.add(flush(cell(n=1)))

    def add(name: str) -> None:
        if name == script:
            kept.after = lambda name: None
            another.add(flush(cell(n=2), writer="two"))

    kept.after = add
    kept.usage.fold(ACME, DAYS[0])

    found = [start for _, start in kept.usage.unfolded(NOON + DAY, 9)]
    assert found in ([NOON], []) if script == "USAGE_UNFOLDED" else found == [NOON]
    kept.usage.fold(ACME, DAYS[0])
    assert kept.usage.unfolded(NOON + DAY, 9) == []
    with client_of(kept.url) as client:
        assert client.keys(f"{SLOT}*T*") == []
    assert count(kept.usage) == 3


@pytest.mark.parametrize("script", ["USAGE_ADD", "USAGE_LIST"])
def test_what_is_folded_while_it_is_added_stays_on_the_list(
    kept: Kept, another: Any, script: str
) -> None:
    another.add(flush(cell(n=1), writer="two"))
    another.fold(ACME, DAYS[0])

    def fold(name: str) -> None:
        if name == script:
            kept.after = lambda name: None
            another.fold(ACME, DAYS[0])

    kept.after = fold
    kept.usage.add(flush(cell(n=2)))

    assert kept.usage.unfolded(NOON + DAY, 9) == [(ACME, NOON)]
    assert count(kept.usage) == 3


def test_a_fold_whose_answer_was_lost_names_too_much_and_is_made_again(kept: Kept) -> None:
    cells = (cell(n=1), cell(n=2, at=NOON + DAY), cell(n=4, at=NOON + DAY + 3 * QUARTER))
    for step in range(1, 5):
        for when in ("before", "after"):
            kept.usage.add(flush(*cells, writer=f"{step} {when}"))
            setattr(kept, when, Lost(step))
            with suppress(StoreUnavailableError):
                kept.usage.fold(ACME, DAYS[0])
            assert [name for name, _ in kept.usage.unfolded(NOON + 2 * DAY, 9)] == [ACME]
            kept.usage.fold(ACME, DAYS[0])
            assert kept.usage.unfolded(NOON + 2 * DAY, 9) == [(ACME, NOON + DAY)]
    assert kept.usage.totals(ask()) == [Total(0, "", 8, 16), Total(1, "", 48, 96)]


def test_a_report_that_a_fold_crosses_is_read_anew(kept: Kept, another: Any) -> None:
    kept.usage.add(flush(*(cell(key, at=NOON + key * QUARTER) for key in range(96))))

    def fold(name: str) -> None:
        if name == "USAGE_INDEX":
            kept.after = lambda name: None
            another.fold(ACME, DAYS[0])

    for group_by in (GroupBy.NOTHING, GroupBy.KEY):
        kept.after = fold
        assert sum(total.n for total in kept.usage.totals(ask(group_by=group_by))) == 96
        kept.asked.clear()
    assert another.unfolded(NOON + DAY, 9) == []


# Many cells


@pytest.mark.campaign("sync")
def test_hashes_of_many_fields_are_read_folded_and_forgotten_in_portions(kept: Kept) -> None:
    counts = {key: key % 7 + 1 for key in range(2500)}
    kept.usage.add(flush(*(cell(key, n=counts[key]) for key in counts)))
    kept.usage.add(
        flush(
            cell(1, n=100, outcome="rate_limited"),
            cell(2, at=NOON + QUARTER, n=1000),
            cell(3, at=NOON - QUARTER, n=5000),
            seq=2,
        )
    )
    counts[1] += 100
    counts[2] += 1000
    by_key = {f"{key:016}": n for key, n in counts.items()}
    for _ in range(2):
        kept.asked.clear()
        found = kept.usage.totals(ask(group_by=GroupBy.KEY, limit=3000))
        assert {total.group: total.n for total in found} == by_key
        assert kept.asked.count("USAGE_TOTALS") >= 3
        pages: list[Total] = []
        while page := kept.usage.totals(
            ask(group_by=GroupBy.KEY, limit=999, after=pages[-1][:2] if pages else None)
        ):
            pages += page
        assert pages == found
        assert [total.n for total in kept.usage.largest(ask(DAYS[0], group_by=GroupBy.KEY, limit=3))
                ] == [1003, 102, 7]  # fmt: skip
        assert len(kept.usage.totals(ask(group_by=GroupBy.FAMILY))) == 250
        assert count(kept.usage) == sum(counts.values())
        kept.asked.clear()
        kept.usage.fold(ACME, DAYS[0])
    assert [total.n for total in kept.usage.totals(ask(Period(NOON - DAY, NOON)))] == [5000]
    kept.usage.fold(ACME, Period(NOON - DAY, NOON))
    kept.asked.clear()
    kept.usage.forget(ACME, NOON)
    assert count(kept.usage, Period(NOON - DAY, NOON)) == 0
    assert count(kept.usage) == sum(counts.values())
    kept.usage.forget(ACME, NOON + DAY)
    assert kept.asked.count("USAGE_FORGET") >= 3
    with client_of(kept.url) as client:
        assert client.keys(f"{SLOT}2*") == client.keys(f"{SLOT}index") == []


def test_a_large_hash_that_grows_while_it_is_read_shows_no_key_twice(
    kept: Kept, another: Any
) -> None:
    kept.usage.add(flush(*map(cell, range(2000))))

    def grow(name: str) -> None:
        if name == "USAGE_TOTALS":
            kept.after = lambda name: None
            another.add(flush(*map(cell, range(2000, 3500)), writer="two"))

    kept.after = grow
    found = kept.usage.totals(ask(group_by=GroupBy.KEY, limit=10_000))

    assert {total.n for total in found} == {1}
    assert {f"{key:016}" for key in range(2000)} <= {total.group for total in found}


def test_a_report_of_an_organization_reads_no_cells_of_keys(kept: Kept) -> None:
    cells = [cell(key, at=NOON + n * QUARTER) for n in range(96) for key in range(50)]
    kept.usage.add(flush(*cells))
    for fields in (
        {},
        {"outcome": ALLOWED},
        {"group_by": GroupBy.OUTCOME},
        {"group_by": GroupBy.TAG},
        {"key_id": f"{7:016}", "group_by": GroupBy.KEY},
    ):
        kept.asked.clear()
        [total] = kept.usage.totals(ask(**fields))
        assert total.n == (96 if "key_id" in fields else 4800)
        assert kept.asked == ["USAGE_INDEX", "USAGE_TOTALS"]


@pytest.mark.campaign("async")
def test_a_page_is_read_no_further_than_it_goes(kept: Kept) -> None:
    cells = [cell(key, at=NOON + n * QUARTER) for n in range(96) for key in range(300)]
    kept.usage.add(flush(*cells))
    quarters = [Period(NOON + n * QUARTER, NOON + (n + 1) * QUARTER) for n in range(96)]
    for after in (None, (50, f"{299:016}")):
        kept.asked.clear()
        found = kept.usage.totals(ask(*quarters, group_by=GroupBy.KEY, limit=10, after=after))
        first = 0 if after is None else 51
        assert found == [Total(first, f"{key:016}", 1, 2) for key in range(10)]
        assert kept.asked.count("USAGE_TOTALS") <= 4


TAGS = ("", "small", "a b")


def expected(truth: dict[tuple[Any, ...], list[int]], question: Question) -> list[Total]:
    """Count the cells as a reader would by hand."""
    sums: dict[tuple[int, str], list[int]] = {}
    for (start, key_id, family, outcome, tag), (n, units) in truth.items():
        columns = {"": "", "key": key_id, "family": family, "outcome": outcome, "tag": tag}
        wanted = ((question.key_id, key_id), (question.family, family), (question.outcome, outcome))
        if any(asked not in (None, found) for asked, found in wanted):
            continue
        for number, period in enumerate(question.periods):
            if period.start <= start < period.end:
                place = sums.setdefault((number, columns[question.group_by]), [0, 0])
                place[0] += n
                place[1] += units
    totals = [Total(*place, *sums[place]) for place in sorted(sums)]
    return [total for total in totals if question.after is None or total[:2] > question.after][
        : question.limit
    ]


@pytest.mark.campaign("sync-45", "async-0")
@pytest.mark.parametrize("offset", [0, 45])
def test_reports_agree_with_a_count_of_the_cells_before_and_after_folds(
    kept: Kept, offset: int
) -> None:
    drawn = random.Random(offset)
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    truth: dict[tuple[Any, ...], list[int]] = {}
    for seq in (1, 2, 3):
        cells: dict[tuple[Any, ...], Cell] = {}
        for _ in range(400):
            one = cell(
                drawn.randrange(30),
                at=midnight + drawn.randrange(3 * 96) * QUARTER,
                n=drawn.randrange(5),
                outcome=drawn.choice((ALLOWED, "rate_limited")),
            )._replace(tag=drawn.choice(TAGS))
            cells[one[1:6]] = one
        kept.usage.add(flush(*cells.values(), seq=seq))
        for place, counted in cells.items():
            before = truth.setdefault(place, [0, 0])
            truth[place] = [before[0] + counted.n, before[1] + counted.units]
    shift = timedelta(minutes=offset)
    civil = [Period(midnight + shift + n * DAY, midnight + shift + (n + 1) * DAY) for n in range(4)]
    civil.insert(0, Period(midnight + shift - DAY, midnight + shift))
    quarters = [
        Period(midnight + n * QUARTER, midnight + (n + 1) * QUARTER) for n in range(20, 260)
    ]
    whole = Period(midnight - 9 * DAY, midnight + 9 * DAY)
    for folded in (None, *civil):
        if folded is not None:
            kept.usage.fold(ACME, folded)
        for periods in (civil, [whole], *([quarters] if folded is None else [])):
            for group_by in GroupBy:
                for fields in (
                    {},
                    {"limit": 3},
                    {"limit": 2, "after": (1, "a")},
                    {"key_id": f"{7:016}"},
                    {"family": f"fam_{2:016}", "outcome": ALLOWED},
                ):
                    question = ask(*periods, group_by=group_by, **fields)
                    assert kept.usage.totals(question) == expected(truth, question)
    with client_of(kept.url) as client:
        assert client.keys(f"{SLOT}*T*") == client.keys(f"{SLOT}*sums") == []


# Names and times


@pytest.mark.campaign("sync")
@pytest.mark.parametrize("owner", ["org}{x", "", "*", "org_\n", "é"])
def test_an_organization_of_any_name_has_its_own_usage(kept: Kept, owner: str) -> None:
    kept.usage.add(flush(cell(n=1), cell(owner=OTHER, n=2)))
    assert kept.usage.totals(ask(owner=owner)) == []
    odd = Cell(owner, NOON, "", "", ALLOWED, "a b\n9 9 \u00e9%", 4, 4)
    kept.usage.add(Flush("two :\n", 1, NOON, (odd,)))
    assert kept.usage.totals(ask(owner=owner, group_by=GroupBy.TAG)) == [Total(0, odd.tag, 4, 4)]
    assert kept.usage.totals(ask(owner=owner, group_by=GroupBy.KEY, key_id="")) == [
        Total(0, "", 4, 4)
    ]
    assert (owner, NOON) in kept.usage.unfolded(NOON + DAY, 9)
    kept.usage.dismiss(owner, "unused:1", NOON)
    kept.usage.fold(owner, DAYS[0])
    kept.usage.forget(owner, NOON + DAY)
    assert kept.usage.totals(ask(owner=owner)) == []
    assert count(kept.usage) == 1


def test_every_key_expires(kept: Kept) -> None:
    kept.usage.add(flush(cell(), cell(owner=OTHER), cell(at=NOON + DAY)))
    kept.usage.dismiss(ACME, "unused:1", NOON)
    kept.usage.dismiss(OTHER, "unused:1", datetime.now(UTC) + 9 * DAY)
    kept.usage.fold(ACME, DAYS[0])
    with client_of(kept.url) as client:
        names = client.keys("*usage*")
        assert len(names) >= 12
        assert [name for name in names if client.ttl(name) <= 0] == []
        assert 9 < client.ttl(f"keyguard:{{{OTHER}}}:usage:dismissed") / 86400 < 10.1
        assert client.ttl(f"{SLOT}2026-03-02T12") > 40 * 86400
        assert client.ttl(f"{SLOT}2026-03-01") > 800 * 86400


def test_a_flush_is_known_for_as_long_as_its_quarters_may_wait(kept: Kept) -> None:
    for _ in range(2):
        kept.usage.add(flush(cell()))
        with client_of(kept.url) as client:
            assert 39.9 < client.ttl(f"{SLOT}writer:one") / 86400 <= 40
            client.expire(f"{SLOT}writer:one", 60)


def test_sums_are_exact_up_to_two_to_the_53rd_and_nearly_so_beyond(kept: Kept) -> None:
    kept.usage.add(flush(cell()._replace(units=2**53 - 3)))
    kept.usage.add(flush(cell()._replace(units=3), seq=2))
    assert kept.usage.totals(ask()) == [Total(0, "", 2, 2**53)]

    kept.usage.add(flush(cell()._replace(units=10**17 + 1), seq=3))
    [total] = kept.usage.totals(ask())
    assert total.units == pytest.approx(2**53 + 10**17, rel=1e-15)


def test_only_so_many_hints_are_dismissed(kept: Kept) -> None:
    with client_of(kept.url) as client:
        client.zadd(f"{SLOT}dismissed", {f"hint {n}": n for n in range(10_000)})
    kept.usage.dismiss(ACME, "new", NOON)

    found = kept.usage.dismissed(ACME, datetime(1970, 1, 1, tzinfo=UTC) - DAY)
    assert len(found) == 10_000
    assert "hint 0" not in found
    assert "new" in found


# Damage


def written(url: str) -> dict[str, Any]:
    with client_of(url) as client:
        return {name: client.dump(name) for name in client.keys(f"{SLOT}*")}


QUARTERS, SUMS, FOLDED = "2026-03-01T13", "2026-03-01:sums", "2026-03-01"
FAILS_BY_TYPE = {
    "add": {"writer:one", "folds", "listed", "index", QUARTERS, SUMS},
    "fold": {"folds", "index", QUARTERS, SUMS, FOLDED},
    "forget": {"folds", "index", FOLDED},
    "totals": {"folds", "index", QUARTERS, FOLDED},
    "largest": {"folds", "index", QUARTERS, FOLDED},
    "dismiss": {"dismissed"},
}
FAILS_BY_VALUE = {
    "add": {"writer:one", QUARTERS, SUMS},
    "fold": {"folds", QUARTERS, SUMS, FOLDED},
    "forget": {"folds"},
    "totals": {"index", QUARTERS, FOLDED},
    "largest": {"index", QUARTERS, FOLDED},
    "dismiss": set[str](),
}


@pytest.mark.campaign("sync")
@pytest.mark.parametrize("of_another_type", [False, True])
@pytest.mark.parametrize(
    "name", ["writer:one", "folds", "listed", "index", QUARTERS, SUMS, FOLDED, "dismissed"]
)
@pytest.mark.parametrize("method", ["add", "fold", "forget", "totals", "largest", "dismiss"])
def test_what_keyguard_never_wrote_stops_a_call_before_it_writes(
    kept: Kept, method: str, name: str, of_another_type: bool
) -> None:
    kept.usage.add(flush(cell(at=NOON), cell(2, at=NOON + 4 * QUARTER)))
    kept.usage.dismiss(ACME, "unused:1", NOON)
    kept.usage.fold(ACME, Period(NOON - QUARTER, NOON + QUARTER))
    kept.usage.add(flush(seq=2))
    with client_of(kept.url) as client:
        kind = client.type(SLOT + name)
        if of_another_type:
            client.delete(SLOT + name)
            client.rpush(SLOT + name, "x")
        elif kind == "hash":
            client.hset(SLOT + name, mapping=dict.fromkeys(client.hkeys(SLOT + name), "x"))
        elif kind == "zset":
            client.zadd(SLOT + name, {"0000": 0})
        else:
            client.set(SLOT + name, "x")
        before = written(kept.url)
        day = Period(NOON - QUARTER, NOON + DAY)
        calls: dict[str, Callable[[], Any]] = {
            "add": lambda: kept.usage.add(flush(cell(at=NOON + 4 * QUARTER), seq=3)),
            "fold": lambda: kept.usage.fold(ACME, day),
            "forget": lambda: kept.usage.forget(ACME, NOON + 9 * DAY),
            "totals": lambda: kept.usage.totals(ask(day, group_by=GroupBy.KEY)),
            "largest": lambda: kept.usage.largest(ask(day)),
            "dismiss": lambda: kept.usage.dismiss(ACME, "unused:2", NOON),
        }
        fails = name in (FAILS_BY_TYPE if of_another_type else FAILS_BY_VALUE)[method]
        with pytest.raises(CorruptDataError) if fails else nullcontext():
            calls[method]()
        assert not fails or written(kept.url) == before


def test_what_is_damaged_keeps_no_other_organization_from_being_added(kept: Kept) -> None:
    owners = [f"org_{number:016}" for number in range(1, 6)]
    kept.usage.add(flush(*(cell(owner=owner) for owner in owners)))
    with client_of(kept.url) as client:
        client.hset(f"{SLOT}2026-03-01T12", f"0 {1:016}", "x")
        client.set(f"keyguard:{{{owners[2]}}}:usage:writer:one", "x")
    cells = [cell(owner=owner, n=4) for owner in owners]
    for _ in range(2):
        with pytest.raises(NotAddedError, match="never wrote") as raised:
            kept.usage.add(Flush("one", 2, NOON + DAY, tuple(cells)))
        assert raised.value.organizations == {owners[0], owners[2]}
        assert isinstance(raised.value.__cause__, redis_py.ResponseError)

    assert kept.usage.writers() == [Writer("one", NOON + DAY)]
    kept.usage.add(flush(cell(owner=owners[1], n=7), seq=3))
    assert [count(kept.usage, owner=owner) for owner in owners] == [1, 12, 1, 5, 5]


def test_without_the_list_only_organizations_that_it_named_are_added(kept: Kept) -> None:
    kept.usage.add(flush(cell(n=1)))
    with client_of(kept.url) as client:
        client.set("keyguard:{store}:usage:unfolded", "x")
    with pytest.raises(NotAddedError) as raised:
        kept.usage.add(flush(cell(n=2), cell(owner=OTHER, n=4), seq=2))

    assert raised.value.organizations == {OTHER}
    assert [count(kept.usage, owner=owner) for owner in (ACME, OTHER)] == [3, 0]


@pytest.mark.parametrize("value", ["x", "9", "9 x"])
def test_a_writer_that_can_not_be_read_is_an_error(kept: Kept, value: str) -> None:
    with client_of(kept.url) as client:
        client.hset("keyguard:{store}:usage:writers", "one", value)
    with pytest.raises(CorruptDataError):
        kept.usage.writers()


# Rights, replicas, clusters


def use_all(usage: Any) -> None:
    usage.add(flush(cell(n=3), cell(2, at=NOON + DAY), cell(owner=OTHER)))
    usage.add(flush(seq=2))
    assert [writer.id for writer in usage.writers()] == ["one"]
    assert len(usage.unfolded(NOON + DAY, 9)) == 2
    usage.fold(ACME, DAYS[0])
    usage.forget(ACME, NOON)
    assert [total.n for total in usage.totals(ask())] == [3, 1]
    assert [total.n for total in usage.largest(ask(DAYS[0], group_by=GroupBy.KEY))] == [3]
    usage.dismiss(ACME, "unused:1", NOON)
    assert usage.dismissed(ACME, NOON - DAY) == {"unused:1"}
    usage.forget(ACME, NOON + DAY)
    usage.leave("one")
    assert usage.writers() == []


def test_the_rights_that_documentation_lists_are_enough(
    own_redis: RedisServer, flavour: str, runner: asyncio.Runner
) -> None:
    own_redis.call(*REDIS_RIGHTS.split())
    kept = Kept(flavour, own_redis.url.replace("//", "//service:hunter2@"), runner)
    use_all(kept.usage)
    kept.store.close()


def test_a_server_that_forgot_the_scripts_is_told_them_again(
    own_redis: RedisServer, flavour: str, runner: asyncio.Runner
) -> None:
    kept = Kept(flavour, own_redis.url, runner)
    for _ in range(2):
        own_redis.call("SCRIPT", "FLUSH")
        use_all(kept.usage)
        own_redis.flush()
        kept.store.migrate()
    kept.store.close()


def test_a_replica_answers_nothing_about_usage(flavour: str, runner: asyncio.Runner) -> None:
    with running(RedisPair) as servers:
        kept = Kept(flavour, servers.url, runner)
        kept.usage.add(flush(cell()))
        until(lambda: servers.replica.call("EXISTS", "keyguard:{store}:usage:writers") == 1)
        kept.store.close()
        store = opened(flavour, servers.replica.url, runner)
        replica = store.backend.usage()
        replica = Plain(replica) if flavour == "sync" else Awaited(replica, runner)
        for call in (
            lambda: replica.totals(ask()),
            lambda: replica.largest(ask()),
            replica.writers,
            lambda: replica.unfolded(NOON + DAY, 9),
            lambda: replica.fold(ACME, DAYS[0]),
            lambda: replica.forget(ACME, NOON),
            lambda: replica.dismissed(ACME, NOON),
            lambda: replica.add(flush(cell())),
            lambda: replica.add(flush(cell(), seq=2)),
        ):
            with pytest.raises(StoreUnavailableError, match="is a replica"):
                call()
        store.close()


OWNERS = [f"org_{number:016}" for number in range(12)]


@pytest.mark.campaign("async")
def test_a_node_that_died_keeps_nobody_else_s_usage_from_being_added_once(
    flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisCluster) as cluster:
        kept = Kept(flavour, cluster.url, runner)
        cells = [cell(owner=owner, n=number + 1) for number, owner in enumerate(OWNERS)]
        kept.usage.add(flush(*cells))
        homes = [
            next(s for s in cluster.servers if s.call("KEYS", f"keyguard:{{{owner}}}:*"))
            for owner in OWNERS
        ]
        store_home = next(s for s in cluster.servers if s.call("KEYS", "keyguard:{store}:*"))
        assert len(set(homes)) == 3
        dead = next(home for home in homes[1:] if home is not store_home)
        dead.kill()
        with pytest.raises(StoreUnavailableError):
            bounded(kept.usage, lambda usage: usage.add(flush(*cells, seq=2)), 2.0)
        with suppress(StoreUnavailableError):
            bounded(kept.usage, lambda usage: usage.add(flush(*cells, seq=2)), 2.0)
        cluster.start()
        for _ in range(2):
            kept.usage.add(flush(*cells, seq=2))
        kept.usage.add(flush(seq=3))

        assert [count(kept.usage, owner=owner) for owner in OWNERS] == [
            2 * (number + 1) for number in range(12)
        ]
        assert len(kept.usage.unfolded(NOON + DAY, 99)) == 12
        for owner in OWNERS:
            kept.usage.fold(owner, DAYS[0])
        assert kept.usage.unfolded(NOON + DAY, 99) == []
        kept.store.close()


@pytest.mark.campaign("sync")
def test_while_a_slot_moves_nothing_is_added_twice_or_passes_for_missing(
    redis_cluster: RedisCluster, flavour: str, runner: asyncio.Runner
) -> None:
    redis_cluster.flush()
    kept = Kept(flavour, redis_cluster.url, runner)
    kept.usage.add(flush(cell(), cell(at=NOON + DAY)))
    servers = redis_cluster.servers
    slot = str(servers[0].call("CLUSTER", "KEYSLOT", SLOT))
    source = next(s for s in servers if s.call("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(s for s in servers if s is not source)
    ids = {s: s.call("CLUSTER", "MYID").decode() for s in servers}
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    added = 1
    calls: list[Any] = [
        lambda usage: usage.add(flush(cell(), seq=2)),
        lambda usage: usage.totals(ask()),
        lambda usage: usage.fold(ACME, DAYS[0]),
    ]
    for name in sorted(name.decode() for name in source.call("KEYS", f"{SLOT}*")):
        source.call("MIGRATE", "127.0.0.1", str(target.port), name, "0", "5000")
        for call in calls:
            with suppress(StoreUnavailableError):  # it can't tell, and says so
                found = bounded(kept.usage, call)
                added = 2 if call is calls[0] else added
                if call is calls[1]:
                    assert sum(total.n for total in found) == added + 1
    redis_cluster.assign(slot, target)
    kept.usage.add(flush(cell(), seq=2))
    assert kept.usage.totals(ask()) == [Total(0, "", 2, 4), Total(1, "", 1, 2)]
    kept.store.close()
    for server in servers:  # as it was, for the next test
        server.flush()
    redis_cluster.assign(slot, source)
