"""How a request is charged: all its limits together, once it may do what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.limits.charges import Charge, Outcome, in_seconds, policy_field, route_charges
from keyguard.core.limits.limit import RouteLimit, check_cost
from keyguard.core.limits.ports import Counters
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError, StoreUnavailableError

__all__ = ["Charged", "charges_of", "conclude", "give_back", "settle"]


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
        counter: Who counted all of it; None where they were several.
        ends: Until when each can be given back, on the counter's clock; None for what the tallies
            say.
    """

    principal: Principal | None
    charges: tuple[Charge, ...]
    tallies: Sequence[Tally]
    policy: str
    own: int
    costs: list[int] | None = None
    counter: int | None = 0
    ends: list[float] | None = None

    def paid(self) -> list[int]:
        """Return what each was charged."""
        if self.costs is None:
            pairs = zip(self.charges, self.tallies, strict=True)
            self.costs = [charge.cost if tally.fits else 0 for charge, tally in pairs]
        return self.costs

    def ending(self) -> list[float]:
        """Return until when each can be given back."""
        if self.ends is None:
            self.ends = [tally.ends_at for tally in self.tallies]
        return self.ends

    def joined(self, later: Charged) -> Charged:
        """Return this and what was charged later, as one."""
        return Charged(
            self.principal,
            (*self.charges, *later.charges),
            (*self.tallies, *later.tallies),
            f"{self.policy}, {later.policy}",
            self.own + later.own,
            [*self.paid(), *later.paid()],
            self.counter if self.counter == later.counter else None,
            [*self.ending(), *later.ending()],
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
    allow: Allow | None,
    charges: tuple[Charge, ...],
    own: int,
    outcome: Outcome | None,
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
        is_known = allow is not None and charges is allow.limits.charges
        policy = allow.limits.policy if allow is not None and is_known else policy_field(charges)
        return Charged(principal, charges, outcome.tallies, policy, own, None, outcome.counter)
    key_id, owner = (principal.key_id, principal.organization) if principal else (None, None)
    if outcome is None:
        return Deny(Reason.LIMITER_UNAVAILABLE, key_id, owner)
    tallies = tuple(outcome.tallies)
    deny = Deny(Reason.RATE_LIMITED, key_id, owner, charges=charges, tallies=tallies)
    return replace(deny, retry_after=in_seconds([tally for _, tally in deny.violations()]))


async def give_back(counters: Counters, charged: Charged) -> None:
    """Give back all that a request was charged, as it was refused after all.

    Args:
        counters: The counters.
        charged: What it was charged.
    """
    units = [-cost for cost in charged.paid()]
    if any(units):
        await counters.adjust(charged.charges, units, charged.ending(), charged.counter)


async def settle(counters: Counters, charged: Charged, cost: int, names: Sequence[str]) -> None:
    """Charge what a request turned out to cost: the difference is charged, or given back.

    Given back is only what still takes as much of the present window, and where it was counted: the
    rest would be credit for more than the limit admits.

    Args:
        counters: The counters.
        charged: What it was charged so far.
        cost: What it is to be charged in all; 0 gives everything back.
        names: The policies that this is for. None are those of the route, or where it has none,
            all of the request.

    Raises:
        InvalidValueError: The cost is none, or there is no such policy.
        StoreUnavailableError: It can't be counted now, and ``on_limiter_error`` is ``"closed"``.
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
    _note(charged, changes)
    ends_at = charged.ending()
    try:
        outcome = await counters.adjust(charged.charges, changes, ends_at, charged.counter)
    except BaseException:
        # Whether it was counted is not known: what was to be charged more is owed still, and what
        # was to be given back is not given back again.
        _note(charged, [-max(0, change) for change in changes])
        raise
    if outcome is None:
        _note(charged, [-change for change in changes])
        raise StoreUnavailableError(
            "the store of the limits is down, and what the request cost is not settled; "
            "try again later"
        )
    charged.tallies = tuple(
        after._replace(fits=before.fits)
        for before, after in zip(charged.tallies, outcome.tallies, strict=True)
    )


def _note(charged: Charged, changes: Sequence[int]) -> None:
    pairs = zip(charged.paid(), changes, strict=True)
    charged.costs = [cost + change for cost, change in pairs]
