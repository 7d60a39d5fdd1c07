"""The ledger of the present request: charges, settlement of the cost, and refunds.

Each operation is written once, over :class:`~keyguard.core.limits.ports.Counters`. Sync code runs
it over counters that never suspend.
"""

from __future__ import annotations

from keyguard.core.access.bills import bill_of, refusal_of
from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.access.receipt import Receipt, refund
from keyguard.core.limits.charges import Bill, Outcome
from keyguard.core.limits.limit import RouteLimit
from keyguard.core.limits.ports import Counters
from keyguard.request.protection import Protection
from keyguard.request.state import RequestState
from keyguard.runtime.process import receipt_lock
from keyguard.runtime.sync import run_sync
from keyguard.stores.memory.counters import MemoryRateLimiter

__all__ = ["charge", "charge_in_memory", "charge_sync", "enter_route", "forgive"]

# These refusals are not refunded: a limit must bound requests without a key, and requests for the
# objects of others.
_NEVER_FORGIVEN = (Reason.CREDENTIALS_MISSING, Reason.OBJECT_NOT_FOUND)

_NOTHING = Outcome(False, ())  # what counts while nothing can be counted


async def charge(
    state: RequestState,
    route: tuple[RouteLimit, ...] = (),
    *,
    counters: Counters | None = None,
) -> Deny | None:
    """Charge all that a request owes, together.

    Args:
        state: The request.
        route: The limits of the route.
        counters: The way to the counters, by default the request's. Counters in memory are called
            directly.

    Returns:
        The refusal, if a limit has no room or nothing can be counted now; then nothing is charged.

    Raises:
        InvalidValueError: A limit's function returned something that is not a cost or a name.
    """
    breaker = state.guard.breaker
    if breaker.memory is not None:
        return charge_in_memory(state, breaker.memory, route)
    bill = _bill(state, route)
    if bill is None:
        return None
    return _paid(state, bill, await (counters or breaker).hit(bill.charges))


def charge_in_memory(
    state: RequestState, memory: MemoryRateLimiter, route: tuple[RouteLimit, ...] = ()
) -> Deny | None:
    """Do as :func:`charge` with counters in memory, which never wait."""
    bill = _bill(state, route)
    return None if bill is None else _paid(state, bill, memory.hit(bill.charges))


def charge_sync(state: RequestState, route: tuple[RouteLimit, ...] = ()) -> Deny | None:
    """Do as :func:`charge` in a plain function.

    Raises:
        ConfigurationError: The function runs on the event loop, and the counters live across a
            network.
    """
    memory = state.guard.breaker.memory
    if memory is not None:
        return charge_in_memory(state, memory, route)
    return run_sync(charge(state, route, counters=state.blocking_counters))


async def enter_route(state: RequestState, protection: Protection) -> Deny | None:
    """Ask for the scopes of a route; if the principal has them, charge all limits together.

    Returns:
        The refusal of a request that lacks a scope or exceeds a limit, otherwise None.
    """
    allow = state.allow
    refusal = None if allow is None else protection.refuses(allow)
    if refusal is None and state.due:
        return await charge(state, () if allow is None else protection.limits)
    return refusal


async def forgive(state: RequestState, deny: Deny) -> None:
    """Refund the charges of a request that is answered with a refusal, and count it as refused.

    Work that the request has settled stays charged, and work that it settles later is charged as
    well. Requests without a key, or for an object of another organization, get no refund.
    """
    state.due = False
    state.count_refusal(deny)
    receipt = state.receipt
    if receipt is not None and deny.reason not in _NEVER_FORGIVEN:
        state.receipt, state.forgiven, state.charged_limits = None, receipt, ()
        await refund(state.guard.breaker, receipt)


def _bill(state: RequestState, route: tuple[RouteLimit, ...]) -> Bill | None:
    if state.rule_limits:
        # A limit that the rule and the route share is charged once.
        named = {(limit.limit, limit.route) for limit in state.rule_limits} if route else ()
        others = (limit for limit in route if (limit.limit, limit.route) not in named)
        route = (*state.rule_limits, *others)
    if state.charged_limits:
        route = tuple(limit for limit in route if limit not in state.charged_limits)
    allow = state.allow
    due, state.due = state.due, False  # before any await: what is due is charged once
    bill = None if allow is None else allow.bills.get((route, due))
    if bill is None:
        try:
            bill = bill_of(allow, route, state.request, key_is_due=due)
        except BaseException:
            state.due = due  # a limit's function failed; nothing was charged
            raise
        if bill is not None:
            state.guard.breaker.counts.learn(bill.charges[bill.key_charges :])
    if bill is not None and state.cost is not None:
        bill = bill.at(state.cost)
    return bill


def _paid(state: RequestState, bill: Bill, outcome: Outcome | None) -> Deny | None:
    charges, key_charges, policy, is_enforced, cost, route, was_due = bill
    admitted, tallies, counter = _NOTHING if outcome is None else outcome
    counts, allow = state.guard.breaker.counts, state.allow
    at = 0
    for tally in tallies:
        counts[charges[at][1]][1 if tally[0] else 0] += 1
        at += 1  # noqa: SIM113 - enumerate takes half as long again, and most requests have one
    if not admitted:
        state.due = was_due
        return refusal_of(allow, bill, outcome)
    principal = None if allow is None else allow.principal
    receipt = Receipt(
        principal, charges, tallies, policy, key_charges, None, counter, None, receipt_lock
    )
    if route:
        state.charged_limits = (*state.charged_limits, *route)
    if cost > state.units:
        state.weigh(cost)
    state.adds_fields = True
    if state.receipt is None:
        state.receipt = receipt
    else:
        state.receipt.join(receipt)
    if not is_enforced and not all(tally.fits for tally in tallies):
        state.guard.report_exceeded(receipt, state.address)
    return None
