"""What charging asks of the counters. A guard's circuit breaker fulfils it."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Protocol

from keyguard.core.limits.charges import Charge, Outcome

__all__ = ["Counters"]


class Counters(Protocol):
    """The way to the counters. For sync code its coroutines never suspend."""

    def hit(self, charges: Sequence[Charge]) -> Coroutine[object, None, Outcome | None]:
        """Count charges, all of them or none.

        Args:
            charges: The charges.

        Returns:
            The outcome. None if nothing can be counted now and such a request must not pass.
        """
        ...

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        """Count more, or refund, whatever room there is.

        Args:
            charges: The charges.
            units: How many units each bucket counts more; a negative number is a refund.
            ends_at: The time until which each refund is valid, on the counter's clock.
            counter: The number of the counter that counted the charges. Only this counter
                refunds. None if several counted them; then nothing is refunded.

        Returns:
            How the buckets stand afterwards. None if nothing can be counted now and such a
            request must not pass.
        """
        ...
