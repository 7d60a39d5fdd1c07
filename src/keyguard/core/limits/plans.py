"""Applies the plan of an organization to limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.values import check_plan_name
from keyguard.exceptions import InvalidValueError, shown


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
    """Return a limit as a plan changes it, for a request. No plan may make a request fail.

    A rate that is too large for a moving window is counted by a sliding window counter.

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


def read_plans(plans: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Return plans with each rate in its usual spelling.

    Raises:
        InvalidValueError: They are no mapping of names to rates, or a name or a rate is malformed.
    """
    found: dict[str, Mapping[str, str]] = {}
    if not isinstance(plans, Mapping):
        raise InvalidValueError(f"plans takes a mapping of names to rates, not {shown(plans)}")
    for name, rates in plans.items():
        check_plan_name(name)
        if not isinstance(rates, Mapping):
            raise InvalidValueError(
                f"plan {shown(name)} takes a mapping of the names of limits to rates, such as "
                f"{{'key-minute': '1000/minute'}}, not {shown(rates)}"
            )
        found[name] = {limit: Limit(limit, rate).rate for limit, rate in rates.items()}
    return found
