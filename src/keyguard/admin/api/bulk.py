"""Many keys in one call."""

from __future__ import annotations

from keyguard.admin.api.forms import DRY_RUN, NOTE, OWNER, REASON
from keyguard.admin.context import Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Problem, json_answer
from keyguard.admin.members import Form, span, text, texts
from keyguard.admin.rights import Right
from keyguard.core.keys.records import Organization, RevocationReason
from keyguard.core.management.json_forms import JsonObject
from keyguard.exceptions import CorruptDataError, NotFoundError, RefusedError

MOST = 1000
"""How many keys a call is about at most."""

ACTION = text("action", "What is done to each key", enum=["revoke"])
IDS = texts("ids", "The keys, by id", most=MOST)
UNUSED_FOR = span("unused_for", "Instead of ids: all keys that nobody has used for that time")
EXPIRING_WITHIN = span("expiring_within", "Instead of ids: all keys that end within that time")
_FILTERS = (OWNER, UNUSED_FOR, EXPIRING_WITHIN)

ENDPOINTS = Table()


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/keys/bulk",
    Right.WRITE_KEYS,
    form=Form(required=(ACTION,), optional=(IDS, *_FILTERS, REASON, NOTE, DRY_RUN)),
    answers={200: "Results"},
)
async def change_many(context: Context) -> Answer:
    """Revoke many keys, one by one; `dry_run` only reports which."""
    form, organization = context.form, await context.organization()
    is_filtered = any(member in form for member in _FILTERS)
    if is_filtered == (IDS in form):
        raise Problem(422, "Give ids, or a filter.")
    ids = list(dict.fromkeys(form.get(IDS, ())))
    if is_filtered:
        ids = await _filtered(context, organization)
    return json_answer(
        200, {"items": [await _revoke(context, organization, key_id) for key_id in ids]}
    )


async def _filtered(context: Context, organization: Organization) -> list[str]:
    form = context.form
    page = await context.management.keys.list(
        organization=organization.id,
        owner=form.get(OWNER, None),
        unused_for=form.get(UNUSED_FOR, None),
        expiring_within=form.get(EXPIRING_WITHIN, None),
        limit=MOST,
    )
    if page.next is not None:
        raise Problem(422, f"The filter finds more than {MOST} keys; narrow it.")
    return [key.id for key in page if key.revoked_at is None]


async def _revoke(context: Context, organization: Organization, key_id: str) -> JsonObject:
    """Revoke one of many keys, and return what became of it."""
    form = context.form
    try:
        key = await context.management.keys.get(key_id, organization=organization.id)
        if key.revoked_at is not None:
            return {"id": key_id, "result": "unchanged"}
        if not form.get(DRY_RUN, False):
            await context.management.keys.revoke(
                key_id,
                reason=form.get(REASON, RevocationReason.UNSPECIFIED),
                note=form.get(NOTE, None),
                actor=context.caller,
            )
    except (NotFoundError, CorruptDataError):
        return {"id": key_id, "result": "unknown"}
    except RefusedError as refused:
        return {"id": key_id, "result": "refused", "detail": str(refused)}
    return {"id": key_id, "result": "revoked"}
