"""Counters in an SQL database, exact under any number of processes.

A hit is one transaction: it locks the rows of its buckets in one order, counts by
:mod:`keyguard.core.limits.windows`, and writes the rows back. All processes use the database's
clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from sqlalchemy import (
    ColumnElement,
    Executable,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.exc import DBAPIError

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.exceptions import StoreError
from keyguard.runtime.process import start_thread
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import AsyncBatchRateLimiter
from keyguard.stores.facade import SyncBatchRateLimiter
from keyguard.stores.sql.counter_rows import (
    SWAP,
    States,
    adjust,
    counted,
    ends,
    looked_at,
    seconds,
    spelt,
    state_from,
    written,
)
from keyguard.stores.sql.database import Database, SyncDatabase, ended_after
from keyguard.stores.sql.errors import explained, is_conflict, unavailable
from keyguard.stores.sql.session import NamedRow, Session, begin_hastily
from keyguard.stores.sql.tables import COUNTERS

Now: TypeAlias = Callable[[], float]

_MOST_MADE = 5
"""How often a row is made, where sweeps delete it before it can be locked."""
_SWEEP_EVERY = 64
"""New buckets after which a sweep deletes some that have ended. It deletes more than were made."""
_SLICE = 256
_SWEEP_TIMEOUT = 2.0
_LONGEST_SWEEP = 2 * _SWEEP_TIMEOUT
"""Seconds that closing waits for the sweeps, which may be late under load."""

# The time at which a row is read, after the wait for its lock. MySQL has that time only in local
# time, in which one hour comes twice a year. So this adds the time since the statement began to the
# statement's beginning in UTC.
_MYSQL_CLOCK: ColumnElement[int] = literal_column(
    "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    " + TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6))"
)
_CLOCKS: Mapping[str, ColumnElement[int]] = {
    "postgresql": func.extract("epoch", func.clock_timestamp()) * 1_000_000,
    "mysql": _MYSQL_CLOCK,
    "mariadb": _MYSQL_CLOCK,
}


class AsyncSqlRateLimiter(AsyncBatchRateLimiter):
    """A store of counters for code on asyncio.

    Args:
        database: The database of the counters.
        owned: Whether the limiter migrates and closes the database.
        now: The clock, in seconds; None for the database's own.
    """

    def __init__(self, database: Database, *, owned: bool = False, now: Now | None = None) -> None:
        self.database = database
        self.system_name = database.dialect
        self._owned = owned
        if now is None and database.dialect == "sqlite":
            now = time.time  # all processes that use the file are on this machine
        self._now = now
        # A random start, so that processes which each make few buckets sweep often enough together.
        self._made = random.randrange(_SWEEP_EVERY)  # noqa: S311 - nothing secret
        self._sweeps: set[asyncio.Task[None]] = set()

    async def migrate(self) -> None:
        if self._owned:
            await self.database.migrate()

    async def aclose(self) -> None:
        await self._finish_sweeps()
        if self._owned:
            await self.database.aclose()

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> list[Outcome]:
        outcomes = None
        if self.database.can_swap:
            outcomes = await self.database.swap(self._swap, hits)
        if outcomes is None:
            outcomes = await self.database.write(self._hit_all, hits)
        if self._made >= _SWEEP_EVERY:
            self._begin_sweep()
        return outcomes

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        outcome = await self.database.write(self._adjust, charges, units, ends_at)
        if self._made >= _SWEEP_EVERY:
            self._begin_sweep()
        return outcome

    async def sweep(self) -> None:
        """Delete a slice of the buckets that have ended."""
        await self.database.write(self._sweep)

    def _begin_sweep(self) -> None:
        """Sweep outside the present request and its deadline."""
        self._made = 0
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._sweep_in_time(), context=contextvars.Context())
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    async def _finish_sweeps(self) -> None:
        """Wait for the sweeps in progress, for a limited time."""
        if self._sweeps:
            await asyncio.wait(self._sweeps, timeout=_LONGEST_SWEEP)

    async def _sweep_in_time(self) -> None:
        with suppress(StoreError):  # a later sweep deletes what this one left
            async with ended_after(_SWEEP_TIMEOUT, self.database):
                await self.sweep()

    async def _sweep(self, session: Session) -> None:
        """Delete a slice of what has ended, without waiting for any lock."""
        ended = COUNTERS.c.ends_at < int(await self._moment(session))
        found = select(COUNTERS.c.id).where(ended).limit(_SLICE)
        ids = (await session.execute(found.with_for_update(skip_locked=True))).scalars().all()
        if ids:
            await session.execute(delete(COUNTERS).where(COUNTERS.c.id.in_(sorted(ids)), ended))

    async def _hit_all(self, session: Session, hits: Sequence[Sequence[Charge]]) -> list[Outcome]:
        charges = [charge for hit in hits for charge in hit]
        before, now = await self._locked(session, charges)
        states = dict(before)
        outcomes = [counted(hit, states, now) for hit in hits]
        await _write(session, charges, before, states)
        return outcomes

    async def _swap(
        self, session: Session, hits: Sequence[Sequence[Charge]]
    ) -> list[Outcome] | None:
        """Count hits in two round trips, holding no lock between them.

        Returns:
            Their outcomes; None if a bucket is new, locked, or changed between the two.
        """
        charges = [charge for hit in hits for charge in hit]
        buckets = {charge.key: charge for charge in charges}
        found = self._found(session.dialect.name, [*buckets], locked=False)
        rows = (await session.execute(found)).all()
        if len(rows) < len(buckets):
            return None
        before = {row.id: state_from(row) for row in rows}
        states = dict(before)
        now = self._now() if self._now else max(seconds(row.now) for row in rows)
        outcomes = [counted(hit, states, now) for hit in hits]
        changed = [row for row in rows if states[row.id] != before[row.id]]
        if not changed:
            return outcomes
        swap = {
            "swap_id": [row.id for row in changed],
            "before": [row.state for row in changed],
            "after": [spelt(states[row.id]) for row in changed],
            "end": [ends(buckets[row.id], states[row.id]) for row in changed],
            "number": len(changed),
        }
        try:
            swapped = await session.execute(SWAP, swap)
        except DBAPIError as failure:
            if is_conflict(failure):
                return None
            # It is not known whether the hit was counted: no second try.
            raise explained(failure, self.database.place) from failure
        return outcomes if swapped.rowcount else None

    async def _adjust(
        self,
        session: Session,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
    ) -> Outcome:
        before, now = await self._locked(session, charges, make=any(units))
        states = dict(before)
        for charge, change, end in zip(charges, units, ends_at, strict=True):
            if change:
                adjust(charge, states, now, change, end)
        await _write(session, charges, before, states)
        return Outcome(True, [looked_at(charge, states, now, 1) for charge in charges])

    async def _locked(
        self, session: Session, charges: Sequence[Charge], *, make: bool = True
    ) -> tuple[States, float]:
        """Lock the rows of buckets in one order for all; return their states and the time."""
        keys = sorted({charge.key for charge in charges})
        await session.call(begin_hastily)  # on SQLite the whole database has one lock
        found = self._found(session.dialect.name, keys, locked=True)
        rows = (await session.execute(found)).all()
        if make and len(rows) < len(keys):
            self._made += len(keys) - len(rows)
            if session.dialect.name != "sqlite":
                rows = await self._make(session, charges, found)
        states: States = dict.fromkeys(keys, ())
        for row in rows:
            states[row.id] = state_from(row)
        if rows and self._now is None:
            # Each row has a time of its own. Any but the latest may be earlier than a change that
            # another process made while this one waited.
            return states, max(seconds(row.now) for row in rows)
        return states, await self._moment(session)

    async def _make(
        self, session: Session, charges: Sequence[Charge], found: Executable
    ) -> Sequence[NamedRow]:
        """Make the rows of new buckets, and lock all rows again."""
        buckets = {charge.key: charge for charge in charges}
        for _ in range(_MOST_MADE):
            # In a transaction of its own and in one order: a process that holds a lock waits for no
            # new row.
            await session.rollback()
            await session.execute(written(session.dialect.name, buckets, None))
            await session.commit()
            rows = (await session.execute(found)).all()
            if len(rows) == len(buckets):  # a sweep may have deleted one before it was locked
                return rows
        raise unavailable(self.database.place)

    def _found(self, dialect: str, keys: Sequence[str], *, locked: bool) -> Executable:
        """Return what finds the rows of buckets, with the time at which each is read."""
        columns: list[ColumnElement[str] | ColumnElement[int]] = [COUNTERS.c.id, COUNTERS.c.state]
        if self._now is None:
            columns.append(_CLOCKS[dialect].label("now"))
        found = select(*columns).where(COUNTERS.c.id.in_(keys))
        return found.order_by(COUNTERS.c.id).with_for_update() if locked else found

    async def _moment(self, session: Session) -> float:
        if self._now is not None:
            return self._now()
        clock = await session.execute(select(_CLOCKS[session.dialect.name]))
        return seconds(clock.scalar_one())


class _BlockingRateLimiter(AsyncSqlRateLimiter):
    """A store of counters over a database that never suspends; it sweeps on threads."""

    def __init__(self, database: SyncDatabase, *, owned: bool, now: Now | None) -> None:
        super().__init__(database, owned=owned, now=now)
        self.sweepers: set[threading.Thread] = set()

    def _begin_sweep(self) -> None:
        self._made = 0
        sweeper = threading.Thread(target=self._run_sweep, name="keyguard-sweeper", daemon=True)
        self.sweepers.add(sweeper)
        try:
            start_thread(sweeper)
        except RuntimeError:  # no thread could be started; a later sweep does the same
            self.sweepers.discard(sweeper)

    async def _finish_sweeps(self) -> None:
        ends = time.monotonic() + _LONGEST_SWEEP
        for sweeper in tuple(self.sweepers):
            sweeper.join(max(0.0, ends - time.monotonic()))

    def _run_sweep(self) -> None:
        run_sync(self._sweep_in_time())
        self.sweepers.discard(threading.current_thread())


class SqlRateLimiter(SyncBatchRateLimiter):
    """A store of counters for sync code.

    Args:
        database: The database of the counters.
        owned: Whether the limiter migrates and closes the database.
        now: The clock, in seconds; None for the database's own.
    """

    def __init__(
        self, database: SyncDatabase, *, owned: bool = False, now: Now | None = None
    ) -> None:
        self.counters = _BlockingRateLimiter(database, owned=owned, now=now)
        self.system_name = database.dialect
        super().__init__(self.counters)

    def sweep(self) -> None:
        """Delete a slice of the buckets that have ended."""
        run_sync(self.counters.sweep())


async def _write(
    session: Session, charges: Sequence[Charge], before: States, after: States
) -> None:
    """Write the states that changed."""
    changed = {charge.key: charge for charge in charges if before[charge.key] != after[charge.key]}
    if changed:
        await session.execute(written(session.dialect.name, changed, after))
