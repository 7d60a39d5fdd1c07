"""Timing contestants in turn, so that a drift of the machine affects all of them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

BURST_SECONDS = 0.02
ROUNDS = 81

Name = TypeVar("Name", bound=Hashable)
Burst = Callable[[int], float]
"""Makes so many requests and returns the seconds they took."""


@dataclass(frozen=True)
class Series:
    """One number for each round.

    The median is what counts; the least and the most show how far it can be trusted.
    """

    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)

    def __sub__(self, other: Series) -> Series:
        return Series([a - b for a, b in zip(self.values, other.values, strict=True)])

    def __truediv__(self, other: Series) -> Series:
        return Series([a / b for a, b in zip(self.values, other.values, strict=True)])

    def __str__(self) -> str:
        return self.spell(2)

    def spell(self, digits: int) -> str:
        least, most = min(self.values), max(self.values)
        return f"{self.median:.{digits}f} ({least:.{digits}f}…{most:.{digits}f})"


def race(contestants: Mapping[Name, Burst], *, rounds: int = ROUNDS) -> dict[Name, Series]:
    """Time every contestant once in every round.

    The order moves on by one each round.

    Args:
        contestants: Bursts by name.
        rounds: How many rounds.

    Returns:
        By name, microseconds per request in each round.
    """
    sizes = {name: _size(burst) for name, burst in contestants.items()}
    found: dict[Name, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        gc.collect()
        for name in order:
            size = sizes[name]
            found[name].append(contestants[name](size) / size * 1e6)
        order.append(order.pop(0))
    return {name: Series(values) for name, values in found.items()}


def _size(burst: Burst) -> int:
    """Return how many requests fill a burst, after warming up."""
    burst(50)
    return max(20, int(BURST_SECONDS / (burst(200) / 200)))
