"""How a script is called: by its name, again where that is safe, and with errors that say why."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from redis.exceptions import NoScriptError

from keyguard.exceptions import KeyguardError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.drivers import arun, run
from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.connections import AsyncConnections, Connections
from keyguard.stores.redis.errors import explained, is_lost
from keyguard.stores.redis.scripts import Call

__all__ = ["aask", "ask"]


def ask(connections: Connections, call: Call, place: str) -> Any:
    """Call one script and return its reply.

    Args:
        connections: The way to the server.
        call: The script, its keys and arguments.
        place: The address, without secrets.

    Raises:
        StoreError: It failed; the error says why.
    """
    key = call.keys[0]
    try:
        return connections.call(call.by_name, key)
    except Exception as failure:  # noqa: BLE001 - what it means is decided in one place
        rescue = _rescue(call, failure, place)
    return run(rescue, lambda command: connections.call(command, key))


async def aask(connections: AsyncConnections, call: Call, place: str) -> Any:
    """Call one script and return its reply; else like :func:`ask`."""
    key = call.keys[0]
    try:
        return await connections.call(call.by_name, key)
    except Exception as failure:  # noqa: BLE001 - what it means is decided in one place
        rescue = _rescue(call, failure, place)
    return await arun(rescue, lambda command: connections.call(command, key))


def _rescue(call: Call, failure: Exception, place: str) -> Generator[Command, Any, Any]:
    """Take a call that failed to a reply after all, or to an error that says why.

    Like an operation, this is a generator that does no I/O; it yields the commands to send.
    """
    # One from the pool may have died long ago. A change may have been made, though.
    if is_lost(failure) and not call.script.writes and remaining() != 0:
        try:
            return (yield call.by_name)
        except Exception as another:  # noqa: BLE001 - told below
            failure = another
    if isinstance(failure, NoScriptError):  # nothing was run
        try:
            return (yield call.in_full())
        except Exception as another:  # noqa: BLE001 - told below
            failure = another
    if isinstance(failure, KeyguardError):
        raise failure
    raise explained(failure, place) from failure
