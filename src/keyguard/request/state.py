"""The state of one request: the decision on it, and the charges that are still due."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING

from keyguard.core.access.decisions import AccessDenied, Allow, Deny, Reason
from keyguard.core.access.ports import Fingerprint
from keyguard.core.access.receipt import Receipt
from keyguard.core.identity.addresses import Client
from keyguard.core.identity.principal import Request
from keyguard.core.limits.limit import RouteLimit
from keyguard.core.limits.ports import Counters
from keyguard.request.ports import RequestGuard
from keyguard.runtime.process import receipt_lock
from keyguard.runtime.sync import run_sync

if TYPE_CHECKING:
    from keyguard.core.access.carriers import Carriers  # few services have others
    from keyguard.core.http.rules import Rule

__all__ = ["RequestState"]


class RequestState(ABC):
    """What keyguard knows about one request, from the decision to the answer.

    Each adapter extends it with what it reads from its server. The attributes are class defaults
    until they are set: most requests set two of them.

    Attributes:
        guard: The guard that decides.
        allow: The decision that let the request in, or None on a public path.
        is_asked: Whether its token was looked up in the memory of verified tokens.
        missed: The fingerprint of the token, if that memory does not know it.
        carriers: Where a request may carry its key; None for ``Authorization: Bearer`` alone.
        client: The client behind trusted proxies, if there are any.
        refusal: A refusal from inside the application, not answered yet.
        optional: Whether the application only asked who made the request, so that it may catch that
            refusal and go on.
        rule: The rule for the path, if there is one.
        rule_limits: The limits that this rule sets.
        due: Whether the limits of the key and of the rule have yet to be charged.
        receipt: The charges of the request so far.
        forgiven: That receipt once it was refunded. Work that is settled later is charged even
            then.
        settled: The units that were settled last.
        charged_limits: The limits of the rule and of the route that were charged so far.
        tag: The service's name for the request, for usage.
        units: The units that it counts for in usage.
        cost: The units that its limits are charged, if the caller gave a cost; see :meth:`Bill.at
            <keyguard.core.limits.charges.Bill.at>`.
        is_refused: Whether a refusal of the request was counted.
        retires: When the request's key ends, as an HTTP date, if the key has a successor.
        kept: The ``Authorization`` fields that the application does not see, for the management API
            inside it.
        adds_fields: Whether keyguard adds fields to the answer, because of ``receipt`` or
            ``retires``.
    """

    guard: RequestGuard
    allow: Allow | None = None
    is_asked: bool = False
    missed: Fingerprint | None = None
    carriers: Carriers | None = None
    client: Client | None = None
    refusal: Deny | None = None
    optional: bool = False
    rule: Rule | None = None
    rule_limits: tuple[RouteLimit, ...] = ()
    due: bool = False
    receipt: Receipt | None = None
    forgiven: Receipt | None = None
    settled: int = 0
    charged_limits: tuple[RouteLimit, ...] = ()
    tag: str = ""
    units: int = 1
    cost: int | None = None
    is_refused: bool = False
    retires: str | None = None
    kept: Sequence[str] = ()
    adds_fields: bool = False

    @abstractmethod
    def connection(self) -> Client:
        """Return the address of the connection's other end, and whether it is encrypted."""

    @property
    @abstractmethod
    def method(self) -> str:
        """The request method; a WebSocket's is GET."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path that the router sees, decoded."""

    @property
    @abstractmethod
    def raw_path(self) -> bytes | None:
        """The path of the request line, if the server provides it."""

    @abstractmethod
    def credentials(self) -> Sequence[str | bytes]:
        """Return the values of the ``Authorization`` fields, as received.

        A key in another carrier is returned as the value that it would have there.
        """

    @abstractmethod
    def fields_named(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the values of some fields by name, given in lower case."""

    @abstractmethod
    def request(self) -> Request:
        """Return what the functions of limits see of the request."""

    @property
    def key_headers(self) -> tuple[str, ...]:
        """The fields besides ``Authorization`` that carry keys, in lower case."""
        return () if self.carriers is None else self.carriers.headers

    @property
    def marks_key(self) -> bool:
        """Whether the request has a value in a place that only keyguard's keys use."""
        return bool(self.fields_named(self.key_headers))

    def lone_field(self) -> bytes | None:
        """Return the value of the ``Authorization`` field if there is exactly one."""
        fields = self.credentials()
        if len(fields) != 1:
            return None
        field = fields[0]
        return field if isinstance(field, bytes) else field.encode("latin-1", "replace")

    @property
    def sender(self) -> Client:
        """The sender: the client behind trusted proxies, or the connection's other end."""
        return self.client or self.connection()

    @property
    def address(self) -> str | None:
        """The client's address, if it is known."""
        return self.sender.address

    @property
    def blocking_counters(self) -> Counters:
        """The way to the counters for a plain function; it never suspends."""
        return self.guard.breaker

    def settle_blocking(self, settle: Callable[[Counters], Coroutine[object, None, None]]) -> None:
        """Settle what the request cost, from a plain function.

        Args:
            settle: Makes the settlement, given the way to the counters.
        """
        run_sync(settle(self.blocking_counters))

    def refuse(self, deny: Deny) -> AccessDenied:
        """Note a refusal and return the exception that carries it to the middleware.

        The receipt and what is due stay: if the application catches the exception and goes on, the
        charges still apply. If the refusal becomes the answer, the adapter refunds them.
        """
        self.refusal, self.optional = deny, False
        self.retires = None  # only a client that was let in learns when its key ends
        return AccessDenied(deny)

    def report(self, deny: Deny) -> None:
        """Report to the hooks a refusal that becomes the answer, and count it."""
        self.guard.report(deny, address=self.address, request=self)
        self.count_refusal(deny)

    def tell_answer(self, status: int) -> None:
        """Report the application's answer, unless it is a refusal, to the hooks that subscribe."""
        if self.guard.tells_answers and not self.is_refused:
            principal = None if self.allow is None else self.allow.principal
            self.guard.tell_answer(self, status, principal, self.address)

    def count_refusal(self, deny: Deny) -> None:
        """Count the request as refused, and no longer as let in."""
        if not self.is_refused:
            self.is_refused = True
            self.guard.counts.refuse(deny, self.allow, self.tag, self.units)

    def weigh(self, units: int) -> None:
        """Note the whole cost of the request, for usage."""
        if self.allow is not None and not self.is_refused and units != self.units:
            with receipt_lock:  # of two threads, each counts its own difference
                more, self.units = units - self.units, units
            self.guard.counts.weigh(self.allow.principal, self.tag, more)

    def settle_units(self, units: int, *, since: int | None = None) -> None:
        """Note the whole cost of the request, which it settles.

        Args:
            units: The cost. If ``since`` is given, it leaves out what was settled since then.
            since: The units that were settled when a reservation began.
        """
        with receipt_lock:
            if since is not None:
                units = max(0, units + self.settled - since)
            self.settled = units
        self.weigh(units)

    def admitted(self, *, optional: bool = False) -> Allow:
        """Return the decision that let the request in.

        Raises:
            AccessDenied: The path is public, and nobody was asked for a key.
        """
        if self.allow is None:
            refusal = self.refuse(Deny(Reason.CREDENTIALS_MISSING))
            self.optional = optional
            raise refusal
        return self.allow
