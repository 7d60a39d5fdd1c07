"""The parts of a guard for sync code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from keyguard.core.access.ports import Found
from keyguard.core.keys.records import KeyRecord
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.freshness.lookups import Lookups
from keyguard.freshness.workers import ThreadWorker
from keyguard.guard.ports import Answer, Ports
from keyguard.runtime.deadlines import within
from keyguard.runtime.lazy import once
from keyguard.runtime.waiting import ThreadWaits
from keyguard.stores.base import RateLimiter, Store
from keyguard.stores.limiters import open_limiter


class SyncPorts(Ports[Store, ThreadWorker]):
    """The ports of sync code. No method suspends."""

    _worker = ThreadWorker
    _awaits = False

    @once
    def lookups(self) -> Lookups[threading.Event]:
        """The look-ups in progress."""
        return Lookups(self.tokens, self.counts, ThreadWaits())

    @once
    def limiter(self) -> RateLimiter:
        """The counters of limits."""
        return open_limiter(
            self._wanted, self._raw, clock=self.clock, patience=self.settings.patience
        )

    async def find_key(self, key_id: str, *, fresh: bool) -> Found:
        self.background.start()
        find = self._find_observed if self.observers.of_keys else self._find_key
        with within(self.settings.store_timeout):
            if fresh:
                mark = self.tokens.begin()
                self.counts.led += 1
                return await find(key_id), mark
            return await self.lookups.find(key_id, find, self._find_nearby)

    async def _find_key(self, key_id: str) -> KeyRecord | None:
        return self._raw.find_key(key_id)

    async def _find_observed(self, key_id: str) -> KeyRecord | None:
        with self._for_requests.around(self._raw.find_key):
            return self._raw.find_key(key_id)

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        nothing = [0] * len(charges)
        with within(self.settings.management_timeout):
            return self.limiter.adjust(charges, nothing, nothing)

    async def _run_slowly(self, job: Callable[[], Answer], share: str) -> Answer:
        return self.pool.run(job, share)

    async def _store_slowly(self, job: Callable[[], str]) -> str:
        with within(self.settings.management_timeout):
            return self.pool.run(job)

    def close(self) -> None:
        """Write what is pending to the store, and close all parts except the store."""
        if "background" in vars(self):
            self.background.close()
        if "pool" in vars(self):
            self.pool.close()
        if "counters" in vars(self):
            self.counters.close()
            if self.limiter is not self._wanted:
                self.limiter.close()
        self.observers.end()
