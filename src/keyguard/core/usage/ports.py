"""The port of a store of usage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from keyguard.core.usage.values import Flush, Period, Question, Total, Writer


class UsageStore(Protocol):
    """A store of usage, as the core awaits it. A store decides nothing.

    It keeps *quarters* (the cells of flushes) and *days* (what quarters were folded into). Every
    method does all of its work or nothing, but for one organization at a time where the store is
    spread over servers, and raises a :class:`~keyguard.exceptions.StoreError` where the store
    fails. For sync code no method suspends.
    """

    async def add(self, flush: Flush) -> None:
        """Add the cells of a flush, and note how far its writer has reported.

        Each cell is added once, however often the flush is sent. A flush that is older than the
        writer's last one is ignored. A count that is larger than the store can hold stays at the
        most that it can.

        Raises:
            NotAddedError: Some organizations' cells can't be added, and will not be if the flush is
                sent again; the rest is done.
        """

    async def totals(self, question: Question) -> Sequence[Total]:
        """Return totals over quarters and days, by period and then group."""
        ...

    async def largest(self, question: Question) -> Sequence[Total]:
        """Return the largest totals of a question of one period, by falling ``n``, then group."""
        ...

    async def writers(self) -> Sequence[Writer]:
        """Return the writers that have not left, by id."""
        ...

    async def leave(self, writer: str) -> None:
        """Forget a writer: it has reported everything, or is given up."""

    async def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        """Return organizations with quarters that start before a time.

        Args:
            before: The time, in UTC.
            limit: How many at most.

        Returns:
            The id of each, with the start of its first quarter, in no order.
        """
        ...

    async def fold(self, organization: str, day: Period) -> None:
        """Replace the quarters in a day by one cell for each key, outcome and tag.

        The new cells start as the day starts, and are added to what the day has already. Two that
        fold the same day at once count nothing twice.

        Args:
            organization: The id of the organization.
            day: The day, in the organization's own zone.
        """

    async def forget(self, organization: str, before: datetime) -> None:
        """Delete an organization's days that start before a time."""

    async def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        """Note that nobody wants to see a hint until a time.

        Args:
            organization: The id of the organization.
            hint: What identifies the hint, up to 100 ASCII characters.
            until: The time, in UTC.
        """

    async def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        """Return the hints of an organization that are dismissed at a time."""
        ...
