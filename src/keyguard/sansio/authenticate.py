"""How a request is let in or refused.

The order is the promise: credentials grammar, token grammar, lookup, digest, status and times,
transport, scopes. What is refused early spends nothing later, and only an ``Allow`` passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from keyguard.exceptions import CorruptDataError
from keyguard.sansio.credentials import parse_authorization
from keyguard.sansio.decisions import Allow, Decision, Deny, Reason
from keyguard.sansio.effects import FindKey, Flow, ReadClock, Recall, Remember, VerifyToken
from keyguard.sansio.models import KeyRecord, KeyStatus
from keyguard.sansio.policy import Policy
from keyguard.sansio.scopes import Requirement
from keyguard.sansio.secret import Secret

__all__ = ["authenticate", "authorize", "check_transport", "judge"]

LOOKUP_ATTEMPTS = 3

_DEAD = {
    KeyStatus.REVOKED: Reason.KEY_REVOKED,
    KeyStatus.EXPIRED: Reason.KEY_EXPIRED,
    KeyStatus.NOT_YET_VALID: Reason.KEY_NOT_YET_VALID,
}


def authenticate(fields: Sequence[str | bytes], policy: Policy) -> Flow[Decision]:
    """Decide who sent a request.

    Args:
        fields: Its ``Authorization`` field values, as received.
        policy: What the service has settled.

    Returns:
        ``Allow`` with the principal of a live key, else ``Deny``; never raises for what a client
        sends or for what a backend does.
    """
    credentials = parse_authorization(fields)
    del fields  # what is refused or fails from here on must not show the token
    if isinstance(credentials, Reason):
        return Deny(credentials)
    parts = policy.tokens.parse(credentials.reveal())
    if parts is None:
        return Deny(Reason.TOKEN_MALFORMED)
    key_id = parts.key_id
    del parts
    try:
        return (yield from _identify(credentials, key_id, policy))
    except Exception as failure:  # noqa: BLE001 - whatever a backend does, nobody is let in
        return Deny(Reason.STORE_UNAVAILABLE, key_id, cause=failure)


def _identify(token: Secret, key_id: str, policy: Policy) -> Flow[Decision]:
    known = yield from Recall(token)
    if isinstance(known, Allow):
        return known
    for _ in range(LOOKUP_ATTEMPTS):
        record = yield from FindKey(key_id)
        if record is not None and (not isinstance(record, KeyRecord) or record.key.id != key_id):
            raise CorruptDataError("the backend answered a lookup with something else than the key")
        genuine = yield from VerifyToken(token, record.digest if record else None)
        if record is None:
            return Deny(Reason.KEY_UNKNOWN, key_id)
        if genuine is not True:
            return Deny(Reason.SECRET_WRONG, key_id)
        decision = judge(record, (yield from ReadClock()), policy)
        if isinstance(decision, Deny) or (yield from Remember(token, record, decision)) is True:
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
    return Allow(policy.principal(record))


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


def check_transport(decision: Decision, policy: Policy, *, secure: bool) -> Decision:
    """Refuse whatever came over plain HTTP where HTTPS is required.

    Args:
        decision: What was decided so far; its key is named, because it counts as exposed.
        policy: What the service has settled.
        secure: Whether the client's connection is encrypted.
    """
    if secure or not policy.require_https:
        return decision
    if isinstance(decision, Allow):
        return Deny(
            Reason.TRANSPORT_INSECURE, decision.principal.key_id, decision.principal.organization
        )
    return Deny(Reason.TRANSPORT_INSECURE)
