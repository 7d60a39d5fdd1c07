"""How a request is charged: all its limits together, once it may do what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from keyguard.exceptions import BackendUnavailableError, InvalidValueError
from keyguard.sansio.charges import Charge, Outcome, in_seconds, policy_field, route_charges
from keyguard.sansio.decisions import Allow, Deny, Reason
from keyguard.sansio.effects import AdjustLimits, Flow
from keyguard.sansio.limits import RouteLimit, Strategy, check_cost
from keyguard.sansio.requests import Principal, Request
from keyguard.sansio.windows import Tally

__all__ = ["ORIGIN", "Charged", "Moment", "charges_of", "conclude", "give_back", "settle"]


class Moment(NamedTuple):
    """When something was charged, and who counted it.

    Args:
        at: Seconds on the monotonic clock.
        counter: Which of the outages of the limiter it was in, or between; in each another one
            counts, the store or this process.
    """

    at: float
    counter: int


ORIGIN = Moment(0.0, 0)


@dataclass(slots=True)
class Charged:
    """What a request was charged so far. It changes when it is settled.

    Args:
        principal: Whose the request is, or None on a public path.
        charges: Its charges, first those of the key, then those of the route.
        tallies: How each bucket stands, as far as it is known here.
        policy: The value of ``RateLimit-Policy``.
        own: How many of the charges are not the route's.
        costs: What each was charged, 0 for one that had no room and is not enforced; None for what
            the charges say.
        moment: When it was charged, and by whom.
    """

    principal: Principal | None
    charges: tuple[Charge, ...]
    tallies: Sequence[Tally]
    policy: str
    own: int
    costs: list[int] | None = None
    moment: Moment = ORIGIN

    def paid(self) -> list[int]:
        """Return what each was charged."""
        if self.costs is None:
            pairs = zip(self.charges, self.tallies, strict=True)
            self.costs = [charge.cost if tally.fits else 0 for charge, tally in pairs]
        return self.costs

    def joined(self, later: Charged) -> Charged:
        """Return this and what was charged later, as one."""
        return Charged(
            self.principal,
            (*self.charges, *later.charges),
            (*self.tallies, *later.tallies),
            f"{self.policy}, {later.policy}",
            self.own + later.own,
            [*self.paid(), *later.paid()],
            min(self.moment, later.moment),
        )


def charges_of(
    allow: Allow | None,
    route: Sequence[RouteLimit],
    request: Callable[[], Request],
    *,
    own: bool,
) -> tuple[tuple[Charge, ...], int]:
    """Return what a request is to be charged, and how much of it is not the route's.

    Args:
        allow: Who it is, or None on a public path.
        route: The limits of its route.
        request: Returns it; called only where a limit depends on it.
        own: Whether the limits of its key are due as well; they come first.

    Raises:
        InvalidValueError: A limit's function returned what is no cost or no name.
    """
    charges: tuple[Charge, ...] = ()
    if own and allow is not None:
        limits = allow.limits
        charges = limits.charges
        if limits.varying:
            charges = limits.of_request(allow.principal, request)
    count = len(charges)
    if route:
        principal = None if allow is None else allow.principal
        charges = (*charges, *route_charges(route, principal, request))
    return charges, count


def conclude(
    allow: Allow | None, charges: tuple[Charge, ...], own: int, outcome: Outcome | None
) -> Charged | Deny:
    """Return what a request was charged, or its refusal.

    Args:
        allow: Who it is, or None on a public path.
        charges: What it was to be charged.
        own: How many of the charges are not the route's.
        outcome: What the limiter answered; None where it can't be counted and that must not pass.
    """
    principal = None if allow is None else allow.principal
    if outcome is not None and outcome.admitted:
        if allow is not None and charges is allow.limits.charges:
            return Charged(principal, charges, outcome.tallies, allow.limits.policy, own)
        return Charged(principal, charges, outcome.tallies, policy_field(charges), own)
    key_id, owner = (principal.key_id, principal.organization) if principal else (None, None)
    if outcome is None:
        return Deny(Reason.LIMITER_UNAVAILABLE, key_id, owner)
    tallies = tuple(outcome.tallies)
    deny = Deny(Reason.RATE_LIMITED, key_id, owner, charges=charges, tallies=tallies)
    return replace(deny, retry_after=in_seconds([tally for _, tally in deny.violations()]))


def give_back(charged: Charged) -> Flow[None]:
    """Give back all that a request was charged, as it was refused after all.

    Args:
        charged: What it was charged.
    """
    yield from AdjustLimits(charged.charges, [-cost for cost in charged.paid()])


def settle(charged: Charged, cost: int, names: Sequence[str], now: Moment) -> Flow[None]:
    """Charge what a request turned out to cost: the difference is charged, or given back.

    Given back is only what the charge still takes of the present window: what has ended by itself
    would else be credit for more than the limit admits.

    Args:
        charged: What it was charged so far.
        cost: What it is to be charged in all; 0 gives everything back.
        names: The policies that this is for. None are those of the route, or where it has none,
            all of the request.
        now: The present moment.

    Raises:
        InvalidValueError: The cost is none, or there is no such policy.
        BackendUnavailableError: It can't be counted now, and ``on_limiter_error`` is ``"closed"``.
    """
    check_cost(cost, least=0)
    known = [one.name for one in charged.charges]
    for name in names:
        if name not in known:
            raise InvalidValueError(
                f"the request has no limit {name!r}; it has: {', '.join(known) or 'none'}"
            )
    first = charged.own if charged.own < len(known) else 0
    chosen = [
        (name in names if names else number >= first) and charged.tallies[number].fits
        for number, name in enumerate(known)
    ]
    paid = charged.paid()
    changes = [cost - before if wanted else 0 for before, wanted in zip(paid, chosen, strict=True)]
    if not any(changes):
        return
    # Before it is asked, so that another one at the same time does not give it back again.
    charged.costs = [before + change for before, change in zip(paid, changes, strict=True)]
    units = [
        change if change > 0 else -_still_taken(-change, charge, tally, charged.moment, now)
        for change, charge, tally in zip(changes, charged.charges, charged.tallies, strict=True)
    ]
    if not any(units):
        return
    outcome = yield from AdjustLimits(charged.charges, units)
    if outcome is None:
        charged.costs = [now - change for now, change in zip(charged.paid(), changes, strict=True)]
        raise BackendUnavailableError(
            "the store of the limits is down, and what the request cost is not settled; "
            "try again later"
        )
    charged.tallies = tuple(
        after._replace(fits=before.fits)
        for before, after in zip(charged.tallies, outcome.tallies, strict=True)
    )


def _still_taken(units: int, charge: Charge, tally: Tally, then: Moment, now: Moment) -> int:
    """Return how much of some units a bucket still counts, at the least."""
    age = now.at - then.at
    if now.counter != then.counter or age < 0:
        return 0  # another one counts now
    if charge.strategy is Strategy.MOVING_WINDOW:
        return units if age < charge.window else 0
    if charge.strategy is Strategy.FIXED_WINDOW:
        return units if age < tally.reset_after else 0
    # Where in its window it was charged is not known here. At the latest, at its end: then it has
    # slid out evenly since.
    return ceil(units * max(0.0, 1 - age / charge.window))
