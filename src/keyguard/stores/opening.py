"""From what a service passes as its store to a store."""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

from keyguard.exceptions import ConfigurationError
from keyguard.stores.base import AsyncStore, Store

__all__ = ["STORES", "is_redis_client", "open_async_store", "open_store"]

_KINDS = "memory://, sqlite:///keys.db, postgresql://, mysql://, mariadb:// or redis://"
_REDIS = ("redis://", "rediss://", "redis+", "rediss+")
_REDIS_CLIENTS = ("redis", "redis.asyncio")
STORES = ("memory:", "sqlite", "postgresql", "mysql", "mariadb", *_REDIS)
"""With what the URLs of key stores begin."""


def open_store(target: str | Store | object) -> Store:
    """Return the store that a service names, for sync code.

    Args:
        target: A URL, a SQLAlchemy ``Engine``, a client of redis-py, or a store.

    Returns:
        The ``target`` itself where it is a store, which is its owner's to close. Else a new one,
        for the caller to close; that leaves an engine or a client as it is.

    Raises:
        ConfigurationError: It is none of these, or one for async code.
        MissingExtraError: The driver is not installed.
    """
    if isinstance(target, str):
        if _is_memory(target):
            from keyguard.stores.memory.keys import MemoryStore

            return MemoryStore()
        if _is_redis_url(target):
            from keyguard.stores import redis

            return redis.RedisStore(redis.parse(target))
        from keyguard.stores import sql

        return sql.open_store(target)
    if _is_engine(target, "sqlalchemy", "Engine"):
        from keyguard.stores import sql

        engine: Any = target
        return sql.SqlStore(engine)
    if _is_engine(target, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        raise ConfigurationError("pass Keyguard an Engine; an AsyncEngine is for AsyncKeyguard")
    if is_redis_client(target):
        from keyguard.stores import redis

        if not redis.is_client(target):
            raise ConfigurationError(
                "pass Keyguard a client of redis; one of redis.asyncio is for AsyncKeyguard"
            )
        return redis.RedisStore(target)
    if _is_store(target):
        return target
    if _is_async_store(target):
        raise ConfigurationError(
            f"pass Keyguard a Store; {type(target).__name__} is for AsyncKeyguard"
        )
    raise _neither(target, "Engine", "Store")


def open_async_store(target: str | AsyncStore | object) -> AsyncStore:
    """Return the store that a service names, for async code; else like :func:`open_store`.

    Args:
        target: A URL, a SQLAlchemy ``AsyncEngine``, a client of ``redis.asyncio``, or a store for
            async code.
    """
    if isinstance(target, str):
        if _is_memory(target):
            from keyguard.stores.memory.keys import AsyncMemoryStore

            return AsyncMemoryStore()
        if _is_redis_url(target):
            from keyguard.stores import redis

            return redis.AsyncRedisStore(redis.parse(target))
        from keyguard.stores import sql

        return sql.open_async_store(target)
    if _is_engine(target, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        from keyguard.stores import sql

        engine: Any = target
        return sql.AsyncSqlStore(engine)
    if _is_engine(target, "sqlalchemy", "Engine"):
        raise ConfigurationError("pass AsyncKeyguard an AsyncEngine; an Engine is for Keyguard")
    if is_redis_client(target):
        from keyguard.stores import redis

        if not redis.is_async_client(target):
            raise ConfigurationError(
                "pass AsyncKeyguard a client of redis.asyncio; one of redis is for Keyguard"
            )
        return redis.AsyncRedisStore(target)
    if _is_async_store(target):
        return target
    if _is_store(target):
        raise ConfigurationError(
            f"pass AsyncKeyguard an AsyncStore; {type(target).__name__} is for Keyguard"
        )
    raise _neither(target, "AsyncEngine", "AsyncStore")


def _is_store(target: object) -> TypeGuard[Store]:
    return _offers(target, Store)


def _is_async_store(target: object) -> TypeGuard[AsyncStore]:
    return _offers(target, AsyncStore)


def _offers(target: object, protocol: type) -> bool:
    # isinstance would not do: from Python 3.12 on it overlooks methods that are passed through to
    # another object by __getattr__.
    names = [name for name in vars(protocol) if not name.startswith("_")]
    return all(callable(getattr(target, name, None)) for name in names)


def _is_memory(url: str) -> bool:
    if not url.startswith("memory:"):
        return False
    if url != "memory://":
        raise ConfigurationError("a key store in memory has no name: use memory://")
    return True


def _is_redis_url(url: str) -> bool:
    return url.startswith(_REDIS)


def is_redis_client(target: object) -> bool:
    """Tell whether something is a client of redis-py, of either flavour."""
    return any(
        _is_engine(target, module, name)
        for module in _REDIS_CLIENTS
        for name in ("Redis", "RedisCluster")
    )


def _is_engine(target: object, module: str, name: str) -> bool:
    # Whoever holds an engine or a client has imported its library; nobody else is made to.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(target, getattr(loaded, name))


def _neither(target: object, engine: str, store: str) -> ConfigurationError:
    return ConfigurationError(
        f"a store is a URL such as {_KINDS}, a SQLAlchemy {engine}, a client of redis-py, or an "
        f"object with the methods of keyguard.stores.base.{store}; {type(target).__name__} is "
        "none of these"
    )
