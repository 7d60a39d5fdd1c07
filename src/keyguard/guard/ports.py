"""The parts of a guard. They implement the ports that the core calls.

Parts that only requests need are built at their first use.
"""

from __future__ import annotations

import secrets
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from keyguard.core.access.ports import Found
from keyguard.core.identity.addresses import parse_address
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import Organization, Use
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret
from keyguard.core.usage.sightings import Sighting, network_of
from keyguard.exceptions import ConfigurationError
from keyguard.freshness.blocked_clients import BlockedClients
from keyguard.freshness.usage_counts import UsageCounts
from keyguard.freshness.usage_work import UsageWork
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.freshness.workers import TaskWorker, ThreadWorker
from keyguard.guard.store_ports import StorePort, UsagePort
from keyguard.runtime import events
from keyguard.runtime.lazy import Lazy, once
from keyguard.runtime.observers import Observers
from keyguard.runtime.pool import HashPool
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.settings.hashing import TokenHasher, scheme_of
from keyguard.stores.base import (
    AsyncKeepsUsage,
    AsyncRateLimiter,
    AsyncReplica,
    AsyncStore,
    KeepsUsage,
    RateLimiter,
    Replica,
    Store,
)
from keyguard.stores.failover import CircuitBreaker
from keyguard.stores.limiters import check_countable

if TYPE_CHECKING:  # few processes need these
    from keyguard.core.keys.audit import Action
    from keyguard.core.keys.requests import KeyRequest
    from keyguard.core.management.request_terms import RequestTerms
    from keyguard.core.usage.hints import Hint
    from keyguard.guard import statistics
    from keyguard.guard.replica import ReplicaPort
else:
    statistics = Lazy("keyguard.guard.statistics")  # for metrics alone

Answer = TypeVar("Answer")
AnyStore = TypeVar("AnyStore", Store, AsyncStore)
Work = TypeVar("Work", ThreadWorker, TaskWorker)

_HASHES_WAITING = 32
_LONGEST_TELLING = 2.0  # seconds
_MOST_TOLD = 1000
_GUESSES = "*"  # the share of clients that failed lately; no key has this id


