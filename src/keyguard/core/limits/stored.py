"""Limits as a key store keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from keyguard.core.limits.limit import Limit, Strategy, read_limits


def dump_limits(limits: Iterable[Limit]) -> str:
    """Return limits as JSON in ASCII, for a key store to keep."""
    return json.dumps([_as_stored(limit) for limit in limits], separators=(",", ":"))


def load_limits(text: str) -> tuple[Limit, ...]:
    """Return the limits of a JSON text.

    Raises:
        ValueError: The text does not have the form that :func:`dump_limits` writes.
    """
    stored = json.loads(text)
    if not text.startswith("["):  # other iterables would pass as well
        raise ValueError("limits are a list")
    try:
        return read_limits([Limit(**fields) for fields in stored], "key", stored=True)
    except TypeError as failure:
        raise ValueError("limits are a list of objects with a name and a rate") from failure


def _as_stored(limit: Limit) -> dict[str, object]:
    stored: dict[str, object] = {"name": limit.name, "rate": limit.rate, "per": limit.per}
    if limit.strategy is not Strategy.SLIDING_WINDOW_COUNTER:
        stored["strategy"] = limit.strategy.value
    if not limit.enforce:
        stored["enforce"] = False
    return stored
