"""Counters in an SQL database, right under any number of processes.

A hit is one transaction: the rows of its buckets are locked in one order, counted by
:mod:`keyguard.core.limits.windows`, and written back. All processes count on the database's clock.
It runs through the key store, whose deadlines, connections and error texts it shares.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Row,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.windows import COUNTING, State, Tally
from keyguard.exceptions import CorruptDataError, StoreError
from keyguard.runtime.deadlines import awithin, within
from keyguard.stores.sql import AsyncSqlStore, SqlStore, ThreadedSqlStore
from keyguard.stores.sql.flows import Flow, begin_hastily, writing
from keyguard.stores.sql.tables import COUNTERS

__all__ = ["AsyncSqlRateLimiter", "SqlRateLimiter"]

Now: TypeAlias = Callable[[], float]
States: TypeAlias = dict[str, State]

_ATTEMPTS = 5
_SWEEP_EVERY = 64
"""New buckets after which some that have ended are deleted: more than were made."""
_SLICE = 256
_SWEEP_TIMEOUT = 2.0
_EMPTY = "[]"
_DAY = 86_400

# What databases say of transactions that got into each other's way, of which nothing is left.
_CONFLICT_STATES = ("40001", "40P01")
_CONFLICT_NUMBERS = (1020, 1205, 1213)

# The time at which a row is read, after the wait for its lock. MySQL has that in local time alone,
# of which an hour comes twice a year: so it is the start of the statement, in UTC, and the time
# since then.
_MYSQL_CLOCK: ColumnElement[Any] = literal_column(
    "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    " + TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6))"
)
_CLOCKS: Mapping[str, ColumnElement[Any]] = {
    "postgresql": func.extract("epoch", func.clock_timestamp()) * 1_000_000,
    "mysql": _MYSQL_CLOCK,
    "mariadb": _MYSQL_CLOCK,
}


class _SqlRateLimiter:
    """What both flavours share: the operations.

    Args:
        dialect: The database's kind.
        now: Where time comes from, instead of the database.
    """

    def __init__(self, dialect: str, now: Now | None) -> None:
        self._dialect = dialect
        if now is None and dialect == "sqlite":
            now = time.time  # its processes are all on this machine
        self._now = now
        # Not from 0: a process that ends before it makes so many sweeps as often, by and large.
        self._made = random.randrange(_SWEEP_EVERY)  # noqa: S311 - nothing secret

    def _is_time_to_sweep(self) -> bool:
        if self._made < _SWEEP_EVERY:
            return False
        self._made = 0
        return True

    @writing
    def _hitting(self, charges: Sequence[Charge]) -> Flow[Outcome]:
        return (yield from self._persistently(lambda: self._hit(charges)))

    @writing
    def _adjusting(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Flow[Outcome]:
        return (yield from self._persistently(lambda: self._adjust(charges, units, ends_at)))

    @writing
    def _sweeping(self) -> Flow[None]:
        """Delete a slice of what has ended, without waiting for anybody's lock."""
        ended = COUNTERS.c.ends_at < int((yield from self._moment()))
        found = select(COUNTERS.c.id).where(ended).limit(_SLICE)
        ids = (yield found.with_for_update(skip_locked=True)).scalars().all()
        if ids:
            yield delete(COUNTERS).where(COUNTERS.c.id.in_(sorted(ids)), ended)

    def _persistently(self, attempt: Callable[[], Flow[Outcome]]) -> Flow[Outcome]:
        for left in reversed(range(_ATTEMPTS)):
            try:
                return (yield from attempt())
            except (_Swept, DBAPIError) as failure:
                if not left or not _is_conflict(failure):
                    raise
            yield Connection.rollback
        raise AssertionError  # the last attempt returns or raises

    def _hit(self, charges: Sequence[Charge]) -> Flow[Outcome]:
        before, now = yield from self._locked(charges)
        states = dict(before)
        tallies: list[Tally] = []
        admitted = True
        for charge in charges:
            tally, states[charge.key] = COUNTING[charge.strategy].take(
                states[charge.key], charge.amount, charge.window, now, charge.cost
            )
            tallies.append(tally)
            admitted = admitted and (tally.fits or not charge.enforce)
        if admitted:
            yield from self._written(charges, before, states)
            return Outcome(True, tallies)
        return Outcome(
            False,
            [
                tally if not tally.fits else _look(charge, before, now, charge.cost)
                for charge, tally in zip(charges, tallies, strict=True)
            ],
        )

    def _adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Flow[Outcome]:
        before, now = yield from self._locked(charges, make=any(units))
        states = dict(before)
        for charge, change, end in zip(charges, units, ends_at, strict=True):
            if change:
                adjust, state = COUNTING[charge.strategy].adjust, states[charge.key]
                states[charge.key] = adjust(state, charge.window, now, change, end)
        yield from self._written(charges, before, states)
        return Outcome(True, [_look(charge, states, now, 1) for charge in charges])

    def _locked(
        self, charges: Sequence[Charge], *, make: bool = True
    ) -> Flow[tuple[States, float]]:
        """Lock the rows of buckets, in one order for all; return their states, and the time."""
        keys = sorted({charge.key for charge in charges})
        yield begin_hastily  # on SQLite the whole database has one lock
        columns: list[Any] = [COUNTERS.c.id, COUNTERS.c.state]
        if self._now is None:
            columns.append(_CLOCKS[self._dialect].label("now"))
        found = select(*columns).where(COUNTERS.c.id.in_(keys)).order_by(COUNTERS.c.id)
        rows = (yield found.with_for_update()).all()
        if make and len(rows) < len(keys):
            self._made += len(keys) - len(rows)
            if self._dialect != "sqlite":
                rows = yield from self._make(charges, found)
        states: States = dict.fromkeys(keys, ())
        for row in rows:
            states[row.id] = _state_from(row.id, row.state)
        if rows and self._now is None:
            # Each row has its own: any but the latest may be from before another's change.
            return states, max(_seconds(row.now) for row in rows)
        return states, (yield from self._moment())

    def _make(self, charges: Sequence[Charge], found: Any) -> Flow[Sequence[Row[Any]]]:
        # In a transaction of its own, and in one order: who holds a lock waits for no row to come.
        yield Connection.rollback
        yield self._upserted({charge.key: charge for charge in charges}, None)
        yield Connection.commit
        rows: Sequence[Row[Any]] = (yield found.with_for_update()).all()
        if len(rows) < len({charge.key for charge in charges}):
            raise _Swept
        return rows

    def _moment(self) -> Flow[float]:
        if self._now is not None:
            return self._now()
        return _seconds((yield select(_CLOCKS[self._dialect])).scalar_one())

    def _written(self, charges: Sequence[Charge], before: States, after: States) -> Flow[None]:
        changed = {
            charge.key: charge for charge in charges if before[charge.key] != after[charge.key]
        }
        if changed:
            yield self._upserted(changed, after)

    def _upserted(self, charges: Mapping[str, Charge], states: States | None) -> Executable:
        """Return the statement that writes states, or makes empty rows where there are none."""
        values = [
            {
                "id": key,
                "state": _EMPTY if states is None else _text_of(states[key]),
                "ends_at": _ends(charges[key], () if states is None else states[key]),
            }
            for key in sorted(charges)
        ]
        if self._dialect in ("mysql", "mariadb"):
            insert = mysql.insert(COUNTERS).values(values)
            if states is None:  # IGNORE would take locks that many share and then wait in a ring
                return insert.on_duplicate_key_update(id=insert.inserted.id)
            return insert.on_duplicate_key_update(
                state=insert.inserted.state, ends_at=insert.inserted.ends_at
            )
        dialect: Any = sqlite if self._dialect == "sqlite" else postgresql
        upsert: Any = dialect.insert(COUNTERS).values(values)
        if states is None:
            upsert = upsert.on_conflict_do_nothing()
        else:
            upsert = upsert.on_conflict_do_update(
                index_elements=[COUNTERS.c.id],
                set_={"state": upsert.excluded.state, "ends_at": upsert.excluded.ends_at},
            )
        return cast("Executable", upsert)


