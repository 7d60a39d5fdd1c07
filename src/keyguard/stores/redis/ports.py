"""What the Redis stores need of a connection, and what they do if a call fails.

Each port has two implementations: one in :mod:`~keyguard.stores.redis.sync_ports`, whose coroutines
never suspend, and one in :mod:`~keyguard.stores.redis.async_ports`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from redis.exceptions import NoScriptError

from keyguard.exceptions import KeyguardError, StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.stores.redis.errors import explained, is_lost
from keyguard.stores.redis.scripts import STORE, Command, Reply, ScriptCall

TRAIL = f"{STORE}audit"
"""The key of the audit trail."""


class ScriptPort(Protocol):
    """Runs scripts."""

    async def run(self, call: ScriptCall) -> Reply:
        """Run a script and return its reply.

        Raises:
            StoreError: The call failed; the message says why and what to do.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections that the port opened; a later call opens new ones."""


class ListenerPort(ScriptPort, Protocol):
    """Runs scripts on one connection of its own, on which it may also wait."""

    async def wait(self, position: str, seconds: float) -> bool:
        """Wait until the audit trail goes on after a position.

        Args:
            position: The position.
            seconds: How long to wait at most.

        Returns:
            Whether there may be news.

        Raises:
            StoreError: The connection failed or was closed.
        """
        ...


async def rescue(
    send: Callable[[Command], Awaitable[Reply]], call: ScriptCall, failure: Exception, place: str
) -> Reply:
    """Run a script whose first call failed once more, where that is safe.

    Args:
        send: Sends a command to the server of the script's keys.
        call: The script's call.
        failure: What redis-py raised.
        place: The server's address, without secrets.

    Raises:
        StoreError: The call failed again, or must not be repeated.
    """
    # A connection from the pool may have died long ago. A change may have been made, though.
    if is_lost(failure) and not call.script.writes and remaining() != 0:
        try:
            return await send(call.by_digest)
        except Exception as another:  # noqa: BLE001 - explained below
            failure = another
    if isinstance(failure, NoScriptError):  # the server ran nothing
        try:
            return await send(call.in_full())
        except Exception as another:  # noqa: BLE001 - explained below
            failure = another
    if isinstance(failure, KeyguardError):
        raise failure
    raise explained(failure, place) from failure


def waiting(position: str, seconds: float) -> Command:
    """Return the command that waits for entries of the audit trail after a position."""
    # At least a millisecond, for 0 means to wait for ever.
    limit = str(max(1, round(seconds * 1000)))
    return Command("XREAD", "COUNT", "1", "BLOCK", limit, "STREAMS", TRAIL, position)


def closed() -> StoreUnavailableError:
    """Return the error of a reader that was closed."""
    return StoreUnavailableError("this reader of the audit trail was closed")
