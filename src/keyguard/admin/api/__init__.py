"""The endpoints of the management API: a module for each subject, and all of them joined."""

from __future__ import annotations

from keyguard.admin.api import (
    audit,
    bulk,
    check,
    keys,
    me,
    organizations,
    requests,
    usage,
)
from keyguard.admin.api.document import document
from keyguard.admin.context import Context, Endpoint
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, json_answer

_DOCUMENT = Table()


@_DOCUMENT.add("GET", "/openapi.json", answers={200: "Document"})
async def show_document(context: Context) -> Answer:
    """Return this API as an OpenAPI document."""
    return json_answer(200, document(ENDPOINTS, context.base))


ENDPOINTS: tuple[Endpoint, ...] = (
    *me.ENDPOINTS,
    *organizations.ENDPOINTS,
    *keys.ENDPOINTS,
    *bulk.ENDPOINTS,
    *audit.ENDPOINTS,
    *usage.ENDPOINTS,
    *check.ENDPOINTS,
    *requests.ENDPOINTS,
    *_DOCUMENT,
)
