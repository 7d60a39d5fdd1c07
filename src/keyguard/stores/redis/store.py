"""The Redis store in both flavours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyguard.stores.diagnosis import Finding
from keyguard.stores.facade import SyncStore
from keyguard.stores.redis.async_ports import AsyncScriptPort
from keyguard.stores.redis.clients import AsyncClient, Client
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.diagnosis import diagnose
from keyguard.stores.redis.feed import AsyncRedisFeed, RedisFeed
from keyguard.stores.redis.keys import RedisKeys
from keyguard.stores.redis.sync_ports import SyncScriptPort

if TYPE_CHECKING:
    from keyguard.stores.redis.counters import AsyncRedisRateLimiter, RedisRateLimiter


class AsyncRedisStore(RedisKeys):
    """A key store in Redis or Valkey, for code on asyncio.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
    """

    def __init__(self, target: Deployment | AsyncClient) -> None:
        self.port = AsyncScriptPort(target)
        super().__init__(self.port, lambda: AsyncRedisFeed(self.port))

    def counters(self, *, owned: bool) -> AsyncRedisRateLimiter:
        """Return counters on the same server; they close the store with themselves if owned."""
        from keyguard.stores.redis.counters import AsyncRedisRateLimiter

        return AsyncRedisRateLimiter(self, owned=owned)


class RedisStore(SyncStore):
    """A key store in Redis or Valkey, for sync code.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
    """

    def __init__(self, target: Deployment | Client) -> None:
        self.port = SyncScriptPort(target)
        super().__init__(RedisKeys(self.port, lambda: RedisFeed(self.port)))

    def counters(self, *, owned: bool) -> RedisRateLimiter:
        """Return counters on the same server; they close the store with themselves if owned."""
        from keyguard.stores.redis.counters import RedisRateLimiter

        return RedisRateLimiter(self, owned=owned)

    def diagnose(self) -> list[Finding]:
        return diagnose(self.port)
