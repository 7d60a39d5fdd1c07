"""How often the limits had room for a request, for metrics."""

from __future__ import annotations

from collections.abc import Iterable

from keyguard.core.limits.charges import Charge

OTHER = "other"
_MOST = 100


class LimitCounts(dict[str, list[int]]):
    """How often each policy had room and how often it had none, by its name.

    Only policies of the service itself have their own counts, at most 100. Policies of a key or an
    organization are counted as ``other``, unless they have the name of a service's policy.

    Args:
        names: The names of the policies that are known at the start.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, [0, 0]) for name in (OTHER, *names))

    def __missing__(self, name: str) -> list[int]:
        return self[OTHER]

    def learn(self, charges: Iterable[Charge]) -> None:
        """Give the policies of a route their own counts, while there is room."""
        for charge in charges:
            if len(self) < _MOST:
                self.setdefault(charge.name, [0, 0])

    def totals(self) -> dict[tuple[str, str], int]:
        """Return the counts by policy and outcome, ``denied`` or ``allowed``."""
        return {
            (name, outcome): count
            for name, counts in tuple(self.items())
            for outcome, count in zip(("denied", "allowed"), counts, strict=True)
        }
