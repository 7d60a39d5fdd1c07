"""What a request was charged: the receipt, and how it is settled or refunded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.limits.charges import (
    NO_LIMITS,
    Bill,
    Charge,
    Outcome,
    in_seconds,
    policy_field,
    route_charges,
)
from keyguard.core.limits.limit import RouteLimit, check_cost
from keyguard.core.limits.ports import Counters
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError, StoreUnavailableError, shown

__all__ = ["Receipt", "bill_of", "refund", "refusal_of", "reserve", "settle"]

_MOST_BILLS = 64  # what decorates anew for each call has other limits each time


@dataclass(slots=True)
class Receipt:
    """What a request was charged so far. Settling changes it.

    Args:
        principal: Who made the request, or None on a public path.
        charges: The charges: first those of the key, then those of the route.
        tallies: How each bucket stands, as far as this process knows.
        policy: The value of ``RateLimit-Policy``.
        key_charges: How many of the charges come before those of the route.
        costs: The units charged to each bucket. A bucket without room that is not enforced was
            charged 0. None means: as the charges say.
        counter: The number of the counter that counted all charges; None if several did.
        ends: The time until which each charge can be refunded, on the counter's clock. None means:
            as the tallies say.
    """

    principal: Principal | None
    charges: tuple[Charge, ...]
    tallies: Sequence[Tally]
    policy: str
    key_charges: int
    costs: list[int] | None = None
    counter: int | None = 0
    ends: list[float] | None = None

    def paid(self) -> list[int]:
        """Return the units charged to each bucket."""
        if self.costs is None:
            pairs = zip(self.charges, self.tallies, strict=True)
            self.costs = [charge.cost if tally.fits else 0 for charge, tally in pairs]
        return self.costs

    def ending(self) -> list[float]:
        """Return the time until which each charge can be refunded."""
        if self.ends is None:
            self.ends = [tally.ends_at for tally in self.tallies]
        return self.ends

    def joined(self, later: Receipt) -> Receipt:
        """Return one receipt for this and a later charge of the same request."""
        return Receipt(
            self.principal,
            (*self.charges, *later.charges),
            (*self.tallies, *later.tallies),
            f"{self.policy}, {later.policy}",
            self.key_charges + later.key_charges,
            [*self.paid(), *later.paid()],
            self.counter if self.counter == later.counter else None,
            [*self.ending(), *later.ending()],
        )


def bill_of(
    allow: Allow | None,
    route: tuple[RouteLimit, ...],
    request: Callable[[], Request],
    *,
    key_is_due: bool,
) -> Bill | None:
    """Return what a request is charged; None for nothing.

    A bill that holds for all requests of a key is kept in the ``bills`` of the decision that lets
    them in.

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
    bill = Bill(charges, len(of_key), policy_field(charges), is_enforced, cost)
    if allow is not None and not limits.varying and all(limit.is_fixed for limit in route):
        if len(allow.bills) >= _MOST_BILLS:
            allow.bills.clear()
        allow.bills[route, key_is_due] = bill
    return bill


def refusal_of(allow: Allow | None, bill: Bill, outcome: Outcome | None) -> Deny:
    """Return the refusal of a request that could not be charged.

    Args:
        allow: The decision that let the request in, or None on a public path.
        bill: What the request was to be charged.
        outcome: The answer of the counters; None if nothing can be counted now.
    """
    principal = None if allow is None else allow.principal
    key_id, owner = (principal.key_id, principal.organization) if principal else (None, None)
    if outcome is None:
        return Deny(Reason.LIMITER_UNAVAILABLE, key_id, owner)
    tallies = tuple(outcome.tallies)
    deny = Deny(Reason.RATE_LIMITED, key_id, owner, charges=bill.charges, tallies=tallies)
    return replace(deny, retry_after=in_seconds([tally for _, tally in deny.violations()]))


async def refund(counters: Counters, receipt: Receipt) -> None:
    """Refund all that a request was charged."""
    units = [-cost for cost in receipt.paid()]
    if any(units):
        await counters.adjust(receipt.charges, units, receipt.ending(), receipt.counter)


