"""Limits: how many requests a sender may make in a time.

The notation is that of the package ``limits``, such as ``"100/minute"`` or
``"10 per second; 10000 per day"``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from keyguard.core.identity.principal import Principal, Request
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError, shown

LARGEST_AMOUNT = 1_000_000_000_000
LARGEST_LOG = 10_000
LONGEST_WINDOW = 366 * 24 * 60 * 60
MOST_RATES = 8
MOST_LIMITS = 8
"""Limits of a route, or of a guard as its defaults."""
MOST_STORED_LIMITS = 6
"""Limits of a key, or of an organization. With the defaults that makes 20 for a key."""

# As the package counts them: a month has 30 days, a year 360.
_UNITS = {
    "second": 1,
    "minute": 60,
    "hour": 60 * 60,
    "day": 24 * 60 * 60,
    "month": 30 * 24 * 60 * 60,
    "year": 360 * 24 * 60 * 60,
}
_NO_TIME = r"(?:/|per) ?0+ ?[A-Za-z]"  # the package reads it as 1
_LONGEST_NOTATION = 1000
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"


class Strategy(enum.StrEnum):
    """How a limit counts, by the names of the package ``limits``."""

    SLIDING_WINDOW_COUNTER = "sliding-window-counter"
    FIXED_WINDOW = "fixed-window"
    MOVING_WINDOW = "moving-window"


Per: TypeAlias = str | Callable[[Principal | None, Request], str | None]
"""Whose requests a limit counts together: ``"key"`` (its family), ``"organization"``,
``"address"``, or a function that returns a name, or None if the limit does not apply."""

_SUBJECTS = ("key", "organization", "address")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rate(Value):
    """An amount in a window of time.

    Args:
        amount: How many requests, or units of cost.
        unit: ``second``, ``minute``, ``hour``, ``day``, ``month`` (30 days) or ``year`` (360 days).
        multiples: How many of these units the window has.
        window: The length of the window in seconds.
    """

    amount: int
    unit: str
    multiples: int = 1
    window: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", _UNITS[self.unit] * self.multiples)

    @property
    def label(self) -> str:
        """The window as part of a name: ``minute``, ``10-seconds``."""
        return self.unit if self.multiples == 1 else f"{self.multiples}-{self.unit}s"

    def __str__(self) -> str:
        if self.multiples == 1:
            return f"{self.amount}/{self.unit}"
        return f"{self.amount}/{self.multiples} {self.unit}s"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Limit(Value):
    """A named policy: one or several rates, and whose requests they count.

    ::

        Limit("key-minute", "100/minute", per="key")
        Limit("burst", "10 per second; 1000 per hour", per="organization")

    Args:
        name: Its name for clients, at most 64 letters, digits, ``.``, ``_`` and ``-``. If it has
            several rates, the name of each ends with its window: ``burst-second``.
        rate: One or several rates in the notation of the package ``limits``. All of them apply.
        per: Whose requests it counts, see :data:`Per`. The keys of a family share their count.
        strategy: How it counts; see :class:`Strategy`.
        enforce: False for a limit that counts and reports, but never refuses (shadow mode).

    Raises:
        InvalidValueError: A value has the wrong type, form or range.
    """

    name: str
    rate: str
    per: Per = field(default="key", kw_only=True)
    strategy: Strategy = field(default=Strategy.SLIDING_WINDOW_COUNTER, kw_only=True)
    enforce: bool = field(default=True, kw_only=True)
    rates: tuple[Rate, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.match(_NAME, self.name):
            raise InvalidValueError(
                f"{shown(self.name)} is not a valid name of a limit: use 1 to 64 letters, digits, "
                "'.', '_' and '-', such as 'key-minute'"
            )
        if not callable(self.per) and self.per not in _SUBJECTS:
            raise InvalidValueError(
                f"a limit is per 'key', 'organization' or 'address', or per a function of the "
                f"principal and the request, not {shown(self.per)}"
            )
        if not isinstance(self.enforce, bool):
            raise InvalidValueError(f"enforce takes True or False, not {shown(self.enforce)}")
        strategy = read_strategy(self.strategy)
        rates = _parse_rates(self.rate)
        if strategy is Strategy.MOVING_WINDOW and any(r.amount > LARGEST_LOG for r in rates):
            raise InvalidValueError(
                f"a moving window keeps every hit, so it takes at most {LARGEST_LOG}, not "
                f"{shown(self.rate)}; use a sliding window counter"
            )
        object.__setattr__(self, "strategy", strategy)
        object.__setattr__(self, "rates", rates)

    def policies(self) -> tuple[tuple[str, Rate], ...]:
        """Return each rate with its name for clients."""
        if len(self.rates) == 1:
            return ((self.name, self.rates[0]),)
        return tuple((f"{self.name}-{rate.label}", rate) for rate in self.rates)


Limits: TypeAlias = Iterable[Limit | str] | Limit | str
"""Limits as an argument; a string is one or several rates without a name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RouteLimit:
    """A limit of a route; two are equal only if they are the same object.

    Args:
        limit: The limit.
        route: The name of the route; routes of the same name share their count.
        cost: How much a request counts, at least 1, or a function of the request that returns it.
    """

    limit: Limit
    route: str
    cost: int | Callable[[Request], int] = 1

    def __post_init__(self) -> None:
        if not callable(self.cost):
            check_cost(self.cost)

    @property
    def is_fixed(self) -> bool:
        """Whether all requests with one key have the same charges."""
        return self.limit.per in ("key", "organization") and not callable(self.cost)

    def cost_of(self, request: Callable[[], Request]) -> int:
        """Return how much a request counts.

        Raises:
            InvalidValueError: The function returned less than 1, or no whole number.
        """
        if not callable(self.cost):
            return self.cost
        return check_cost(self.cost(request()))


