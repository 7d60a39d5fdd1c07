"""The Redis backend in both flavours.

All that is particular to a flavour is how one call is carried to the server; what is done about a
script that the server does not know, a lost connection or a failure is ``_rescue``, and the
operations themselves are in :mod:`~keyguard.backends.redis.operations`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, TypeAlias, TypeVar

from redis.exceptions import NoScriptError

from keyguard._drivers import arun, run
from keyguard.backends.diagnosis import Finding
from keyguard.backends.methods import AsyncMethods, Methods
from keyguard.backends.redis import operations
from keyguard.backends.redis.addresses import Address
from keyguard.backends.redis.connections import AsyncConnections, Connections
from keyguard.backends.redis.diagnosis import diagnose
from keyguard.backends.redis.errors import explained, is_lost
from keyguard.backends.redis.operations import Flow
from keyguard.backends.redis.scripts import Call
from keyguard.deadlines import remaining
from keyguard.exceptions import KeyguardError

__all__ = ["AsyncRedisBackend", "RedisBackend"]

Result = TypeVar("Result")
Command: TypeAlias = tuple[str | int, ...]


class RedisBackend(Methods):
    """A key store in Redis or Valkey, for sync code.

    Args:
        address: Where the server is.
    """

    operations: ClassVar[Any] = operations

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self.connections = Connections(address)

    def migrate(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self.perform(operations.migrate())

    def close(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        self.connections.close()

    def diagnose(self) -> list[Finding]:
        """See :class:`~keyguard.backends.diagnosis.Diagnosable`."""
        return diagnose(self.connections, self.place)

    def ask(self, call: Call) -> Any:
        """Call one script and return its reply.

        Raises:
            BackendError: It failed; the error says why.
        """
        key = call.keys[0]
        try:
            return self.connections.call(_by_name(call), key)
        except Exception as failure:  # noqa: BLE001 - what it means is decided in one place
            rescue = _rescue(call, failure, self.place)
        return run(rescue, lambda command: self.connections.call(command, key))

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

    async def migrate(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.perform(operations.migrate())

    async def aclose(self) -> None:
        """See :class:`~keyguard.backends.base.Backend`."""
        await self.connections.aclose()

    async def ask(self, call: Call) -> Any:
        """Call one script and return its reply; else like :meth:`RedisBackend.ask`."""
        key = call.keys[0]
        try:
            return await self.connections.call(_by_name(call), key)
        except Exception as failure:  # noqa: BLE001 - what it means is decided in one place
            rescue = _rescue(call, failure, self.place)
        return await arun(rescue, lambda command: self.connections.call(command, key))

    async def perform(self, operation: Flow[Result]) -> Result:
        """Run one operation."""
        return await arun(operation, self.ask)


def _by_name(call: Call) -> Command:
    script, keys, arguments = call
    return ("EVALSHA", script.name, len(keys), *keys, *arguments)


def _rescue(call: Call, failure: Exception, place: str) -> Generator[Command, Any, Any]:
    """Take a call that failed to a reply after all, or to an error that says why.

    Like an operation, this is a generator that does no I/O; it yields the commands to send.
    """
    try:
        if isinstance(failure, NoScriptError):  # nothing was run
            _, _, *rest = _by_name(call)
            return (yield ("EVAL", call.script.text, *rest))
        # One from the pool may have died long ago. A change may have been made, though.
        if is_lost(failure) and not call.script.writes and remaining() != 0:
            return (yield _by_name(call))
    except Exception as another:  # noqa: BLE001 - told below
        failure = another
    if isinstance(failure, KeyguardError):
        raise failure
    # Its frames are redis-py's, and hold the password.
    raise explained(failure, place) from failure.with_traceback(None)
