"""The instruments: what is measured, under which names, and where it is read.

Names and attributes follow OpenTelemetry's semantic conventions. No attribute names a key.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

from keyguard.core.usage.values import ALLOWED
from keyguard.guard.statistics import Statistics

Labels: TypeAlias = tuple[str, ...]
"""The values of an instrument's attributes, in their order; "" for one that does not apply."""

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The bounds of the histogram in seconds, as of ``db.client.operation.duration``."""


class Kind(enum.Enum):
    """What the values of an instrument are, and how those of several guards are combined."""

    COUNTER = "a sum that only rises"
    SUM = "a sum that rises and falls"
    LARGEST = "a gauge, of which the largest counts"
    SMALLEST = "a gauge, of which the smallest counts"
    HISTOGRAM = "a histogram"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instrument:
    """One row of the table.

    Args:
        name: The name for OpenTelemetry.
        family: The name for Prometheus, without the ``_total`` of a counter.
        description: What is measured, in one sentence.
        unit: The unit, by UCUM.
        kind: What the values are.
        attributes: The names of the attributes.
        read: Returns the values of one guard, with their attributes.
    """

    name: str
    family: str
    description: str
    unit: str
    kind: Kind
    attributes: tuple[str, ...] = ()
    read: Callable[[Statistics], Iterable[tuple[Labels, float]]]

    @property
    def label_names(self) -> list[str]:
        """The attributes' names, as Prometheus takes them."""
        return [name.replace(".", "_") for name in self.attributes]


def _alone(value: float | None) -> list[tuple[Labels, float]]:
    """Return the only value of an instrument without attributes; nothing if it is not known."""
    return [] if value is None else [((), float(value))]


def _decisions(statistics: Statistics) -> Iterator[tuple[Labels, float]]:
    others = dict(statistics.decisions)
    for (organization, outcome), count in statistics.organizations.items():
        others[outcome] -= count
        yield _decision(outcome, organization, count)
    for outcome, count in others.items():
        yield _decision(outcome, "", count)


def _decision(outcome: str, organization: str, count: int) -> tuple[Labels, float]:
    if outcome == ALLOWED:
        return ("allowed", "", organization), float(count)
    return ("denied", outcome, organization), float(count)


def _lookups(statistics: Statistics) -> Iterator[tuple[Labels, float]]:
    return (((result,), float(count)) for result, count in statistics.lookups.items())


def _limits(statistics: Statistics) -> Iterator[tuple[Labels, float]]:
    return ((labels, float(count)) for labels, count in statistics.limits.items())


INSTRUMENTS = (
    Instrument(
        name="keyguard.decisions",
        family="keyguard_decisions",
        description="Requests that were let in (allowed) or refused (denied).",
        unit="{request}",
        kind=Kind.COUNTER,
        attributes=("keyguard.outcome", "error.type", "keyguard.organization.id"),
        read=_decisions,
    ),
    Instrument(
        name="keyguard.lookups",
        family="keyguard_lookups",
        description="Look-ups of keys: in memory (hit), in the store (miss), or shared.",
        unit="{lookup}",
        kind=Kind.COUNTER,
        attributes=("keyguard.cache.result",),
        read=_lookups,
    ),
    Instrument(
        name="keyguard.cache.entry.count",
        family="keyguard_cache_entries",
        description="Verified tokens that are remembered.",
        unit="{entry}",
        kind=Kind.SUM,
        read=lambda statistics: _alone(statistics.cache_entries),
    ),
    Instrument(
        name="keyguard.feed.lag",
        family="keyguard_feed_lag_seconds",
        description="Time since this process last knew of every change of a key.",
        unit="s",
        kind=Kind.LARGEST,
        read=lambda statistics: _alone(statistics.feed_lag),
    ),
    Instrument(
        name="keyguard.feed.up",
        family="keyguard_feed_up",
        description="Whether the change feed answers: 1 or 0.",
        unit="",
        kind=Kind.SMALLEST,
        read=lambda statistics: _alone(statistics.feed_is_up),
    ),
    Instrument(
        name="keyguard.limiter.decisions",
        family="keyguard_limiter_decisions",
        description="How often each limit had room for a request (allowed) or none (denied).",
        unit="{decision}",
        kind=Kind.COUNTER,
        attributes=("keyguard.limit.name", "keyguard.outcome"),
        read=_limits,
    ),
    Instrument(
        name="keyguard.limiter.up",
        family="keyguard_limiter_up",
        description="Whether the store of the counters answers: 1 or 0.",
        unit="",
        kind=Kind.SMALLEST,
        read=lambda statistics: _alone(statistics.limiter_is_up),
    ),
    Instrument(
        name="keyguard.usage.pending",
        family="keyguard_usage_pending",
        description="Counts of usage that the store does not have yet.",
        unit="{cell}",
        kind=Kind.SUM,
        read=lambda statistics: _alone(statistics.usage_pending),
    ),
    Instrument(
        name="keyguard.usage.lost",
        family="keyguard_usage_lost",
        description="Requests that are missing in usage, because their counts were lost.",
        unit="{request}",
        kind=Kind.COUNTER,
        read=lambda statistics: _alone(statistics.usage_lost),
    ),
)

DURATION = Instrument(
    name="keyguard.store.operation.duration",
    family="keyguard_store_operation_duration_seconds",
    description="How long operations of the key store and of the counters took.",
    unit="s",
    kind=Kind.HISTOGRAM,
    attributes=("db.operation.name", "db.system.name", "error.type"),
    read=lambda _: (),
)


@contextmanager
def timed(record: Callable[[str, float], object]) -> Generator[None]:
    """Measure how long a block takes.

    Args:
        record: Takes the type of the error that ended the block, "" for none, and the seconds.
    """
    began, error = perf_counter(), ""
    try:
        yield
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        record(error, perf_counter() - began)
