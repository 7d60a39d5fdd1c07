"""Opens the limiter that a service names."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from keyguard.core.limits.limit import Limit
from keyguard.exceptions import ConfigurationError
from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.runtime.process import Clock
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.opening import (
    ASYNC,
    STORES,
    SYNC,
    Flavour,
    is_client,
    named,
    offers,
    open_target,
    settled,
)

_STORAGES = "keyguard.stores.limits.storages"


def open_limiter(
    target: str | RateLimiter | object | None,
    store: Store,
    *,
    clock: Clock,
    patience: Patience = PATIENCE,
) -> RateLimiter:
    """Return the limiter that a service names, for sync code.

    Args:
        target: None to count in the key store; ``memory://``, the URL of an SQL database, of Redis
            or of another storage of the package ``limits``, a client of redis-py, or a limiter.
        store: The store of the keys.
        clock: The clock of counters in memory.
        patience: How long connecting to the server of a URL may take, and how long its connections
            last.

    Returns:
        The ``target`` itself if it is a limiter, which its owner closes; otherwise a new limiter.

    Raises:
        ConfigurationError: The target is not one of these, or one for async code.
        MissingExtraError: The driver is not installed.
    """
    limiter: RateLimiter = _limiter_of(target, store, clock, patience, SYNC)
    return limiter


def open_async_limiter(
    target: str | RateLimiter | AsyncRateLimiter | object | None,
    store: AsyncStore,
    *,
    clock: Clock,
    patience: Patience = PATIENCE,
) -> MemoryRateLimiter | AsyncRateLimiter:
    """Return the limiter that a service names, for async code. See :func:`open_limiter`.

    Counters in memory never wait, so the same class serves both flavours.
    """
    limiter: MemoryRateLimiter | AsyncRateLimiter = _limiter_of(
        target, store, clock, patience, ASYNC
    )
    return limiter


def check_countable(limiter: object, limits: Iterable[Limit]) -> None:
    """Refuse limits that a limiter can't count.

    Args:
        limiter: The limiter. A limiter without a method ``check`` counts all limits.
        limits: The limits that are known when the service starts.

    Raises:
        ConfigurationError: The limiter can't count one of the limits.
    """
    check = getattr(limiter, "check", None)
    if check is not None:
        check(limits)


def _limiter_of(
    target: object, store: object, clock: Clock, patience: Patience, flavour: Flavour
) -> Any:
    """Return counters beside a store's keys, or in memory if it keeps none, or the target itself.

    Raises:
        ConfigurationError: The target is for the other flavour, or no limiter at all.
    """
    target = settled(target)
    if isinstance(target, str) and "://" in target and not target.startswith(STORES):
        # The URI of a storage that only the package "limits" knows.
        return getattr(import_module(_STORAGES), flavour.storage)(target)
    if target is None or isinstance(target, str) or is_client(target, SYNC, ASYNC):
        keys = store if target is None else open_target(target, flavour, patience)
        counters = getattr(keys, "counters", None)
        if counters is None:
            return MemoryRateLimiter(clock=clock)
        return counters(owned=target is not None)
    if offers(target, flavour.limiter) or isinstance(target, MemoryRateLimiter):
        return target
    if offers(target, flavour.other.limiter):
        raise flavour.misplaced(named(flavour.limiter), type(target).__name__)
    raise ConfigurationError(
        "a limiter is None (beside the keys), memory://, the URL of an SQL database, a Redis or "
        "another storage of the package limits, a client of redis-py, or an object with the "
        f"methods of keyguard.stores.base.RateLimiter, not {type(target).__name__}"
    )
