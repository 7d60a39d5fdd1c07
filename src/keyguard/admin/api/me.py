"""Who calls, and what it may do."""

from __future__ import annotations

from keyguard.admin.context import Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, json_answer
from keyguard.admin.rights import rights_anywhere
from keyguard.core.management.json_forms import limit_status_json

ENDPOINTS = Table()


@ENDPOINTS.add("GET", "/me", answers={200: "Caller"})
async def show_caller(context: Context) -> Answer:
    """Tell who the caller is, and what it may do."""
    rights = sorted(right.value for right in rights_anywhere(context.caller))
    person, principal = context.person, context.principal
    content: dict[str, object] = {"kind": "person" if principal is None else "key", "may": rights}
    if person is not None:
        content |= {
            "id": person.id,
            "name": person.name,
            "operator": person.operator,
            "roles": dict(person.roles),
        }
    if principal is not None:
        statuses = await context.management.keys.limits(principal.key_id)
        content |= {
            "id": principal.key_id,
            "organization": principal.organization,
            "scopes": sorted(principal.scopes),
            "limits": [limit_status_json(status) for status in statuses],
        }
    return json_answer(200, content)
