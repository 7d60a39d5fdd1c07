"""Charges: the buckets that count a request, and the units that each counts.

A charge is one rate of one limit, applied to one request. All charges of a request are tested and
counted together, or none is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import ceil
from typing import NamedTuple

from keyguard.core.identity.addresses import client_of
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.limits.limit import Limit, RouteLimit, Strategy, merged
from keyguard.core.limits.plans import on_plan_anyhow
from keyguard.core.limits.windows import Tally
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError

__all__ = [
    "NO_LIMITS",
    "AppliedLimits",
    "Bill",
    "Charge",
    "LimitStatus",
    "Outcome",
    "failure_charges",
    "in_seconds",
    "policy_field",
    "route_charges",
    "statuses",
]

LONGEST_BUCKET = 255
_LONGEST_PART = 100
_RESERVED = re.compile(rb"[^A-Za-z0-9._~-]")
_STRATEGIES = {
    Strategy.SLIDING_WINDOW_COUNTER: "s",
    Strategy.FIXED_WINDOW: "f",
    Strategy.MOVING_WINDOW: "m",
}


class Charge(NamedTuple):
    """One rate of one limit, for one request.

    Args:
        key: The bucket's name in the store: ``keyguard:{owner}:...``, at most 255 ASCII characters.
            Different parts give different names, and one slot of a Redis cluster holds all buckets
            of one owner.
        name: The policy's name, which clients see.
        amount: The units that the window admits.
        window: The length of the window in seconds.
        strategy: How the bucket counts.
        enforce: Whether the policy can refuse. If not, it counts only what it has room for.
        cost: The units that the request counts for.
    """

    key: str
    name: str
    amount: int
    window: int
    strategy: Strategy
    enforce: bool
    cost: int


class Outcome(NamedTuple):
    """The answer of a store of counters.

    Args:
        admitted: Whether every enforced charge had room. If so, all charges with room were
            counted; if not, none was.
        tallies: The state of each bucket afterwards, in the order of the charges.
        counter: The number of the counter that counted; only this counter can refund. The circuit
            breaker numbers the counters. The store gets a new number after each outage, and so does
            its stand-in.
    """

    admitted: bool
    tallies: Sequence[Tally]
    counter: int = 0


class Bill(NamedTuple):
    """The charges of a request that are known before it is counted.

    Args:
        charges: The charges: first those of the key, then those of the route.
        key_charges: How many of them come before those of the route.
        policy: The value of ``RateLimit-Policy``.
        is_enforced: Whether each of them can refuse. Then a request that is admitted had room in
            all.
        cost: The largest cost of one of the charges, in units.
        route: The limits of the route that are charged.
        key_is_due: Whether the limits of the key are charged as well.
    """

    charges: tuple[Charge, ...]
    key_charges: int
    policy: str
    is_enforced: bool
    cost: int = 1
    route: tuple[RouteLimit, ...] = ()
    key_is_due: bool = False

    def at(self, cost: int) -> Bill:
        """Return the bill with another cost: in the route's charges or, if it has none, in all."""
        first = self.key_charges if self.key_charges < len(self.charges) else 0
        charges = (
            *self.charges[:first],
            *(charge._replace(cost=cost) for charge in self.charges[first:]),
        )
        return self._replace(charges=charges, cost=cost)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LimitStatus(Value):
    """The state of one policy.

    Args:
        name: The policy's name.
        quota: The units that the window admits.
        window: The length of the window in seconds.
        remaining: The units for which there is still room.
        reset_after: Seconds until there is room for more.
        enforce: Whether the policy can refuse.
    """

    name: str
    quota: int
    window: int
    remaining: int
    reset_after: float
    enforce: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AppliedLimits(Value):
    """The limits that apply to one key, wherever they were set.

    Args:
        charges: The charges whose buckets are the same for every request.
        varying: The limits whose buckets depend on the request.
    """

    charges: tuple[Charge, ...] = ()
    varying: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, principal: Principal, *levels: Sequence[Limit]) -> AppliedLimits:
        """Return the limits of a key.

        Args:
            principal: The principal of the key.
            levels: The limits set at each level, the most general first. A limit at a later level
                replaces one of the same name at an earlier level.
        """
        limits = merged(*levels)
        known = {"key": principal.family, "organization": principal.organization}
        fixed: list[Charge] = []
        varying: list[Limit] = []
        for limit in limits:
            if callable(limit.per) or limit.per not in known:
                varying.append(limit)
            else:
                fixed += _charges(limit, principal.organization, known[limit.per])
        return cls(tuple(fixed), tuple(varying))

    def of_request(
        self, principal: Principal, request: Callable[[], Request]
    ) -> tuple[Charge, ...]:
        """Return the charges of one request.

        Args:
            principal: Who made the request.
            request: Returns the request; called only if a limit depends on it.
        """
        if not self.varying:
            return self.charges
        charges = [*self.charges]
        for limit in self.varying:
            charges += _charges_of_request(limit, principal, request, "", 1)
        return tuple(charges)


