"""What a store of counters must be able to do, in both flavours.

A limiter decides nothing but whether there is room: a bucket's name, size, strategy and cost come
with each charge. It raises a :class:`~keyguard.exceptions.BackendError` (with the driver's error as
``__cause__``) where the store fails; the guard then goes on as ``on_limiter_error`` says. One
across a network honours :func:`keyguard.deadlines.remaining` as its timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from keyguard.sansio.charges import Charge, Outcome

__all__ = ["AsyncRateLimiter", "RateLimiter"]


@runtime_checkable
class RateLimiter(Protocol):
    """A store of counters for sync code; one that never waits serves async code as well."""

    def migrate(self) -> None:
        """Create what the store needs or bring it up to date; safe to call at every start."""

    def close(self) -> None:
        """Give back what the limiter opened itself; calling it twice is fine."""

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """Count charges, all or none, in one step that no other process can come between.

        Args:
            charges: At least one, all of one owner. Where one that is enforced has no room, nothing
                is counted at all; one that is not enforced is counted where it has room.

        Returns:
            Whether they were counted, and how each bucket stands after it.
        """
        ...

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """Count more, whatever room there is, or give back.

        Args:
            charges: The buckets; their costs mean nothing here.
            units: How many to add to each; a negative number is given back, down to nothing; with
                0 a bucket is only looked at, and not made.
            ends_at: What the tally of each said when it was counted, for what is given back.
                Nothing is once that time has come, as it would be credit for more than the limit
                admits.

        Returns:
            An outcome that is admitted, and how each bucket stands after it, as for a cost of 1.
        """
        ...


@runtime_checkable
class AsyncRateLimiter(Protocol):
    """A store of counters for async code: :class:`RateLimiter`, awaited."""

    async def migrate(self) -> None:
        """See :meth:`RateLimiter.migrate`."""

    async def aclose(self) -> None:
        """See :meth:`RateLimiter.close`."""

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :meth:`RateLimiter.hit`."""
        ...

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :meth:`RateLimiter.adjust`."""
        ...
