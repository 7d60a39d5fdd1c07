"""Organizations over HTTP."""

from __future__ import annotations

from keyguard.admin.api.forms import AFTER, LIMIT, LIMITS, METADATA, NAME, SCOPES
from keyguard.admin.api.shown import page_answer, record_answer
from keyguard.admin.context import Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Problem
from keyguard.admin.members import Form, nullable, number, span, text
from keyguard.admin.rights import Right
from keyguard.admin.step_up import disables
from keyguard.core.management.json_forms import organization_json
from keyguard.exceptions import ExceededError

SLUG = text("slug", "Its unique short name: lower-case letters, digits and inner `-`", longest=63)
CEILING = nullable(SCOPES)
LIFETIME = nullable(span("max_key_lifetime", "How long its keys may work"))
MOST_KEYS = nullable(number("max_keys", "How many keys it may have at a time", 1, 10**9))
PLAN = nullable(text("plan", "The name of its plan, which changes the rates of limits", longest=64))
TIME_ZONE = text("time_zone", "The IANA name of a time zone; usage is kept by its days")

_CHANGES = (NAME, LIMITS, CEILING, LIFETIME, MOST_KEYS, TIME_ZONE, PLAN, METADATA)
ENDPOINTS = Table()


@ENDPOINTS.add(
    "GET",
    "/organizations",
    Right.OPERATE,
    query=Form(optional=(AFTER, LIMIT)),
    answers={200: "Organizations"},
)
async def list_organizations(context: Context) -> Answer:
    """List organizations, oldest first."""
    organizations = context.management.organizations.list(**context.query.given())
    return page_answer(await organizations, organization_json)


@ENDPOINTS.add(
    "POST",
    "/organizations",
    Right.OPERATE,
    form=Form(required=(SLUG,), optional=_CHANGES),
    answers={201: "Organization", 409: "Problem"},
)
async def create_organization(context: Context) -> Answer:
    """Create an organization."""
    made = await context.management.organizations.create(
        **context.form.given(), actor=context.caller
    )
    location = ("Location", context.url(f"/organizations/{made.id}"))
    return record_answer(201, made.version, organization_json(made), location)


@ENDPOINTS.add(
    "GET", "/organizations/{organization}", Right.READ_ORGANIZATION, answers={200: "Organization"}
)
async def show_organization(context: Context) -> Answer:
    """Return an organization."""
    found = await context.organization()
    return record_answer(200, found.version, organization_json(found))


async def _changes_bounds(context: Context) -> bool:
    await context.organization()
    return any(member in context.form for member in (LIMITS, CEILING, LIFETIME, MOST_KEYS, PLAN))


@ENDPOINTS.add(
    "PATCH",
    "/organizations/{organization}",
    Right.CHANGE_ORGANIZATION,
    reaches_far=_changes_bounds,
    form=Form(optional=_CHANGES),
    matches=True,
    answers={200: "Organization", 409: "Problem"},
)
async def change_organization(context: Context) -> Answer:
    """Change an organization; what is not given stays."""
    found = await context.organization()
    try:
        after = await context.management.organizations.update(
            found.id,
            **context.form.given(),
            version=context.matched(found),
            actor=context.caller,
        )
    except ExceededError as exceeded:  # only an operator raises what an organization may have
        raise Problem(403, str(exceeded)) from None
    return record_answer(200, after.version, organization_json(after))


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/disable",
    Right.CHANGE_ORGANIZATION,
    reaches_far=disables,
    answers={200: "Organization"},
)
async def disable_organization(context: Context) -> Answer:
    """Disable an organization: none of its keys works until it is enabled again."""
    found = await context.organization()
    await context.management.organizations.disable(found.id, actor=context.caller)
    after = await context.management.organizations.get(found.id)
    return record_answer(200, after.version, organization_json(after))


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/enable",
    Right.CHANGE_ORGANIZATION,
    answers={200: "Organization"},
)
async def enable_organization(context: Context) -> Answer:
    """Enable an organization that was disabled."""
    found = await context.organization()
    after = await context.management.organizations.enable(found.id, actor=context.caller)
    return record_answer(200, after.version, organization_json(after))
