"""Limits: how much may be asked for, by whom, in what time.

The notation is that of the package ``limits``, such as ``"100/minute"`` or
``"10 per second; 10000 per day"``.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from keyguard.core.identity.principal import Principal, Request
from keyguard.exceptions import InvalidValueError

__all__ = [
    "Limit",
    "Limits",
    "Per",
    "Rate",
    "RouteLimit",
    "Strategy",
    "check_cost",
    "dump_limits",
    "load_limits",
    "parse_limit",
    "read_limits",
]

LARGEST_AMOUNT = 1_000_000_000_000
LARGEST_LOG = 10_000
LONGEST_WINDOW = 366 * 24 * 60 * 60
MOST_LIMITS = 20

# As the package counts them: a month has 30 days, a year 360.
_UNITS = {
    "second": 1,
    "minute": 60,
    "hour": 60 * 60,
    "day": 24 * 60 * 60,
    "month": 30 * 24 * 60 * 60,
    "year": 360 * 24 * 60 * 60,
}
_RATE = r"\s*([0-9]{1,15})\s*(?:/|per)\s*(?:([0-9]{1,15})\s*)?([a-z]+)\s*\Z"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class Strategy(enum.StrEnum):
    """How hits are counted, as the package ``limits`` names it."""

    SLIDING_WINDOW_COUNTER = "sliding-window-counter"
    FIXED_WINDOW = "fixed-window"
    MOVING_WINDOW = "moving-window"


Per: TypeAlias = str | Callable[[Principal | None, Request], str | None]
"""Whom a limit counts: ``"key"`` (its family), ``"organization"``, ``"address"``, or a function
that returns a name for it, or None where the limit does not apply."""

_SUBJECTS = ("key", "organization", "address")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so much time.

    Args:
        amount: How many.
        unit: ``second``, ``minute``, ``hour``, ``day``, ``month`` (30 days) or ``year`` (360 days).
        multiples: How many of these units the window has.
        window: Its length in seconds.
    """

    amount: int
    unit: str
    multiples: int = 1
    window: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", _UNITS[self.unit] * self.multiples)

    @property
    def label(self) -> str:
        """Its window as part of a name: ``minute``, ``10-seconds``."""
        return self.unit if self.multiples == 1 else f"{self.multiples}-{self.unit}s"

    def __str__(self) -> str:
        if self.multiples == 1:
            return f"{self.amount}/{self.unit}"
        return f"{self.amount}/{self.multiples} {self.unit}s"


