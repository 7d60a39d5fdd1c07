"""From what a service passes as its limiter to a limiter."""

from __future__ import annotations

import sys
from typing import Any

from keyguard._process import Clock
from keyguard.backends.base import AsyncBackend, Backend
from keyguard.backends.opening import open_async_backend, open_backend
from keyguard.exceptions import ConfigurationError
from keyguard.ratelimit.base import AsyncRateLimiter, RateLimiter
from keyguard.ratelimit.memory import MemoryRateLimiter

__all__ = ["open_async_limiter", "open_limiter"]

_MEMORY = "memory://"
_METHODS = ("hit", "adjust", "migrate")


def open_limiter(
    target: str | RateLimiter | object | None, backend: Backend, *, clock: Clock
) -> RateLimiter:
    """Return the limiter that a service names, for sync code.

    Args:
        target: None for beside the keys; ``memory://``, the URL of an SQL database, or a limiter.
        backend: Where the keys are.
        clock: Where time comes from, for counters in memory.

    Returns:
        The ``target`` itself where it is a limiter, which is its owner's to close; else a new one.

    Raises:
        ConfigurationError: It is none of these, or one for async code.
        MissingExtraError: The driver is not installed.
    """
    store: Any = backend
    if isinstance(target, str) and target != _MEMORY:
        store = open_backend(target)
    if target is None or isinstance(target, str):
        if target != _MEMORY and _is_sql(store, "SqlBackend"):
            from keyguard.ratelimit.sql import SqlRateLimiter

            return SqlRateLimiter(store, owned=target is not None)
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
    store: Any = backend
    if isinstance(target, str) and target != _MEMORY:
        store = open_async_backend(target)
    if target is None or isinstance(target, str):
        if target != _MEMORY and _is_sql(store, "AsyncSqlBackend", "ThreadedSqlBackend"):
            from keyguard.ratelimit.sql import AsyncSqlRateLimiter

            return AsyncSqlRateLimiter(store, owned=target is not None)
        return MemoryRateLimiter(clock=clock)
    if isinstance(target, MemoryRateLimiter) or _offers(target, "aclose"):
        limiter: Any = target
        return limiter  # type: ignore[no-any-return]  # it has the methods
    if _offers(target, "close"):
        raise ConfigurationError(
            f"pass AsyncKeyguard an AsyncRateLimiter; {type(target).__name__} is for Keyguard"
        )
    raise _neither(target)


def _is_sql(backend: object, *names: str) -> bool:
    # Whoever holds one has imported it; nobody else is made to.
    loaded = sys.modules.get("keyguard.backends.sql")
    return loaded is not None and isinstance(
        backend, tuple(getattr(loaded, name) for name in names)
    )


def _offers(target: object, *more: str) -> bool:
    return all(callable(getattr(target, name, None)) for name in (*_METHODS, *more))


def _neither(target: object) -> ConfigurationError:
    return ConfigurationError(
        "a limiter is None (beside the keys), memory://, the URL of an SQL database, or an object "
        f"with the methods of keyguard.ratelimit.base.RateLimiter; {type(target).__name__} is none "
        "of these"
    )
