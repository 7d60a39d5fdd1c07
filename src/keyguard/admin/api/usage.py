"""Usage and hints over HTTP."""

from __future__ import annotations

import csv
import io
from typing import Any

from keyguard.admin.api.forms import AFTER, LIMIT, moment
from keyguard.admin.api.shown import next_link, page_answer
from keyguard.admin.context import JSON, Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Problem, answer, json_answer
from keyguard.admin.members import Form, text, time
from keyguard.admin.rights import Right
from keyguard.core.management.json_forms import (
    USAGE_ITEM,
    hint_json,
    json_time,
    limit_status_json,
    usage_item_json,
    usage_json,
)
from keyguard.core.texts import csv_cell

CSV = "text/csv"
START = moment("start", "A time in the first period; by default, the report covers 7 days")
END = moment("end", "The time at which the last period ends; by default now")
STEP = text("step", "The length of the periods", enum=["15m", "hour", "day", "week", "month"])
ZONE = text("zone", "The IANA name of a time zone; by default that of the organization")
GROUP_BY = text("group_by", "What to group the counts by", enum=["key", "family", "outcome", "tag"])
UNTIL = time("until", "When the hint may be shown again; by default in 30 days")

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
    """Report the usage of an organization."""
    organization = await context.organization()
    return await _report(context, organization=organization.id)


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
    """Report the usage of a key."""
    key = await context.key()
    return await _report(context, organization=key.organization, key=key.id)


@ENDPOINTS.add("GET", "/usage/me", answers={200: "OwnUsage", 501: "Problem"})
async def show_own_usage(context: Context) -> Answer:
    """Tell the calling key what it has used, and what it has left."""
    principal = context.principal
    if principal is None:
        raise Problem(403, "A person has no usage; send a key.")
    own = await context.management.usage.mine(principal)
    return json_answer(
        200,
        {
            "day": [usage_item_json(item) for item in own.day],
            "month": [usage_item_json(item) for item in own.month],
            "limits": [limit_status_json(status) for status in own.limits],
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
    hints = context.management.usage.hints(organization=organization.id, **context.query.given())
    return page_answer(await hints, hint_json)


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
    until = await context.management.usage.dismiss(
        organization=organization.id,
        hint=context.parameters["hint"],
        **context.form.given(),
        actor=context.caller,
    )
    return json_answer(200, {"until": json_time(until)})


async def _report(context: Context, **about: Any) -> Answer:
    report = await context.management.usage.report(**about, **context.query.given())
    if context.media_type != CSV:
        return json_answer(200, usage_json(report))
    table = io.StringIO()
    writer = csv.writer(table)  # RFC 4180
    items = [usage_item_json(item) for item in report.items]
    writer.writerow(USAGE_ITEM)
    writer.writerows([csv_cell(value) for value in item.values()] for item in items)
    return answer(200, CSV, table.getvalue().encode(), next_link(context, report.next))
