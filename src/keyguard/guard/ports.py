"""What the core asks of the outside, answered by the parts of one guard."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime
from functools import partial
from typing import Self, TypeVar

from keyguard.core.access.policy import Policy
from keyguard.core.access.ports import Found
from keyguard.core.identity.addresses import parse_address
from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import KeyRecord, Use
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.tokens.secret import Secret
from keyguard.freshness.background import AsyncBackgroundWork, BackgroundWork
from keyguard.freshness.blocked_clients import BlockedClients
from keyguard.freshness.lookups import Lookups, TaskWaits, ThreadWaits
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.guard.store_ports import StorePort, in_time
from keyguard.runtime.deadlines import within
from keyguard.runtime.pool import HashPool
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.settings.hashing import TokenHasher, scheme_of
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.failover import CircuitBreaker
from keyguard.stores.memory.counters import MemoryRateLimiter

Answer = TypeVar("Answer")


class Parts:
    """The parts of a guard that are the same in both flavours.

    Args:
        settings: What the service has settled.
        clock: Where time comes from.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.policy: Policy = settings.policy
        self.clock = clock
        self.tokens = VerifiedTokens(
            self.policy.tokens,
            size=settings.cache_size,
            max_staleness=settings.max_staleness,
            clock=clock,
            sees_all=settings.record_addresses,
            foreign=bool(self.policy.foreign),
        )
        self.blocklist = BlockedClients(clock)
        self.hasher: TokenHasher = settings.token_hasher
        self.records_addresses = settings.record_addresses
        self.store_timeout = settings.store_timeout
        self.management_timeout = settings.management_timeout

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.clock.time(), UTC)


class _Ports(ABC):
    """What both flavours share: all that never waits, and hashing.

    It fulfils the core's ``RequestPorts`` and ``ManagementPorts``.

    Args:
        parts: The guard's parts.
        store: The key store.
        counters: The counters, behind their circuit breaker.
        background: What is done beside requests.
        pool: Where slow hashes run.
    """

    def __init__(
        self,
        parts: Parts,
        store: Store | AsyncStore,
        counters: CircuitBreaker,
        background: BackgroundWork | AsyncBackgroundWork,
        pool: HashPool,
    ) -> None:
        self.policy = parts.policy
        self.tokens = parts.tokens
        self.blocklist = parts.blocklist
        self.now = parts.now
        self.store: KeyStore = StorePort(store, parts.management_timeout)
        self.counters = counters
        self._for_requests = StorePort(store, parts.store_timeout)
        self._timeout = parts.store_timeout
        self._management_timeout = parts.management_timeout
        self._background = background
        self._pool = pool
        self._hasher = parts.hasher
        self._records_addresses = parts.records_addresses

    def draw_entropy(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def scheme_of(self, digest: str) -> str:
        return scheme_of(digest)

    def note_use(self, key_id: str, address: str | None) -> None:
        seen = None
        if address is not None and self._records_addresses:
            # A text that is not an address could be longer than a store takes, and hold up the
            # uses of other keys that are passed to the store with it.
            seen = parse_address(address)
        self.tokens.note_use(Use(key_id, self.now(), None if seen is None else str(seen)))

    def offer_rehash(self, key_id: str, token: Secret, digest: str) -> None:
        if self._hasher.is_outdated(token, digest):
            self._background.rehash(key_id, digest, token)

    async def verify(self, token: Secret, digest: str | None) -> bool:
        if not self._hasher.is_slow(digest):
            return self._hasher.verify(token, digest)
        return await self._run_slowly(partial(self._hasher.verify, token, digest))

    async def hash(self, token: Secret) -> str:
        if not self._hasher.hashes_slowly:
            return self._hasher.hash(token)
        return await self._store_slowly(partial(self._hasher.hash, token))

    async def hash_weak(self, token: Secret) -> str:
        return await self._store_slowly(partial(self._hasher.hash_slowly, token))

    @abstractmethod
    async def _store_slowly(self, job: Callable[[], str]) -> str:
        """Run a slow hash that is to be stored, within the deadline of management."""

    @abstractmethod
    async def _run_slowly(self, job: Callable[[], Answer]) -> Answer:
        """Run a slow hash when its turn comes."""

    @abstractmethod
    async def find_key(self, key_id: str, *, fresh: bool) -> Found: ...

    def for_request(self) -> Self:
        """Return these ports for management during a request, with a request's deadline."""
        ports = copy(self)
        ports.store = self._for_requests
        return ports

    @abstractmethod
    async def read_limits(self, charges: Sequence[Charge]) -> Outcome: ...


class SyncPorts(_Ports):
    """The ports of sync code, over a limiter. No method suspends."""

    def __init__(
        self,
        parts: Parts,
        store: Store,
        limiter: RateLimiter,
        counters: CircuitBreaker,
        background: BackgroundWork,
        pool: HashPool,
    ) -> None:
        super().__init__(parts, store, counters, background, pool)
        self.lookups = Lookups(parts.tokens, ThreadWaits())
        self._raw = store
        self._limiter = limiter

    async def find_key(self, key_id: str, *, fresh: bool) -> Found:
        self._background.start()
        with within(self._timeout):
            if fresh:
                mark = self.tokens.begin()
                return self._raw.find_key(key_id), mark
            return await self.lookups.find(key_id, self._find_key)

    async def _find_key(self, key_id: str) -> KeyRecord | None:
        return self._raw.find_key(key_id)

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        nothing = [0] * len(charges)
        with within(self._management_timeout):
            return self._limiter.adjust(charges, nothing, nothing)

    async def _run_slowly(self, job: Callable[[], Answer]) -> Answer:
        return self._pool.run(job)

    async def _store_slowly(self, job: Callable[[], str]) -> str:
        with within(self._management_timeout):
            return self._pool.run(job)


class AsyncPorts(_Ports):
    """The ports of async code, over a limiter."""

    def __init__(
        self,
        parts: Parts,
        store: AsyncStore,
        limiter: AsyncRateLimiter | MemoryRateLimiter,
        counters: CircuitBreaker,
        background: AsyncBackgroundWork,
        pool: HashPool,
    ) -> None:
        super().__init__(parts, store, counters, background, pool)
        self.lookups = Lookups(parts.tokens, TaskWaits())
        self._raw = store
        self._limiter = limiter

    async def find_key(self, key_id: str, *, fresh: bool) -> Found:
        self._background.start()
        if fresh:
            mark = self.tokens.begin()
            return await in_time(self._timeout, self._raw.find_key(key_id)), mark
        return await in_time(self._timeout, self.lookups.find(key_id, self._raw.find_key))

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        nothing = [0] * len(charges)
        if isinstance(self._limiter, MemoryRateLimiter):
            return self._limiter.adjust(charges, nothing, nothing)
        answer = self._limiter.adjust(charges, nothing, nothing)
        return await in_time(self._management_timeout, answer)

    async def _run_slowly(self, job: Callable[[], Answer]) -> Answer:
        return await self._pool.arun(job)

    async def _store_slowly(self, job: Callable[[], str]) -> str:
        return await in_time(self._management_timeout, self._pool.arun(job))
