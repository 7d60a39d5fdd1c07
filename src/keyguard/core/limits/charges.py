"""Charges: which buckets a request is counted in, and for how much.

A charge is one rate of one limit, applied to one request. All charges of a request are tested and
counted together, or none is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from math import ceil
from typing import NamedTuple

from keyguard.core.identity.addresses import client_of
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.limits.limit import Limit, RouteLimit, Strategy
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError

__all__ = [
    "NO_LIMITS",
    "AppliedLimits",
    "Charge",
    "LimitStatus",
    "Outcome",
    "failure_charges",
    "in_seconds",
    "limit_field",
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
            No two sets of parts give one name, and all buckets of one owner are in one slot of a
            Redis cluster.
        name: What clients see the policy called.
        amount: How many the window admits.
        window: Its length in seconds.
        strategy: How it counts.
        enforce: Whether it can refuse; else it only counts what it has room for.
        cost: For how many the request counts.
    """

    key: str
    name: str
    amount: int
    window: int
    strategy: Strategy
    enforce: bool
    cost: int


class Outcome(NamedTuple):
    """What a store answers.

    Args:
        admitted: Whether every charge that is enforced had room; then all were counted that had,
            else none was.
        tallies: How each bucket stands after it, in the order of the charges.
        counter: Who counted, as the way to the store tells them apart: the store itself between two
            of its outages, or what stood in for it. Only there can it be given back.
    """

    admitted: bool
    tallies: Sequence[Tally]
    counter: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """How one policy stands.

    Args:
        name: The policy's name.
        quota: How many the window admits.
        window: Its length in seconds.
        remaining: How many more there is room for.
        reset_after: Seconds until there is room for more.
        enforce: Whether it can refuse.
    """

    name: str
    quota: int
    window: int
    remaining: int
    reset_after: float
    enforce: bool


@dataclass(frozen=True, slots=True)
class AppliedLimits:
    """The limits of one key, wherever they were set, as far as they are known beforehand.

    Args:
        charges: Those whose buckets are the same for every request.
        varying: Those whose buckets depend on the request.
        policy: The value of ``RateLimit-Policy`` for the charges alone.
    """

    charges: tuple[Charge, ...] = ()
    varying: tuple[Limit, ...] = ()
    policy: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", policy_field(self.charges))

    @classmethod
    def of(cls, principal: Principal, *levels: Iterable[Limit]) -> AppliedLimits:
        """Return the limits of a key.

        Args:
            principal: Whose they are.
            levels: The limits set at each level, the most general first; one of the same name at a
                later level takes an earlier one's place.
        """
        limits = {limit.name: limit for level in levels for limit in level}.values()
        if not limits:
            return NO_LIMITS
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
            principal: Whose it is.
            request: Returns it; called only where a limit depends on it.
        """
        if not self.varying:
            return self.charges
        charges = [*self.charges]
        for limit in self.varying:
            charges += _charges_of_request(limit, principal, request, "", 1)
        return tuple(charges)


def route_charges(
    limits: Iterable[RouteLimit], principal: Principal | None, request: Callable[[], Request]
) -> list[Charge]:
    """Return the charges that a route makes.

    Args:
        limits: The route's limits.
        principal: Whose the request is, or None on a public path.
        request: Returns the request; called only where a limit depends on it.

    Raises:
        InvalidValueError: A limit's function returns what is none.
    """
    charges: list[Charge] = []
    for one in limits:
        cost = one.cost_of(request)
        charges += _charges_of_request(one.limit, principal, request, one.route, cost)
    return charges


def failure_charges(limit: Limit, address: str) -> tuple[Charge, ...]:
    """Return the charges of a failed authentication.

    Args:
        limit: How many an address may have.
        address: The client's address.
    """
    client = client_of(address)
    return _charges(limit, client, client, "failures")


def policy_field(charges: Iterable[Charge]) -> str:
    """Return the value of ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10)."""
    return ", ".join(f'"{charge.name}";q={charge.amount};w={charge.window}' for charge in charges)


def limit_field(charges: Sequence[Charge], tallies: Sequence[Tally]) -> str:
    """Return the value of ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10)."""
    if len(charges) == 1:
        return _standing(charges[0], tallies[0])
    return ", ".join(map(_standing, charges, tallies))


def in_seconds(tallies: Iterable[Tally]) -> int:
    """Return the whole seconds after which all that did not fit has room, at least 1."""
    return max([1, *(ceil(tally.retry_after) for tally in tallies)])


def statuses(charges: Iterable[Charge], tallies: Iterable[Tally]) -> tuple[LimitStatus, ...]:
    """Return how policies stand."""
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


def _standing(charge: Charge, tally: Tally) -> str:
    return f'"{charge[1]}";r={tally[1]};t={ceil(tally[2])}'


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
                f"the function that limit {limit.name!r} is per returns a string, or None where "
                f"the limit does not apply; not {subject!r}"
            )
    elif limit.per == "address":
        address = request().address
        subject = None if address is None else client_of(address)
    else:
        assert principal is not None  # noqa: S101 - who asks has refused a request without a key
        subject = principal.family if limit.per == "key" else owner
    if subject is None:
        return ()
    # A client may have written it, and it is kept for a while. What looks like a digest becomes one
    # too, so that nobody meets the bucket of another's long subject.
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
    # Percent-encoded, a part holds neither the colon nor the braces. "-" stands for an empty one,
    # and "~" begins a digest: no other part is or begins with these.
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
"""What holds for a key that has no limits."""