class SqlRateLimiter(_SqlRateLimiter):
    """A store of counters for sync code.

    Args:
        store: Where the database is.
        owned: Whether the store is the limiter's, to migrate and to close.
        now: Where time comes from, in seconds; None for the database's clock.
    """

    def __init__(self, store: SqlStore, *, owned: bool = False, now: Now | None = None) -> None:
        super().__init__(store.dialect, now)
        self._store = store
        self._owned = owned
        self._sweepers: set[threading.Thread] = set()

    def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        if self._owned:
            self._store.migrate()

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        for sweeper in tuple(self._sweepers):
            sweeper.join()
        if self._owned:
            self._store.close()

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        outcome = self._store.perform(self._hitting(charges))
        self._sweep_now_and_then()
        return outcome

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        outcome = self._store.perform(self._adjusting(charges, units, ends_at))
        self._sweep_now_and_then()
        return outcome

    def sweep(self) -> None:
        """Delete some of the buckets that have ended."""
        self._store.perform(self._sweeping())

    def _sweep_now_and_then(self) -> None:
        if self._is_time_to_sweep():
            sweeper = threading.Thread(target=self._sweep, name="keyguard-sweeper", daemon=True)
            self._sweepers.add(sweeper)
            try:
                sweeper.start()
            except RuntimeError:  # no thread is to be had; there will be other times
                self._sweepers.discard(sweeper)

    def _sweep(self) -> None:
        with suppress(StoreError), within(_SWEEP_TIMEOUT):  # likewise
            self.sweep()
        self._sweepers.discard(threading.current_thread())


