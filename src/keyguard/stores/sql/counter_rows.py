"""The rows of counters in an SQL database: their states, and the statements that write them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from typing import TypeAlias

from sqlalchemy import BigInteger, Executable, Text, and_, bindparam, func, select, update
from sqlalchemy.dialects import postgresql

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.windows import COUNTING, State, Tally
from keyguard.stores.sql.errors import corrupt
from keyguard.stores.sql.session import NamedRow
from keyguard.stores.sql.tables import COUNTERS
from keyguard.stores.sql.upserts import upserted

States: TypeAlias = dict[str, State]
"""The states of buckets by their ids."""

_EMPTY = "[]"
_DAY = 86_400
_corrupt = partial(corrupt, COUNTERS.name, advice="delete it")
_UNCOUNTABLE = (ValueError, TypeError, IndexError, ArithmeticError, RecursionError)
"""What counting raises on a state that no counting has made."""


def counted(charges: Sequence[Charge], states: States, now: float) -> Outcome:
    """Count charges in the states of their buckets, all or none."""
    after = dict(states)
    tallies: list[Tally] = []
    admitted = True
    for charge in charges:
        try:
            tally, after[charge.key] = COUNTING[charge.strategy].take(
                after[charge.key], charge.amount, charge.window, now, charge.cost
            )
        except _UNCOUNTABLE as failure:
            raise _corrupt(charge.key) from failure
        tallies.append(tally)
        admitted = admitted and (tally.fits or not charge.enforce)
    if admitted:
        states.update(after)
        return Outcome(True, tallies)
    return Outcome(
        False,
        [
            tally if not tally.fits else looked_at(charge, states, now, charge.cost)
            for charge, tally in zip(charges, tallies, strict=True)
        ],
    )


def adjust(charge: Charge, states: States, now: float, units: int, ends_at: float) -> None:
    """Change the count of a bucket.

    Args:
        charge: The charge that was counted.
        states: The states of buckets.
        now: The time.
        units: The change in units.
        ends_at: The time until which a refund is valid.
    """
    strategy, state = COUNTING[charge.strategy], states[charge.key]
    try:
        states[charge.key] = strategy.adjust(state, charge.window, now, units, ends_at)
    except _UNCOUNTABLE as failure:
        raise _corrupt(charge.key) from failure


def looked_at(charge: Charge, states: States, now: float, cost: int) -> Tally:
    """Return the rest of a charge's limit, without counting."""
    try:
        return COUNTING[charge.strategy].look(
            states[charge.key], charge.amount, charge.window, now, cost
        )
    except _UNCOUNTABLE as failure:
        raise _corrupt(charge.key) from failure


def seconds(microseconds: float | str) -> float:
    """Return the seconds in a database's microseconds."""
    return float(microseconds) / 1_000_000


def state_from(row: NamedRow) -> State:
    """Return the state in a row."""
    try:
        state = json.loads(row.state)
        if not all(isinstance(part, int | float) for part in state):
            raise TypeError
        return tuple(state)
    except _UNCOUNTABLE as failure:
        raise _corrupt(row.id) from failure


def ends(charge: Charge, state: State) -> int:
    """Return the second after which nothing in a bucket counts any longer."""
    # A new bucket is about to be counted in, by a process whose clock may be ahead or behind.
    end = COUNTING[charge.strategy].ends(state, charge.window) if state else time.time() + _DAY
    return ceil(end) + charge.window


def written(dialect: str, buckets: Mapping[str, Charge], states: States | None) -> Executable:
    """Return the statement that writes states, or without states makes the missing rows."""
    rows = [
        {
            "id": key,
            "state": _EMPTY if states is None else spelt(states[key]),
            "ends_at": ends(buckets[key], () if states is None else states[key]),
        }
        for key in sorted(buckets)
    ]
    changes = () if states is None else ("state", "ends_at")
    write = upserted(dialect, COUNTERS, lambda given: {name: given[name] for name in changes})
    return write.values(rows)


def _swap_statement() -> Executable:
    """Return PostgreSQL's statement that replaces the states of buckets if none has changed."""
    names = ("swap_id", "before", "after", "end")
    kinds = (Text, Text, Text, BigInteger)
    rows = func.unnest(
        *(
            bindparam(name, type_=postgresql.ARRAY(kind))
            for name, kind in zip(names, kinds, strict=True)
        )
    )
    swap = rows.table_valued(*names, name="swap").render_derived()
    fits = and_(COUNTERS.c.id == swap.c.swap_id, COUNTERS.c.state == swap.c.before)
    # It waits for no lock: nobody could undo it when its call has ended.
    free = select(COUNTERS.c.id).join(swap, fits).with_for_update(of=COUNTERS, skip_locked=True)
    held = select(func.count()).select_from(free.cte("held")).scalar_subquery()
    return (
        update(COUNTERS)
        .where(COUNTERS.c.id == swap.c.swap_id, held == bindparam("number"))
        .values(state=swap.c.after, ends_at=swap.c.end)
    )


SWAP = _swap_statement()
"""PostgreSQL's statement that replaces the states of buckets if none has changed."""


def spelt(state: State) -> str:
    """Return a state as its column holds it."""
    return json.dumps(state, separators=(",", ":"))
