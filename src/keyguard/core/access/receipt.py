"""What a request was charged: the receipt, and how it is settled or refunded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

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

__all__ = [
    "Part",
    "Receipt",
    "bill_of",
    "refund",
    "refusal_of",
    "reserve",
    "settle",
    "settled_before",
]

_MOST_BILLS = 64  # what decorates anew for each call has other limits each time
_NO_LOCK = nullcontext()


@dataclass(slots=True)
class Part:
    """The units of a request that one bucket counted in one window.

    Args:
        number: The number of the charge whose bucket it is.
        units: The units.
        ends_at: The time until which they can be refunded, on the counter's clock.
    """

    number: int
    units: int
    ends_at: float


_Changes: TypeAlias = list[tuple[Part, int]]
"""Parts, and how many units each counts more."""


@dataclass(slots=True)
class Receipt:
    """What a request was charged so far. Settling changes it.

    Args:
        principal: Who made the request, or None on a public path.
        charges: The charges: first those of the key, then those of the route.
        tallies: How each bucket stands, as far as this process knows.
        policy: The value of ``RateLimit-Policy``.
        key_charges: How many of the charges come before those of the route.
        parts: What each bucket counted, at least one part each, the earliest first. None means: as
            the charges and tallies say. A bucket without room that is not enforced counted 0.
        counter: The number of the counter that counted all charges; None if several did.
        settled: The units that were settled for each bucket; None as long as nothing is settled.
        lock: What lets one thread at a time read and change the receipt. Nothing is awaited in it.
    """

    principal: Principal | None
    charges: tuple[Charge, ...]
    tallies: Sequence[Tally]
    policy: str
    key_charges: int
    parts: list[Part] | None = None
    counter: int | None = 0
    settled: list[int] | None = None
    lock: AbstractContextManager[object] = _NO_LOCK

    def counted(self) -> list[Part]:
        """Return what each bucket counted."""
        if self.parts is None:
            self.parts = [
                Part(number, charge.cost if tally.fits else 0, tally.ends_at)
                for number, (charge, tally) in enumerate(
                    zip(self.charges, self.tallies, strict=True)
                )
            ]
        return self.parts

    def paid(self) -> list[int]:
        """Return the units charged to each bucket."""
        units = [0] * len(self.charges)
        for part in self.counted():
            units[part.number] += part.units
        return units

    def done(self) -> list[int]:
        """Return the units that were settled for each bucket: the work that is done."""
        return [0] * len(self.charges) if self.settled is None else self.settled

    def joined(self, later: Receipt) -> Receipt:
        """Return one receipt for this and a later charge of the same request."""
        first = len(self.charges)
        return Receipt(
            self.principal,
            (*self.charges, *later.charges),
            (*self.tallies, *later.tallies),
            f"{self.policy}, {later.policy}",
            self.key_charges + later.key_charges,
            [
                *self.counted(),
                *(Part(first + part.number, part.units, part.ends_at) for part in later.counted()),
            ],
            self.counter if self.counter == later.counter else None,
            [*self.done(), *later.done()],
            self.lock,
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
    """Refund what a request was charged, but not the work that it has settled."""
    with receipt.lock:
        pairs = zip(receipt.paid(), receipt.done(), strict=True)
        changes = _change(receipt, [min(0, done - paid) for paid, done in pairs])
    if any(units for _, units in changes):
        await _adjust(counters, receipt, changes)


def settled_before(receipt: Receipt, names: Sequence[str]) -> int:
    """Return the most that a request has settled so far for the policies that are named.

    Args:
        receipt: What the request was charged so far.
        names: The policies, as for :func:`settle`.

    Raises:
        InvalidValueError: The request has no policy of that name.
    """
    pairs = zip(receipt.done(), _chosen(receipt, names), strict=True)
    return max((done for done, wanted in pairs if wanted), default=0)


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
    changes = _differences(receipt, cost, _chosen(receipt, names))
    more = [number for number, change in enumerate(changes) if change > 0]
    if not more:
        return None
    charges = tuple(receipt.charges[number]._replace(cost=changes[number]) for number in more)
    outcome = await counters.hit(charges)
    if outcome is None or not outcome.admitted:
        bill = Bill(charges, 0, policy_field(charges), is_enforced=True)
        return refusal_of(allow, bill, outcome)
    with receipt.lock:
        tallies, parts = [*receipt.tallies], receipt.counted()
        for number, tally in zip(more, outcome.tallies, strict=True):
            tallies[number] = tally._replace(fits=True)  # the request was charged before
            if tally.fits:  # a part of its own: its window may be a later one
                parts.append(Part(number, changes[number], tally.ends_at))
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
    # The receipt changes before the counters answer, so that two settlements at the same time do
    # not refund the same units twice.
    with receipt.lock:
        chosen = _chosen(receipt, names)
        pairs = zip(receipt.done(), chosen, strict=True)
        receipt.settled = [cost if wanted else done for done, wanted in pairs]
        changes = _change(receipt, _differences(receipt, cost, chosen))
    if any(units for _, units in changes) and not await _adjust(counters, receipt, changes):
        raise StoreUnavailableError(
            "the store of the limits is down, and what the request cost is not settled; "
            "try again later"
        )


async def _adjust(counters: Counters, receipt: Receipt, changes: _Changes) -> bool:
    """Ask the counters for changes that the receipt has noted; tell whether they were made."""
    try:
        outcome = await counters.adjust(
            [receipt.charges[part.number] for part, _ in changes],
            [units for _, units in changes],
            [part.ends_at for part, _ in changes],
            receipt.counter,
        )
    except BaseException:
        # Nobody knows whether it was counted. Further charges are still owed; refunds are not
        # made a second time.
        _take_back(receipt, changes, least=0)
        raise
    if outcome is None:
        _take_back(receipt, changes)
        return False
    tallies = [*receipt.tallies]
    for (part, _), after in zip(changes, outcome.tallies, strict=True):
        tallies[part.number] = after._replace(fits=tallies[part.number].fits)
    receipt.tallies = tallies
    return True


def _change(receipt: Receipt, differences: Sequence[int]) -> _Changes:
    """Note in a receipt that buckets count more or less, and return the changes of its parts.

    What is refunded was counted last. Each bucket has at least one change, though it be of 0 units.
    """
    changes: _Changes = []
    for number, more in enumerate(differences):
        parts = [part for part in receipt.counted() if part.number == number]
        changes.append((parts[-1], max(more, -parts[-1].units)))
        rest = more - changes[-1][1]
        for part in reversed(parts[:-1]):
            if rest:
                changes.append((part, max(rest, -part.units)))
                rest -= changes[-1][1]
    for part, units in changes:
        part.units += units
    return changes


def _take_back(receipt: Receipt, changes: _Changes, least: int | None = None) -> None:
    """Note that changes were not made, or only those of at least so many units."""
    with receipt.lock:
        for part, units in changes:
            part.units -= units if least is None else max(least, units)


def _chosen(receipt: Receipt, names: Sequence[str]) -> list[bool]:
    """Return whether each bucket is meant by the names of policies."""
    known = [charge.name for charge in receipt.charges]
    for name in names:
        if name not in known:
            raise InvalidValueError(
                f"the request has no limit {shown(name)}; it has: {', '.join(known) or 'none'}"
            )
    first = receipt.key_charges if receipt.key_charges < len(known) else 0
    return [name in names if names else number >= first for number, name in enumerate(known)]


def _differences(receipt: Receipt, cost: int, chosen: Sequence[bool]) -> list[int]:
    """Return the units that each bucket has yet to count, or to refund, for a cost."""
    wanted = zip(chosen, receipt.paid(), receipt.tallies, strict=True)
    return [cost - paid if is_chosen and tally.fits else 0 for is_chosen, paid, tally in wanted]
