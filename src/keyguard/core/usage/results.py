"""The results of questions for usage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from keyguard.core.limits.charges import LimitStatus


class UsageItem(NamedTuple):
    """How many requests there were in a period.

    Args:
        start: When the period begins, by the clocks of the report's zone.
        end: When it ends, exclusive.
        group: The key, family, outcome or tag; "" for all together.
        n: The number of requests.
        units: Their cost: the settled cost, or that of their limits if none was settled; 0 for
            refused ones.
    """

    start: datetime
    end: datetime
    group: str
    n: int
    units: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """One page of a report of usage.

    Args:
        items: The counts, by period and then group. Where there was no request there is no item.
        as_of: Up to when every process that counts has reported, in UTC.
        complete: Whether all processes have reported what happened in the periods.
        late: The ids of the processes that have not reported for longer than a minute and a half.
        next: The value of ``after`` for the next page, or None at the end.
    """

    items: tuple[UsageItem, ...]
    as_of: datetime
    complete: bool
    late: tuple[str, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class OwnUsage:
    """What one key has used, and what is left to it.

    Args:
        day: Its requests since the day began in its organization's time zone, by outcome.
        month: Its requests since the month began, by outcome.
        limits: The state of its limits.
        as_of: Up to when every process that counts has reported, in UTC.
    """

    day: tuple[UsageItem, ...]
    month: tuple[UsageItem, ...]
    limits: tuple[LimitStatus, ...]
    as_of: datetime
