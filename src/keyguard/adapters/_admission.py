"""Letting a request in: what both pure adapters do alike, and what waits for nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from keyguard.adapters._endpoints import check_endpoints
from keyguard.core.access.authenticate import authorize
from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.http.rules import UNASKED_FIELDS, Rule, is_preflight, needs_no_key
from keyguard.core.http.trusted_proxies import FORWARDING_FIELDS, Client
from keyguard.core.limits.charges import NO_LIMITS
from keyguard.core.limits.limit import RouteLimit
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.stores.limiter_opening import check_countable

__all__ = ["Admission", "Arrival"]


class Arrival(Protocol):
    """A request, as far as it takes to let it in: what an adapter's connection tells."""

    allow: Allow | None
    client: Client | None
    rule: Rule | None
    ruled: tuple[RouteLimit, ...]
    retires: str | None
    due: bool

    @property
    def peer(self) -> str | None: ...
    @property
    def address(self) -> str | None: ...
    @property
    def is_secure(self) -> bool: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def raw_path(self) -> bytes | None: ...

    def lone_field(self) -> bytes | None:
        """Return the ``Authorization`` field value where there is just one."""
        ...

    def fields_named(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the values of some fields by name."""
        ...


class Admission:
    """The part of a middleware that lets requests in.

    Args:
        app: The application.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.
    """

    def __init__(
        self,
        app: Any,
        guard: Keyguard | AsyncKeyguard,
        public: Iterable[str] | None,
        rules: Iterable[Rule] | None,
    ) -> None:
        check_endpoints(app, guard.policy.catalogue)
        settings = guard.settings
        self.rule_book = settings.rule_book(public=public, rules=rules)
        check_countable(
            guard.limiter,
            [one.limit for rule in self.rule_book.rules for one in rule.charged],
        )
        self._recall = guard._recall
        self._report = guard.report
        self._require_https = settings.require_https
        self.allows_preflight = settings.allow_preflight
        self._proxies = settings.proxies() or None
        self._upstream = settings.principal_fields() or None
        self._public_paths = self.rule_book.paths
        self._asks_more = (
            self.rule_book.everywhere or self._proxies is not None or self._require_https
        )

    def look_at(self, arrival: Arrival) -> Deny | None:
        """Find out who a request is from, and the rule for it; return the refusal of a mangled one.

        Mangled is what proxies or routers may take for several things.
        """
        if self._proxies is not None:
            arrival.client = self._proxies.client(
                arrival.peer, arrival.fields_named(FORWARDING_FIELDS), secure=arrival.is_secure
            )
            if arrival.client is None:
                return self.reported(Deny(Reason.CLIENT_AMBIGUOUS), arrival)
        rule = self.rule_book.find(arrival.path, arrival.method, arrival.raw_path)
        if isinstance(rule, Deny):
            return self.reported(rule, arrival)
        arrival.rule = rule
        if rule is not None and rule.charged:
            arrival.ruled, arrival.due = rule.charged, True
        return None

    def recall(self, arrival: Arrival) -> Allow | None:
        """Return the decision on a key that was seen before, or None where it must be taken."""
        if self._require_https and not arrival.is_secure:
            return None
        field = arrival.lone_field()
        return None if field is None else self._recall(field)

    def passes_unasked(self, arrival: Arrival) -> bool:
        """Tell whether a request is let through without a key: by a rule, or as a preflight."""
        fields = arrival.fields_named(UNASKED_FIELDS)
        if needs_no_key(arrival.rule, fields):
            return True
        if self.allows_preflight and is_preflight(arrival.method, fields):
            arrival.rule, arrival.ruled, arrival.due = None, (), False
            return True
        return False

    def enter(self, arrival: Arrival, allow: Allow) -> Deny | None:
        """Note who a request is; return its refusal for a scope that the rule asks for."""
        arrival.allow = allow
        arrival.retires = allow.retires
        if allow.limits is not NO_LIMITS:
            arrival.due = True
        rule = arrival.rule
        if rule is not None and rule.requirement is not None:
            decision = authorize(allow, rule.requirement)
            if isinstance(decision, Deny):
                return self.reported(decision, arrival)
        return None

    def reported(self, refusal: Deny, arrival: Arrival) -> Deny:
        """Tell the hooks of a refusal, and return it."""
        self._report(refusal, address=arrival.address)
        return refusal
