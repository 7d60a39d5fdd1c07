"""The Redis store in both flavours.

All that is particular to a flavour is how one call is carried to the server
(:mod:`~keyguard.stores.redis.asking`); the operations themselves are in
:mod:`~keyguard.stores.redis.operations`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from keyguard.runtime.drivers import arun, run
from keyguard.stores.diagnosis import Finding
from keyguard.stores.methods import AsyncMethods, Methods
from keyguard.stores.redis import operations
from keyguard.stores.redis.addresses import Address
from keyguard.stores.redis.asking import aask, ask
from keyguard.stores.redis.connections import AsyncConnections, Connections
from keyguard.stores.redis.diagnosis import diagnose
from keyguard.stores.redis.feed import AsyncRedisFeed, RedisFeed
from keyguard.stores.redis.operations import Flow
from keyguard.stores.redis.scripts import Call

__all__ = ["AsyncRedisStore", "RedisStore"]

Result = TypeVar("Result")


class RedisStore(Methods):
    """A key store in Redis or Valkey, for sync code.

    Args:
        address: Where the server is.
    """

    operations: ClassVar[Any] = operations

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self.connections = Connections(address)
        self._address = address

    def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        self.perform(operations.migrate())

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        self.connections.close()

    def diagnose(self) -> list[Finding]:
        """See :class:`~keyguard.stores.diagnosis.Diagnosable`."""
        return diagnose(self.connections, self.place)

    def feed(self) -> RedisFeed:
        """See :class:`~keyguard.stores.base.Store`."""
        return RedisFeed(self._address)

    def ask(self, call: Call) -> Any:
        """Call one script and return its reply.

        Raises:
            StoreError: It failed; the error says why.
        """
        return ask(self.connections, call, self.place)

    def perform(self, operation: Flow[Result]) -> Result:
        """Run one operation."""
        return run(operation, self.ask)


class AsyncRedisStore(AsyncMethods):
    """A key store in Redis or Valkey, for code on asyncio.

    Args:
        address: Where the server is.
    """

    operations: ClassVar[Any] = operations

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self.connections = AsyncConnections(address)
        self._address = address

    async def migrate(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self.perform(operations.migrate())

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.Store`."""
        await self.connections.aclose()

    def feed(self) -> AsyncRedisFeed:
        """See :class:`~keyguard.stores.base.AsyncStore`."""
        return AsyncRedisFeed(self._address)

    async def ask(self, call: Call) -> Any:
        """Call one script and return its reply; else like :meth:`RedisStore.ask`."""
        return await aask(self.connections, call, self.place)

    async def perform(self, operation: Flow[Result]) -> Result:
        """Run one operation."""
        return await arun(operation, self.ask)
