"""The port of the counters. A guard's circuit breaker implements it."""

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
            The outcome. None if nothing can be counted now and the request must not pass.
        """
        ...

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        """Count more units, or refund some, even if there is no room.

        Args:
            charges: The charges.
            units: How many units each bucket counts more; a negative number is a refund.
            ends_at: The time until which each refund is valid, on the counter's clock.
            counter: The number of the counter that counted the charges. Only this counter can
                refund. None if several counted them; then nothing is refunded.

        Returns:
            The state of the buckets afterwards. None if nothing can be counted now and the request
            must not pass.
        """
        ...
