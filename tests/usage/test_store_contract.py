"""What every store of usage does, in both flavours.

A store is added by its name in ``KINDS`` of tests/usage/conftest.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard.core.usage.values import (
    ALLOWED,
    QUARTER,
    Cell,
    Flush,
    GroupBy,
    Period,
    Question,
    Total,
    Writer,
)

# What a Redis cluster and Sentinel do of their own, tests/usage/test_redis_store.py holds.
pytestmark = pytest.mark.campaign("memory", "sqlite", "postgresql", "mariadb", "redis-")

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACME, OTHER = "org_0000000000000001", "org_0000000000000002"
DAY = timedelta(days=1)


def cell(
    key: int = 1, *, owner: str = ACME, at: datetime = NOON, n: int = 1, units: int | None = None,
    outcome: str = ALLOWED, tag: str = "",
) -> Cell:  # fmt: skip
    key_id, family = f"{key:016}", f"fam_{key // 10:016}"
    return Cell(owner, at, key_id, family, outcome, tag, n, n if units is None else units)


def flush(
    *cells: Cell, seq: int = 1, writer: str = "one", until: datetime = NOON + QUARTER
) -> Flush:
    return Flush(writer, seq, until, cells)


def ask(*periods: Period, owner: str = ACME, **fields: Any) -> Question:
    return Question(owner, periods or (Period(NOON, NOON + QUARTER),), **fields)


def quarters(count: int) -> tuple[Period, ...]:
    return tuple(
        Period(NOON + number * QUARTER, NOON + (number + 1) * QUARTER) for number in range(count)
    )


def test_cells_of_several_flushes_and_writers_add_up(usage: Any) -> None:
    usage.add(flush(cell(1, n=3), cell(2, n=5, units=40)))
    usage.add(flush(cell(1, n=4, units=9), seq=2))
    usage.add(flush(cell(1, n=1), writer="two"))

    assert list(usage.totals(ask())) == [Total(0, "", 13, 53)]
    assert list(usage.totals(ask(group_by=GroupBy.KEY))) == [
        Total(0, f"{1:016}", 8, 13),
        Total(0, f"{2:016}", 5, 40),
    ]


def test_a_flush_that_is_sent_again_is_added_once(usage: Any) -> None:
    first, second = flush(cell(n=3)), flush(cell(n=4), cell(2), seq=2)
    for sent in (first, first, second, first, second):
        usage.add(sent)

    assert list(usage.totals(ask())) == [Total(0, "", 8, 8)]


def test_a_cell_may_add_units_alone(usage: Any) -> None:
    usage.add(flush(cell(n=3)))
    usage.add(flush(cell(n=0, units=100), seq=2))

    assert list(usage.totals(ask())) == [Total(0, "", 3, 103)]


def test_units_beyond_what_a_store_holds_keep_nothing_from_being_added(usage: Any) -> None:
    everything = Period(NOON - DAY, NOON + 2 * DAY)
    for seq, units in enumerate((4 * 10**18, 4 * 10**18, 4 * 10**18, 2**70), 1):
        cells = (cell(n=1, units=units), cell(2, at=NOON + QUARTER, n=1, units=units))
        usage.add(flush(*cells, cell(owner=OTHER, n=1, units=5), seq=seq))

    for _ in range(2):
        [total] = usage.totals(ask(everything))
        assert total.n == 8
        assert total.units >= 2**58
        keys = usage.totals(ask(everything, group_by=GroupBy.KEY))
        assert [(total.n, total.units >= 2**58) for total in keys] == [(4, True)] * 2
        both = usage.totals(ask(Period(NOON, NOON + 2 * QUARTER)))
        assert [total.n for total in both] == [8]
        assert list(usage.totals(ask(everything, owner=OTHER))) == [Total(0, "", 4, 20)]
        usage.fold(ACME, Period(NOON, NOON + DAY))
    assert list(usage.unfolded(NOON + DAY, 10)) == [(OTHER, NOON)]


def test_a_flush_without_cells_tells_how_far_its_writer_has_reported(usage: Any) -> None:
    usage.add(flush(cell()))
    usage.add(flush(seq=2, until=NOON + 3 * QUARTER))
    usage.add(flush(writer="two", until=NOON))

    assert list(usage.writers()) == [Writer("one", NOON + 3 * QUARTER), Writer("two", NOON)]
    usage.leave("one")
    usage.leave("nobody")
    assert list(usage.writers()) == [Writer("two", NOON)]
    assert list(usage.totals(ask())) == [Total(0, "", 1, 1)]


def test_totals_come_by_period_and_then_group_and_are_none_without_cells(usage: Any) -> None:
    usage.add(
        flush(
            cell(2, at=NOON, n=1),
            cell(1, at=NOON + 2 * QUARTER, n=2),
            cell(3, at=NOON + 2 * QUARTER, n=4, outcome="rate_limited", units=0),
            cell(1, at=NOON - QUARTER, n=100),
            cell(1, at=NOON + 3 * QUARTER, n=100),
            cell(1, n=100, owner=OTHER),
        )
    )

    found = usage.totals(ask(*quarters(3), group_by=GroupBy.KEY))

    assert list(found) == [
        Total(0, f"{2:016}", 1, 1),
        Total(2, f"{1:016}", 2, 2),
        Total(2, f"{3:016}", 4, 0),
    ]


@pytest.mark.parametrize("group_by", list(GroupBy))
def test_totals_are_told_apart_by_what_is_asked(usage: Any, group_by: GroupBy) -> None:
    cells = [
        cell(11, n=1, tag="large"),
        cell(12, n=2),
        cell(21, n=4, outcome="scope_missing"),
    ]
    usage.add(flush(*cells))
    groups = {
        GroupBy.NOTHING: {"": 7},
        GroupBy.KEY: {f"{11:016}": 1, f"{12:016}": 2, f"{21:016}": 4},
        GroupBy.FAMILY: {f"fam_{1:016}": 3, f"fam_{2:016}": 4},
        GroupBy.OUTCOME: {"allowed": 3, "scope_missing": 4},
        GroupBy.TAG: {"": 6, "large": 1},
    }

    found = usage.totals(ask(group_by=group_by))

    assert [(total.group, total.n) for total in found] == sorted(groups[group_by].items())


@pytest.mark.parametrize(
    ("only", "n"),
    [
        ({"key_id": f"{11:016}"}, 1),
        ({"family": f"fam_{1:016}"}, 3),
        ({"outcome": "scope_missing"}, 4),
        ({"key_id": f"{12:016}", "outcome": ALLOWED}, 2),
    ],
)
def test_only_what_is_asked_for_counts(usage: Any, only: dict[str, str], n: int) -> None:
    usage.add(flush(cell(11, n=1), cell(12, n=2), cell(21, n=4, outcome="scope_missing")))

    assert [total.n for total in usage.totals(ask(**only))] == [n]
    assert [total.n for total in usage.largest(ask(**only))] == [n]
    assert list(usage.totals(ask(key_id="nobody"))) == []


@pytest.mark.parametrize("field", ["key_id", "family", "outcome"])
def test_nothing_counts_for_what_no_text_can_hold(usage: Any, field: str) -> None:
    usage.add(flush(cell()))

    for method in (usage.totals, usage.largest):
        assert list(method(ask(**{field: "\ud800"}))) == []


def test_totals_come_in_pages(usage: Any) -> None:
    cells = [
        cell(key, at=NOON + number * QUARTER) for number in range(4) for key in range(1, number + 2)
    ]
    usage.add(flush(*cells))
    whole = list(usage.totals(ask(*quarters(4), group_by=GroupBy.KEY)))
    assert len(whole) == len(cells)

    for size in (1, 3, 10):
        found: list[Total] = []
        after = None
        while True:
            page = list(
                usage.totals(ask(*quarters(4), group_by=GroupBy.KEY, after=after, limit=size))
            )
            assert len(page) <= size
            if not page:
                break
            found += page
            after = (page[-1].period, page[-1].group)
        assert found == whole


def test_the_largest_come_first_and_equals_by_group(usage: Any) -> None:
    usage.add(flush(cell(3, n=2), cell(1, n=2), cell(2, n=9), cell(4, n=1)))

    found = usage.largest(ask(group_by=GroupBy.KEY, limit=3))

    assert [(total.group, total.n) for total in found] == [
        (f"{2:016}", 9),
        (f"{1:016}", 2),
        (f"{3:016}", 2),
    ]


def test_a_day_that_is_folded_counts_as_before(usage: Any) -> None:
    midnight = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)
    day = Period(midnight, midnight + DAY)
    usage.add(
        flush(
            cell(1, at=midnight, n=1),
            cell(1, at=midnight + 30 * QUARTER, n=2, units=7),
            cell(1, at=midnight + DAY - QUARTER, n=4, outcome="scope_missing"),
            cell(1, at=midnight + DAY, n=100),
            cell(2, at=midnight - QUARTER, n=100),
            cell(2, at=midnight, n=100, owner=OTHER),
        )
    )
    asked = ask(day, group_by=GroupBy.OUTCOME)
    before = list(usage.totals(asked))

    usage.fold(ACME, day)
    usage.fold(ACME, day)

    assert list(usage.totals(asked)) == before
    assert before == [Total(0, ALLOWED, 3, 8), Total(0, "scope_missing", 4, 4)]
    first = Period(midnight, midnight + QUARTER)
    assert [total.n for total in usage.totals(ask(first))] == [7]
    assert [total.n for total in usage.totals(ask(Period(midnight - DAY, midnight)))] == [100]


def test_cells_that_come_after_a_day_was_folded_are_folded_with_it(usage: Any) -> None:
    day = Period(NOON, NOON + DAY)
    usage.add(flush(cell(n=3)))
    usage.fold(ACME, day)
    usage.add(flush(cell(at=NOON + QUARTER, n=4), seq=2))
    assert [total.n for total in usage.totals(ask(day))] == [7]

    usage.fold(ACME, day)

    assert list(usage.totals(ask(day))) == [Total(0, "", 7, 7)]
    assert list(usage.unfolded(NOON + 9 * DAY, 10)) == []


def test_what_is_to_be_folded_is_found_by_its_first_quarter(usage: Any) -> None:
    usage.add(
        flush(
            cell(at=NOON + QUARTER),
            cell(2, at=NOON),
            cell(owner=OTHER, at=NOON + DAY),
        )
    )

    assert sorted(usage.unfolded(NOON + 2 * DAY, 10)) == [(ACME, NOON), (OTHER, NOON + DAY)]
    assert len(usage.unfolded(NOON + 2 * DAY, 1)) == 1
    assert list(usage.unfolded(NOON + DAY, 10)) == [(ACME, NOON)]
    assert list(usage.unfolded(NOON, 10)) == []


def test_old_days_are_forgotten_and_quarters_are_not(usage: Any) -> None:
    later = Period(NOON + DAY, NOON + 2 * DAY)
    usage.add(flush(cell(n=1), cell(at=NOON + DAY, n=2), cell(owner=OTHER, n=4)))
    usage.fold(ACME, Period(NOON, NOON + DAY))
    usage.fold(OTHER, Period(NOON, NOON + DAY))

    usage.forget(ACME, NOON + DAY)

    assert list(usage.totals(ask())) == []
    assert [total.n for total in usage.totals(ask(later))] == [2]
    assert [total.n for total in usage.totals(ask(owner=OTHER))] == [4]


def test_a_hint_is_dismissed_until_a_time_and_for_one_organization(usage: Any) -> None:
    usage.dismiss(ACME, "dormant:1", NOON)
    usage.dismiss(ACME, "spike:2", NOON)
    usage.dismiss(ACME, "spike:2", NOON + DAY)

    assert usage.dismissed(ACME, NOON - QUARTER) == {"dormant:1", "spike:2"}
    assert usage.dismissed(ACME, NOON) == {"spike:2"}
    assert usage.dismissed(OTHER, NOON - QUARTER) == frozenset()
