"""The page on usage, and the same numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from urllib.parse import urlencode

from keyguard.admin.console.charts import Asked
from keyguard.admin.console.page import Pages, View, view_of
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer, Problem, answer
from keyguard.admin.rights import Right
from keyguard.core.keys.time_zones import find_time_zone
from keyguard.core.texts import csv_cell
from keyguard.core.usage.periods import Step
from keyguard.core.usage.results import UsageItem
from keyguard.exceptions import ConfigurationError, InvalidValueError, NotFoundError

_BACK = {
    Step.QUARTER: timedelta(hours=6),
    Step.HOUR: timedelta(hours=23),
    Step.DAY: timedelta(days=29),
    Step.WEEK: timedelta(weeks=7),
    Step.MONTH: timedelta(days=365),
}

_ONE = "/organizations/{organization}"
PAGES = Pages()


@dataclass(frozen=True, slots=True)
class UsageTable:
    """Counts by period and group.

    Args:
        groups: The groups.
        rows: For each period its name, the counts of the groups, and its units.
        total: How many requests there were.
    """

    groups: list[str]
    rows: list[tuple[str, list[int], int]]
    total: int

    @classmethod
    def of(cls, asked: Asked, items: list[UsageItem]) -> UsageTable:
        """Return the table of counts; empty where nothing was counted."""
        groups = sorted({item.group for item in items})
        counts: dict[datetime, dict[str, int]] = {}
        units: dict[datetime, int] = {}
        for item in items:
            counts.setdefault(item.start, {})[item.group] = item.n
            units[item.start] = units.get(item.start, 0) + item.units
        rows = [
            (
                asked.name(period.start),
                [counts.get(period.start, {}).get(group, 0) for group in groups],
                units.get(period.start, 0),
            )
            for period in (asked.periods if items else ())
        ]
        return cls(groups, rows, sum(item.n for item in items))


def _wanted(view: View) -> dict[str, str]:
    wanted = {name: view.query(name).strip() for name in ("start", "end", "group", "key")}
    return wanted | {
        "step": view.query("step") or "day",
        "zone": view.query("zone").strip() or view.zone,
    }


def _asked(view: View, wanted: Mapping[str, str]) -> Asked:
    """Return what the filters ask for.

    Raises:
        InvalidValueError: A value is not valid.
    """
    step, zone = Step.of(wanted["step"]), find_time_zone(wanted["zone"])
    end = _start_of(wanted["end"], zone) or view.now
    try:
        start = _start_of(wanted["start"], zone) or end - _BACK[step]
    except OverflowError:
        raise InvalidValueError("that time is beyond the calendar") from None
    return Asked(
        organization=view.owner.id,
        start=start,
        end=end,
        step=step,
        zone=wanted["zone"],
        group_by=wanted["group"] or None,
        key=wanted["key"] or None,
    )


def _start_of(text: str, zone: tzinfo) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(), zone)
    except (ValueError, OverflowError):
        raise InvalidValueError("a date looks like 2030-01-31") from None


@PAGES.add("GET", f"{_ONE}/usage", Right.READ_USAGE)
async def show_usage(context: Context) -> Answer:
    """Show how often an organization's keys were used, as bars and as a table."""
    view = await view_of(context)
    wanted, problem = _wanted(view), ""
    table = UsageTable([], [], 0)
    chart = report = None
    try:
        asked = _asked(view, wanted)
        items, report = await asked.read(context.management.usage)
        table, chart = UsageTable.of(asked, items), asked.chart(items)
    except (InvalidValueError, ConfigurationError) as wrong:
        problem = str(wrong)
    except NotFoundError:
        problem = "This organization has no such key."
    return view.show(
        "usage.html",
        "Usage",
        section="Usage",
        problem=problem,
        filter=wanted,
        csv=f"{context.call.request.root_path}{view.home}/usage.csv?{urlencode(wanted)}",
        chart=chart,
        groups=table.groups,
        table=table.rows,
        total=table.total,
        as_of=report and report.as_of,
        complete=report is None or report.complete,
    )


@PAGES.add("GET", f"{_ONE}/usage.csv", Right.READ_USAGE, media_types=("text/csv",))
async def download_usage(context: Context) -> Answer:
    """Return the counts as CSV (RFC 4180)."""
    view = await view_of(context)
    try:
        asked = _asked(view, _wanted(view))
        items, _ = await asked.read(context.management.usage)
    except (InvalidValueError, ConfigurationError) as wrong:
        raise Problem(422, str(wrong)) from None
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["start", "end", asked.group_by or "group", "requests", "units"])
    for item in items:
        row = (item.start.isoformat(), item.end.isoformat(), item.group, item.n, item.units)
        writer.writerow([csv_cell(value) for value in row])
    name = f"usage-{view.owner.slug}-{asked.start:%Y%m%d}.csv"
    fields = [("Content-Disposition", f'attachment; filename="{name}"')]
    return answer(200, "text/csv; charset=utf-8", text.getvalue().encode(), fields)
