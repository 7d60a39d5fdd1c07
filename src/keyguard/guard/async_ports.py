"""The parts of a guard for async code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyguard.core.access.ports import Found
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.freshness.lookups import Lookups
from keyguard.freshness.workers import TaskWorker
from keyguard.guard.ports import Answer, Ports
from keyguard.guard.store_ports import in_time
from keyguard.runtime.lazy import asyncio, once
from keyguard.runtime.waiting import TaskWaits
from keyguard.stores.base import AsyncRateLimiter, AsyncStore
from keyguard.stores.limiters import open_async_limiter
from keyguard.stores.memory.counters import MemoryRateLimiter


class AsyncPorts(Ports[AsyncStore, TaskWorker]):
    """The ports of async code."""

    _worker = TaskWorker
    _awaits = True

    @once
    def lookups(self) -> Lookups[asyncio.Event]:
        """The look-ups in progress."""
        return Lookups(self.tokens, self.counts, TaskWaits())

    @once
    def limiter(self) -> MemoryRateLimiter | AsyncRateLimiter:
        """The counters of limits."""
        return open_async_limiter(
            self._wanted, self._raw, clock=self.clock, patience=self.settings.patience
        )

    async def find_key(self, key_id: str, *, fresh: bool) -> Found:
        self.background.start()
        timeout = self.settings.store_timeout
        find = self._for_requests.find_key if self.observers.of_keys else self._raw.find_key
        if fresh:
            mark = self.tokens.begin()
            self.counts.led += 1
            return await in_time(timeout, find(key_id)), mark
        return await in_time(timeout, self.lookups.find(key_id, find, self._find_nearby))

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        nothing = [0] * len(charges)
        if isinstance(self.limiter, MemoryRateLimiter):
            return self.limiter.adjust(charges, nothing, nothing)
        answer = self.limiter.adjust(charges, nothing, nothing)
        return await in_time(self.settings.management_timeout, answer)

    async def _run_slowly(self, job: Callable[[], Answer], share: str) -> Answer:
        return await self.pool.arun(job, share)

    async def _store_slowly(self, job: Callable[[], str]) -> str:
        return await in_time(self.settings.management_timeout, self.pool.arun(job))

    async def aclose(self) -> None:
        """Write what is pending to the store, and close all parts except the store."""
        if "background" in vars(self):
            await self.background.aclose()
        if "pool" in vars(self):
            self.pool.close()
        if "counters" in vars(self):
            self.counters.close()
            if isinstance(self.limiter, MemoryRateLimiter):
                self.limiter.close()
            elif self.limiter is not self._wanted:
                await self.limiter.aclose()
        self.observers.end()