class AsyncSqlRateLimiter(_SqlRateLimiter):
    """A store of counters for code on asyncio; else like :class:`SqlRateLimiter`.

    Args:
        store: Where the database is.
        owned: Whether the store is the limiter's, to migrate and to close.
        now: Where time comes from, in seconds; None for the database's clock.
    """

    def __init__(
        self,
        store: AsyncSqlStore | ThreadedSqlStore,
        *,
        owned: bool = False,
        now: Now | None = None,
    ) -> None:
        super().__init__(store.dialect, now)
        self._store = store
        self._owned = owned
        self._sweeps: set[asyncio.Task[None]] = set()

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        if self._owned:
            await self._store.migrate()

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        await asyncio.gather(*self._sweeps, return_exceptions=True)
        if self._owned:
            await self._store.aclose()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        outcome = await self._store.perform(self._hitting(charges))
        self._sweep_now_and_then()
        return outcome

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :class:`~keyguard.stores.base.RateLimiter`."""
        outcome = await self._store.perform(self._adjusting(charges, units, ends_at))
        self._sweep_now_and_then()
        return outcome

    async def sweep(self) -> None:
        """Delete some of the buckets that have ended."""
        await self._store.perform(self._sweeping())

    def _sweep_now_and_then(self) -> None:
        if self._is_time_to_sweep():
            # Outside the present request, and without its deadline.
            task = asyncio.get_running_loop().create_task(
                self._sweep(), context=contextvars.Context()
            )
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)

    async def _sweep(self) -> None:
        with suppress(StoreError, TimeoutError):  # there will be other times
            async with awithin(_SWEEP_TIMEOUT):
                await self.sweep()


class _Swept(Exception):  # noqa: N818 - it never leaves the limiter
    """A row was deleted between its making and its locking."""


def _is_conflict(failure: Exception) -> bool:
    if isinstance(failure, _Swept):
        return True
    origin: Any = getattr(failure, "orig", None)
    if getattr(origin, "sqlstate", None) in _CONFLICT_STATES:
        return True
    arguments: tuple[Any, ...] = getattr(origin, "args", ())
    return bool(arguments) and arguments[0] in _CONFLICT_NUMBERS


def _look(charge: Charge, states: States, now: float, cost: int) -> Tally:
    return COUNTING[charge.strategy].look(
        states[charge.key], charge.amount, charge.window, now, cost
    )


def _seconds(microseconds: Any) -> float:
    return float(microseconds) / 1_000_000


def _text_of(state: State) -> str:
    return json.dumps(state, separators=(",", ":"))


def _state_from(bucket: str, text: str) -> State:
    try:
        state: Any = json.loads(text)
        if not all(isinstance(part, int | float) for part in state):
            raise TypeError
    except (ValueError, TypeError) as failure:
        raise CorruptDataError(
            f"row {bucket!r} of table {COUNTERS.name} is none that keyguard wrote; delete it"
        ) from failure
    return tuple(state)


def _ends(charge: Charge, state: State) -> int:
    # One that is empty is about to be counted in; whoever makes it may be ahead or behind in time.
    ends = COUNTING[charge.strategy].ends(state, charge.window) if state else time.time() + _DAY
    return ceil(ends) + charge.window
