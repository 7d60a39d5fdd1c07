"""The event loops of asyncio on which a store runs, and the objects that belong to each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from keyguard.exceptions import ConfigurationError

Made = TypeVar("Made")


def running_loop(stores: str) -> asyncio.AbstractEventLoop:
    """Return the running event loop of asyncio.

    Args:
        stores: The kind of stores that need it, for the message.

    Raises:
        ConfigurationError: No event loop of asyncio runs.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"{stores} stores need asyncio; under trio use memory:// or a store of your own"
        ) from None


class PerLoop(Generic[Made]):
    """Objects of which each event loop has its own, because a connection belongs to its loop.

    Args:
        stores: The kind of stores that need a loop, for the message.
        make: Makes the object, on the running event loop.

    Attributes:
        made: The objects by event loop.
    """

    def __init__(self, stores: str, make: Callable[[], Made]) -> None:
        self._stores = stores
        self._make = make
        self.made: dict[asyncio.AbstractEventLoop, Made] = {}

    def here(self) -> Made:
        """Return the object of the running event loop, and make it at the first call.

        Raises:
            ConfigurationError: No event loop of asyncio runs.
        """
        loop = running_loop(self._stores)
        found = self.made.get(loop)
        if found is None:
            for known in [*self.made]:  # to which another thread may add one meanwhile
                if known.is_closed():
                    self.made.pop(known, None)
            found = self.made[loop] = self._make()
        return found


def closed_with_loop(close: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Return a generator that closes something on the running event loop before that loop ends.

    Args:
        close: Closes it.

    Returns:
        A generator that calls ``close`` when it is closed or freed. asyncio closes its generators
        before it closes the loop.
    """
    closing = _closing(close)
    with suppress(StopIteration):
        closing.__anext__().send(None)
    return closing


async def _closing(close: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await close()
