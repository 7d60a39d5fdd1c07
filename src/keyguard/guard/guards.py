"""``Keyguard`` and ``AsyncKeyguard``: where the parts are put together.

Both are the same decisions (:mod:`keyguard.core`) run by the two drivers; what differs is only
how an answer is waited for. Nothing is opened, started or read before the first use.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

from keyguard.core.access.authenticate import admit
from keyguard.core.access.credentials import describe_misuse
from keyguard.core.access.decisions import Decision
from keyguard.core.access.effects import Flow
from keyguard.exceptions import InvalidValueError
from keyguard.freshness.background import AsyncBackgroundWork, BackgroundWork
from keyguard.guard.base import Guard
from keyguard.guard.outside import Outside
from keyguard.runtime.drivers import arun, run
from keyguard.runtime.events import Hook, log_event
from keyguard.runtime.lazy import Lazy
from keyguard.runtime.process import Clock
from keyguard.settings.settings import Settings
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.failover import AsyncCircuitBreaker, CircuitBreaker
from keyguard.stores.limiter_opening import check_countable, open_async_limiter, open_limiter
from keyguard.stores.opening import open_async_store, open_store

# Management, which most processes never ask for: they only check requests.
if TYPE_CHECKING:
    from keyguard.guard import managers
else:
    managers = Lazy("keyguard.guard.managers")

__all__ = ["AsyncKeyguard", "Keyguard"]

T = TypeVar("T")


@final
class Keyguard(Guard, flavour=True):
    """An API-key system for sync code.

    ::

        guard = Keyguard("sqlite:///keys.db", realm="AIaaS", prefix="aiaas_live")
        guard.migrate()

    Args:
        store: Where keys live: a URL (``memory://``, ``sqlite:///``, ``postgresql://``,
            ``mysql://``, ``redis://``), a SQLAlchemy ``Engine``, a Redis client, or a
            :class:`~keyguard.stores.base.Store`.
        limiter: Where counters live: None for beside the keys, a URL (also any that the package
            ``limits`` knows), or a :class:`~keyguard.stores.base.RateLimiter`.
        settings: What the service settles; defaults are safe.
        clock: Where time comes from; tests pass their own.
        hooks: What is called with every event; logging by default.
        options: Fields of :class:`~keyguard.Settings`, instead of or on top of ``settings``.

    Raises:
        ConfigurationError: The store can't be used; a driver is not installed.
        InvalidValueError: A setting is not as said.
    """

    def __init__(
        self,
        store: str | Store | object,
        *,
        limiter: str | RateLimiter | None = None,
        settings: Settings | None = None,
        clock: Clock = time,
        hooks: Iterable[Hook] = (log_event,),
        **options: Any,
    ) -> None:
        super().__init__(settings, options, clock=clock, hooks=hooks)
        self._store = open_store(store)
        self._owned = self._store is not store
        self.breaker = CircuitBreaker(
            open_limiter(limiter, self._store, clock=clock), **self._breaker_options()
        )
        check_countable(self.breaker.limiter, self._limits_at_start())
        self._owns_limiter = self.breaker.limiter is not limiter
        self._background = BackgroundWork(
            self._store,
            *(self._parts.tokens, self._parts.hasher, self._pool),
            **self._background_options(),
        )
        weakref.finalize(self, self._background.abandon).atexit = False

    @cached_property
    def organizations(self) -> managers.OrganizationManager:
        """The organizations of this guard."""
        return managers.OrganizationManager(self._manage)

    @cached_property
    def keys(self) -> managers.KeyManager:
        """The keys of this guard."""
        return managers.KeyManager(self._manage)

    @cached_property
    def audit(self) -> managers.AuditManager:
        """The audit trail of this guard's key store."""
        return managers.AuditManager(self._manage)

    def authenticate(
        self,
        fields: Sequence[str | bytes],
        *,
        scopes: Iterable[str] = (),
        any_of: Iterable[str] | None = None,
        secure: bool = False,
        address: str | None = None,
        fresh: bool = False,
    ) -> Decision:
        """Decide whether a request may pass.

        Args:
            fields: Its ``Authorization`` field values as received, one item a field line.
            scopes: Scopes that are all needed.
            any_of: Scopes of which one is needed.
            secure: Whether the client's connection is encrypted; matters with ``require_https``.
            address: The client's address: for events, to count its failures, and for keys that are
                bound to networks.
            fresh: Whether to look the key up whatever is remembered of it: then a change in any
                process that was acknowledged before is in force.

        Returns:
            ``Allow`` with the principal, or ``Deny`` with the reason. What clients send and what
            stores do never raises. Let a request pass only on ``isinstance(decision, Allow)``.

        Raises:
            InvalidValueError: ``fields`` are no list of strings or bytes, a required scope is none
                or outside the catalogue, or ``any_of`` is an empty list.
        """
        misuse = describe_misuse(fields)
        flow = admit(fields, self._parts.policy, address, secure=secure, fresh=fresh)
        del fields  # a traceback that passes here must not show the token
        if misuse is not None:
            raise InvalidValueError(misuse)
        requirement = self._require(scopes, any_of)
        decision = run(flow, self._outside(self.settings.store_timeout).perform)
        return self._conclude(decision, requirement, address)

    def flush(self) -> None:
        """Tell the store now when keys were last used; else that is done once a minute."""
        self._background.flush()

    def migrate(self) -> None:
        """Create the store's tables or bring them up to date; safe to call at every start.

        Raises:
            StoreError: The key store failed, or was made by a newer keyguard.
        """
        self._store.migrate()
        self.breaker.limiter.migrate()

    def close(self) -> None:
        """Tell the store when keys were last used, and give back what the guard opened itself."""
        self._background.close()
        self._pool.close()
        self.breaker.close(limiter=self._owns_limiter)
        if self._owned:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _manage(self, flow: Flow[T]) -> T:
        return run(flow, self._outside(self.settings.management_timeout).perform)

    def _outside(self, timeout: float) -> Outside:
        return Outside(
            self._parts, self._store, self.breaker, self._background, self._pool.run, timeout
        )


@final
class AsyncKeyguard(Guard, flavour=True):
    """An API-key system for async code: :class:`Keyguard`, awaited.

    Args:
        store: A URL, a SQLAlchemy ``AsyncEngine``, an async Redis client, or an
            :class:`~keyguard.stores.base.AsyncStore`.
        limiter: Where counters live, as for :class:`Keyguard`, or an
            :class:`~keyguard.stores.base.AsyncRateLimiter`.
        settings: What the service settles; defaults are safe.
        clock: Where time comes from; tests pass their own.
        hooks: What is called with every event; logging by default.
        options: Fields of :class:`~keyguard.Settings`, instead of or on top of ``settings``.

    Raises:
        ConfigurationError: The store can't be used; a driver is not installed.
        InvalidValueError: A setting is not as said.
    """

    def __init__(
        self,
        store: str | AsyncStore | object,
        *,
        limiter: str | RateLimiter | AsyncRateLimiter | None = None,
        settings: Settings | None = None,
        clock: Clock = time,
        hooks: Iterable[Hook] = (log_event,),
        **options: Any,
    ) -> None:
        super().__init__(settings, options, clock=clock, hooks=hooks)
        for name in ("asyncio", "concurrent.futures.thread"):
            import_module(name)  # not amid the first request, as where the event loop is trio's
        self._store = open_async_store(store)
        self._owned = self._store is not store
        self.breaker = AsyncCircuitBreaker(
            open_async_limiter(limiter, self._store, clock=clock), **self._breaker_options()
        )
        self.counts_elsewhere = self.breaker.memory is None  # so that it has to be awaited
        check_countable(self.breaker.limiter, self._limits_at_start())
        self._owns_limiter = self.breaker.limiter is not limiter
        self._background = AsyncBackgroundWork(
            self._store,
            *(self._parts.tokens, self._parts.hasher, self._pool),
            **self._background_options(),
        )
        weakref.finalize(self, self._background.abandon).atexit = False

    @cached_property
    def organizations(self) -> managers.AsyncOrganizationManager:
        """The organizations of this guard."""
        return managers.AsyncOrganizationManager(self._manage)

    @cached_property
    def keys(self) -> managers.AsyncKeyManager:
        """The keys of this guard."""
        return managers.AsyncKeyManager(self._manage)

    @cached_property
    def audit(self) -> managers.AsyncAuditManager:
        """The audit trail of this guard's key store."""
        return managers.AsyncAuditManager(self._manage)

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
        """Decide whether a request may pass; see :meth:`Keyguard.authenticate`."""
        misuse = describe_misuse(fields)
        flow = admit(fields, self._parts.policy, address, secure=secure, fresh=fresh)
        del fields  # a traceback that passes here must not show the token
        if misuse is not None:
            raise InvalidValueError(misuse)
        requirement = self._require(scopes, any_of)
        decision = await arun(flow, self._outside(self.settings.store_timeout).aperform)
        return self._conclude(decision, requirement, address)

    async def check_again(
        self, fields: Sequence[str | bytes], *, secure: bool = False, address: str | None = None
    ) -> Decision:
        """Decide anew on what was let in, by what the store says now.

        The client has not tried anything: a refusal counts as no failed attempt of its, and is told
        to no hook.

        Args:
            fields: The ``Authorization`` field values, as for :meth:`Keyguard.authenticate`.
            secure: Whether the client's connection is encrypted.
            address: The client's address.
        """
        policy = replace(self._parts.policy, failure_limit=None)
        flow = admit(fields, policy, address, secure=secure, fresh=True)
        del fields
        return await arun(flow, self._outside(self.settings.store_timeout).aperform)

    async def flush(self) -> None:
        """Tell the store now when keys were last used; see :meth:`Keyguard.flush`."""
        await self._background.flush()

    async def migrate(self) -> None:
        """Create the store's tables or bring them up to date; see :meth:`Keyguard.migrate`."""
        await self._store.migrate()
        await self.breaker.migrate()

    async def aclose(self) -> None:
        """Tell the store when keys were last used, and give back what the guard opened itself."""
        await self._background.aclose()
        self._pool.close()
        await self.breaker.aclose(limiter=self._owns_limiter)
        if self._owned:
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _manage(self, flow: Flow[T]) -> T:
        return await arun(flow, self._outside(self.settings.management_timeout).aperform)

    def _outside(self, timeout: float) -> Outside:
        return Outside(
            self._parts, self._store, self.breaker, self._background, self._pool.arun, timeout
        )
