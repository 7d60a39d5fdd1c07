"""The background work for usage: it writes counts to the store, and folds and deletes old ones.

Several processes may fold the same days at once: the store counts nothing twice.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.time_zones import find_time_zone
from keyguard.core.usage.periods import DAYS_KEPT, QUARTERS_KEPT, civil_day
from keyguard.core.usage.ports import UsageStore
from keyguard.core.usage.sightings import SIGHTINGS_KEPT, Sighting
from keyguard.core.usage.values import NotAddedError, Writer
from keyguard.exceptions import CorruptDataError, InvalidValueError
from keyguard.freshness.usage_counts import GIVEN_UP, UsageCounts
from keyguard.runtime.process import Clock

TELL_EVERY = 10.0
"""Seconds between two flushes of usage: what a process that is killed can lose."""

TIDY_EVERY = 3600.0

_LONGEST_DAY = timedelta(hours=26)
_ORGANIZATIONS = 50  # of which one round forgets old days
_FOLDED_AT_ONCE = 100

_Chore = Callable[[], Awaitable[None]]


class UsageWork:
    """Writes the counts of a guard to the store of usage, and folds and deletes old usage.

    Args:
        counts: The counts of the guard.
        usage: The store of usage, with a deadline for each call.
        store: The key store.
        clock: Where time comes from.
    """

    def __init__(
        self, counts: UsageCounts, usage: UsageStore, store: KeyStore, clock: Clock
    ) -> None:
        self._counts = counts
        self._usage = usage
        self._store = store
        self._clock = clock
        now = clock.monotonic()
        self._tell_at = now + TELL_EVERY
        # Processes that start together should not tidy up at the same time.
        self._tidy_at = now + secrets.randbelow(int(TIDY_EVERY))
        self._chores: deque[_Chore] = deque()
        self._behind: str | None = None
        self._silent: frozenset[Writer] = frozenset()
        self._unfolded: frozenset[tuple[str, datetime]] = frozenset()

    async def turn(self) -> bool:
        """Do what is due, in at most one call of the store; return whether more is due at once."""
        if self._counts.is_over:
            self._counts.collect()
        now = self._clock.monotonic()
        try:
            if now >= self._tell_at:
                if await self._tell_next():
                    return True
                self._tell_at = now + TELL_EVERY
            if self._chores:
                with suppress(CorruptDataError):  # of one organization: the others go on
                    await self._chores.popleft()()
            elif now >= self._tidy_at:
                self._tidy_at = now + TIDY_EVERY
                await self._begin_round()
        except Exception:  # noqa: BLE001 - it is written later, and metrics show it
            self._chores.clear()
            self._tell_at = max(self._tell_at, now + TELL_EVERY)
        return bool(self._chores)

    async def tell(self, *, last: bool = False) -> None:
        """Write all counts until now to the store, if it answers.

        Args:
            last: Whether nothing more will be counted, so that the store can forget the writer.
        """
        try:
            while await self._tell_next():
                pass
            if last and (writer := self._counts.retire()):
                await self._usage.leave(writer)
        except Exception:  # noqa: BLE001 - as above
            return

    async def _tell_next(self) -> bool:
        """Send one flush; return whether more had been counted before."""
        if unheard := self._counts.unheard:
            known = {writer.id for writer in await self._usage.writers()}
            if unheard not in known:
                self._counts.give_up(unheard)
        flush = self._counts.next_flush()
        if flush is None:
            return False
        has_more = self._counts.has_more
        try:
            await self._usage.add(flush)
        except NotAddedError as failure:
            # It will never be added, and would hold back all later flushes.
            self._counts.lose(flush, failure.organizations)
        else:
            self._counts.told(flush)
        return has_more

    async def _begin_round(self) -> None:
        """Find out what there is to tidy up."""
        before = self._now() - QUARTERS_KEPT - _LONGEST_DAY
        unfolded = await self._usage.unfolded(before, _FOLDED_AT_ONCE)
        before_this, self._unfolded = self._unfolded, frozenset(unfolded)
        if self._unfolded - before_this:
            self._chores += [partial(self._fold, *found) for found in unfolded]
            self._chores.append(self._begin_round)  # until everything is folded that can be
        else:
            self._unfolded = frozenset()
            self._chores += [self._give_up_silent, self._forget_some]

    async def _fold(self, organization: str, start: datetime) -> None:
        """Fold the day of an organization's first quarter."""
        zone: tzinfo = UTC
        # A record may be damaged, and this machine may not know the zone.
        with suppress(CorruptDataError, InvalidValueError):
            if found := await self._store.find_organization(organization):
                zone = find_time_zone(found.time_zone)
        await self._usage.fold(organization, civil_day(start, zone))

    async def _forget_some(self) -> None:
        """Delete the days that are too old, of the next organizations in turn."""
        page = await self._store.list_organizations(after=self._behind, limit=_ORGANIZATIONS)
        self._behind = page.next
        before, seen_before = self._now() - DAYS_KEPT, self._now() - SIGHTINGS_KEPT
        for found in page.items:
            self._chores.append(partial(self._usage.forget, found.id, before))
            for sighting in Sighting:
                owner = sighting.owner(found.id)
                self._chores.append(partial(self._usage.forget, owner, seen_before))

    async def _give_up_silent(self) -> None:
        """Forget the writers that have been silent for an hour, and were so an hour ago.

        A writer that could not reach a store that was down reports as soon as the store is back.
        """
        writers = await self._usage.writers()
        before = self._now() - timedelta(seconds=GIVEN_UP)
        silent = frozenset(writer for writer in writers if writer.until <= before)
        self._chores += [partial(self._usage.leave, writer.id) for writer in silent & self._silent]
        self._silent = silent

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)
