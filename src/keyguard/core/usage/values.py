"""The values of usage: cells, flushes, questions and their answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from keyguard.core.values import Value
from keyguard.exceptions import CorruptDataError

QUARTER = timedelta(minutes=15)
"""The shortest bucket. Every zone's offset since 2000 is a multiple of it."""

ALLOWED = "allowed"
"""The outcome of a request that was let in. Any other outcome is the reason of its refusal."""

OTHER_TAG = "other"
"""The tag of requests whose tag the service did not declare."""


class Cell(NamedTuple):
    """How many requests of one key had one outcome in one bucket.

    Args:
        organization: The id of the organization that owns the key.
        start: When the bucket begins, in UTC.
        key_id: The id of the key; "" where keys were merged for want of memory.
        family: The family of the key; "" like the key.
        outcome: :data:`ALLOWED`, or the reason of the refusals.
        tag: The service's name for such requests, or "".
        n: The number of requests, at least 0.
        units: What they cost, as they were settled; at least 0.
    """

    organization: str
    start: datetime
    key_id: str
    family: str
    outcome: str
    tag: str
    n: int
    units: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Flush(Value):
    """What one writer has counted since its last flush.

    A flush whose fate is not known is sent again with the same number and cells.

    Args:
        writer: The random id of the guard that counted.
        seq: The number of the flush: 1 for a writer's first, then one more each.
        until: Up to when the writer has now reported everything, in UTC.
        cells: The counts, at most one for each organization, start, key, outcome and tag.
    """

    writer: str
    seq: int
    until: datetime
    cells: tuple[Cell, ...]


class NotAddedError(CorruptDataError):
    """Cells of some organizations can't be added to what the store holds of these; all others were.

    Args:
        message: What is wrong.
        organizations: The ids of these organizations. Some of their cells may have been added.
    """

    def __init__(self, message: str, organizations: frozenset[str]) -> None:
        super().__init__(message, organizations)
        self.organizations = organizations

    def __str__(self) -> str:
        return str(self.args[0])


class Writer(NamedTuple):
    """How far a writer has reported.

    Args:
        id: The id of the writer.
        until: Up to when it has reported everything, in UTC.
    """

    id: str
    until: datetime


class Period(NamedTuple):
    """A time from ``start``, inclusive, to ``end``, exclusive; both in UTC and whole quarters."""

    start: datetime
    end: datetime


class GroupBy(enum.StrEnum):
    """How the totals of a question are grouped."""

    NOTHING = ""
    KEY = "key"
    FAMILY = "family"
    OUTCOME = "outcome"
    TAG = "tag"

    @property
    def field(self) -> str:
        """The field of a :class:`Cell` that tells these totals apart; "" for none."""
        return "key_id" if self is GroupBy.KEY else self.value


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Question(Value):
    """A question for totals. Cells count in the period in which they start.

    Args:
        organization: The id of the organization.
        periods: The periods, which rise and do not overlap.
        group_by: How totals are grouped; the group is "" for all together.
        key_id: The only key that is asked for, or None.
        family: The only family that is asked for, or None.
        outcome: The only outcome that is asked for, or None.
        after: The number of the period and the group behind which to start, or None.
        limit: How many totals at most, at least 1.
    """

    organization: str
    periods: tuple[Period, ...]
    group_by: GroupBy = GroupBy.NOTHING
    key_id: str | None = None
    family: str | None = None
    outcome: str | None = None
    after: tuple[int, str] | None = None
    limit: int = 1000


class Total(NamedTuple):
    """The sum of the cells of one period and group. Without cells there is no total.

    Args:
        period: The number of the period in the question, from 0.
        group: The group.
        n: The number of requests.
        units: What they cost.
    """

    period: int
    group: str
    n: int
    units: int
