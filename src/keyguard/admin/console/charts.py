"""Usage as bars: reports of usage with the periods in which nothing happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from keyguard.admin.console.page import View
from keyguard.core.management.usage import AsyncUsage
from keyguard.core.usage.periods import Step, periods_between
from keyguard.core.usage.results import UsageItem, UsageReport
from keyguard.core.usage.values import ALLOWED, Period
from keyguard.exceptions import ConfigurationError, InvalidValueError

MONTH = timedelta(days=29)
"""How far before today a period of 30 days begins."""

_MOST_PAGES = 10


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Args:
        name: Its period.
        yes: How many requests were let in, or how many there were at all.
        no: How many were refused.
    """

    name: str
    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars side by side.

    Args:
        bars: The bars.
        split: Whether they show refused requests separately.
    """

    bars: Sequence[Bar]
    split: bool

    @property
    def most(self) -> int:
        """The height of the highest bar."""
        return max(self.counts, default=0)

    @property
    def yes(self) -> int:
        """How many requests were let in."""
        return sum(bar.yes for bar in self.bars)

    @property
    def no(self) -> int:
        """How many requests were refused."""
        return sum(bar.no for bar in self.bars)

    @property
    def counts(self) -> list[int]:
        """The heights of the bars."""
        return [bar.yes + bar.no for bar in self.bars]

    @property
    def label(self) -> str:
        """The text for readers who do not see the bars."""
        if not self.bars:
            return "No requests"
        told = f"{self.yes:,} accepted and {self.no:,} refused" if self.split else f"{self.yes:,}"
        return f"Requests from {self.bars[0].name} to {self.bars[-1].name}: {told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of usage is asked for, by the names that a report has for it.

    Args:
        organization: The organization.
        start: A time in the first period.
        end: The time that the last period reaches.
        step: How long periods are.
        zone: By whose clocks.
        group_by: What is told apart.
        key: The only key, or None.
    """

    organization: str
    start: datetime
    end: datetime
    step: Step
    zone: str
    group_by: str | None = None
    key: str | None = None

    @classmethod
    def until_now(cls, view: View, back: timedelta = MONTH, **more: Any) -> Asked:
        """Return what asks for the last usage of the organization that a page is about.

        Args:
            view: The page.
            back: How far back the first period is.
            more: The other arguments.
        """
        now = view.now
        return cls(organization=view.owner.id, start=now - back, end=now, zone=view.zone, **more)

    @property
    def periods(self) -> tuple[Period, ...]:
        """The periods.

        Raises:
            InvalidValueError: They are too many, or the end is before the start.
        """
        if self.end <= self.start:
            raise InvalidValueError("the end must be after the start")
        return periods_between(self.start, self.end, self.step, ZoneInfo(self.zone))

    def name(self, start: datetime) -> str:
        """Return the name of a period for people."""
        form = {Step.MONTH: "%b %Y", Step.QUARTER: "%-d %b, %H:%M", Step.HOUR: "%-d %b, %H:%M"}
        return start.astimezone(ZoneInfo(self.zone)).strftime(form.get(self.step, "%-d %b %Y"))

    async def read(self, usage: AsyncUsage) -> tuple[list[UsageItem], UsageReport]:
        """Return all counts, and the report that they are from.

        Raises:
            InvalidValueError: There are too many of them, or a value is not valid.
        """
        items: list[UsageItem] = []
        after = None
        for _ in range(_MOST_PAGES):
            report = await self.report(usage, after)
            items += report.items
            after = report.next
            if after is None:
                return items, report
        raise InvalidValueError("these are too many numbers for a page: choose a shorter time")

    async def report(self, usage: AsyncUsage, after: str | None = None) -> UsageReport:
        """Return one page of the counts."""
        return await usage.report(**asdict(self), after=after)

    def chart(self, items: Iterable[UsageItem]) -> Chart:
        """Return the bars of counts."""
        split = self.group_by == "outcome"
        yes, no = dict[datetime, int](), dict[datetime, int]()
        for item in items:
            of = no if split and item.group != ALLOWED else yes
            of[item.start] = of.get(item.start, 0) + item.n
        bars = [
            Bar(self.name(period.start), yes.get(period.start, 0), no.get(period.start, 0))
            for period in self.periods
        ]
        return Chart(bars, split)


async def recent(
    view: View, *, step: Step = Step.DAY, back: timedelta = MONTH, key: str | None = None
) -> tuple[Chart, list[UsageItem]] | None:
    """Return the usage of the last time as bars and counts; None where none is kept.

    Args:
        view: The page, which is about an organization.
        step: How long periods are.
        back: How far back the first period is.
        key: The only key, or None.
    """
    asked = Asked.until_now(view, back, step=step, group_by="outcome", key=key)
    try:
        items, _ = await asked.read(view.context.management.usage)
    except ConfigurationError:
        return None
    return asked.chart(items), items
