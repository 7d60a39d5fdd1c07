"""Keys over HTTP."""

from __future__ import annotations

from keyguard.admin.api.forms import (
    AFTER,
    EXPIRES_AT,
    EXPIRES_AT_OR_NONE,
    EXPIRES_IN,
    EXPIRES_IN_OR_NONE,
    LIMIT,
    LIMITS,
    METADATA,
    NAME,
    NETWORKS,
    NOT_BEFORE,
    NOT_BEFORE_OR_NONE,
    NOTE,
    ORGANIZATION,
    OWNER,
    OWNER_OR_NONE,
    REASON,
    SCOPES,
)
from keyguard.admin.api.repeats import name_of, once
from keyguard.admin.api.shown import page_answer, record_answer
from keyguard.admin.context import Context, unknown
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Problem, json_answer
from keyguard.admin.members import Form, span, text
from keyguard.admin.rights import Right
from keyguard.admin.step_up import grants_admin, rotates_admin
from keyguard.core.keys.records import Key
from keyguard.core.keys.results import DamagedKey
from keyguard.core.management.json_forms import (
    JsonObject,
    key_json,
    limit_status_json,
    predecessor_json,
    revoked_json,
)
from keyguard.core.tokens.secret import Secret

SEARCH = text("search", "The beginning of the name, or at least the first 4 characters of the id")
EXPIRING_WITHIN = span("expiring_within", "Only keys that end within that time")
UNUSED_FOR = span("unused_for", "Only keys that nobody has used for that time")
GRACE = span("grace", "How long the old token works beside the new one")

_ENDING = Form(optional=(REASON, NOTE))
ENDPOINTS = Table()


@ENDPOINTS.add(
    "GET",
    "/organizations/{organization}/keys",
    Right.READ_KEYS,
    own=True,
    query=Form(optional=(OWNER, SEARCH, EXPIRING_WITHIN, UNUSED_FOR, AFTER, LIMIT)),
    answers={200: "Keys"},
)
async def list_keys(context: Context) -> Answer:
    """List an organization's keys, oldest first, or find them with `search`."""
    organization, query = await context.organization(), context.query
    owner = query.get(OWNER, None)
    if not context.has(Right.READ_KEYS, organization) and context.person is not None:
        if owner not in (None, context.person.id):
            raise unknown()
        owner = context.person.id
    listed = context.management.keys.list(**query.given(organization=organization.id, owner=owner))
    page = await listed
    now = context.now
    return page_answer(page, lambda key: key_json(key, now))


async def _issues_admin(context: Context) -> bool:
    await context.organization()
    return grants_admin(context, context.form.get(SCOPES, ()))


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/keys",
    Right.WRITE_KEYS,
    reaches_far=_issues_admin,
    form=Form(
        required=(NAME,),
        optional=(
            *(ORGANIZATION, SCOPES, EXPIRES_IN, EXPIRES_AT, NOT_BEFORE, METADATA),
            *(LIMITS, NETWORKS, OWNER),
        ),
    ),
    repeats=True,
    answers={201: "NewKey", 409: "Problem"},
)
async def issue_key(context: Context) -> Answer:
    """Issue a key; its token is shown once."""
    form, organization = context.form, await context.organization()
    if form.get(ORGANIZATION, organization.id) not in (organization.id, organization.slug):
        raise Problem(422, "The body names another organization than the path.")

    async def issue() -> tuple[str, Answer]:
        issued = await context.management.keys.issue(
            **form.given(organization=organization.id),
            actor=context.caller,
        )
        return issued.key.id, new_key_answer(context, issued.key, issued.token)

    return await once(context, issue, known_key_answer)


@ENDPOINTS.add("GET", "/keys/{key}", Right.READ_KEYS, own=True, answers={200: "Key"})
async def show_key(context: Context) -> Answer:
    """Return a key."""
    key = await context.key()
    return record_answer(200, key.version, key_json(key, context.now))


async def _changes_admin(context: Context) -> bool:
    return grants_admin(context, {*(await context.key()).scopes, *context.form.get(SCOPES, ())})


