"""The request that is being served: what an application can ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.access.receipt import Receipt, settle
from keyguard.core.identity.principal import Principal
from keyguard.core.limits.charges import LimitStatus, statuses
from keyguard.core.limits.limit import check_cost
from keyguard.exceptions import ConfigurationError
from keyguard.request.state import RequestState
from keyguard.runtime.sync import run_sync

__all__ = [
    "CURRENT_REQUEST",
    "CurrentLimits",
    "current_limits",
    "current_principal",
    "current_request",
    "require_organization",
]

CURRENT_REQUEST: ContextVar[RequestState | None] = ContextVar("keyguard_request", default=None)


class CurrentLimits:
    """The limits of the present request.

    Args:
        state: The request.
    """

    def __init__(self, state: RequestState) -> None:
        self._state = state

    def __iter__(self) -> Iterator[LimitStatus]:
        """Give how each policy stands, as far as this request has seen."""
        receipt = self._state.receipt
        return iter(statuses(receipt.charges, receipt.tallies) if receipt else ())

    async def settle(self, cost: int, *names: str) -> None:
        """Charge what the request turned out to cost; keyguard charges or refunds the difference.

        ::

            completion = await model.run(prompt)
            await current_limits().settle(completion.tokens)

        The cost is also what the request counts for in :doc:`usage <usage>`, whether or not it has
        limits. Work that is done is always charged. A limit may so fall below zero; the next
        requests wait until it has room again.

        Args:
            cost: What the request costs in all, at least 0.
            names: The policies to settle. Without names these are the limits of the route's
                ``@rate_limit``; if the route has none, all limits of the request.

        Raises:
            InvalidValueError: The cost is not a whole number of at least 0, or the request has no
                policy of that name.
            StoreUnavailableError: Nothing can be counted now, and ``on_limiter_error`` is
                ``"closed"``.
        """
        receipt = self._weighed(cost)
        if receipt is not None:
            await settle(self._state.guard.breaker, receipt, cost, names)

    async def refund(self, *names: str) -> None:
        """Refund what the request was charged; see :meth:`settle`."""
        await self.settle(0, *names)

    def settle_sync(self, cost: int, *names: str) -> None:
        """Do as :meth:`settle` in sync code."""
        receipt = self._weighed(cost)
        if receipt is not None:
            run_sync(settle(self._state.blocking_counters, receipt, cost, names))

    def refund_sync(self, *names: str) -> None:
        """Do as :meth:`refund` in sync code."""
        self.settle_sync(0, *names)

    def _weighed(self, cost: int) -> Receipt | None:
        """Note what the request cost, for usage, and return what it was charged."""
        check_cost(cost, least=0)
        self._state.weigh(cost)
        return self._state.receipt


def current_request() -> RequestState:
    """Return the state of the present request.

    Raises:
        ConfigurationError: No keyguard middleware is underneath; nothing is let through.
    """
    state = CURRENT_REQUEST.get()
    if state is None:
        raise ConfigurationError(
            "no keyguard middleware is underneath this call: wrap the application in "
            "KeyguardMiddleware or FlaskKeyguard"
        )
    return state


def current_principal() -> Principal:
    """Return who made the present request.

    Raises:
        AccessDenied: The path is public, and nobody was asked for a key; the client gets 401.
        ConfigurationError: No keyguard middleware is underneath.
    """
    return current_request().admitted(optional=True).principal


def current_limits() -> CurrentLimits:
    """Return the limits of the present request, to see how they stand or to settle its cost.

    Raises:
        ConfigurationError: No keyguard middleware is underneath.
    """
    return CurrentLimits(current_request())


def require_organization(organization: str | None) -> None:
    """Refuse the present request unless an object belongs to its organization.

    The client gets the same 404 for an object of another organization as for one that does not
    exist (OWASP API1: broken object level authorization)::

        report = reports.get(report_id)
        require_organization(report and report.organization)

    Args:
        organization: Id of the organization that owns the object; None if there is no object.

    Raises:
        AccessDenied: The object does not belong to the caller's organization, or does not exist;
            the client gets 404.
        ConfigurationError: No keyguard middleware is underneath.
    """
    state = current_request()
    principal = state.admitted().principal
    if organization != principal.organization:
        raise state.refuse(Deny(Reason.OBJECT_NOT_FOUND, principal.key_id, principal.organization))
