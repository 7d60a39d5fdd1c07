"""How a request is let in or refused.

The order is the promise: failures of the client's address, credentials grammar, token grammar,
lookup, digest, status and times, network allowlist, transport, scopes, limits
(:mod:`keyguard.core.access.charging`). What is refused early spends nothing later, and only an
``Allow`` passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from math import ceil

from keyguard.core.access.credentials import parse_authorization
from keyguard.core.access.decisions import Allow, Decision, Deny, Reason
from keyguard.core.access.effects import (
    AdjustLimits,
    Block,
    BlockedFor,
    Discard,
    Flow,
    HitLimits,
    LookUp,
    NoteUse,
    OfferRehash,
    ReadClock,
    Recall,
    Remember,
    VerifyToken,
    WasVerified,
)
from keyguard.core.access.policy import Policy
from keyguard.core.identity.addresses import client_of
from keyguard.core.identity.networks import contains
from keyguard.core.identity.scopes import Requirement
from keyguard.core.keys.records import KeyRecord, KeyStatus, RevocationReason
from keyguard.core.limits.charges import failure_charges
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import CorruptDataError, HashTimeoutError

__all__ = ["admit", "authenticate", "authorize", "judge"]

LOOKUP_ATTEMPTS = 3

# What somebody who tries keys meets. No key at all, or a mangled field, is no try.
_FAILED_ATTEMPTS = {
    Reason.TOKEN_MALFORMED,
    Reason.KEY_UNKNOWN,
    Reason.SECRET_WRONG,
    Reason.KEY_REVOKED,
    Reason.KEY_EXPIRED,
    Reason.KEY_ROTATED,
    Reason.KEY_NOT_YET_VALID,
    Reason.ORGANIZATION_DISABLED,
    Reason.ADDRESS_NOT_ALLOWED,
}

_DEAD = {
    KeyStatus.REVOKED: Reason.KEY_REVOKED,
    KeyStatus.EXPIRED: Reason.KEY_EXPIRED,
    KeyStatus.ROTATED: Reason.KEY_ROTATED,
    KeyStatus.NOT_YET_VALID: Reason.KEY_NOT_YET_VALID,
}


def admit(
    fields: Sequence[str | bytes],
    policy: Policy,
    address: str | None = None,
    *,
    secure: bool = False,
    fresh: bool = False,
) -> Flow[Decision]:
    """Decide whether a request may pass: who sent it, and over what.

    Args:
        fields: Its ``Authorization`` field values, as received.
        policy: What the service has settled.
        address: The client's address, see :func:`authenticate`.
        secure: Whether the client's connection is encrypted.
        fresh: Whether to look the key up whatever is remembered of it.
    """
    flow = authenticate(fields, policy, address, fresh=fresh)
    del fields  # a traceback that passes here must not show the token
    decision = check_transport((yield from flow), policy, secure=secure)
    if (
        policy.revoke_exposed
        and isinstance(decision, Deny)
        and decision.reason is Reason.TRANSPORT_INSECURE
    ):
        return replace(decision, revoked=(yield from _revoke_exposed(decision.key_id)))
    return decision


def authenticate(
    fields: Sequence[str | bytes],
    policy: Policy,
    address: str | None = None,
    *,
    fresh: bool = False,
) -> Flow[Decision]:
    """Decide who sent a request.

    Args:
        fields: Its ``Authorization`` field values, as received.
        policy: What the service has settled.
        address: The client's address; without one, failures are not counted, and a key that is
            bound to networks is refused.
        fresh: Whether to look the key up whatever is remembered of it.

    Returns:
        ``Allow`` with the principal of a live key, else ``Deny``; never raises for what a client
        sends or for what a store does.
    """
    credentials = parse_authorization(fields, bar=policy.takes_bar)
    del fields  # what is refused or fails from here on must not show the token
    if policy.failure_limit is None or address is None:
        return (yield from _authenticate(credentials, policy, address, fresh=fresh))
    client = client_of(address)
    blocked = yield from BlockedFor(client)
    # Who has the same address as a guesser, and a key that worked here before, goes on.
    if blocked is not None and (
        isinstance(credentials, Reason) or not (yield from WasVerified(credentials))
    ):
        return _too_many_failures(blocked)
    decision = yield from _authenticate(credentials, policy, address, fresh=fresh)
    if isinstance(decision, Deny) and _is_failed_attempt(decision):
        if blocked is not None:
            return _too_many_failures(blocked)
        return (yield from _count_failure(decision, policy.failure_limit, client))
    return decision


def _is_failed_attempt(decision: Deny) -> bool:
    # A hash that was begun has cost what a guess costs, whether or not it was waited for.
    return decision.reason in _FAILED_ATTEMPTS or isinstance(decision.cause, HashTimeoutError)


def _count_failure(decision: Deny, limit: Limit, client: str) -> Flow[Deny]:
    charges = failure_charges(limit, client)
    outcome = yield from HitLimits(charges)
    if outcome is None:
        return decision
    refused = not outcome.admitted
    if not refused:
        if all(tally.remaining for tally in outcome.tallies):
            return decision
        # That was the last one; the next is refused before anybody is asked.
        nothing = [0] * len(charges)
        outcome = yield from AdjustLimits(charges, nothing, nothing, None)
    wait = max((tally.retry_after for tally in outcome.tallies), default=0.0) if outcome else 0.0
    if limit.enforce and wait > 0:
        yield from Block(client, wait)
    return _too_many_failures(wait) if refused else decision


def _too_many_failures(wait: float) -> Deny:
    return Deny(Reason.TOO_MANY_FAILURES, retry_after=max(1, ceil(wait)))


def _authenticate(
    credentials: Secret | Reason, policy: Policy, address: str | None, *, fresh: bool
) -> Flow[Decision]:
    if isinstance(credentials, Reason):
        return Deny(credentials)
    candidates = policy.candidates(credentials)
    decision: Decision = Deny(Reason.TOKEN_MALFORMED)
    for key_id in candidates:
        try:
            decision = yield from _identify(credentials, key_id, policy, fresh=fresh)
        except Exception as failure:  # noqa: BLE001 - whatever a store does, nobody is let in
            return Deny(
                Reason.STORE_UNAVAILABLE, _named(credentials, key_id, policy), cause=failure
            )
        if isinstance(decision, Allow):
            return (yield from _from_where_it_may(decision, address))
        if decision.reason not in (Reason.KEY_UNKNOWN, Reason.SECRET_WRONG):
            break
    return decision


def _named(token: Secret, key_id: str, policy: Policy) -> str | None:
    """Return the id that a refusal names where no key was found under it, or None for none."""
    return key_id if policy.may_name(token, key_id) else None


def _from_where_it_may(allow: Allow, address: str | None) -> Flow[Decision]:
    """Refuse a key that is bound to other networks; a stolen one is not told that it is genuine."""
    principal = allow.principal
    if allow.networks and not contains(allow.networks, address):
        return Deny(Reason.ADDRESS_NOT_ALLOWED, principal.key_id, principal.organization)
    yield from NoteUse(principal.key_id, address)
    return allow


def _identify(token: Secret, key_id: str, policy: Policy, *, fresh: bool) -> Flow[Decision]:
    if not fresh:
        known = yield from Recall(token)
        if isinstance(known, Allow):
            return known
    for _ in range(LOOKUP_ATTEMPTS):
        record = yield from LookUp(key_id, fresh)
        if record is not None and (not isinstance(record, KeyRecord) or record.key.id != key_id):
            raise CorruptDataError("the store answered a lookup with something else than the key")
        genuine = yield from VerifyToken(token, record.digest if record else None)
        if record is None:
            return Deny(Reason.KEY_UNKNOWN, _named(token, key_id, policy))
        if genuine is not True:
            return Deny(Reason.SECRET_WRONG, key_id)
        decision = judge(record, (yield from ReadClock()), policy)
        if isinstance(decision, Deny):
            # Nor may an older look let it in again, which the change feed might yet vouch for.
            yield from Discard(token)
            return decision
        if (yield from Remember(token, record, decision)) is True:
            yield from OfferRehash(key_id, token, record.digest)
            return decision
    return Deny(Reason.STORE_UNAVAILABLE, key_id)  # it changed under every look


def judge(record: KeyRecord, now: datetime, policy: Policy) -> Decision:
    """Decide what a genuine token is good for at ``now``."""
    key = record.key
    status = key.status(now)
    if status is not KeyStatus.ACTIVE:
        return Deny(_DEAD[status], key.id, key.organization)
    if record.organization.disabled_at is not None:
        return Deny(Reason.ORGANIZATION_DISABLED, key.id, key.organization)
    return policy.allow(record)


def authorize(allow: Allow, requirement: Requirement | None) -> Decision:
    """Decide whether a principal may do what is required.

    Args:
        allow: Who it is.
        requirement: The scopes asked for, or None for none.
    """
    principal = allow.principal
    if requirement is None or requirement.met_by(principal.grant):
        return allow
    return Deny(
        Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=requirement.scopes
    )


def _revoke_exposed(key_id: str | None) -> Flow[bool]:
    """Revoke the key that came over plain HTTP, if it was a live one; tell whether it is."""
    # With all of management, so a guard that may come here imports it beforehand.
    from keyguard.core.management.revocation import revoke_key

    if key_id is None:
        return False
    reason = RevocationReason.KEY_COMPROMISE
    try:
        yield from revoke_key(key_id, reason=reason, note="it came over plain HTTP", force=True)
    except Exception:  # noqa: BLE001 - the event says so, and the request is refused all the same
        return False
    return True


def check_transport(decision: Decision, policy: Policy, *, secure: bool) -> Decision:
    """Refuse whatever came over plain HTTP where HTTPS is required.

    Args:
        decision: What was decided so far; its key is named, because it counts as exposed.
        policy: What the service has settled.
        secure: Whether the client's connection is encrypted.
    """
    if secure or not policy.require_https:
        return decision
    if isinstance(decision, Deny) and decision.reason is Reason.ADDRESS_NOT_ALLOWED:
        # It was a live one that somebody could read on its way.
        return Deny(Reason.TRANSPORT_INSECURE, decision.key_id, decision.organization)
    if isinstance(decision, Allow):
        return Deny(
            Reason.TRANSPORT_INSECURE, decision.principal.key_id, decision.principal.organization
        )
    return Deny(Reason.TRANSPORT_INSECURE)
