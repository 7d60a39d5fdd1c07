"""Keys in Redis or Valkey: one server, Sentinel or Cluster, in both flavours.

What belongs here: the layout of the store and the scripts that change it; the operations, written
once as generators of calls; the two stores that carry these to a server; and connections that
wait no longer than a call may take. redis-py is imported nowhere else but by the limiter, and its
errors go no further.
"""

from __future__ import annotations

from importlib import import_module

from keyguard.exceptions import MissingExtraError

try:
    from keyguard.stores.redis.addresses import address_of, is_async_client, is_client, parse
    from keyguard.stores.redis.store import AsyncRedisStore, RedisStore
except ModuleNotFoundError as failure:
    if failure.name != "redis":
        raise
    raise MissingExtraError("A key store in Redis", "redis") from failure

import_module("limits")  # parses the limits of stored keys: not during a request

__all__ = [
    "AsyncRedisStore",
    "RedisStore",
    "address_of",
    "is_async_client",
    "is_client",
    "parse",
]