def route_charges(
    limits: Iterable[RouteLimit],
    principal: Principal | None,
    request: Callable[[], Request],
    rates: Mapping[str, str] | None = None,
) -> list[Charge]:
    """Return the charges that a route makes.

    Args:
        limits: The route's limits.
        principal: Who made the request, or None on a public path.
        request: Returns the request; called only if a limit depends on it.
        rates: The rates that the organization's plan gives to the limits, by their names; None
            without a plan.

    Raises:
        InvalidValueError: A limit's function returned something that is not a cost or a name.
    """
    charges: list[Charge] = []
    for limit in limits:
        cost = limit.cost_of(request)
        present = limit.limit if not rates else on_plan_anyhow(limit.limit, rates)
        charges += _charges_of_request(present, principal, request, limit.route, cost)
    return charges


def failure_charges(limit: Limit, address: str) -> tuple[Charge, ...]:
    """Return the charges of a failed authentication.

    Args:
        limit: How many failures an address may have.
        address: The client's address.
    """
    client = client_of(address)
    return _charges(limit, client, client, "failures")


def policy_field(charges: Iterable[Charge]) -> str:
    """Return the value of ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10)."""
    return ", ".join(f'"{charge.name}";q={charge.amount};w={charge.window}' for charge in charges)


def in_seconds(tallies: Iterable[Tally]) -> int:
    """Return the number of whole seconds, at least 1, until every charge has room."""
    return max([1, *(ceil(tally.retry_after) for tally in tallies)])


def statuses(charges: Iterable[Charge], tallies: Iterable[Tally]) -> tuple[LimitStatus, ...]:
    """Return the state of each policy."""
    return tuple(
        LimitStatus(
            name=charge.name,
            quota=charge.amount,
            window=charge.window,
            remaining=tally.remaining,
            reset_after=tally.reset_after,
            enforce=charge.enforce,
        )
        for charge, tally in zip(charges, tallies, strict=True)
    )


def _charges_of_request(
    limit: Limit,
    principal: Principal | None,
    request: Callable[[], Request],
    route: str,
    cost: int,
) -> tuple[Charge, ...]:
    owner = "" if principal is None else principal.organization
    if callable(limit.per):
        subject = limit.per(principal, request())
        if subject is not None and not isinstance(subject, str):
            raise InvalidValueError(
                f"limit {limit.name!r} is per a function, which must return a string, or None "
                f"where the limit does not apply; it returned {subject!r}"
            )
    elif limit.per == "address":
        address = request().address
        subject = None if address is None else client_of(address)
    else:
        assert principal is not None  # noqa: S101 - a request without a key was refused before
        subject = principal.family if limit.per == "key" else owner
    if subject is None:
        return ()
    # A client may have written the subject, and the store keeps it for a while. A long subject is
    # replaced by its digest. A subject that looks like a digest is hashed as well, so that it can't
    # name the bucket of a long one.
    if len(subject) > _LONGEST_PART or subject.startswith("~"):
        subject = _digest(subject)
    return _charges(limit, owner, subject, "route" if route else "limit", route, cost)


@lru_cache(10_000)
def _charges(
    limit: Limit, owner: str, subject: str, kind: str = "limit", route: str = "", cost: int = 1
) -> tuple[Charge, ...]:
    per = "function" if callable(limit.per) else limit.per
    how = _STRATEGIES[limit.strategy]
    return tuple(
        Charge(
            key=_bucket(owner, kind, how, str(rate.window), per, subject, limit.name, route),
            name=name,
            amount=rate.amount,
            window=rate.window,
            strategy=limit.strategy,
            enforce=limit.enforce,
            cost=cost,
        )
        for name, rate in limit.policies()
    )


def _bucket(owner: str, *parts: str) -> str:
    start = f"keyguard:{{{_part(owner)}}}:"
    rest = ":".join(map(_part, parts))
    if len(start) + len(rest) > LONGEST_BUCKET:
        rest = _digest(rest)
    return start + rest


def _part(text: str) -> str:
    # Percent-encoded, a part holds neither the colon nor the braces. "-" stands for an empty part,
    # and "~" begins a digest: no other part is "-" or begins with "~".
    if not text:
        return "-"
    encoded = _RESERVED.sub(_percent, text.encode("utf-8", "surrogatepass")).decode()
    if len(encoded) > _LONGEST_PART:
        return _digest(encoded)
    if encoded == "-" or encoded.startswith("~"):
        return f"%{ord(encoded[0]):02X}{encoded[1:]}"
    return encoded


def _percent(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]


def _digest(text: str) -> str:
    return "~" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


NO_LIMITS = AppliedLimits()
"""What applies to a key without limits."""
