"""The event loop of asyncio on which a store runs: which one it is, and what ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from keyguard.exceptions import ConfigurationError


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


def closed_with_loop(close: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Have something closed on the running event loop, at the latest when that loop ends.

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
