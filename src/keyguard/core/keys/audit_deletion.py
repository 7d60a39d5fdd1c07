"""How old entries leave the audit trail, without harm to those who follow it.

The trail is the change feed too. A reader stands at an entry, and forgets everything that it
remembers if that is gone. So the newest of the old entries stays until the one behind it is old as
well: nobody who has read the feed since then stands at an entry that is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        at: The time by the caller's clock. If the store's own clock is behind it, that one counts.
        kept: For how long entries are kept.
        actor: The author's name in the trail.
        dry_run: Whether only to count them.
        after: The id behind which to start, or None.
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

    def entry(self, count: int, before: datetime) -> AuditEntry:
        """Return the entry that tells of the deletion.

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
    """What became of a part of the audit trail.

    Args:
        deleted: How many entries were deleted, or would be.
        next: The id behind which to go on; None if nothing in this part was old.
    """

    deleted: int
    next: str | None
