"""The key store in Redis, for code on asyncio and for sync code, and its read replica."""

from __future__ import annotations

from keyguard.core.tokens.format import KEY_ID
from keyguard.runtime.deadlines import PATIENCE, Patience
from keyguard.stores.base import AsyncReplica, Reading
from keyguard.stores.diagnosis import Finding
from keyguard.stores.facade import SyncStore, SyncUsage
from keyguard.stores.redis import scripts
from keyguard.stores.redis.clients import AsyncClient, Client
from keyguard.stores.redis.commit_call import record_key
from keyguard.stores.redis.counters import AsyncRedisRateLimiter, RedisRateLimiter
from keyguard.stores.redis.deployment import Deployment
from keyguard.stores.redis.diagnosis import diagnose
from keyguard.stores.redis.feed import AsyncRedisFeed, RedisFeed
from keyguard.stores.redis.hashes import own, record_from
from keyguard.stores.redis.keys import RedisKeys
from keyguard.stores.redis.ports import AsyncScriptPort
from keyguard.stores.redis.scripts import list_of, store_call, text_of
from keyguard.stores.redis.sync_port import SyncScriptPort
from keyguard.stores.redis.usage import RedisUsage


class AsyncRedisStore(RedisKeys):
    """A key store in Redis or Valkey, for code on asyncio.

    Args:
        target: Where the Redis is, or a client to use. The client stays its owner's.
        replicas: How many replicas must have a change before it is acknowledged.
    """

    def __init__(
        self, target: Deployment | AsyncClient, replicas: int = 0, terms: Patience = PATIENCE
    ) -> None:
        self.port = AsyncScriptPort(target, terms)
        super().__init__(self.port, lambda: AsyncRedisFeed(self.port), replicas)

    def counters(self, *, owned: bool) -> AsyncRedisRateLimiter:
        """Return counters on the same server, which close the store with themselves if owned."""
        return AsyncRedisRateLimiter(self.port, owned=owned)

    def usage(self) -> RedisUsage:
        """Return the store of usage on the same server, over the same connections."""
        return RedisUsage(self.port)


class RedisStore(SyncStore):
    """A key store in Redis or Valkey, for sync code."""

    system_name = "redis"
    layout = scripts.VERSION

    def __init__(
        self, target: Deployment | Client, replicas: int = 0, terms: Patience = PATIENCE
    ) -> None:
        self.port = SyncScriptPort(target, terms)
        self._replicas = replicas
        super().__init__(RedisKeys(self.port, lambda: RedisFeed(self.port), replicas))

    def counters(self, *, owned: bool) -> RedisRateLimiter:
        """Return counters on the same server, which close the store with themselves if owned."""
        return RedisRateLimiter(self.port, owned=owned)

    def usage(self) -> SyncUsage:
        """Return the store of usage on the same server, over the same connections."""
        return SyncUsage(RedisUsage(self.port))

    def diagnose(self) -> list[Finding]:
        return diagnose(self.port, self._replicas)


class RedisReplica(AsyncReplica):
    """A read replica of a key store in Redis or Valkey.

    Args:
        port: Runs scripts on the replica.
    """

    def __init__(self, port: SyncScriptPort | AsyncScriptPort) -> None:
        self._port = port
        self.place = port.place

    async def read_key(self, key_id: str) -> Reading:
        if not KEY_ID.match(key_id):
            return Reading(None, "")
        call = store_call(scripts.READ_KEY, keys=(record_key(key_id), "audit"))
        end, *rows = list_of(await self._port.run(call))
        if not list_of(rows[0]):
            return Reading(None, text_of(end))
        record = record_from(rows)
        own(key_id, record.key)
        return Reading(record, text_of(end))

    async def tend(self) -> None:
        await self._port.keep_ready()

    async def aclose(self) -> None:
        await self._port.aclose()
