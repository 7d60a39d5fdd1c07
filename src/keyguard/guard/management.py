"""What the console and the management API ask a guard for, in one form for both flavours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyguard.core.access.authenticate import count_failure, judge, refuse_blocked
from keyguard.core.access.decisions import Decision, Deny, Reason
from keyguard.core.management.audit_trail import AsyncAuditTrail
from keyguard.core.management.keys import AsyncKeys
from keyguard.core.management.organizations import AsyncOrganizations
from keyguard.core.management.request_parties import is_ticket_of
from keyguard.core.management.requests import AsyncRequests
from keyguard.core.management.temporary import Temporaries
from keyguard.core.management.usage import AsyncUsage
from keyguard.core.tokens.secret import Secret

if TYPE_CHECKING:
    from keyguard.guard.async_ports import AsyncPorts
    from keyguard.guard.sync_ports import SyncPorts


class Management:
    """The operations of a guard as coroutines. Over a guard for sync code nothing in them suspends.

    Args:
        ports: The guard's ports.
        report: Tells the guard's hooks of a refusal.
    """

    def __init__(self, ports: SyncPorts | AsyncPorts, report: Callable[..., None]) -> None:
        self._ports, self._report = ports, report
        self.keys = AsyncKeys(ports)
        self.organizations = AsyncOrganizations(ports)
        self.requests = AsyncRequests(ports)
        self.audit = AsyncAuditTrail(ports)
        self.temporary = Temporaries(ports)
        self.usage = AsyncUsage(ports)

    async def decide_by_id(self, key_id: str, *, address: str | None) -> Decision:
        """Decide, by the present record of its key, on a session that began with the token.

        Args:
            key_id: The key's id.
            address: The client's address, where it is known.

        Raises:
            StoreError: The key store failed.
        """
        record = await self._ports.store.find_key(key_id)
        if record is None:
            return Deny(Reason.KEY_UNKNOWN, key_id)
        return judge(record, self._ports.now(), self._ports.policy, address)

    async def refuse_ticket(
        self, request_id: str, ticket: Secret, *, address: str | None
    ) -> Deny | None:
        """Refuse a ticket that does not belong to the request, or a client that is blocked.

        A wrong ticket counts as a failed attempt of the client, like a wrong token.

        Args:
            request_id: The request's id, as the client sent it.
            ticket: The ticket.
            address: The client's address, where it is known.

        Returns:
            The refusal; None if the ticket belongs to the request.

        Raises:
            StoreError: The key store failed.
        """
        refusal = refuse_blocked(self._ports, address)
        if refusal is None:
            if await is_ticket_of(self._ports.for_request(), request_id, ticket):
                return None
            refusal = await count_failure(self._ports, Deny(Reason.OBJECT_NOT_FOUND), address)
        self._report(refusal, address=address)
        return refusal
