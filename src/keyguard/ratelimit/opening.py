"""From what a service passes as its limiter to a limiter."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeGuard

from keyguard._process import Clock
from keyguard.backends.base import AsyncBackend, Backend
from keyguard.backends.opening import (
    STORES,
    is_redis_client,
    open_async_backend,
    open_backend,
)
from keyguard.exceptions import ConfigurationError
from keyguard.ratelimit.base import AsyncRateLimiter, RateLimiter
from keyguard.ratelimit.memory import MemoryRateLimiter
from keyguard.sansio.limits import Limit

__all__ = ["check_countable", "open_async_limiter", "open_limiter"]

_METHODS = ("hit", "adjust", "migrate")


def open_limiter(
    target: str | RateLimiter | object | None, backend: Backend, *, clock: Clock
) -> RateLimiter:
    """Return the limiter that a service names, for sync code.

    Args:
        target: None for beside the keys; ``memory://``, the URL of an SQL database or a Redis, one
            of any other storage of the package ``limits``, a client of redis-py, or a limiter.
        backend: Where the keys are.
        clock: Where time comes from, for counters in memory.

    Returns:
        The ``target`` itself where it is a limiter, which is its owner's to close; else a new one.

    Raises:
        ConfigurationError: It is none of these, or one for async code.
        MissingExtraError: The driver is not installed.
    """
    if _is_storage(target):
        from keyguard.ratelimit.storages import StorageRateLimiter

        return StorageRateLimiter(target)
    if target is None or _is_store(target):
        store: Any = backend if target is None else open_backend(target)
        owned = target is not None
        if _is_one_of(store, "keyguard.backends.sql", "SqlBackend"):
            from keyguard.ratelimit.sql import SqlRateLimiter

            return SqlRateLimiter(store, owned=owned)
        if _is_one_of(store, "keyguard.backends.redis", "RedisBackend"):
            from keyguard.ratelimit.redis import RedisRateLimiter

            return RedisRateLimiter(store, owned=owned)
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
    backend: AsyncBackend,
    *,
    clock: Clock,
) -> RateLimiter | AsyncRateLimiter:
    """Return the limiter that a service names, for async code; else like :func:`open_limiter`.

    Counters in memory never wait, and serve both flavours.
    """
    if _is_storage(target):
        from keyguard.ratelimit.storages import AsyncStorageRateLimiter

        return AsyncStorageRateLimiter(target)
    if target is None or _is_store(target):
        store: Any = backend if target is None else open_async_backend(target)
        owned = target is not None
        if _is_one_of(store, "keyguard.backends.sql", "AsyncSqlBackend", "ThreadedSqlBackend"):
            from keyguard.ratelimit.sql import AsyncSqlRateLimiter

            return AsyncSqlRateLimiter(store, owned=owned)
        if _is_one_of(store, "keyguard.backends.redis", "AsyncRedisBackend"):
            from keyguard.ratelimit.redis import AsyncRedisRateLimiter

            return AsyncRedisRateLimiter(store, owned=owned)
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
    """Tell whether something is opened as a key store is: a URL, or a client of redis-py."""
    return isinstance(target, str) or is_redis_client(target)


def _is_one_of(store: object, module: str, *names: str) -> bool:
    # Whoever holds one has imported it; nobody else is made to.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(store, tuple(getattr(loaded, name) for name in names))


def _offers(target: object, *more: str) -> bool:
    return all(callable(getattr(target, name, None)) for name in (*_METHODS, *more))


def _neither(target: object) -> ConfigurationError:
    return ConfigurationError(
        "a limiter is None (beside the keys), memory://, the URL of an SQL database, a Redis or "
        "another storage of the package limits, a client of redis-py, or an object with the "
        f"methods of keyguard.ratelimit.base.RateLimiter; {type(target).__name__} is none of these"
    )
