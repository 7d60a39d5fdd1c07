"""What charging a request asks of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from keyguard.core.limits.charges import Charge, Outcome


class Counters(Protocol):
    """The counters of limits, behind their circuit breaker.

    For sync code, and where the counters are in memory, neither method suspends.
    """

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        """Count charges, all or none.

        Returns:
            The outcome; None where nothing can be counted and the request must not pass.
        """
        ...

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        """Count more, or refund.

        Args:
            charges: The buckets.
            units: How many to add to each; a negative number is refunded.
            ends_at: Until when each may be refunded, as its tally said when it was counted.
            counter: Which counter counted, as the outcome said. Only that one refunds.

        Returns:
            How the buckets stand after; None as for :meth:`hit`.
        """
        ...
