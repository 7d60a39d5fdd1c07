"""Bills: the charges of a request, and the refusal of a request that can't be charged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.identity.principal import Request
from keyguard.core.limits.charges import (
    NO_LIMITS,
    Bill,
    Outcome,
    in_seconds,
    policy_field,
    route_charges,
)
from keyguard.core.limits.limit import RouteLimit

__all__ = ["bill_of", "refusal_of"]

_MOST_BILLS = 64  # a decorator that is applied at each call makes new limits each time


def bill_of(
    allow: Allow | None,
    route: tuple[RouteLimit, ...],
    request: Callable[[], Request],
    *,
    key_is_due: bool,
) -> Bill | None:
    """Return the bill of a request; None if it is charged nothing.

    A bill that is the same for all requests of a key is kept in the ``bills`` of their ``Allow``.

    Args:
        allow: The decision that let the request in, or None on a public path.
        route: The limits of the route.
        request: Returns the request; called only if a limit depends on it.
        key_is_due: Whether the limits of the key are charged as well; they come first.

    Raises:
        InvalidValueError: A limit's function returned something that is not a cost or a name.
    """
    principal = None if allow is None else allow.principal
    limits = allow.limits if key_is_due and allow is not None else NO_LIMITS
    of_key = limits.charges if principal is None else limits.of_request(principal, request)
    rates = None if allow is None else allow.rates
    charges = (*of_key, *route_charges(route, principal, request, rates))
    if not charges:
        return None
    is_enforced = all(charge.enforce for charge in charges)
    cost = max((charge.cost for charge in charges), default=1)
    policy = policy_field(charges)
    bill = Bill(charges, len(of_key), policy, is_enforced, cost, route, key_is_due)
    if allow is not None and not limits.varying and all(limit.is_fixed for limit in route):
        if len(allow.bills) >= _MOST_BILLS:
            allow.bills.clear()
        allow.bills[route, key_is_due] = bill
    return bill


def refusal_of(allow: Allow | None, bill: Bill, outcome: Outcome | None) -> Deny:
    """Return the refusal of a request that could not be charged.

    Args:
        allow: The decision that let the request in, or None on a public path.
        bill: The bill that could not be charged.
        outcome: The answer of the counters; None if nothing can be counted now.
    """
    principal = None if allow is None else allow.principal
    key_id, owner = (principal.key_id, principal.organization) if principal else (None, None)
    if outcome is None:
        return Deny(Reason.LIMITER_UNAVAILABLE, key_id, owner)
    tallies = tuple(outcome.tallies)
    deny = Deny(Reason.RATE_LIMITED, key_id, owner, charges=bill.charges, tallies=tallies)
    return replace(deny, retry_after=in_seconds([tally for _, tally in deny.violations()]))
