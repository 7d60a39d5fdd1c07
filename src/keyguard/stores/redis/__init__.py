"""Keys and counters in Redis or Valkey: one server, Sentinel or Cluster.

This room holds the layout of the store and the scripts that change it (``lua``), the operations,
written once over ports, and the ports of both flavours over redis-py. Only this room imports
redis-py, and no error of redis-py's leaves it except as the cause of keyguard's own.
"""

from __future__ import annotations

from importlib import import_module

from keyguard.exceptions import MissingExtraError

try:
    from keyguard.stores.redis.clients import is_async_client, is_client
    from keyguard.stores.redis.deployment import parse
    from keyguard.stores.redis.store import AsyncRedisStore, RedisStore
except ModuleNotFoundError as failure:
    if failure.name != "redis":
        raise
    raise MissingExtraError("A key store in Redis", "redis") from failure

import_module("limits")  # parses the limits of stored keys: not during a request

__all__ = [
    "AsyncRedisStore",
    "RedisStore",
    "is_async_client",
    "is_client",
    "parse",
]
