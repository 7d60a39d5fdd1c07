"""The audit trail over HTTP, as JSON or a line for each entry."""

from __future__ import annotations

import json

from keyguard.admin.api.forms import AFTER, LIMIT
from keyguard.admin.api.shown import next_link, page_answer
from keyguard.admin.context import Context
from keyguard.admin.endpoints import JSON, Table
from keyguard.admin.exchange import Answer, answer, settled
from keyguard.admin.members import Form, text
from keyguard.admin.rights import Right
from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.json_forms import JsonObject, fields_json

NDJSON = "application/x-ndjson"
SUBJECT = text("subject", "Only entries about the key or organization of that id", longest=63)

_ENTRY = ("id", "at", "actor", "action", "subject", "organization", "before", "after")

ENDPOINTS = Table()


@ENDPOINTS.add(
    "GET",
    "/organizations/{organization}/audit",
    Right.READ_AUDIT,
    query=Form(optional=(SUBJECT, AFTER, LIMIT)),
    media_types=(*JSON, NDJSON),
    answers={200: "AuditTrail"},
)
async def list_audit(context: Context) -> Answer:
    """List an organization's audit trail, newest first."""
    organization = await context.organization()
    return await _page(context, organization.id, context.query.get(SUBJECT, None))


@ENDPOINTS.add(
    "GET",
    "/keys/{key}/audit",
    Right.READ_KEYS,
    own=True,
    query=Form(optional=(AFTER, LIMIT)),
    media_types=(*JSON, NDJSON),
    answers={200: "AuditTrail"},
)
async def list_audit_of_key(context: Context) -> Answer:
    """List the audit trail of a key, newest first."""
    key = await context.key()
    return await _page(context, key.organization, key.id)


async def _page(context: Context, organization: str, subject: str | None) -> Answer:
    page = await settled(
        context.guard.audit.list(
            organization=organization,
            subject=subject,
            after=context.query.get(AFTER, None),
            limit=context.query.get(LIMIT, 100),
        )
    )
    if context.media_type != NDJSON:
        return page_answer(page, shown_entry)
    lines = "".join(f"{json.dumps(shown_entry(entry))}\n" for entry in page)
    return answer(200, NDJSON, lines.encode(), next_link(context, page.next))


def shown_entry(entry: AuditEntry) -> JsonObject:
    """Return an entry of the audit trail as the API shows it."""
    return fields_json(entry, _ENTRY)
