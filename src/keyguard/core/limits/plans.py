"""What the plan of an organization makes of limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from keyguard.core.limits.limit import Limit, Strategy
from keyguard.exceptions import InvalidValueError


def on_plan(limits: Iterable[Limit], rates: Mapping[str, str]) -> tuple[Limit, ...]:
    """Return limits as a plan changes them.

    Args:
        limits: Limits of the service: its defaults, or those of a route.
        rates: The plan's rates by the names of limits. Other limits stay as they are.

    Raises:
        InvalidValueError: A rate is malformed, or the strategy of its limit can't count it.
    """
    return tuple(
        limit if limit.name not in rates else _at_rate(limit, rates[limit.name]) for limit in limits
    )


def on_plan_anyhow(limit: Limit, rates: Mapping[str, str]) -> Limit:
    """Return a limit as a plan changes it, for a request, which no plan may make fail.

    What a moving window can't keep, a sliding window counter counts.

    Args:
        limit: The limit of a route, which the plan's author may not have known.
        rates: The plan's rates by the names of limits, each well-formed.
    """
    rate = rates.get(limit.name)
    return limit if rate is None else _at_any_rate(limit, rate)


@lru_cache(1000)
def _at_any_rate(limit: Limit, rate: str) -> Limit:
    try:
        return _at_rate(limit, rate)
    except InvalidValueError:
        return replace(limit, rate=rate, strategy=Strategy.SLIDING_WINDOW_COUNTER)


@lru_cache(1000)
def _at_rate(limit: Limit, rate: str) -> Limit:
    return replace(limit, rate=rate)