@ENDPOINTS.add(
    "PATCH",
    "/keys/{key}",
    Right.WRITE_KEYS,
    reaches_far=_changes_admin,
    form=Form(
        optional=(
            *(NAME, SCOPES, NOT_BEFORE_OR_NONE, EXPIRES_AT_OR_NONE, METADATA),
            *(LIMITS, NETWORKS, OWNER_OR_NONE),
        )
    ),
    matches=True,
    answers={200: "Key", 409: "Problem"},
)
async def change_key(context: Context) -> Answer:
    """Change a key; what is not given stays."""
    key = await context.key()
    after = await context.management.keys.update(
        key.id,
        **context.form.given(),
        version=context.matched(key),
        actor=context.caller,
    )
    return record_answer(200, after.version, key_json(after, context.now))


@ENDPOINTS.add(
    "POST",
    "/keys/{key}/rotate",
    Right.WRITE_KEYS,
    own=True,
    reaches_far=rotates_admin,
    form=Form(optional=(GRACE, EXPIRES_IN_OR_NONE)),
    repeats=True,
    answers={201: "NewKey", 409: "Problem"},
)
async def rotate_key(context: Context) -> Answer:
    """Give a key a successor; its token is shown once."""
    key = await context.key()
    rotated = await context.management.keys.rotate(
        key.id,
        **context.form.given(),
        idempotency_key=name_of(context),
        actor=context.caller,
    )
    return new_key_answer(context, rotated.key, rotated.token, rotated.predecessor)


@ENDPOINTS.add(
    "POST",
    "/keys/{key}/revoke",
    Right.WRITE_KEYS,
    own=True,
    form=_ENDING,
    answers={200: "RevokedKey", 409: "Problem"},
)
async def revoke_key(context: Context) -> Answer:
    """Revoke a key for good."""
    key = await context.key()
    after: Key | DamagedKey = await context.management.keys.revoke(
        key.id,
        **context.form.given(),
        actor=context.caller,
    )
    return json_answer(200, revoked_json(after, context.now))


@ENDPOINTS.add(
    "POST",
    "/families/{family}/revoke",
    Right.WRITE_KEYS,
    own=True,
    form=_ENDING,
    answers={200: "RevokedKeys", 409: "Problem"},
)
async def revoke_family(context: Context) -> Answer:
    """Revoke all keys that descend from one another by rotation."""
    family = await _family(context)
    after = await context.management.keys.revoke_family(
        family,
        **context.form.given(),
        actor=context.caller,
    )
    now = context.now
    return json_answer(200, {"items": [revoked_json(key, now) for key in after]})


@ENDPOINTS.add("GET", "/keys/{key}/limits", Right.READ_KEYS, own=True, answers={200: "Limits"})
async def show_limits(context: Context) -> Answer:
    """Tell how the limits of a key stand, and charge nothing."""
    key = await context.key()
    statuses = await context.management.keys.limits(key.id)
    return json_answer(200, {"items": [limit_status_json(status) for status in statuses]})


def new_key_answer(
    context: Context, key: Key, token: Secret | None, predecessor: Key | None = None
) -> Answer:
    """Return the answer that shows a new key, and its token unless it was shown before."""
    content: JsonObject = {
        "token": None if token is None else token.reveal(),
        "key": key_json(key, context.now),
    }
    if predecessor is not None:
        content["predecessor"] = predecessor_json(predecessor)
    return record_answer(201, key.version, content, ("Location", context.url(f"/keys/{key.id}")))


async def known_key_answer(context: Context, key_id: str) -> Answer:
    """Return the answer to a repetition: the key that was made, without its token."""
    return new_key_answer(context, await context.management.keys.get(key_id), None)


async def _family(context: Context) -> str:
    """Return the family of the path, of which the caller may revoke every key.

    Raises:
        AccessDenied: It does not exist, or the caller may not know of it.
        Problem: The caller may not do this.
    """
    family = context.parameters["family"]
    page = await context.management.keys.list(family=family, limit=1000)
    await context.allowed(page.items)
    return family
