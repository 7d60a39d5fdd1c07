"""Counting in a plain function that an ASGI application calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.ports import Counters
from keyguard.exceptions import ConfigurationError

__all__ = ["BlockingCounters", "running_loop"]

Result = TypeVar("Result")

running_loop = asyncio._get_running_loop
"""Returns asyncio's running event loop, or None. Requests ask it, and it costs no Python call."""


class BlockingCounters:
    """Counters for a plain function beside the event loop. It waits for the loop."""

    def __init__(self, counters: Counters, loop: asyncio.AbstractEventLoop | None) -> None:
        self._counters = counters
        self._loop = loop

    async def hit(self, charges: Sequence[Charge]) -> Outcome | None:
        return self._wait_for(self._counters.hit(charges))

    async def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Outcome | None:
        return self._wait_for(self._counters.adjust(charges, units, ends_at, counter))

    def _wait_for(self, counting: Coroutine[object, None, Result]) -> Result:
        if self._loop is None or self._loop is running_loop():
            counting.close()
            raise ConfigurationError(
                "the counters of these limits are across a network, so they have to be awaited: "
                "make the function async, and in it use settle and refund, not settle_sync and "
                "refund_sync"
            )
        return asyncio.run_coroutine_threadsafe(counting, self._loop).result()
