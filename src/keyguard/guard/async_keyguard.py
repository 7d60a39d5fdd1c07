"""``AsyncKeyguard``: the guard for async code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Self, Unpack, final

from keyguard.core.access.decisions import Decision
from keyguard.core.identity.addresses import Client
from keyguard.guard.async_ports import AsyncPorts
from keyguard.guard.base import Guard
from keyguard.runtime.events import Hook, log_event
from keyguard.runtime.frames import hides_arguments
from keyguard.runtime.lazy import Lazy, once
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.opening import open_async_replica, open_async_store

# Management, which most processes never ask for: they only check requests.
if TYPE_CHECKING:
    from keyguard.core.management import audit_trail, keys, organizations, requests, usage
    from keyguard.guard import admission, health, verdict
    from keyguard.guard.verdict import Verdict
    from keyguard.settings.options import Options
else:
    audit_trail = Lazy("keyguard.core.management.audit_trail")
    health = Lazy("keyguard.guard.health")
    keys = Lazy("keyguard.core.management.keys")
    organizations = Lazy("keyguard.core.management.organizations")
    requests = Lazy("keyguard.core.management.requests")
    # For services without an adapter.
    admission = Lazy("keyguard.guard.admission")
    verdict = Lazy("keyguard.guard.verdict")
    usage = Lazy("keyguard.core.management.usage")


@final
class AsyncKeyguard(Guard[AsyncPorts], flavour=True):
    """An API-key system for async code: :class:`~keyguard.Keyguard`, awaited.

    Nothing is opened, started or read before the first use.

    Args:
        store: A URL, a SQLAlchemy ``AsyncEngine``, an async Redis client, or an
            :class:`~keyguard.stores.base.AsyncStore`.
        limiter: Where counters live, as for :class:`~keyguard.Keyguard`, or an
            :class:`~keyguard.stores.base.AsyncRateLimiter`.
        read: A read replica that answers look-ups of requests: a URL, an engine or a client as for
            ``store``. By default the setting ``read_url``.
        settings: The settings of the service. The defaults are safe.
        clock: Where time comes from. Tests pass their own.
        hooks: Functions that are called with every event; by default events are logged.
        options: Fields of :class:`~keyguard.Settings`, instead of or on top of ``settings``.

    Raises:
        ConfigurationError: The store can't be used, or a driver is not installed.
        InvalidValueError: The value of a setting is not valid.
    """

    @hides_arguments
    def __init__(
        self,
        store: str | AsyncStore | object,
        *,
        limiter: str | RateLimiter | AsyncRateLimiter | None = None,
        read: object = None,
        settings: Settings | None = None,
        clock: Clock = time,
        hooks: Iterable[Hook] = (log_event,),
        **options: Unpack[Options],
    ) -> None:
        super().__init__(settings, options, hooks)
        for name in ("asyncio", "concurrent.futures.thread"):
            import_module(name)  # not during the first request, as where the loop is trio's
        self._store = open_async_store(
            store,
            durable_replicas=self.settings.durable_replicas,
            patience=self.settings.patience,
        )
        self._owned = self._store is not store
        self._replica = None
        read = self.settings.read_url if read is None else read
        if read is not None:
            self._replica = open_async_replica(read, self._store, patience=self.settings.patience)
        self._ports = AsyncPorts(
            self.settings, clock, self._store, self._tell, limiter, self._replica
        )

    @once
    def limiter(self) -> MemoryRateLimiter | AsyncRateLimiter:
        """The counters of limits."""
        return self._ports.limiter

    @once
    def stated(self) -> admission.Admission:
        """The admission of requests that are described by their values, for :meth:`admit`."""
        return admission.Admission(self, self.settings.rule_book())

    @once
    def organizations(self) -> organizations.AsyncOrganizations:
        """The organizations of this guard."""
        return organizations.AsyncOrganizations(self._ports)

    @once
    def keys(self) -> keys.AsyncKeys:
        """The keys of this guard."""
        return keys.AsyncKeys(self._ports)

    @once
    def requests(self) -> requests.AsyncRequests:
        """The requests for keys of this guard."""
        return requests.AsyncRequests(self._ports)

    @once
    def audit(self) -> audit_trail.AsyncAuditTrail:
        """The audit trail of this guard's key store."""
        return audit_trail.AsyncAuditTrail(self._ports)

    @once
    def usage(self) -> usage.AsyncUsage:
        """The usage that this guard's key store keeps."""
        return usage.AsyncUsage(self._ports)

    async def authenticate(
        self,
        fields: Sequence[str | bytes],
        *,
        scopes: Iterable[str] = (),
        any_of: Iterable[str] | None = None,
        secure: bool = False,
        address: str | None = None,
        fresh: bool = False,
    ) -> Decision:
        """Decide whether a request may pass, by its key alone; see :meth:`Keyguard.authenticate`.

        This applies no rule and charges no limit; :meth:`admit` does both.
        """
        authenticating = self._authenticate(
            fields, scopes, any_of, secure=secure, address=address, fresh=fresh
        )
        del fields  # a traceback that passes here must not show the token
        return await authenticating

    async def admit(
        self,
        fields: Sequence[str | bytes],
        *,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        secure: bool = False,
        address: str | None = None,
        cost: int | None = None,
    ) -> Verdict:
        """Let a request in as an adapter does, in any protocol; see :meth:`Keyguard.admit`."""
        admitting = verdict.admit(
            self,
            fields,
            method=method,
            path=path,
            query=query,
            headers=headers,
            client=Client(address, secure),
            cost=cost,
        )
        del fields, headers  # a traceback that passes here must not show the token
        return await admitting

    async def flush(self) -> None:
        """Write pending uses and usage to the store now; see :meth:`Keyguard.flush`."""
        await self._ports.background.flush()

    async def _part(self) -> None:
        """Flush before the server ends, and write the last counts of usage."""
        await self._ports.background.part()

    async def migrate(self) -> None:
        """Create the store's tables or bring them up to date; see :meth:`Keyguard.migrate`."""
        await self._store.migrate()
        if not isinstance(self.limiter, MemoryRateLimiter):
            await self.limiter.migrate()

    async def check(self) -> health.Health:
        """Find out whether the guard could serve a request now; see :meth:`Keyguard.check`."""
        return await health.check(self._ports)

    async def aclose(self) -> None:
        """Write what is pending to the store, and close what the guard opened itself."""
        await self._ports.aclose()
        if self._replica is not None:
            await self._replica.aclose()
        if self._owned:
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
