"""Usage and hints over HTTP."""

from __future__ import annotations

import csv
import io

from keyguard.admin.api.forms import AFTER, LIMIT, moment
from keyguard.admin.api.shown import LIMIT_STATUS, next_link, page_answer
from keyguard.admin.context import Context
from keyguard.admin.endpoints import JSON, Table
from keyguard.admin.exchange import Answer, Problem, answer, json_answer, settled
from keyguard.admin.members import Form, text, time
from keyguard.admin.rights import Right
from keyguard.core.keys.json_forms import JsonObject, fields_json, json_time
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.results import UsageReport

CSV = "text/csv"
START = moment("start", "Where the first period lies; by default 7 days are covered")
END = moment("end", "What the last period reaches; by default now")
STEP = text("step", "The length of the periods", enum=["15m", "hour", "day", "week", "month"])
ZONE = text("zone", "The IANA name of a time zone; by default that of the organization")
GROUP_BY = text(
    "group_by", "What counts are told apart by", enum=["key", "family", "outcome", "tag"]
)
UNTIL = time("until", "When the hint may be shown again; by default in 30 days")

ITEM = ("start", "end", "group", "n", "units")
_HINT = ("id", "kind", "organization", "key_id", "family", "since", "evidence", "text")

_PERIODS = (START, END, STEP, ZONE, GROUP_BY, AFTER, LIMIT)
ENDPOINTS = Table()


@ENDPOINTS.add(
    "GET",
    "/organizations/{organization}/usage",
    Right.READ_USAGE,
    query=Form(optional=_PERIODS),
    media_types=(*JSON, CSV),
    answers={200: "Usage", 501: "Problem"},
)
async def report_usage(context: Context) -> Answer:
    """Tell who used what in an organization."""
    organization = await context.organization()
    return _report(context, await _read(context, organization.id))


@ENDPOINTS.add(
    "GET",
    "/keys/{key}/usage",
    Right.READ_KEYS,
    own=True,
    query=Form(optional=_PERIODS),
    media_types=(*JSON, CSV),
    answers={200: "Usage", 501: "Problem"},
)
async def report_usage_of_key(context: Context) -> Answer:
    """Tell how a key was used."""
    key = await context.key()
    return _report(context, await _read(context, key.organization, key.id))


@ENDPOINTS.add("GET", "/usage/me", answers={200: "OwnUsage", 501: "Problem"})
async def show_own_usage(context: Context) -> Answer:
    """Tell a key what it has used, and what is left to it."""
    principal = context.principal
    if principal is None:
        raise Problem(403, "A person has no usage; send a key.")
    own = await settled(context.guard.usage.mine(principal))
    return json_answer(
        200,
        {
            "day": [fields_json(item, ITEM) for item in own.day],
            "month": [fields_json(item, ITEM) for item in own.month],
            "limits": [fields_json(status, LIMIT_STATUS) for status in own.limits],
            "as_of": json_time(own.as_of),
        },
    )


@ENDPOINTS.add(
    "GET",
    "/organizations/{organization}/hints",
    Right.READ_USAGE,
    query=Form(optional=(AFTER, LIMIT)),
    answers={200: "Hints", 501: "Problem"},
)
async def list_hints(context: Context) -> Answer:
    """List what a person should look at, the most urgent first."""
    organization = await context.organization()
    page = await settled(
        context.guard.usage.hints(
            organization=organization.id,
            after=context.query.get(AFTER, None),
            limit=context.query.get(LIMIT, 100),
        )
    )
    return page_answer(page, shown_hint)


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/hints/{hint}/dismiss",
    Right.CHANGE_ORGANIZATION,
    form=Form(optional=(UNTIL,)),
    answers={200: "Dismissed", 501: "Problem"},
)
async def dismiss_hint(context: Context) -> Answer:
    """Keep a hint from being shown for a time."""
    organization = await context.organization()
    until = await settled(
        context.guard.usage.dismiss(
            organization=organization.id,
            hint=context.parameters["hint"],
            until=context.form.get(UNTIL, None),
            actor=context.actor,
        )
    )
    return json_answer(200, {"until": json_time(until)})


def shown_hint(hint: Hint) -> JsonObject:
    """Return a hint as the API shows it."""
    return fields_json(hint, _HINT)


async def _read(context: Context, organization: str, key: str | None = None) -> UsageReport:
    query = context.query
    return await settled(
        context.guard.usage.report(
            organization=organization,
            key=key,
            start=query.get(START, None),
            end=query.get(END, None),
            step=query.get(STEP, "day"),
            zone=query.get(ZONE, None),
            group_by=query.get(GROUP_BY, None),
            after=query.get(AFTER, None),
            limit=query.get(LIMIT, 1000),
        )
    )


def _report(context: Context, report: UsageReport) -> Answer:
    items = [fields_json(item, ITEM) for item in report.items]
    if context.media_type != CSV:
        rest = fields_json(report, ("as_of", "complete", "late", "next"))
        return json_answer(200, {"items": items, **rest})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\r\n")  # RFC 4180
    writer.writerow(ITEM)
    writer.writerows([_cell(item[name]) for name in ITEM] for item in items)
    return answer(200, CSV, table.getvalue().encode(), next_link(context, report.next))


def _cell(value: object) -> object:
    """Return a value for a cell, which no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@\t\r")) else value
