"""The settings about requests for keys: who may ask, and how many must approve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase

from keyguard.core.access.policy import Policy
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import parse_granted, parse_required
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.records import Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.limits.limit import as_tight, merged
from keyguard.core.texts import check_text
from keyguard.exceptions import InvalidValueError, RefusedError, shown

_MOST_APPROVALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    """A rule that approves requests for keys automatically, when they are made.

    ::

        ApprovalRule(name="readers", scopes=["inference:read"], longest=timedelta(days=30))

    No rule approves a request that needs several approvers, or one for looser limits than those of
    the service and its organization.

    Args:
        name: The rule's name, which the audit trail names as the approver.
        scopes: The most that it approves.
        longest: The longest ``expires_in`` that it approves; None to approve any, and requests
            without one.
        requesters: Whose requests it approves; ``*`` stands for any characters, as in
            ``*@acme.example``.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    name: str
    scopes: Iterable[str]
    longest: timedelta | None = None
    requesters: Iterable[str] = ("*",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_text("a rule's name", self.name))
        object.__setattr__(self, "scopes", parse_granted(self.scopes))
        if self.longest is not None and not isinstance(self.longest, timedelta):
            raise InvalidValueError(f"longest takes a timedelta or None, not {shown(self.longest)}")
        if isinstance(self.requesters, str) or not isinstance(self.requesters, Iterable):
            raise InvalidValueError("requesters are a list of names or patterns")
        requesters = tuple(check_text("a requester", name) for name in self.requesters)
        object.__setattr__(self, "requesters", requesters)

    def admits(self, policy: Policy, request: KeyRequest, owner: Organization) -> bool:
        """Return whether the rule approves a request. It approves no looser limits."""
        levels = (policy.defaults.get(owner.plan, policy.default_limits), owner.limits)
        asked, grant = request.asked, policy.grant(frozenset(self.scopes))
        lasts = self.longest is not None and (
            asked.expires_in is None or asked.expires_in > self.longest
        )
        return (
            not lasts
            and all(scope in grant for scope in asked.scopes)
            and as_tight(merged(*levels, request.asked.limits), merged(*levels))
            and any(fnmatchcase(request.requester, name) for name in self.requesters)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTerms:
    """The settings about requests for keys.

    Args:
        requesters: Who may ask: ``anyone``, ``people`` but no keys, or ``nobody``.
        pending_for: How long a request waits for its approval.
        claimable_for: How long an approved request waits for its claim.
        approvals: How many approvers a key with a scope needs. Scopes that are not named need one.
        rules: Rules of automatic approval.

    Raises:
        InvalidValueError: A value has the wrong type, form or range.
    """

    requesters: str
    pending_for: timedelta
    claimable_for: timedelta
    approvals: Mapping[str, int] = field(default_factory=dict[str, int])
    rules: Iterable[ApprovalRule] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.approvals, Mapping):
            raise InvalidValueError("approvals takes a mapping of scopes to numbers of approvers")
        parse_required(self.approvals)
        for scope, number in self.approvals.items():
            if (
                isinstance(number, bool)
                or not isinstance(number, int)
                or not 1 <= number <= _MOST_APPROVALS
            ):
                raise InvalidValueError(
                    f"approvals of {shown(scope)} take 1 to {_MOST_APPROVALS} approvers, "
                    f"not {shown(number)}"
                )
        rules: object = self.rules  # whatever the setting holds
        if isinstance(rules, str) or not isinstance(rules, Iterable):
            raise InvalidValueError("approval_rules takes a list of ApprovalRule")
        object.__setattr__(self, "rules", tuple(self.rules))
        if not all(isinstance(rule, ApprovalRule) for rule in self.rules):
            raise InvalidValueError("approval_rules takes a list of ApprovalRule")

    def check_may_ask(self, actor: Actor) -> None:
        """Refuse an actor that may not ask for keys.

        Raises:
            RefusedError: The setting ``requesters`` excludes the actor.
        """
        if self.requesters == "nobody":
            raise RefusedError("nobody may ask for keys of this service (setting requesters)")
        if self.requesters == "people" and isinstance(actor, Principal):
            raise RefusedError("only people may ask for keys, not other keys (setting requesters)")

    def least_kept(self, least: timedelta) -> tuple[timedelta, str]:
        """Return for how long something must be kept, and why in words.

        Until the key of a request can no longer be replaced, the request needs the keys that asked
        for it and approved it, and the entries of the audit trail that name them.

        Args:
            least: The least if no request needs it for longer. Then there is no why.
        """
        for_requests = self.pending_for + 2 * self.claimable_for
        if for_requests <= least:
            return least, ""
        why = (
            ", because a request for a key may still need what is younger (request_lifetime and "
            "twice claim_lifetime)"
        )
        return for_requests, why

    def approvers(self, policy: Policy, scopes: frozenset[str]) -> int:
        """Return how many approvers a key with these scopes needs."""
        grant = policy.grant(scopes)
        return max([1, *(number for scope, number in self.approvals.items() if scope in grant)])

    def rule_for(
        self, policy: Policy, request: KeyRequest, owner: Organization
    ) -> ApprovalRule | None:
        """Return the rule that approves a request by itself, if one does."""
        if self.approvers(policy, request.asked.scopes) > 1:
            return None
        return next((rule for rule in self.rules if rule.admits(policy, request, owner)), None)
