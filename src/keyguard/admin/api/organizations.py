"""Organizations over HTTP."""

from __future__ import annotations

from keyguard.admin.context import Context
from keyguard.admin.endpoints import Endpoint
from keyguard.admin.exchange import Answer, json_answer
from keyguard.admin.rights import Right
from keyguard.core.keys.json_forms import organization_json
from keyguard.core.keys.records import Organization


async def show_organization(context: Context) -> Answer:
    """Return an organization."""
    return shown(await context.organization())


def shown(organization: Organization) -> Answer:
    """Return an organization with its version."""
    return json_answer(
        200, organization_json(organization), [("ETag", f'"{organization.version}"')]
    )


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/organizations/{organization}",
        handler=show_organization,
        summary="Return an organization",
        right=Right.READ_ORGANIZATION,
        answers={200: "Organization"},
    ),
)
