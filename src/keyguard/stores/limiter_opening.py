"""From what a service passes as its limiter to a limiter."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeGuard

from keyguard.core.limits.limit import Limit
from keyguard.exceptions import ConfigurationError
from keyguard.runtime.process import Clock
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.opening import (
    STORES,
    is_redis_client,
    open_async_store,
    open_store,
)

__all__ = ["check_countable", "open_async_limiter", "open_limiter"]

_METHODS = ("hit", "adjust", "migrate")


def open_limiter(
    target: str | RateLimiter | object | None, store: Store, *, clock: Clock
) -> RateLimiter:
    """Return the limiter that a service names, for sync code.

    Args:
        target: None for beside the keys; ``memory://``, the URL of an SQL database or a Redis, one
            of any other storage of the package ``limits``, a client of redis-py, or a limiter.
        store: Where the keys are.
        clock: Where time comes from, for counters in memory.

    Returns:
        The ``target`` itself where it is a limiter, which is its owner's to close; else a new one.

    Raises:
        ConfigurationError: It is none of these, or one for async code.
        MissingExtraError: The driver is not installed.
    """
    if _is_storage(target):
        from keyguard.stores.limits.storages import StorageRateLimiter

        return StorageRateLimiter(target)
    if target is None or _is_store(target):
        opened: Any = store if target is None else open_store(target)
        owned = target is not None
        if _is_one_of(opened, "keyguard.stores.sql", "SqlStore"):
            from keyguard.stores.sql.counters import SqlRateLimiter

            return SqlRateLimiter(opened, owned=owned)
        if _is_one_of(opened, "keyguard.stores.redis", "RedisStore"):
            from keyguard.stores.redis.counters import RedisRateLimiter

            return RedisRateLimiter(opened, owned=owned)
        return MemoryRateLimiter(clock=clock)
    if _offers(target, "close"):
        limiter: Any = target
        return limiter  # type: ignore[no-any-return]  # it has the methods
    if _offers(target, "aclose"):
        raise ConfigurationError(
            f"pass Keyguard a RateLimiter; {type(target).__name__} is for AsyncKeyguard"
        )
    raise _neither(target)


def open_async_limiter(
    target: str | RateLimiter | AsyncRateLimiter | object | None,
    store: AsyncStore,
    *,
    clock: Clock,
) -> MemoryRateLimiter | AsyncRateLimiter:
    """Return the limiter that a service names, for async code; else like :func:`open_limiter`.

    Counters in memory never wait, and serve both flavours.
    """
    if _is_storage(target):
        from keyguard.stores.limits.storages import AsyncStorageRateLimiter

        return AsyncStorageRateLimiter(target)
    if target is None or _is_store(target):
        opened: Any = store if target is None else open_async_store(target)
        owned = target is not None
        if _is_one_of(opened, "keyguard.stores.sql", "AsyncSqlStore", "ThreadedSqlStore"):
            from keyguard.stores.sql.counters import AsyncSqlRateLimiter

            return AsyncSqlRateLimiter(opened, owned=owned)
        if _is_one_of(opened, "keyguard.stores.redis", "AsyncRedisStore"):
            from keyguard.stores.redis.counters import AsyncRedisRateLimiter

            return AsyncRedisRateLimiter(opened, owned=owned)
        return MemoryRateLimiter(clock=clock)
    if isinstance(target, MemoryRateLimiter) or _offers(target, "aclose"):
        limiter: Any = target
        return limiter  # type: ignore[no-any-return]  # it has the methods
    if _offers(target, "close"):
        raise ConfigurationError(
            f"pass AsyncKeyguard an AsyncRateLimiter; {type(target).__name__} is for Keyguard"
        )
    raise _neither(target)


def check_countable(limiter: object, limits: Iterable[Limit]) -> None:
    """Refuse limits that a limiter can't count.

    Args:
        limiter: The limiter; one that has no method ``check`` counts all.
        limits: The limits that are known at start.

    Raises:
        ConfigurationError: There is one.
    """
    check = getattr(limiter, "check", None)
    if check is not None:
        check(limits)


def _is_storage(target: object) -> TypeGuard[str]:
    """Tell whether something is the URI of a storage that only the package ``limits`` knows."""
    return isinstance(target, str) and "://" in target and not target.startswith(STORES)


def _is_store(target: object) -> bool:
    """Tell whether something is opened as a key opened is: a URL, or a client of redis-py."""
    return isinstance(target, str) or is_redis_client(target)


def _is_one_of(opened: object, module: str, *names: str) -> bool:
    # Whoever holds one has imported it; nobody else is made to.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(opened, tuple(getattr(loaded, name) for name in names))


def _offers(target: object, *more: str) -> bool:
    return all(callable(getattr(target, name, None)) for name in (*_METHODS, *more))


def _neither(target: object) -> ConfigurationError:
    return ConfigurationError(
        "a limiter is None (beside the keys), memory://, the URL of an SQL database, a Redis or "
        "another storage of the package limits, a client of redis-py, or an object with the "
        f"methods of keyguard.stores.base.RateLimiter, not {type(target).__name__}"
    )