class Ports(ABC, Generic[AnyStore, Work]):
    """The parts of a guard that both flavours share: all that never waits, and hashing.

    It fulfils the core's ``RequestPorts`` and ``ManagementPorts``.

    Args:
        settings: The settings of the service.
        clock: Where time comes from.
        store: The key store.
        tell: Reports events to the hooks.
        limiter: Where the service wants its counters; None for the key store.
        replica: The read replica, if there is one.
    """

    _worker: Callable[..., Work]
    _awaits: bool
    """Whether stores and counters are awaited."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: AnyStore,
        tell: Callable[[events.Event], None],
        limiter: object,
        replica: Replica | AsyncReplica | None,
    ) -> None:
        self.settings = settings
        self.policy = settings.policy
        self.clock = clock
        self.tokens = VerifiedTokens(
            self.policy.tokens,
            size=settings.cache_size,
            max_staleness=settings.max_staleness,
            clock=clock,
            sees_all=settings.record_addresses,
            foreign=bool(self.policy.foreign),
        )
        self.hasher: TokenHasher = settings.token_hasher
        self.observers = Observers()
        self.store: KeyStore = StorePort(store, settings.management_timeout, self.observers)
        self._raw: AnyStore = store
        self._tell = tell
        self._wanted = limiter
        self._told_plans = set[tuple[str, str | None]]()
        self._replica: ReplicaPort | None = None
        self._find_nearby: Callable[[str], Awaitable[Found | None]] | None = None
        if replica is not None:
            from keyguard.guard.replica import ReplicaPort

            self._replica = ReplicaPort(replica, self.tokens, settings, clock=clock, tell=tell)
            self._find_nearby = self._replica.find_key
        if limiter is not None:
            _ = self.counters  # so that the service learns at its start if they can't be used

    @once
    def counts(self) -> UsageCounts:
        """The counts of requests."""
        settings = self.settings
        keeps = settings.usage and isinstance(self._raw, KeepsUsage)
        return UsageCounts(self.tokens, clock=self.clock, bucket=settings.bucket, keeps=keeps)

    @property
    def bucket(self) -> int:
        return self.settings.bucket

    @once
    def usage(self) -> UsagePort:
        """The store of usage. Each call has the deadline of management.

        Raises:
            ConfigurationError: The guard counts no usage, or its key store keeps none.
        """
        if not self.settings.usage:
            raise ConfigurationError("this guard counts no usage: its setting usage is False")
        if not isinstance(self._raw, KeepsUsage | AsyncKeepsUsage):
            raise ConfigurationError(
                f"{type(self._raw).__name__} keeps no usage: give it a method usage that returns a "
                "store of usage, as keyguard.stores.base.KeepsUsage says, or use another key store"
            )
        timeout = self.settings.management_timeout
        return UsagePort(self._raw.usage(), timeout, self.observers, self._raw)

    @once
    def blocklist(self) -> BlockedClients:
        """The clients that failed too often."""
        return BlockedClients(self.clock)

    @once
    def pool(self) -> HashPool:
        """Where slow hashes run."""
        return HashPool(
            workers=self.settings.hash_workers,
            waiting=_HASHES_WAITING,
            patience=self.settings.store_timeout,
            longest=self.settings.hash_timeout,
        )

    def statistics(self) -> statistics.Statistics:
        """Return what was counted so far, and the present state."""
        background, breaker = vars(self).get("background"), vars(self).get("counters")
        counts = self.counts
        organizations = counts.outcomes_of_organizations()  # first, so that no total is less
        return statistics.Statistics(
            decisions=counts.outcomes(),
            organizations=organizations,
            lookups=counts.lookups(),
            cache_entries=len(self.tokens),
            feed_lag=background.lag if background else None,
            feed_is_up=background.is_up if background else None,
            limits=breaker.counts.totals() if breaker else {},
            limiter_is_up=breaker.is_up if breaker else None,
            usage_pending=counts.pending(),
            usage_lost=counts.lost,
        )

    @once
    def _for_requests(self) -> StorePort:
        """The store, with a request's deadline."""
        return StorePort(self._raw, self.settings.store_timeout, self.observers)

    @once
    def background(self) -> Work:
        """The background work."""
        background = self._worker(
            self._for_requests,
            self._raw.feed,
            self.tokens,
            self.hasher,
            self.pool,
            clock=self.clock,
            timeout=self.settings.store_timeout,
            max_staleness=self.settings.max_staleness,
            tell=self._tell,
            replica=self._replica,
            usage=self._usage_work() if self.counts.keeps else None,
            beat=self.observers.beat,
        )
        weakref.finalize(self, background.abandon).atexit = False
        return background

    def _usage_work(self) -> UsageWork:
        # A flush may be large, but the worker must not leave the change feed alone for long.
        usage = copy(self.usage)
        usage.timeout = min(_LONGEST_TELLING, usage.timeout)
        return UsageWork(self.counts, usage, self._for_requests, self.clock)

    def check_limits(self, limits: Collection[Limit]) -> None:
        """Refuse limits of rules that can't be counted.

        Raises:
            ConfigurationError: The limiter can't count one of them.
            InvalidValueError: A plan gives one of them a rate that its strategy can't count.
        """
        check_countable(self.limiter, limits)
        self.policy.check_plans(limits)

    @once
    def counters(self) -> CircuitBreaker:
        """The limiter, behind its circuit breaker."""
        check_countable(self.limiter, self._limits_at_start())
        return CircuitBreaker(
            self.limiter,
            awaited=self._awaits,
            timeout=self.settings.limiter_timeout,
            fails_open=self.settings.on_limiter_error == "open",
            processes=self.settings.limiter_processes,
            clock=self.clock,
            tell=self._tell,
            observers=self.observers,
            names=[name for limit in self._limits_at_start() for name, _ in limit.policies()],
        )

    def _limits_at_start(self) -> Iterator[Limit]:
        for defaults in (self.policy.default_limits, *self.policy.defaults.values()):
            yield from defaults
        if self.policy.failure_limit is not None:
            yield self.policy.failure_limit
        for rule in self.settings.rule_book().rules:
            for charged in rule.charged:
                yield charged.limit

    @property
    def longest_call(self) -> timedelta:
        return timedelta(seconds=self.settings.management_timeout)

    @property
    def request_terms(self) -> RequestTerms:
        return self.settings.request_terms

    @property
    def keep_ended_keys(self) -> timedelta | None:
        return _span(self.settings.keep_ended_keys)

    @property
    def keep_audit(self) -> timedelta | None:
        return _span(self.settings.keep_audit)

    def tell_request(self, action: Action, request: KeyRequest) -> None:
        self._tell(events.of_request(action, request, self.now()))

    def tell_hint(self, hint: Hint) -> None:
        self._tell(events.HintFound(at=self.now(), hint=hint))

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.clock.time(), UTC)

    def draw_entropy(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def scheme_of(self, digest: str) -> str:
        return scheme_of(digest)

    def note_use(self, principal: Principal, address: str | None) -> None:
        seen = None
        if address is not None and self.settings.record_addresses:
            # A text that is not an address could be longer than a store takes, and hold up the
            # uses of other keys that are passed to the store with it.
            seen = parse_address(address)
            if seen is not None:
                self.counts.see(principal, Sighting.NETWORK, network_of(seen))
        address = None if seen is None else str(seen)
        self.tokens.note_use(Use(principal.key_id, self.now(), address))

    def offer_rehash(self, key_id: str, token: Secret, digest: str) -> None:
        if self.hasher.is_outdated(token, digest):
            self.background.rehash(key_id, digest, token)

    def note_unknown_plan(self, organization: Organization) -> None:
        who = (organization.id, organization.plan)
        if who not in self._told_plans and len(self._told_plans) < _MOST_TOLD:
            self._told_plans.add(who)
            event = events.PlanUnknown(
                at=self.now(), organization=organization.id, plan=str(organization.plan)
            )
            self._tell(event)

    async def verify(
        self, token: Secret, digest: str | None, client: str = "", key_id: str = ""
    ) -> bool:
        if not self.hasher.is_slow(digest):
            return self.hasher.verify(token, digest)
        share = self._share_of(client, key_id)
        return await self._run_slowly(partial(self.hasher.verify, token, digest), share)

    def _share_of(self, client: str, key_id: str) -> str:
        """Return the share whose turn a slow hash takes; by default the unnamed share."""
        if self.blocklist.has_failed(client):
            return _GUESSES
        return key_id if self.blocklist.has_failed(key_id) else ""

    async def hash(self, token: Secret) -> str:
        if not self.hasher.hashes_slowly:
            return self.hasher.hash(token)
        return await self._store_slowly(partial(self.hasher.hash, token))

    async def hash_weak(self, token: Secret) -> str:
        return await self._store_slowly(partial(self.hasher.hash_slowly, token))

    @property
    @abstractmethod
    def limiter(self) -> RateLimiter | AsyncRateLimiter:
        """The counters of limits."""

    @abstractmethod
    async def _store_slowly(self, job: Callable[[], str]) -> str:
        """Run a slow hash whose result will be stored, within the deadline of management."""

    @abstractmethod
    async def _run_slowly(self, job: Callable[[], Answer], share: str) -> Answer:
        """Run a slow hash when the turn of its share comes."""

    @abstractmethod
    async def find_key(self, key_id: str, *, fresh: bool) -> Found: ...

    def for_request(self) -> Self:
        """Return these ports for management during a request, with a request's deadline."""
        ports = copy(self)
        ports.store = self._for_requests
        return ports

    @abstractmethod
    async def read_limits(self, charges: Sequence[Charge]) -> Outcome: ...


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
