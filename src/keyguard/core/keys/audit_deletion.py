"""Deletes old entries of the audit trail, without harm to readers that follow it.

The trail is the change feed too. A reader remembers the entry that it has read last. If that entry
is gone, the reader must forget all its verified tokens. So the newest of the old entries stays
until the next one is old as well: no reader that has read the feed since then is at a deleted
entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple, TypeVar

from keyguard.core.keys.audit import TRAIL, Action, AuditEntry

EntryId = TypeVar("EntryId")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDeletion:
    """The deletion of some old entries of the audit trail, as a whole or not at all.

    Args:
        at: The time by the caller's clock. If the store's own clock is behind it, the store's clock
            counts.
        kept: For how long entries are kept.
        actor: The author's name in the trail.
        dry_run: Whether only to count them.
        after: The id after which to start, or None.
        limit: How many entries to look at, at least 2.
    """

    at: datetime
    kept: timedelta
    actor: str
    dry_run: bool = False
    after: str | None = None
    limit: int = 1000

    def before(self, now: datetime | None = None) -> datetime:
        """Return the time before which entries are old.

        Args:
            now: The time by the store's own clock, if it has one.
        """
        return (self.at if now is None else min(self.at, now)) - self.kept

    def old(
        self, entries: Iterable[tuple[EntryId, datetime | None]], before: datetime
    ) -> list[EntryId]:
        """Return the ids of the entries to delete.

        Args:
            entries: The ids and times of the entries that follow one another, the oldest first. The
                time of an entry that nobody can read is None; it stays.
            before: The time before which entries are old.
        """
        return [
            entry_id
            for (entry_id, at), (_, next_at) in pairwise(entries)
            if at is not None and next_at is not None and at < before and next_at < before
        ]

    def go_on(
        self, entries: Sequence[tuple[EntryId, datetime | None]], before: datetime
    ) -> EntryId | None:
        """Return the id behind which to go on; None if nothing behind these entries is old.

        Entries follow one another as they were written. So one that is young ends the search,
        unless others beside it are old: the clock of a host was wrong. An entry that is ahead of
        the present, or that nobody can read, tells nothing of those behind it.

        Args:
            entries: As for :meth:`old`.
            before: As for :meth:`old`.
        """
        now = before + self.kept
        if self.old(entries, before):
            return entries[-2][0]
        is_end = len(entries) < self.limit
        is_young = any(at is not None and before <= at <= now for _, at in entries)
        return None if is_end or is_young else entries[-2][0]

    def entry(self, count: int, before: datetime) -> AuditEntry:
        """Return the entry that reports the deletion.

        Args:
            count: How many entries are deleted.
            before: The time before which they were written.
        """
        return AuditEntry(
            at=self.at,
            actor=self.actor,
            action=Action.AUDIT_DELETED,
            subject=TRAIL,
            organization=TRAIL,
            before=None,
            after={"entries": count, "before": before.isoformat().replace("+00:00", "Z")},
        )


class AuditPart(NamedTuple):
    """The result of a deletion in a part of the audit trail.

    Args:
        deleted: How many entries were deleted, or would be.
        next: The id behind which to go on; None if nothing behind this part is old.
    """

    deleted: int
    next: str | None
