"""What both guards share: everything that never waits."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from keyguard.core.access.answers import Response
from keyguard.core.access.authenticate import authenticate, authorize, refuse_without_token
from keyguard.core.access.credentials import describe_misuse, parse_authorization
from keyguard.core.access.decisions import Allow, Decision, Deny, Reason
from keyguard.core.access.policy import Policy
from keyguard.core.access.ports import Fingerprint
from keyguard.core.access.receipt import Receipt
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError
from keyguard.freshness.background import AsyncBackgroundWork, BackgroundWork
from keyguard.guard.ports import AsyncPorts, Parts, SyncPorts
from keyguard.guard.store_ports import StorePort
from keyguard.runtime.events import Event, Hook, LimitExceeded, is_wanted, tell, tell_refusal
from keyguard.runtime.lazy import Lazy
from keyguard.runtime.pool import HashPool
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.failover import CircuitBreaker
from keyguard.stores.opening import check_countable

if TYPE_CHECKING:
    from keyguard.core.management import revocation
else:
    revocation = Lazy("keyguard.core.management.revocation")  # few services revoke exposed keys

Work = TypeVar("Work", BackgroundWork, AsyncBackgroundWork)

_HASHES_WAITING = 16


class Guard:
    """What both flavours share: everything that never waits.

    A guard can't be subclassed: the adapters' warm path never calls ``authenticate``, so it would
    never call an override. Wrap a guard, or pass it hooks.
    """

    _ports: SyncPorts | AsyncPorts

    def __init_subclass__(cls, *, flavour: bool = False) -> None:
        if not flavour:
            raise TypeError("a guard can't be subclassed; wrap it, or pass it hooks")

    def __init__(
        self,
        settings: Settings | None,
        options: dict[str, Any],
        *,
        clock: Clock,
        hooks: Iterable[Hook],
    ) -> None:
        if settings is None:
            settings = Settings(**options)
        elif options:
            settings = replace(settings, **options)
        self.settings = settings
        if self.settings.revoke_exposed:
            # Not during the request that needs it.
            import_module("keyguard.core.management.revocation")
        self._parts = Parts(self.settings, clock)
        self._recall = self._parts.tokens.recall  # the adapters' warm path
        self._pool = HashPool(
            workers=self.settings.hash_workers,
            waiting=_HASHES_WAITING,
            patience=self.settings.store_timeout,
            longest=self.settings.hash_timeout,
        )
        self._responder = self.settings.responder
        self._hooks = tuple(hooks)

    @property
    def policy(self) -> Policy:
        """What decisions know of the settings."""
        return self._parts.policy

    def respond(self, deny: Deny) -> Response:
        """Return the answer that a refused client gets."""
        return self._responder.respond(deny, self._parts.clock.time())

    def limit_fields(self, receipt: Receipt) -> list[tuple[str, str]]:
        """Return the fields that tell a client that was let in how its limits stand.

        Args:
            receipt: What the request was charged.
        """
        return self._responder.limit_fields(
            receipt.charges, receipt.tallies, receipt.policy, self._parts.clock.time
        )

    def refuse_without_key(self, *, secure: bool, address: str | None) -> Deny:
        """Refuse a request without an ``Authorization`` field, as :meth:`authenticate` does.

        It waits for nothing.

        Args:
            secure: Whether the client's connection is encrypted.
            address: The client's address, where it is known.
        """
        refusal = refuse_without_token(
            self._ports, Reason.CREDENTIALS_MISSING, address, secure=secure
        )
        tell_refusal(self._hooks, refusal, self._parts.now, address)
        return refusal

    def report(self, deny: Deny, *, address: str | None = None) -> None:
        """Tell the hooks of a refusal; :meth:`authenticate` has done so for its own.

        Args:
            deny: The refusal.
            address: The client's address, where it is known.
        """
        tell_refusal(self._hooks, deny, self._parts.now, address)

    def vouched_for(self, fields: Sequence[str | bytes]) -> float:
        """Return for how many seconds a request that was let in needs no new decision.

        A change that is heard of in that time ends it; see :meth:`watching`.

        Args:
            fields: Its ``Authorization`` field values.
        """
        token = parse_authorization(fields, bar=self._parts.policy.takes_bar)
        del fields
        if not isinstance(token, Secret):
            return 0.0
        tokens = self._parts.tokens
        return tokens.believed_for(tokens.fingerprint(token))

    def watching(self, wake: Callable[[], object]) -> AbstractContextManager[None]:
        """Have a function called after each change of a key or organization that is heard of.

        Args:
            wake: The function. It is called from any thread, and must be quick.
        """
        return self._parts.tokens.watching(wake)

    def report_exceeded(self, receipt: Receipt, address: str | None) -> None:
        """Tell the hooks of limits in shadow mode that had no room.

        Args:
            receipt: What the request was charged.
            address: The client's address, where it is known.
        """
        if not is_wanted(self._hooks, LimitExceeded):
            return
        principal = receipt.principal
        names = [
            charge.name
            for charge, tally in zip(receipt.charges, receipt.tallies, strict=True)
            if not tally.fits
        ]
        self._tell(
            LimitExceeded(
                at=self._parts.now(),
                limits=tuple(names),
                key_id=principal.key_id if principal else None,
                organization=principal.organization if principal else None,
                address=address,
            )
        )

    def _tell(self, event: Event) -> None:
        tell(self._hooks, event)

    def _limits_at_start(self) -> list[Limit]:
        policy = self._parts.policy
        failures = [] if policy.failure_limit is None else [policy.failure_limit]
        rules = self.settings.rule_book().rules
        ruled = [charged.limit for rule in rules for charged in rule.charged]
        return [*policy.default_limits, *failures, *ruled]

    def _breaker_before(
        self, limiter: RateLimiter | AsyncRateLimiter, *, awaited: bool
    ) -> CircuitBreaker:
        check_countable(limiter, self._limits_at_start())
        return CircuitBreaker(
            limiter,
            awaited=awaited,
            timeout=self.settings.limiter_timeout,
            fails_open=self.settings.on_limiter_error == "open",
            clock=self._parts.clock,
            tell=self._tell,
        )

    def _work_beside(self, kind: Callable[..., Work], store: Store | AsyncStore) -> Work:
        background = kind(
            StorePort(store, self.settings.store_timeout),
            store.feed,
            self._parts.tokens,
            self._parts.hasher,
            self._pool,
            clock=self._parts.clock,
            timeout=self.settings.store_timeout,
            max_staleness=self.settings.max_staleness,
            tell=functools.partial(tell, self._hooks),  # not the guard, which may be freed
        )
        weakref.finalize(self, background.abandon).atexit = False
        return background

    def _require(self, scopes: Iterable[str], any_of: Iterable[str] | None) -> Requirement | None:
        if scopes == () and any_of is None:
            return None
        requirement = Requirement.of(scopes, any_of)
        if self._parts.policy.catalogue is not None:
            self._parts.policy.catalogue.check_required(requirement.scopes)
        return requirement if requirement.scopes else None

    async def _authenticate(
        self,
        fields: Sequence[str | bytes],
        scopes: Iterable[str],
        any_of: Iterable[str] | None,
        *,
        secure: bool,
        address: str | None,
        fresh: bool,
    ) -> Decision:
        """Do what :meth:`~keyguard.Keyguard.authenticate` says."""
        misuse = describe_misuse(fields)
        deciding = self.decide(fields, secure=secure, address=address, fresh=fresh)
        del fields  # a traceback that passes here must not show the token
        try:
            if misuse is not None:
                raise InvalidValueError(misuse)
            requirement = self._require(scopes, any_of)
        except BaseException:
            deciding.close()
            raise
        decision = await deciding
        if isinstance(decision, Allow) and requirement is not None:
            decision = authorize(decision, requirement)
            if isinstance(decision, Deny):
                self.report(decision, address=address)
        return decision

    async def decide(
        self,
        fields: Sequence[str | bytes],
        *,
        missed: Fingerprint | None = None,
        secure: bool = False,
        address: str | None = None,
        fresh: bool = False,
        is_attempt: bool = True,
    ) -> Decision:
        """Decide on a request for an adapter. Over a guard for sync code nothing in it suspends.

        Args:
            fields: The ``Authorization`` field values, all strings or bytes.
            missed: The token's fingerprint, if the memory was asked for it and does not know it.
            secure: Whether the client's connection is encrypted.
            address: The client's address, where it is known.
            fresh: Whether to look the key up even if it is remembered.
            is_attempt: Whether the client has just sent the request. Otherwise a refusal does not
                count as a failed attempt, and no hook is told.
        """
        deciding = authenticate(
            self._ports,
            fields,
            address,
            secure=secure,
            fresh=fresh,
            counts_failures=is_attempt,
            missed=missed,
        )
        del fields
        decision = await deciding
        if isinstance(decision, Deny):
            if self._is_exposed(decision):
                revoked = await revocation.revoke_exposed(self._ports.for_request(), decision)
                decision = replace(decision, revoked=revoked)
            if is_attempt:
                self.report(decision, address=address)
        return decision

    def _is_exposed(self, decision: Deny) -> bool:
        """Tell whether a refusal is of a live key that came over plain HTTP, and is revoked."""
        return (
            decision.reason is Reason.TRANSPORT_INSECURE
            and decision.key_id is not None
            and self._parts.policy.revoke_exposed
        )
