"""Keys and counters in Redis or Valkey: one server, Sentinel or Cluster.

This room holds the layout of the store and the scripts that change it (``lua``), the operations,
written once over ports, and the ports of both flavours over redis-py. Only this room imports
redis-py, and no error of redis-py's leaves it except as the cause of keyguard's own.
"""

from __future__ import annotations

from importlib import import_module

from keyguard.exceptions import MissingExtraError
from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.stores.base import AsyncReplica, Replica
from keyguard.stores.facade import SyncReplica

try:
    from keyguard.stores.redis.clients import AsyncClient, Client
    from keyguard.stores.redis.deployment import parse
    from keyguard.stores.redis.ports import AsyncScriptPort
    from keyguard.stores.redis.store import AsyncRedisStore, RedisReplica, RedisStore
    from keyguard.stores.redis.sync_port import SyncScriptPort
except ModuleNotFoundError as failure:
    if failure.name != "redis":
        raise
    raise MissingExtraError("a key store in Redis", "redis") from failure

import_module("limits")  # parses the limits of stored keys: not during a request

__all__ = [
    "AsyncRedisStore",
    "RedisStore",
    "open_async_replica",
    "open_async_store",
    "open_replica",
    "open_store",
]


def open_store(
    target: str | Client, durable_replicas: int = 0, patience: Patience = PATIENCE
) -> RedisStore:
    """Return the store that a URL names, or that uses a client of redis-py.

    Args:
        target: The URL or the client.
        durable_replicas: How many replicas must have a change before it is acknowledged.
        patience: How long connecting to the server of a URL may take, and how long its connections
            last.
    """
    where = parse(target) if isinstance(target, str) else target
    return RedisStore(where, durable_replicas, patience)


def open_async_store(
    target: str | AsyncClient, durable_replicas: int = 0, patience: Patience = PATIENCE
) -> AsyncRedisStore:
    """Return the async counterpart for code on asyncio."""
    where = parse(target) if isinstance(target, str) else target
    return AsyncRedisStore(where, durable_replicas, patience)


def open_replica(target: str | Client, patience: Patience = PATIENCE) -> Replica:
    """Return a read replica that a URL names, or that a client of redis-py leads to.

    Args:
        target: The URL or the client.
        patience: As for :func:`open_store`.
    """
    where = parse(target) if isinstance(target, str) else target
    return SyncReplica(RedisReplica(SyncScriptPort(where, patience)))


def open_async_replica(target: str | AsyncClient, patience: Patience = PATIENCE) -> AsyncReplica:
    """Return the async counterpart for code on asyncio."""
    where = parse(target) if isinstance(target, str) else target
    return RedisReplica(AsyncScriptPort(where, patience))
