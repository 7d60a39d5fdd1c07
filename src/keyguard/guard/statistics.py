"""What a guard reports about itself, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one guard has counted in this process, and its present state.

    A forked child counts from 0.

    Args:
        decisions: How many requests had each outcome: ``"allowed"``, or the value of a
            :class:`~keyguard.Reason`.
        organizations: How many requests had each outcome, for each organization that telemetry
            lists separately. A request that is let in and refused later is first counted as
            allowed; that count is taken back.
        lookups: How many look-ups of keys had each result: ``"hit"`` (the token was remembered),
            ``"miss"`` (the store was asked), ``"shared"`` (the answer to another request served).
        cache_entries: The number of verified tokens that are remembered.
        feed_lag: Seconds since the guard last knew of every change; None before it has followed a
            change feed.
        feed_is_up: Whether the change feed answers; None before it was asked.
        limits: How often each policy had room for a request, by the policy's name and
            ``"allowed"`` or ``"denied"``. Policies that were set for a key or an organization are
            ``"other"``.
        limiter_is_up: Whether the counters answer; None before they were needed.
        usage_pending: The number of cells of usage that wait to be written to the store.
        usage_lost: The number of requests whose usage no store will get.
    """

    decisions: Mapping[str, int]
    organizations: Mapping[tuple[str, str], int]
    lookups: Mapping[str, int]
    cache_entries: int
    feed_lag: float | None
    feed_is_up: bool | None
    limits: Mapping[tuple[str, str], int]
    limiter_is_up: bool | None
    usage_pending: int
    usage_lost: int
