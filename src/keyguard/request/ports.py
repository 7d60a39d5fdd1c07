"""The part of a guard that the state of a request calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # answers are made where requests come from
    from keyguard.core.access.answers import Response
    from keyguard.core.access.decisions import Deny
    from keyguard.core.access.receipt import Receipt
    from keyguard.core.identity.principal import Principal
    from keyguard.freshness.usage_counts import UsageCounts
    from keyguard.runtime.events import RequestLine
    from keyguard.stores.failover import CircuitBreaker

__all__ = ["RequestGuard"]


class RequestGuard(Protocol):
    """The guard of a request, of either flavour."""

    @property
    def breaker(self) -> CircuitBreaker:
        """The counters, behind their circuit breaker."""
        ...

    @property
    def counts(self) -> UsageCounts:
        """The counts of requests."""
        ...

    def respond(self, deny: Deny) -> Response:
        """Return the answer that a refused client gets."""
        ...

    def limit_fields(self, receipt: Receipt) -> list[tuple[str, str]]:
        """Return the fields that tell a client that was let in the state of its limits."""
        ...

    def encoded_limit_fields(self, receipt: Receipt) -> list[tuple[bytes, bytes]]:
        """Return the fields of :meth:`limit_fields` as ASGI takes them."""
        ...

    @property
    def tells_answers(self) -> bool:
        """Whether a hook subscribes to the answers to requests that were let in."""
        ...

    def tell_answer(
        self, request: RequestLine, status: int, principal: Principal | None, address: str | None
    ) -> None:
        """Report to the hooks that the application answers a request that was let in."""

    def report(
        self, deny: Deny, *, address: str | None = None, request: RequestLine | None = None
    ) -> None:
        """Report a refusal to the hooks."""

    def report_exceeded(self, receipt: Receipt, address: str | None) -> None:
        """Report to the hooks which limits in shadow mode had no room."""
