"""What both guards share: everything that never waits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from keyguard.core.access.authenticate import (
    authenticate,
    authorize,
    refuse_without_token,
)
from keyguard.core.access.credentials import describe_misuse, parse_authorization
from keyguard.core.access.decisions import Allow, Decision, Deny, Reason
from keyguard.core.access.policy import Policy
from keyguard.core.access.ports import Fingerprint
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import Requirement
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown
from keyguard.freshness.usage_counts import UsageCounts
from keyguard.guard.async_ports import AsyncPorts
from keyguard.guard.sync_ports import SyncPorts
from keyguard.runtime import events
from keyguard.runtime.events import (
    Hook,
    RequestLine,
    is_wanted,
    tell,
    tell_answer,
    tell_refusal,
)
from keyguard.runtime.lazy import Lazy, once
from keyguard.runtime.observers import Observers
from keyguard.settings.config import Settings
from keyguard.stores.failover import CircuitBreaker

if TYPE_CHECKING:
    from keyguard.core.access.answers import Response  # the adapters import it
    from keyguard.core.access.carriers import Carriers  # few services have others
    from keyguard.core.access.receipt import Receipt  # the state of a request imports it
    from keyguard.core.management import revocation
    from keyguard.guard import management
    from keyguard.guard.statistics import Statistics
    from keyguard.settings.options import Options
else:
    revocation = Lazy("keyguard.core.management.revocation")  # few services revoke exposed keys
    management = Lazy("keyguard.guard.management")  # for the console and its API alone

AnyPorts = TypeVar("AnyPorts", SyncPorts, AsyncPorts)
AnyGuard: TypeAlias = "Guard[SyncPorts] | Guard[AsyncPorts]"


class Guard(Generic[AnyPorts]):
    """What both flavours share: everything that never waits.

    A guard can't be subclassed: the adapters' warm path never calls ``authenticate``, so it would
    never call an override. Wrap a guard, or pass it hooks.
    """

    _ports: AnyPorts

    def __init_subclass__(cls, *, flavour: bool = False) -> None:
        if not flavour:
            raise TypeError("a guard can't be subclassed; wrap it, or pass it hooks")

    def __init__(
        self,
        settings: Settings | None,
        options: Options,
        hooks: Iterable[Hook],
    ) -> None:
        if settings is None:
            settings = Settings(**options)
        elif not isinstance(settings, Settings):
            raise InvalidValueError(
                f"settings takes Settings, not a {type(settings).__name__}; single settings are "
                "keyword arguments"
            )
        elif options:
            settings = replace(settings, **options)
        self.settings = settings
        if self.settings.revoke_exposed:
            # Not during the request that needs it.
            import_module("keyguard.core.management.revocation")
        if not isinstance(hooks, Iterable):
            raise InvalidValueError(f"hooks takes a list of functions, not {shown(hooks)}")
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(hook):
                raise InvalidValueError(f"a hook is a function of an event, not {shown(hook)}")
        if self._hooks:
            import_module("keyguard.runtime.event_types")  # not during the first refusal
        self._tell = functools.partial(tell, self._hooks)  # not a method: the guard may be freed

    @once
    def breaker(self) -> CircuitBreaker:
        """The counters, behind their circuit breaker."""
        return self._ports.counters

    @once
    def _recall(self) -> Callable[[bytes], Allow | Fingerprint | None]:
        """The look-up in memory that the adapters' warm path calls."""
        recall, observers = self._ports.tokens.recall, self._ports.observers
        if not observers.of_requests:
            return recall

        def recall_and_tell(field: bytes) -> Allow | Fingerprint | None:
            found = recall(field)
            if isinstance(found, Allow):
                observers.identify(found)
            return found

        return recall_and_tell

    @property
    def observers(self) -> Observers:
        """The observers of this guard."""
        return self._ports.observers

    def observe_requests(self, tell: Callable[[str, str], object]) -> None:
        """Call a function with the key and the organization of each request.

        Args:
            tell: The function. It must be quick and must not raise.

        Raises:
            ConfigurationError: A middleware was built already. It would not call the function.
        """
        if tell in self.observers.of_requests:
            return
        if vars(self).get("_recall") == self._ports.tokens.recall:
            raise ConfigurationError("instrument the guard before you build its middleware")
        self.observers.of_requests += (tell,)

    def statistics(self) -> Statistics:
        """Return what this guard has counted, and its present state. It asks no store."""
        return self._ports.statistics()

    @once
    def carriers(self) -> Carriers | None:
        """Where a request may carry its key; None for ``Authorization: Bearer`` alone."""
        return self.settings.key_carriers

    @once
    def counts(self) -> UsageCounts:
        """The counts of requests."""
        return self._ports.counts

    @once
    def management(self) -> management.Management:
        """The operations of this guard as coroutines, in both flavours."""
        return management.Management(self._ports, self.report)

    def now(self) -> datetime:
        """Return the time by this guard's clock, in UTC."""
        return self._ports.now()

    @property
    def policy(self) -> Policy:
        """The settings that decisions need."""
        return self._ports.policy

    def respond(self, deny: Deny) -> Response:
        """Return the answer that a refused client gets."""
        return self.settings.responder.respond(deny, self._ports.clock.time())

    def limit_fields(self, receipt: Receipt) -> list[tuple[str, str]]:
        """Return the fields that tell a client its charge and the state of its limits."""
        return self.settings.responder.limit_fields(
            receipt.charges, receipt.tallies, receipt.policy, self._ports.clock.time
        )

    def encoded_limit_fields(self, receipt: Receipt) -> list[tuple[bytes, bytes]]:
        """Return the fields of :meth:`limit_fields` as ASGI takes them."""
        return self.settings.responder.encoded_limit_fields(
            receipt.charges, receipt.tallies, receipt.policy, self._ports.clock.time
        )

    def refuse_without_key(
        self, *, secure: bool, address: str | None, request: RequestLine | None = None
    ) -> Deny:
        """Refuse a request without an ``Authorization`` field, as :meth:`authenticate` does.

        It waits for nothing.

        Args:
            secure: Whether the client's connection is encrypted.
            address: The client's address, where it is known.
            request: The request, for the hooks.
        """
        refusal = refuse_without_token(
            self._ports, Reason.CREDENTIALS_MISSING, address, secure=secure
        )
        self.counts.count(refusal)
        tell_refusal(self._hooks, refusal, self._ports.now, address, request)
        return refusal

    def report(
        self, deny: Deny, *, address: str | None = None, request: RequestLine | None = None
    ) -> None:
        """Report a refusal to the hooks. :meth:`authenticate` has already reported its own.

        Args:
            deny: The refusal.
            address: The client's address, where it is known.
            request: The request. The hooks get its method and path.
        """
        tell_refusal(self._hooks, deny, self._ports.now, address, request)

    @once
    def tells_answers(self) -> bool:
        """Whether a hook subscribes to the answers to requests that were let in."""
        return bool(self._hooks) and is_wanted(self._hooks, events.RequestAnswered)

    def tell_answer(
        self, request: RequestLine, status: int, principal: Principal | None, address: str | None
    ) -> None:
        """Report to the hooks that the application answers a request that was let in.

        Args:
            request: The request.
            status: The status code of the answer.
            principal: Who made the request, or None on a public path.
            address: The client's address, where it is known.
        """
        tell_answer(self._hooks, request, status, principal, self._ports.now(), address)

    def vouched_for(self, fields: Sequence[str | bytes]) -> float:
        """Return for how many seconds a request that was let in needs no new decision.

        A change that the guard learns of in that time ends it; see :meth:`watching`.

        Args:
            fields: Its ``Authorization`` field values.
        """
        token = parse_authorization(fields, bar=self._ports.policy.takes_bar)
        del fields
        if not isinstance(token, Secret):
            return 0.0
        tokens = self._ports.tokens
        return tokens.believed_for(tokens.fingerprint(token))

    def watching(self, wake: Callable[[], object]) -> AbstractContextManager[None]:
        """Call a function after each change of a key or organization that the guard learns of.

        Args:
            wake: The function. It is called from any thread, and must be quick.
        """
        return self._ports.tokens.watching(wake)

    def report_exceeded(self, receipt: Receipt, address: str | None) -> None:
        """Report to the hooks which limits in shadow mode had no room.

        Args:
            receipt: The charges of the request.
            address: The client's address, where it is known.
        """
        if is_wanted(self._hooks, events.LimitExceeded):
            self._tell(events.LimitExceeded.of(receipt, self._ports.now(), address))

    def _require(self, scopes: Iterable[str], any_of: Iterable[str] | None) -> Requirement | None:
        if scopes == () and any_of is None:
            return None
        requirement = Requirement.of(scopes, any_of)
        if self._ports.policy.catalogue is not None:
            self._ports.policy.catalogue.check_required(requirement.scopes)
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
        """Decide as :meth:`~keyguard.Keyguard.authenticate` describes."""
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
            allow, decision = decision, authorize(decision, requirement)
            if isinstance(decision, Deny):
                self.report(decision, address=address)
                self.counts.refuse(decision, allow)
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
        request: RequestLine | None = None,
    ) -> Decision:
        """Decide on a request for an adapter. Over a guard for sync code nothing in it suspends.

        Args:
            fields: The ``Authorization`` field values, all strings or bytes.
            missed: The token's fingerprint, if it was looked up in the memory and not found.
            secure: Whether the client's connection is encrypted.
            address: The client's address, where it is known.
            fresh: Whether to look the key up even if it is remembered.
            is_attempt: Whether the client has just sent the request. Otherwise a refusal does not
                count as a failed attempt, no hook gets it, the decision is not counted, and the key
                store stays as it is.
            request: The request, for the hooks.
        """
        deciding = authenticate(
            self._ports,
            fields,
            address,
            secure=secure,
            fresh=fresh,
            is_attempt=is_attempt,
            missed=missed,
        )
        del fields
        decision = await deciding
        if self._ports.observers.of_requests:
            self._ports.observers.identify(decision)
        if isinstance(decision, Deny):
            if self._is_exposed(decision):
                revoked = await revocation.revoke_exposed(self._ports.for_request(), decision)
                decision = replace(decision, revoked=revoked)
            if is_attempt:
                self.report(decision, address=address, request=request)
        if is_attempt:
            self.counts.count(decision)
        return decision

    def _is_exposed(self, decision: Deny) -> bool:
        """Return whether a refused key is live, came over plain HTTP, and must be revoked."""
        return (
            decision.reason is Reason.TRANSPORT_INSECURE
            and decision.key_id is not None
            and self._ports.policy.revoke_exposed
        )
