"""The audit trail over HTTP, as JSON or a line for each entry."""

from __future__ import annotations

import json
from typing import Any

from keyguard.admin.api.forms import AFTER, LIMIT
from keyguard.admin.api.shown import next_link, page_answer
from keyguard.admin.context import JSON, Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, answer
from keyguard.admin.members import Form, text
from keyguard.admin.rights import Right
from keyguard.core.management.json_forms import entry_json

NDJSON = "application/x-ndjson"
SUBJECT = text("subject", "Only entries about the key or organization of that id", longest=63)

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
    return await _page(context, organization=organization.id)


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
    return await _page(context, organization=key.organization, subject=key.id)


async def _page(context: Context, **about: Any) -> Answer:
    page = await context.management.audit.list(**about, **context.query.given())
    if context.media_type != NDJSON:
        return page_answer(page, entry_json)
    lines = "".join(f"{json.dumps(entry_json(entry))}\n" for entry in page)
    return answer(200, NDJSON, lines.encode(), next_link(context, page.next))
