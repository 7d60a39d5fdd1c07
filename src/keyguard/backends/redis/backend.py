"""The Redis backend in both flavours.

All that is particular to a flavour is how one call is carried to the server
(:mod:`~keyguard.backends.redis.asking`); the operations themselves are in
:mod:`~keyguard.backends.redis.operations`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from keyguard._drivers import arun, run
from keyguard.backends.diagnosis import Finding
from keyguard.backends.methods import AsyncMethods, Methods
from keyguard.backends.redis import operations
from keyguard.backends.redis.addresses import Address
from keyguard.backends.redis.asking import aask, ask
from keyguard.backends.redis.connections import AsyncConnections, Connections
from keyguard.backends.redis.diagnosis import diagnose
from keyguard.backends.redis.feed import AsyncRedisFeed, RedisFeed
from keyguard.backends.redis.operations import Flow
from keyguard.backends.redis.scripts import Call

__all__ = ["AsyncRedisBackend", "RedisBackend"]

Result = TypeVar("Result")


class RedisBackend(Methods):
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
        """See :class:`~keyguard.backends.base.Backend`."""
        self.perform(operations.migrate())

    def close(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self.connections.close()

    def diagnose(self) -> list[Finding]:
        """See :class:`~keyguard.backends.diagnosis.Diagnosable`."""
        return diagnose(self.connections, self.place)

    def feed(self) -> RedisFeed:
        """See :class:`~keyguard.backends.base.Backend`."""
        return RedisFeed(self._address)

    def ask(self, call: Call) -> Any:
        """Call one script and return its reply.

        Raises:
            BackendError: It failed; the error says why.
        """
        return ask(self.connections, call, self.place)

    def perform(self, operation: Flow[Result]) -> Result:
        """Run one operation."""
        return run(operation, self.ask)


class AsyncRedisBackend(AsyncMethods):
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
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.perform(operations.migrate())

    async def aclose(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.connections.aclose()

    def feed(self) -> AsyncRedisFeed:
        """See :class:`~keyguard.backends.base.AsyncBackend`."""
        return AsyncRedisFeed(self._address)

    async def ask(self, call: Call) -> Any:
        """Call one script and return its reply; else like :meth:`RedisBackend.ask`."""
        return await aask(self.connections, call, self.place)

    async def perform(self, operation: Flow[Result]) -> Result:
        """Run one operation."""
        return await arun(operation, self.ask)