async def reserve(
    counters: Counters, allow: Allow | None, receipt: Receipt, cost: int, names: Sequence[str]
) -> Deny | None:
    """Charge what a request may come to cost, if there is room for it.

    Args:
        counters: The way to the counters.
        allow: The decision that let the request in, or None on a public path.
        receipt: What the request was charged so far. What it was charged beyond ``cost`` stays.
        cost: The most that the request may cost in all, at least 1.
        names: The policies to charge, as for :func:`settle`.

    Returns:
        The refusal, if a limit has no room or nothing can be counted now; then nothing is charged.

    Raises:
        InvalidValueError: The cost is not a whole number of at least 1, or the request has no
            policy of that name.
    """
    check_cost(cost)
    changes = _differences(receipt, cost, names)
    more = [number for number, change in enumerate(changes) if change > 0]
    if not more:
        return None
    charges = tuple(receipt.charges[number]._replace(cost=changes[number]) for number in more)
    outcome = await counters.hit(charges)
    if outcome is None or not outcome.admitted:
        bill = Bill(charges, 0, policy_field(charges), is_enforced=True)
        return refusal_of(allow, bill, outcome)
    receipt.ending()  # a refund ends with the window that counted the first unit
    tallies = [*receipt.tallies]
    paid = receipt.paid()
    for number, tally in zip(more, outcome.tallies, strict=True):
        tallies[number] = tally._replace(fits=True)  # the request was charged before
        paid[number] += changes[number] if tally.fits else 0
    receipt.tallies = tallies
    if outcome.counter != receipt.counter:
        receipt.counter = None
    return None


async def settle(counters: Counters, receipt: Receipt, cost: int, names: Sequence[str]) -> None:
    """Charge or refund the difference between what a request was charged and what it cost.

    Units are refunded only while their window is open, and only by the counter that counted them.
    A later refund would let the client exceed the limit.

    Args:
        counters: The way to the counters.
        receipt: What the request was charged so far.
        cost: What the request costs in all; 0 refunds everything.
        names: The policies to settle. Empty means those of the route; if the route has none, all
            of the request.

    Raises:
        InvalidValueError: The cost is not a whole number of at least 0, or the request has no
            policy of that name.
        StoreUnavailableError: Nothing can be counted now, and ``on_limiter_error`` is ``"closed"``.
    """
    check_cost(cost, least=0)
    changes = _differences(receipt, cost, names)
    if not any(changes):
        return
    # The receipt changes before the counters answer, so that two settlements at the same time do
    # not refund the same units twice.
    _change(receipt, changes)
    try:
        outcome = await counters.adjust(receipt.charges, changes, receipt.ending(), receipt.counter)
    except BaseException:
        # Nobody knows whether it was counted. Further charges are still owed; refunds are not
        # made a second time.
        _change(receipt, [-max(0, change) for change in changes])
        raise
    if outcome is None:
        _change(receipt, [-change for change in changes])
        raise StoreUnavailableError(
            "the store of the limits is down, and what the request cost is not settled; "
            "try again later"
        )
    receipt.tallies = tuple(
        after._replace(fits=before.fits)
        for before, after in zip(receipt.tallies, outcome.tallies, strict=True)
    )


def _change(receipt: Receipt, changes: Sequence[int]) -> None:
    pairs = zip(receipt.paid(), changes, strict=True)
    receipt.costs = [cost + change for cost, change in pairs]


def _differences(receipt: Receipt, cost: int, names: Sequence[str]) -> list[int]:
    """Return the units that each bucket has yet to count, or to refund, for a cost."""
    known = [charge.name for charge in receipt.charges]
    for name in names:
        if name not in known:
            raise InvalidValueError(
                f"the request has no limit {shown(name)}; it has: {', '.join(known) or 'none'}"
            )
    first = receipt.key_charges if receipt.key_charges < len(known) else 0
    chosen = [
        (name in names if names else number >= first) and receipt.tallies[number].fits
        for number, name in enumerate(known)
    ]
    paid = receipt.paid()
    return [cost - before if wanted else 0 for before, wanted in zip(paid, chosen, strict=True)]
