"""The receipt: what a request was charged, and how that is settled or refunded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import compress, count
from typing import TypeAlias

from keyguard.core.access.bills import refusal_of
from keyguard.core.access.decisions import Allow, Deny
from keyguard.core.identity.principal import Principal
from keyguard.core.limits.charges import (
    Bill,
    Charge,
    policy_field,
)
from keyguard.core.limits.limit import check_cost
from keyguard.core.limits.ports import Counters
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError, StoreUnavailableError, shown

__all__ = [
    "Hold",
    "Part",
    "Receipt",
    "hold",
    "refund",
    "release",
    "reserve",
    "settle",
    "settle_hold",
]

_NO_LOCK = nullcontext()


@dataclass(slots=True, eq=False, repr=False)
class Part:
    """The units of a request that one bucket counted in one window.

    Args:
        number: The number of the charge that has this bucket.
        units: The units.
        ends_at: The time until which they can be refunded, on the counter's clock.
    """

    number: int
    units: int
    ends_at: float


@dataclass(slots=True, eq=False, repr=False)
class Hold:
    """The units of a receipt that an open reservation holds.

    Args:
        receipt: The receipt.
        cost: The most that the request may cost in all, other reservations aside.
        chosen: Whether each bucket is held.
        before: The units that were settled for each bucket when the reservation began.
        asked: The units that the counters are being asked for, by the number of the bucket.
    """

    receipt: Receipt
    cost: int
    chosen: list[bool]
    before: list[int]
    asked: dict[int, int] = field(default_factory=dict[int, int])

    def of(self, number: int) -> int:
        """Return the units of a bucket that are held for work that is not done yet."""
        if number >= len(self.chosen) or not self.chosen[number]:
            return 0
        return max(0, self.cost - self.before[number])

    def chosen_of_all(self) -> list[bool]:
        """Return whether each bucket is held, those of later charges included."""
        return [*self.chosen, *[False] * (len(self.receipt.charges) - len(self.chosen))]

    def begun(self) -> int:
        """Return the largest number of units settled for a bucket when the reservation began."""
        pairs = zip(self.before, self.chosen, strict=True)
        return max((before for before, is_chosen in pairs if is_chosen), default=0)


_Changes: TypeAlias = list[tuple[Part, int]]
"""Parts, and how many units each counts more."""


@dataclass(slots=True, eq=False, repr=False)
class Receipt:
    """The charges of a request so far. A settlement changes them.

    Args:
        principal: Who made the request, or None on a public path.
        charges: The charges: first those of the key, then those of the route.
        tallies: The state of each bucket, as far as this process knows it.
        policy: The value of ``RateLimit-Policy``.
        key_charges: How many of the charges come before those of the route.
        parts: The units that each bucket counted, at least one part each, the earliest first. None
            means that the charges and tallies say it: a bucket that is not enforced and had no room
            counted 0.
        counter: The number of the counter that counted all charges; None if several did.
        settled: The units that were settled for each bucket; None before the first settlement.
        lock: Lets one thread at a time read and change the receipt. No code awaits while it holds
            the lock.
        holds: The holds of open reservations; None before the first reservation.
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
    holds: list[Hold] | None = None

    def counted(self) -> list[Part]:
        """Return the units that each bucket counted, in parts."""
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

    def due(self, number: int) -> int:
        """Return the units that a bucket must still count; less than 0 for a refund.

        Settled units and held units add up.
        """
        holds = self.holds or ()
        wanted = self.done()[number] + sum(hold.of(number) for hold in holds)
        return wanted - self.paid()[number] - sum(hold.asked.get(number, 0) for hold in holds)

    def join(self, later: Receipt) -> None:
        """Add a later charge of the same request. The charges keep their numbers."""
        with self.lock:
            first = len(self.charges)
            self.parts = [
                *self.counted(),
                *(Part(first + part.number, part.units, part.ends_at) for part in later.counted()),
            ]
            self.settled = [*self.done(), *later.done()]
            self.charges = (*self.charges, *later.charges)
            self.tallies = (*self.tallies, *later.tallies)
            self.policy = f"{self.policy}, {later.policy}"
            self.key_charges += later.key_charges
            self.counter = self.counter if self.counter == later.counter else None


async def refund(counters: Counters, receipt: Receipt) -> None:
    """Refund the charges of a request, except for the work that it has settled."""
    with receipt.lock:
        pairs = zip(receipt.paid(), receipt.done(), strict=True)
        changes = _change(receipt, [min(0, done - paid) for paid, done in pairs])
        receipt.holds = None
    if any(units for _, units in changes):
        await _adjust(counters, receipt, changes)


def hold(receipt: Receipt, cost: int, names: Sequence[str]) -> Hold:
    """Begin a reservation. Reservations of one request add up.

    Args:
        receipt: The charges of the request so far.
        cost: The most that the request may cost in all, at least 1.
        names: The policies, as for :func:`settle`.

    Raises:
        InvalidValueError: The cost is not a whole number of at least 1, or the request has no
            policy of that name.
    """
    check_cost(cost)
    with receipt.lock:
        held = Hold(receipt, cost, _chosen(receipt, names), [*receipt.done()])
        if receipt.holds is None:
            receipt.holds = []
        receipt.holds.append(held)
    return held


