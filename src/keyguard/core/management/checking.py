"""Explains, step by step, how a request with a token would be decided, and charges nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from keyguard.core.access.authenticate import check_transport, judge
from keyguard.core.access.credentials import parse_authorization
from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.http.rules import Rule
from keyguard.core.keys.records import KeyRecord, Organization
from keyguard.core.limits.charges import statuses
from keyguard.core.management.common import Operations, find_record
from keyguard.core.tokens.secret import Secret

_STEPS = ("rule", "token", "key", "status", "organization", "networks", "transport", "scopes")
"""The steps of a request, in their order; the limits come last."""

_FAILS_AT = {
    Reason.PATH_AMBIGUOUS: "rule",
    Reason.CREDENTIALS_MALFORMED: "token",
    Reason.TOKEN_MALFORMED: "token",
    Reason.KEY_UNKNOWN: "key",
    Reason.SECRET_WRONG: "key",
    Reason.ORGANIZATION_DISABLED: "organization",
    Reason.ADDRESS_NOT_ALLOWED: "networks",
    Reason.TRANSPORT_INSECURE: "transport",
    Reason.SCOPE_MISSING: "scopes",
    Reason.RATE_LIMITED: "limits",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedStep:
    """One step of a request.

    Args:
        name: Its name.
        passed: Whether the request passes it; None if it is not reached, or is not known.
        detail: The reason, in a sentence.
    """

    name: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCheck:
    """The explanation of how a request with a token would be decided.

    Args:
        reason: Why it would be refused, or None if it would be let in.
        key_id: The key, if the token is genuine.
        steps: The steps of the request, in their order.
    """

    reason: Reason | None
    key_id: str | None
    steps: tuple[CheckedStep, ...]


class Checking(Operations):
    """Explains the decision on a request."""

    async def check_token(
        self,
        token: Secret | str,
        rule: Rule | Deny | None = None,
        *,
        address: str | None = None,
        secure: bool = True,
        within: Callable[[Organization], bool] | None = None,
    ) -> TokenCheck:
        """Explain, step by step, how a request with a token would be decided.

        See :meth:`~keyguard.guard.keys.Keys.check_token`.
        """
        secret = token if isinstance(token, Secret) else Secret(token)
        del token  # a traceback that passes here must not show a token
        return await self._check(lambda: self._find(secret, within), rule, address, secure)

    async def check_key(
        self,
        key_id: str,
        rule: Rule | Deny | None = None,
        *,
        address: str | None = None,
        secure: bool = True,
    ) -> TokenCheck:
        """Explain, step by step, how a request with the token of a key would be decided.

        See :meth:`~keyguard.guard.keys.Keys.check_key`.
        """
        record = await find_record(self._ports, key_id)

        async def found() -> KeyRecord:
            return record

        return await self._check(found, rule, address, secure)

    async def _check(
        self,
        find: Callable[[], Awaitable[KeyRecord | Reason]],
        rule: Rule | Deny | None,
        address: str | None,
        secure: bool,
    ) -> TokenCheck:
        if isinstance(rule, Deny):
            return _told(rule.reason, None, {"rule": "The path can be read in several ways."})
        said = {"rule": _about(rule)}
        if rule is not None and rule.public:
            return _told(None, None, said, last="rule")
        found = await find()
        if isinstance(found, Reason):
            return _told(found, None, said)
        policy, key = self._ports.policy, found.key
        said["status"] = f"The key is {key.status(self._ports.now()).value}."
        if key.allowed_networks:
            said["networks"] = f"The key works from {', '.join(key.allowed_networks)}."
        judged = found
        if address is None:  # nobody can tell
            judged = replace(found, key=replace(key, allowed_networks=()))
        decision = judge(judged, self._ports.now(), policy, address)
        decision = check_transport(decision, policy, secure=secure)
        if isinstance(decision, Deny):
            return _told(decision.reason, key.id, said, told=address is not None)
        missing = _missing(rule, decision)
        said["scopes"] = f"The key may: {', '.join(sorted(key.scopes)) or 'nothing'}."
        if missing:
            said["scopes"] += f" This takes: {missing}."
            return _told(Reason.SCOPE_MISSING, key.id, said, told=address is not None)
        reason, said["limits"] = await self._limits(decision)
        return _told(reason, key.id, said, told=address is not None)

    async def _find(
        self, token: Secret, within: Callable[[Organization], bool] | None
    ) -> KeyRecord | Reason:
        """Return the record of a genuine token's key, or the reason of its refusal."""
        ports = self._ports
        field = parse_authorization([f"Bearer {token.reveal()}"], bar=ports.policy.takes_bar)
        candidates = ports.policy.candidates(token) if isinstance(field, Secret) else ()
        if not candidates:
            return Reason.TOKEN_MALFORMED
        for key_id in candidates:
            record = await ports.store.find_key(key_id)
            if record is not None and within is not None and not within(record.organization):
                record = None  # the answer and its time are those for an unknown key
            digest = None if record is None else record.digest
            if await ports.verify(token, digest) is True and record is not None:
                return record
        return Reason.KEY_UNKNOWN

    async def _limits(self, allow: Allow) -> tuple[Reason | None, str]:
        charges = allow.limits.charges
        if not charges:
            return None, "The key has no limits."
        outcome = await self._ports.read_limits(charges)
        left = statuses(charges, outcome.tallies)
        told = ", ".join(f"{limit.name}: {limit.remaining} of {limit.quota} left" for limit in left)
        used_up = any(limit.enforce and limit.remaining < 1 for limit in left)
        return Reason.RATE_LIMITED if used_up else None, f"{told}."


def _about(rule: Rule | None) -> str:
    if rule is None:
        return "No rule names the path, so it takes a key."
    return f"The rule for {rule.path} {'needs no key' if rule.public else 'decides'}."


def _missing(rule: Rule | None, allow: Allow) -> str:
    requirement = None if rule is None else rule.requirement
    if requirement is None or requirement.met_by(allow.principal.grant):
        return ""
    return ", ".join(requirement.scopes)


def _told(
    reason: Reason | None,
    key_id: str | None,
    said: dict[str, str],
    *,
    last: str = "limits",
    told: bool = True,
) -> TokenCheck:
    """Return a check in which all steps pass before the one that fails."""
    fails_at = None if reason is None else _FAILS_AT.get(reason, "status")
    steps: list[CheckedStep] = []
    passed: bool | None = True
    for name in (*_STEPS, "limits"):
        if name == fails_at:
            passed = False
        is_untold = name == "networks" and passed and not told and "networks" in said
        steps.append(
            CheckedStep(name=name, passed=None if is_untold else passed, detail=said.get(name, ""))
        )
        if name in (fails_at, last):
            passed = None
    return TokenCheck(reason=reason, key_id=key_id, steps=tuple(steps))
