"""Admission: what a guard and all adapters do to let a request in."""

from __future__ import annotations

from collections.abc import Callable

from keyguard.core.access.authenticate import authorize
from keyguard.core.access.decisions import Allow, Decision, Deny, Reason
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.rules import METHOD_OVERRIDES, Rule, needs_no_key
from keyguard.core.http.trusted_proxies import FORWARDING_FIELDS
from keyguard.core.limits.charges import NO_LIMITS
from keyguard.guard.base import AnyGuard
from keyguard.request.state import RequestState

__all__ = ["Admission"]


class Admission:
    """Lets requests in for a guard or a middleware.

    Args:
        guard: The guard that decides.
        rule_book: What requests need by path and method.
        is_for_management: Returns whether a request leads to the console or the management API,
            which decide by themselves who may come in; None where neither is mounted.

    Raises:
        ConfigurationError: The limit of a rule can't be counted where the guard counts.
        InvalidValueError: A plan gives the limit of a rule a rate that its strategy can't count.
    """

    def __init__(
        self,
        guard: AnyGuard,
        rule_book: RuleBook,
        is_for_management: Callable[[RequestState], bool] | None = None,
    ) -> None:
        guard._ports.check_limits(
            [limit.limit for rule in rule_book.rules for limit in rule.charged]
        )
        settings = guard.settings
        self.rule_book = rule_book
        self._guard = guard
        self._is_for_management = is_for_management
        self._recall = guard._recall
        self._require_https = settings.require_https
        self._tags = settings.usage_tags
        self._proxies = settings.proxies or None
        self._carriers = guard.carriers
        self._tells_answers = guard.tells_answers

    @property
    def passes_management(self) -> bool:
        """Whether a mounted console or management API decides where no rule names its path."""
        return self._is_for_management is not None

    async def admit(self, request: RequestState) -> Deny | None:
        """Let a request in. For sync code nothing in it suspends.

        Args:
            request: The request. This method notes its decision on it.

        Returns:
            None if the request is let in; otherwise its refusal, which the hooks know by then.
        """
        if self._carriers is not None:
            request.carriers = self._carriers
        if self._tells_answers:
            request.adds_fields = True
        if not request.is_asked:  # otherwise the warm path saw that only the guard decides
            refusal = self._find_rule(request)
            if refusal is not None:
                return self.reported(refusal, request)
            if self._passes_without_key(request):
                return None
            has_field = bool(request.credentials())
            allow = self._recalled(request) if has_field else None
            if allow is not None:
                return self._enter(request, allow)
            rule = request.rule
            if rule is not None and rule.also and self._is_left_to_application(request, rule):
                return None
            if not has_field:
                sender = request.sender
                return self._guard.refuse_without_key(
                    secure=sender.secure, address=sender.address, request=request
                )
        sender = request.sender
        decision = await self._guard.decide(
            request.credentials(),
            missed=request.missed,
            secure=sender.secure,
            address=sender.address,
            request=request,
        )
        return self._enter(request, decision)

    def reported(self, refusal: Deny, request: RequestState) -> Deny:
        """Report a refusal to the hooks, and return it."""
        request.report(refusal)
        return refusal

    def withheld(self, request: RequestState) -> tuple[str, ...]:
        """Return the fields that the application must not see, in lower case.

        The values of ``Authorization`` are kept on the request, for a management API inside the
        application.
        """
        carries_key = request.allow is not None or request.marks_key
        if not carries_key and self._is_anothers(request):
            return ()
        request.kept = request.fields_named(("authorization",)).get("authorization", ())
        carriers = self._carriers
        if carriers is None or self._is_misplaced(request):
            return ("authorization", *request.key_headers)
        return carriers.fields

    def _find_rule(self, request: RequestState) -> Deny | None:
        """Find the client and the rule of a request; return a refusal where they are ambiguous."""
        if self._proxies is not None:
            peer = request.connection()
            request.client = self._proxies.client(
                peer.address, request.fields_named(FORWARDING_FIELDS), secure=peer.secure
            )
            if request.client is None:
                return Deny(Reason.CLIENT_AMBIGUOUS)
        path, rule_book = request.path, self.rule_book
        if rule_book.everywhere or not path or path in rule_book.paths:
            rule = rule_book.find(path, request.method, request.raw_path)
            if isinstance(rule, Deny):
                return rule
            if rule is not None:
                request.rule = rule
                if rule.charged:
                    request.rule_limits, request.due = rule.charged, True
        return None

    def _enter(self, request: RequestState, decision: Decision) -> Deny | None:
        """Note who made a request and how it is called, and ask for the scopes of its rule."""
        if not isinstance(decision, Allow):
            return decision
        request.allow = decision
        if self._tags is not None:
            request.tag = self._tags.tag_of(decision.principal, request.request())
            if request.tag:
                self._guard.counts.tag(decision.principal, request.tag)
        if decision.retires is not None:
            request.retires, request.adds_fields = decision.retires, True
        if decision.limits is not NO_LIMITS:
            request.due = True
        rule = request.rule
        if rule is not None and rule.requirement is not None:
            authorized = authorize(decision, rule.requirement)
            if isinstance(authorized, Deny):
                return self.reported(authorized, request)
        return None

    def _passes_without_key(self, request: RequestState) -> bool:
        rule = request.rule
        if rule is None and self._is_for_management is not None:
            return self._is_for_management(request)
        if rule is None or not rule.public:
            return False  # most requests: their fields need not be read
        return needs_no_key(rule, request.fields_named(METHOD_OVERRIDES))

    def _is_left_to_application(self, request: RequestState, rule: Rule) -> bool:
        """Return whether a request is left to the application's own login."""
        if request.marks_key or not self._is_anothers(request):
            return False
        if not needs_no_key(rule, request.fields_named(METHOD_OVERRIDES)):
            return False
        request.rule_limits = rule.without_key()
        request.due = bool(request.rule_limits)
        return True

    def _is_anothers(self, request: RequestState) -> bool:
        """Return whether a request has neither a key nor what looks like one."""
        is_anothers = self._guard.policy.is_anothers(request.credentials())
        return is_anothers and not self._is_misplaced(request)

    def _is_misplaced(self, request: RequestState) -> bool:
        """Return whether ``Authorization`` holds a key, even if it is not a configured carrier."""
        if request.carriers is None:
            return False  # it is the only carrier
        sent = request.fields_named(("authorization",)).get("authorization", ())
        return any(map(self._guard.policy.names_own, sent))

    def _recalled(self, request: RequestState) -> Allow | None:
        """Return the decision on a token that the memory knows."""
        field = request.lone_field()
        if field is None or (self._require_https and not request.sender.secure):
            return None
        found = self._recall(field)
        if isinstance(found, Allow):
            return found
        request.missed = found
        return None
