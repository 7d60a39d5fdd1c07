"""``keyguard usage``: how many requests the keys of an organization made."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial

import typer

from keyguard.cli.options import LIST, Common, argument_id, flag, option, with_options
from keyguard.cli.output import emit, emit_json, note
from keyguard.cli.pages import read_pages
from keyguard.cli.parsing import parse_instant
from keyguard.cli.terminal import table
from keyguard.cli.wording import absolute
from keyguard.core.management.json_forms import usage_json
from keyguard.core.texts import csv_cell
from keyguard.core.usage.periods import FINE, Step
from keyguard.core.usage.results import UsageItem, UsageReport
from keyguard.core.usage.values import GroupBy
from keyguard.exceptions import InvalidValueError, shown
from keyguard.guard import Keyguard

_CSV = ("start", "end", "group", "requests", "units")


@with_options(*LIST)
def usage(
    common: Common,
    organization: str | None = typer.Argument(
        None, metavar="ORG", help="The organization's id or slug; needed if there are several."
    ),
    key: str | None = option("ID", "Only requests of the key with this id.", "--key"),
    start: str | None = option(
        "TIME",
        "A time in the first period, such as 2030-01-31 or 2030-01-31T09:00:00Z; by default 7 days "
        "back, or with other steps 6 hours, 25 hours, 8 weeks or 13 months.",
    ),
    end: str | None = option("TIME", "The time at which the last period ends; now by default."),
    step: str = option(
        "STEP", f"How long periods are: {', '.join(step.value for step in Step)}.", default="day"
    ),
    zone: str | None = option(
        "ZONE",
        "The time zone of the periods, such as Europe/Berlin; the organization's by default.",
    ),
    group_by: str | None = option("WHAT", "Group by key, family, outcome or tag."),
    as_csv: bool = flag("--csv", "Print comma-separated values and nothing else."),
) -> None:
    """Show how many requests the keys of an organization made.

    A period without requests has no line.
    """
    if as_csv and common.as_json:
        raise InvalidValueError("pass --csv or --json, not both")
    _check_choice("--step", Step, step)
    if group_by:
        _check_choice("--group-by", GroupBy, group_by)
    key_id = None if key is None else argument_id(key)
    with common.guard() as guard:
        ask = partial(
            guard.usage.report,
            organization=_owner(guard, organization, key_id),
            key=key_id,
            start=None if start is None else _time("--start", start),
            end=None if end is None else _time("--end", end),
            step=step,
            zone=zone,
            group_by=group_by,
        )
        reports = read_pages(common, ask)
        items = tuple(item for report in reports for item in report.items)
        report = replace(reports[-1], items=items)
    if common.as_json:
        emit_json(usage_json(report))
        return
    if as_csv:
        emit(_as_csv(report))
    elif report.items:
        emit(_as_table(report, Step(step), group_by))
    else:
        note("There was no request in that time.")
    if report.next is not None:
        note(f"There are more: add --after '{report.next}', or --all.")
    if not as_csv and not report.complete:
        _tell_how_far(report)


def _owner(guard: Keyguard, named: str | None, key: str | None) -> str:
    """Return the organization that is named, the key's, or the only one."""
    if named is not None:
        return named
    if key is not None:
        return guard.keys.get(key).organization
    found = guard.organizations.list(limit=2)
    if len(found) != 1:
        raise InvalidValueError("name an organization, by its id or slug")
    return found.items[0].id


def _check_choice(option: str, kinds: type[Step | GroupBy], value: str) -> None:
    known = [kind.value for kind in kinds if kind.value]
    if value not in known:
        raise InvalidValueError(f"{option} takes one of {', '.join(known)}, not {shown(value)}")


def _time(option: str, text: str) -> date:
    """Return the time of an option, or a day whose zone says when it begins."""
    time = parse_instant(option, text)
    return time.date() if len(text) == len("2030-01-31") else time


def _as_table(report: UsageReport, step: Step, group_by: str | None) -> str:
    group = [group_by.capitalize()] if group_by else []
    rows = [
        (
            _period(item, step),
            *([item.group or "-"] if group else []),
            f"{item.n:,}",
            f"{item.units:,}",
        )
        for item in report.items
    ]
    return table(
        ("From" if step in FINE else step.value.capitalize(), *group, "Requests", "Units"),
        rows,
        flexible={},
        numbers=("Requests", "Units"),
        bars=[item.n for item in report.items],
    )


def _period(item: UsageItem, step: Step) -> str:
    if step in FINE:
        return f"{item.start:%Y-%m-%d %H:%M %Z}"
    return f"{item.start:%Y-%m}" if step is Step.MONTH else f"{item.start:%Y-%m-%d}"


def _as_csv(report: UsageReport) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_CSV)
    for item in report.items:
        start, end = item.start.isoformat(), item.end.isoformat()
        writer.writerow((start, end, csv_cell(item.group), item.n, item.units))
    return text.getvalue()


def _tell_how_far(report: UsageReport) -> None:
    late = len(report.late)
    who = f"; {late} {'process is' if late == 1 else 'processes are'} late" if late else ""
    note(f"Everything is counted up to {absolute(report.as_of, datetime.now(UTC))}{who}.")