def release(held: Hold) -> None:
    """End a reservation without a settlement, if it has not ended."""
    holds = held.receipt.holds
    with held.receipt.lock:
        if holds is not None and held in holds:
            holds.remove(held)


async def reserve(counters: Counters, allow: Allow | None, held: Hold) -> Deny | None:
    """Charge the units that a reservation holds, if there is room for them.

    Args:
        counters: The way to the counters.
        allow: The decision that let the request in, or None on a public path.
        held: The hold of the reservation. Charges of the request beyond it stay.

    Returns:
        The refusal, if a limit has no room or nothing can be counted now; then nothing is charged,
        and the reservation has ended.
    """
    receipt = held.receipt
    with receipt.lock:
        dues = enumerate(_differences(receipt, held.chosen_of_all()))
        more = {number: due for number, due in dues if due > 0}
        held.asked = more  # so that a concurrent reservation does not ask for it as well
        charges = tuple(receipt.charges[number]._replace(cost=due) for number, due in more.items())
    if not more:
        return None
    try:
        outcome = await counters.hit(charges)
    except BaseException:
        held.asked = {}
        release(held)
        raise
    if outcome is None or not outcome.admitted:
        held.asked = {}
        release(held)
        bill = Bill(charges, 0, policy_field(charges), is_enforced=True)
        return refusal_of(allow, bill, outcome)
    with receipt.lock:
        held.asked = {}
        tallies, parts = [*receipt.tallies], receipt.counted()
        for (number, due), tally in zip(more.items(), outcome.tallies, strict=True):
            tallies[number] = tally._replace(fits=True)  # the request was charged before
            if tally.fits:  # a part of its own: its window may be a later one
                parts.append(Part(number, due, tally.ends_at))
        receipt.tallies = tallies
        if outcome.counter != receipt.counter:
            receipt.counter = None
    return None


async def settle(counters: Counters, receipt: Receipt, cost: int, names: Sequence[str]) -> None:
    """Charge or refund the difference between the charges of a request and its true cost.

    Units are refunded only while their window is open, and only by the counter that counted them.
    A later refund would let the client exceed the limit.

    Args:
        counters: The way to the counters.
        receipt: The charges of the request so far.
        cost: The whole cost of the request, without the use of open reservations; 0 refunds all
            units that no reservation holds.
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
        changes = _change(receipt, _differences(receipt, chosen))
    await _settle(counters, receipt, changes)


async def settle_hold(counters: Counters, held: Hold, used: int) -> None:
    """End a reservation, and charge or refund the difference between its hold and its use.

    Args:
        counters: The way to the counters.
        held: The hold of the reservation.
        used: The units that the request used in all, without those that others settled since the
            reservation began.

    Raises:
        StoreUnavailableError: Nothing can be counted now, and ``on_limiter_error`` is ``"closed"``.
    """
    receipt = held.receipt
    with receipt.lock:
        release(held)
        chosen, done = held.chosen_of_all(), [*receipt.done()]
        for number in compress(count(), chosen):
            done[number] = max(0, used + done[number] - held.before[number])
        receipt.settled = done
        changes = _change(receipt, _differences(receipt, chosen))
    await _settle(counters, receipt, changes)


async def _settle(counters: Counters, receipt: Receipt, changes: _Changes) -> None:
    if any(units for _, units in changes) and not await _adjust(counters, receipt, changes):
        raise StoreUnavailableError(
            "the store of the limits is down, so the cost of the request could not be settled; "
            "try again later"
        )


async def _adjust(counters: Counters, receipt: Receipt, changes: _Changes) -> bool:
    """Ask the counters for changes that the receipt has noted; return whether they were made."""
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
    """Note in a receipt that buckets count more or fewer units; return the changes of its parts.

    The units that were counted last are refunded first. Each bucket has at least one change, even
    if it is of 0 units.
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
    """Note that changes were not made, except those of at least a number of units."""
    with receipt.lock:
        for part, units in changes:
            part.units -= units if least is None else max(least, units)


def _chosen(receipt: Receipt, names: Sequence[str]) -> list[bool]:
    """Return for each bucket whether the names of policies include it."""
    known = [charge.name for charge in receipt.charges]
    for name in names:
        if name not in known:
            raise InvalidValueError(
                f"the request has no limit {shown(name)}; it has: {', '.join(known) or 'none'}"
            )
    first = receipt.key_charges if receipt.key_charges < len(known) else 0
    return [name in names if names else number >= first for number, name in enumerate(known)]


def _differences(receipt: Receipt, chosen: Sequence[bool]) -> list[int]:
    """Return the units that each bucket must still count or refund."""
    pairs = enumerate(zip(chosen, receipt.tallies, strict=True))
    return [
        receipt.due(number) if is_chosen and tally.fits else 0
        for number, (is_chosen, tally) in pairs
    ]