def read_strategy(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises:
        InvalidValueError: No strategy has this name.
    """
    try:
        return Strategy(name)
    except ValueError:
        known = ", ".join(repr(strategy.value) for strategy in Strategy)
        raise InvalidValueError(
            f"a limit's strategy is one of {known}, not {shown(name)}"
        ) from None


def check_cost(cost: object, *, least: int = 1) -> int:
    """Return a cost, checked.

    Raises:
        InvalidValueError: The cost is no whole number, is less than ``least``, or is too large.
    """
    if isinstance(cost, bool) or not isinstance(cost, int) or not least <= cost <= LARGEST_AMOUNT:
        raise InvalidValueError(
            f"a cost is a whole number from {least} to {LARGEST_AMOUNT}, not {shown(cost)}"
        )
    return cost


def read_limits(limits: Limits, per: str, *, stored: bool = False) -> tuple[Limit, ...]:
    """Return limits, checked, and with names for rates that have none.

    Args:
        limits: One or several limits. A string is one or several rates; the name of each is
            ``per`` and its window, such as ``key-minute``.
        per: Whose requests the rates without a name count.
        stored: Whether a key store will keep them. It can't keep functions.

    Raises:
        InvalidValueError: A limit is malformed, or two limits have the same name.
    """
    if isinstance(limits, Limit | str):
        limits = (limits,)
    several: object = limits  # a caller may pass anything
    if not isinstance(several, Iterable) or isinstance(several, bytes | Mapping):
        raise InvalidValueError(f"limits takes a list of limits, not {type(limits).__name__}")
    most = MOST_STORED_LIMITS if stored else MOST_LIMITS
    found: list[Limit] = []
    for given in islice(limits, most + 1):
        if isinstance(given, Limit):
            found.append(given)
        else:
            rates = _parse_rates(given)
            found += [Limit(f"{per}-{rate.label}", str(rate), per=per) for rate in rates]
    if len(found) > most:
        raise InvalidValueError(f"limits takes at most {most} limits")
    names = [limit.name for limit in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidValueError(f"there are two limits named {name!r}; give each its own name")
    for limit in found:
        if stored and callable(limit.per):
            raise InvalidValueError(
                f"limit {limit.name!r} is per a function, which can't be stored; set it in "
                "default_limits or on a route"
            )
    return tuple(found)


def read_failure_limit(limit: object) -> Limit | None:
    """Return the limit of a client's failed attempts, or None.

    Args:
        limit: A rate, a limit of addresses, or None.

    Raises:
        InvalidValueError: The limit is neither of these, or the rate is malformed.
    """
    if limit is None:
        return None
    if isinstance(limit, str):
        return Limit("failures", limit, per="address")
    if not isinstance(limit, Limit) or limit.per != "address":
        raise InvalidValueError(
            "failure_limit takes a rate such as '30/minute', a Limit per 'address', or None, not "
            f"{shown(limit)}"
        )
    return limit


def merged(*levels: Iterable[Limit]) -> tuple[Limit, ...]:
    """Return the limits that apply if limits are set at several levels.

    Args:
        levels: The limits of each level, the most general first. A limit at a later level replaces
            one of the same name at an earlier level.
    """
    return tuple({limit.name: limit for level in levels for limit in level}.values())


def as_tight(limits: Iterable[Limit], bounds: Iterable[Limit]) -> bool:
    """Return whether limits admit nothing that the bounds refuse.

    A limit is as tight as a bound if it has the bound's name, so that both count in the same
    buckets, counts the same requests in the same way, and admits at most as much in each of its
    windows.
    """
    known = {limit.name: limit for limit in limits}
    return all(
        (limit := known.get(bound.name)) is not None
        and limit.enforce
        and (limit.per, limit.strategy) == (bound.per, bound.strategy)
        and all(
            any(rate.window == most.window and rate.amount <= most.amount for rate in limit.rates)
            for most in bound.rates
        )
        for bound in bounds
        if bound.enforce
    )


def parse_limit(text: str, per: str) -> Limit:
    """Return the limit of a text ``RATE`` or ``NAME=RATE``.

    Args:
        text: The text. Without a name it has one rate, and :func:`read_limits` gives it a name.
        per: Whose requests the limit counts.

    Raises:
        InvalidValueError: The text has neither form.
    """
    name, sign, rate = text.rpartition("=")
    if sign:
        return Limit(name.strip(), rate.strip(), per=per)
    limits = read_limits(rate.strip(), per)
    if len(limits) != 1:
        raise InvalidValueError(
            f"{shown(text)} holds several rates; give them one by one, or give all a name"
        )
    return limits[0]


def _parse_rates(text: object) -> tuple[Rate, ...]:
    if not isinstance(text, str):
        raise InvalidValueError(f"a rate is a string such as '100/minute', not {shown(text)}")
    rates = _KNOWN_RATES.get(text) or _parse(text)
    if len(rates) > MOST_RATES:
        raise InvalidValueError(f"a limit has at most {MOST_RATES} rates, not {len(rates)}")
    for rate in rates:
        if rate.amount > LARGEST_AMOUNT or rate.window > LONGEST_WINDOW:
            raise InvalidValueError(
                f"the rate {shown(text)} is too large to mean anything: at most {LARGEST_AMOUNT}, "
                "and at most one year"
            )
    if len({rate.window for rate in rates}) < len(rates):
        raise InvalidValueError(f"{shown(text)} has two rates for one window; keep the smaller")
    return rates


# A guard without other limits does not have to import the parser, which imports asyncio.
_KNOWN_RATES = {"30/minute": (Rate(30, "minute"),)}


def _parse(text: str) -> tuple[Rate, ...]:
    from limits import parse_many  # only a service with limits of its own pays for it

    words = " ".join(text.split())  # the parser takes quadratic time for runs of spaces
    try:
        if not text.isascii() or len(words) > _LONGEST_NOTATION:
            raise ValueError(words)
        items = parse_many(words)
    except ValueError:
        raise InvalidValueError(
            f"{shown(text)} is not a valid rate; one looks like '100/minute', '10 per second' or "
            "'5 per 10 seconds; 1000 per day'"
        ) from None
    if re.search(_NO_TIME, words, re.IGNORECASE) or any(item.amount < 1 for item in items):
        raise InvalidValueError(f"the rate {shown(text)} lets nothing through; use 1 or more")
    return tuple(Rate(item.amount, item.GRANULARITY.name, item.multiples) for item in items)
