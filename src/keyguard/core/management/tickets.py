"""Whether a ticket is the one of a request for a key."""

from __future__ import annotations

from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.requests import TICKETS
from keyguard.core.tokens.secret import Secret


async def fits(ports: ManagementPorts, request_id: str, ticket: Secret) -> bool:
    """Tell whether a ticket is a request's. One that names another request asks no store.

    Args:
        ports: The outside.
        request_id: What the caller says is the request's id.
        ticket: What the caller says is its ticket.

    Raises:
        StoreError: The key store failed.
    """
    parts = TICKETS.parse(ticket.reveal())
    named = parts is not None and f"req_{parts.key_id}" == request_id
    del parts  # a traceback that passes here must not show it
    if not named:
        return False
    record = await ports.store.find_request(request_id)
    return await ports.verify(ticket, None if record is None else record.digest) is True