@dataclass(frozen=True, slots=True)
class Limit:
    """A named policy: how much, for whom.

    ::

        Limit("key-minute", "100/minute", per="key")
        Limit("burst", "10 per second; 1000 per hour", per="organization")

    Args:
        name: What clients see it called, at most 64 letters, digits, ``.``, ``_`` and ``-``. Where
            it has several rates, each is called by its window too: ``burst-second``.
        rate: One or several rates in the notation of the package ``limits``, all of which hold.
        per: Whom it counts, see :data:`Per`. The keys of one family share their count.
        strategy: How it counts; see :class:`Strategy`.
        enforce: False for a limit that counts and tells, and never refuses (shadow mode).

    Raises:
        InvalidValueError: A value is not as said.
    """

    name: str
    rate: str
    per: Per = field(default="key", kw_only=True)
    strategy: Strategy = field(default=Strategy.SLIDING_WINDOW_COUNTER, kw_only=True)
    enforce: bool = field(default=True, kw_only=True)
    rates: tuple[Rate, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise InvalidValueError(
                f"{self.name!r} is no name of a limit: use 1 to 64 letters, digits, '.', '_' and "
                "'-', such as 'key-minute'"
            )
        if not callable(self.per) and self.per not in _SUBJECTS:
            raise InvalidValueError(
                f"a limit is per 'key', 'organization' or 'address', or per a function of the "
                f"principal and the request, not {self.per!r}"
            )
        if not isinstance(self.enforce, bool):
            raise InvalidValueError(f"enforce takes True or False, not {self.enforce!r}")
        try:
            strategy = Strategy(self.strategy)
        except ValueError:
            known = ", ".join(repr(one.value) for one in Strategy)
            raise InvalidValueError(
                f"a limit's strategy is one of {known}, not {self.strategy!r}"
            ) from None
        rates = _parse_rates(self.rate)
        if strategy is Strategy.MOVING_WINDOW and any(r.amount > LARGEST_LOG for r in rates):
            raise InvalidValueError(
                f"a moving window keeps every hit, so it takes at most {LARGEST_LOG}, not "
                f"{self.rate!r}; use a sliding window counter"
            )
        object.__setattr__(self, "strategy", strategy)
        object.__setattr__(self, "rates", rates)

    def policies(self) -> tuple[tuple[str, Rate], ...]:
        """Return what clients see each rate called, with the rate."""
        if len(self.rates) == 1:
            return ((self.name, self.rates[0]),)
        return tuple((f"{self.name}-{rate.label}", rate) for rate in self.rates)


Limits: TypeAlias = Iterable[Limit | str] | Limit | str
"""Limits as callers give them; a string is one or several rates without a name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RouteLimit:
    """A limit of one route; two are the same only if they are one object.

    Args:
        limit: The limit.
        route: What tells the route's count from others'; routes of one name share it.
        cost: What a request counts for, at least 1, or a function of the request that says so.
    """

    limit: Limit
    route: str
    cost: int | Callable[[Request], int] = 1

    def __post_init__(self) -> None:
        if not callable(self.cost):
            check_cost(self.cost)

    def cost_of(self, request: Callable[[], Request]) -> int:
        """Return what a request counts for.

        Raises:
            InvalidValueError: The function says less than 1, or no whole number.
        """
        if not callable(self.cost):
            return self.cost
        return check_cost(self.cost(request()))


def check_cost(cost: Any, *, least: int = 1) -> int:
    """Return a cost.

    Raises:
        InvalidValueError: It is no whole number, less than ``least``, or absurd.
    """
    if isinstance(cost, bool) or not isinstance(cost, int) or not least <= cost <= LARGEST_AMOUNT:
        raise InvalidValueError(
            f"a cost is a whole number from {least} to {LARGEST_AMOUNT}, not {cost!r}"
        )
    return cost


def read_limits(limits: Limits, per: str, *, stored: bool = False) -> tuple[Limit, ...]:
    """Return limits as they were given, with names for those that have none.

    Args:
        limits: One or several; a string is a rate or several, which are called by whom they count
            and their window, such as ``key-minute``.
        per: Whom those without a name count.
        stored: Whether they are to be kept in a key store, which keeps no functions.

    Raises:
        InvalidValueError: One is none, or a name is there twice.
    """
    if isinstance(limits, Limit | str):
        limits = (limits,)
    several: Any = limits  # what callers pass is anything
    if not isinstance(several, Iterable) or isinstance(several, bytes | Mapping):
        raise InvalidValueError(f"limits takes a list of limits, not a {type(limits).__name__}")
    found: list[Limit] = []
    for given in limits:
        if isinstance(given, Limit):
            found.append(given)
        else:
            rates = _parse_rates(given)
            found += [Limit(f"{per}-{rate.label}", str(rate), per=per) for rate in rates]
    names = [limit.name for limit in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidValueError(f"there are two limits named {name!r}; give each its own name")
    if len(found) > MOST_LIMITS:
        raise InvalidValueError(f"limits takes at most {MOST_LIMITS} limits, not {len(found)}")
    for limit in found:
        if stored and callable(limit.per):
            raise InvalidValueError(
                f"limit {limit.name!r} is per a function, which can't be stored; set it in "
                "default_limits or on a route"
            )
    return tuple(found)


def parse_limit(text: str, per: str) -> Limit:
    """Return the limit that a person wrote as ``RATE`` or ``NAME=RATE``.

    Args:
        text: The text; without a name it is one rate, and called as :func:`read_limits` would.
        per: Whom it counts.

    Raises:
        InvalidValueError: It is none.
    """
    name, sign, rate = text.rpartition("=")
    if sign:
        return Limit(name.strip(), rate.strip(), per=per)
    limits = read_limits(rate.strip(), per)
    if len(limits) != 1:
        raise InvalidValueError(
            f"{_shown(text)} holds several rates; give each on its own, or all of them a name"
        )
    return limits[0]


def dump_limits(limits: Iterable[Limit]) -> str:
    """Return limits as a JSON text, in ASCII, for a key store to keep."""
    return json.dumps([_as_stored(limit) for limit in limits], separators=(",", ":"))


def load_limits(text: str) -> tuple[Limit, ...]:
    """Return the limits of a JSON text.

    Raises:
        ValueError: It is none that :func:`dump_limits` wrote.
    """
    stored: Any = json.loads(text)
    try:
        return read_limits([Limit(**one) for one in stored], "key", stored=True)
    except TypeError as failure:
        raise ValueError("limits are a list of objects with a name and a rate") from failure


def _as_stored(limit: Limit) -> dict[str, Any]:
    stored: dict[str, Any] = {"name": limit.name, "rate": limit.rate, "per": limit.per}
    if limit.strategy is not Strategy.SLIDING_WINDOW_COUNTER:
        stored["strategy"] = limit.strategy.value
    if not limit.enforce:
        stored["enforce"] = False
    return stored


def _parse_rates(text: Any) -> tuple[Rate, ...]:
    if not isinstance(text, str):
        raise InvalidValueError(f"a rate is a string such as '100/minute', not {text!r}")
    rates = tuple(
        _parse_rate(part, text) for part in text.replace(",", ";").replace("|", ";").split(";")
    )
    windows = [rate.window for rate in rates]
    if len(set(windows)) < len(windows):
        raise InvalidValueError(f"{_shown(text)} has two rates for one window; keep the smaller")
    return rates


def _parse_rate(part: str, text: str) -> Rate:
    found = re.match(_RATE, part, re.IGNORECASE) if part.isascii() else None
    unit = found[3].lower() if found else ""
    unit = unit if unit in _UNITS else unit.removesuffix("s")
    if found is None or unit not in _UNITS:
        raise InvalidValueError(
            f"{_shown(text)} is no rate; one looks like '100/minute', '10 per second' or "
            "'5 per 10 seconds; 1000 per day'"
        )
    amount, multiples = int(found[1]), int(found[2] or 1)
    if amount < 1 or multiples < 1:
        raise InvalidValueError(f"the rate {_shown(text)} lets nothing through; use 1 or more")
    rate = Rate(amount, unit, multiples)
    if amount > LARGEST_AMOUNT or rate.window > LONGEST_WINDOW:
        raise InvalidValueError(
            f"the rate {_shown(text)} is too large to mean anything: at most {LARGEST_AMOUNT}, "
            "and at most one year"
        )
    return rate


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
