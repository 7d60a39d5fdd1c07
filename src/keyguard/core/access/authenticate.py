"""How a request is authenticated.

The order is a promise: failures of the client's address, credentials grammar, token grammar,
look-up, digest, status and times, network allowlist, transport, scopes, limits
(:mod:`keyguard.core.access.bills`). A refusal skips all later steps and their costs. Only an
``Allow`` passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from math import ceil

from keyguard.core.access.credentials import parse_authorization
from keyguard.core.access.decisions import Allow, Decision, Deny, Reason
from keyguard.core.access.policy import Policy
from keyguard.core.access.ports import Fingerprint, RequestPorts
from keyguard.core.identity.addresses import client_of
from keyguard.core.identity.networks import contains
from keyguard.core.identity.scopes import Requirement
from keyguard.core.keys.records import Key, KeyRecord, KeyStatus
from keyguard.core.limits.charges import failure_charges
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import CorruptDataError, HashTimeoutError

LOOKUP_ATTEMPTS = 3

# The reasons that count as guesses of a key. A request without a key, or with a malformed field, is
# not a guess.
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

# Refusals that are the same for every request.
_WITHOUT_TOKEN = {
    reason: Deny(reason)
    for reason in (
        Reason.CREDENTIALS_MISSING,
        Reason.SCHEME_UNSUPPORTED,
        Reason.CREDENTIALS_MALFORMED,
    )
}
_MALFORMED = Deny(Reason.TOKEN_MALFORMED)
_INSECURE = Deny(Reason.TRANSPORT_INSECURE)

_DEAD = {
    KeyStatus.REVOKED: Reason.KEY_REVOKED,
    KeyStatus.EXPIRED: Reason.KEY_EXPIRED,
    KeyStatus.ROTATED: Reason.KEY_ROTATED,
    KeyStatus.NOT_YET_VALID: Reason.KEY_NOT_YET_VALID,
}


async def authenticate(
    ports: RequestPorts,
    fields: Sequence[str | bytes],
    address: str | None = None,
    *,
    secure: bool = False,
    fresh: bool = False,
    is_attempt: bool = True,
    missed: Fingerprint | None = None,
) -> Decision:
    """Decide which principal sent a request, and whether its address and transport are allowed.

    Args:
        ports: The ports of the request.
        fields: The ``Authorization`` field values, as received.
        address: The client's address. Without one, failures are not counted, and a key that is
            bound to networks is refused.
        secure: Whether the client's connection is encrypted.
        fresh: Whether to look the key up even if it is remembered.
        is_attempt: Whether the client has just sent the request. Otherwise nothing is noted: no
            failed attempt, no use of the key, and no digest by a newer scheme.
        missed: The token's fingerprint, if it was looked up in the memory and not found.

    Returns:
        ``Allow`` with the principal of a live key, otherwise ``Deny``. No input of a client and no
        failure of a store raises.
    """
    policy = ports.policy
    token = parse_authorization(fields, bar=policy.takes_bar)
    del fields  # a traceback that passes here must not show the token
    if isinstance(token, Reason):
        return refuse_without_token(ports, token, address, secure=secure, is_attempt=is_attempt)
    limit = policy.failure_limit if is_attempt else None
    client = None if limit is None or address is None else client_of(address)
    blocked = None if client is None else ports.blocklist.blocked_for(client)
    # A key that this process verified before is let in, even if a guesser shares its address.
    if blocked is not None and not _was_verified(ports, token, address, secure=secure):
        return check_transport(_too_many_failures(blocked), policy, secure=secure)
    decision = await _identify(
        ports,
        token,
        client or "",
        address,
        secure=secure,
        fresh=fresh,
        missed=missed,
        is_attempt=is_attempt,
    )
    if limit is None or client is None:
        return check_transport(decision, policy, secure=secure)
    if isinstance(decision, Deny) and _is_failed_attempt(decision):
        ports.blocklist.note_failure(client)
        if blocked is not None:
            decision = _too_many_failures(blocked)
        else:
            decision = await _count_failure(ports, decision, limit, client)
    return check_transport(decision, policy, secure=secure)


def refuse_without_token(
    ports: RequestPorts,
    reason: Reason,
    address: str | None,
    *,
    secure: bool,
    is_attempt: bool = True,
) -> Deny:
    """Return the refusal of a request whose fields hold no token, without waiting for a port.

    Args:
        ports: The ports of the request.
        reason: Why there is no token.
        address: The client's address.
        secure: Whether the client's connection is encrypted.
        is_attempt: Whether the client has just sent the request, so that its failures count.
    """
    policy = ports.policy
    if policy.require_https and not secure:
        return _INSECURE
    blocked = refuse_blocked(ports, address) if is_attempt else None
    return _WITHOUT_TOKEN[reason] if blocked is None else blocked


def refuse_blocked(ports: RequestPorts, address: str | None) -> Deny | None:
    """Return the refusal of a client that failed too often, or None, without waiting for a port.

    Args:
        ports: The ports of the request.
        address: The client's address.
    """
    if ports.policy.failure_limit is None or address is None:
        return None
    blocked = ports.blocklist.blocked_for(client_of(address))
    return None if blocked is None else _too_many_failures(blocked)


async def count_failure(ports: RequestPorts, decision: Deny, address: str | None) -> Deny:
    """Count a failed attempt that was made without a token, such as a wrong ticket.

    Args:
        ports: The ports of the request.
        decision: The refusal.
        address: The client's address. Without one, nothing is counted.

    Returns:
        The refusal, or another once the client's attempts are used up.
    """
    limit = ports.policy.failure_limit
    if limit is None or address is None:
        return decision
    client = client_of(address)
    ports.blocklist.note_failure(client)
    return await _count_failure(ports, decision, limit, client)


async def _identify(
    ports: RequestPorts,
    token: Secret,
    client: str,
    address: str | None,
    *,
    secure: bool,
    fresh: bool,
    missed: Fingerprint | None,
    is_attempt: bool,
) -> Decision:
    """Decide which key a token belongs to, whether it is genuine, and whether that key may be used.

    The memory alone never refuses a token. Every refusal takes as long as that of an unknown token,
    so that a thief does not learn from the time that the token is live.
    """
    policy, tokens = ports.policy, ports.tokens
    decision: Decision = _MALFORMED
    candidates = policy.candidates(token)
    if not candidates:
        return decision
    key_id = candidates[0]
    try:
        fingerprint = missed or tokens.fingerprint(token)
        known = None if fresh or missed is not None else tokens.recall_any(fingerprint)
        if isinstance(known, Allow) and _may_come(known, policy, address, secure=secure):
            if is_attempt:
                ports.note_use(known.principal, address)
            return known
        for key_id in candidates:
            decision = await _look_up(
                ports,
                token,
                fingerprint,
                key_id,
                client,
                address,
                secure=secure,
                fresh=fresh,
                is_attempt=is_attempt,
            )
            if isinstance(decision, Allow):
                if is_attempt:
                    ports.note_use(decision.principal, address)
                return decision
            if decision.reason not in (Reason.KEY_UNKNOWN, Reason.SECRET_WRONG):
                break
    except Exception as failure:  # noqa: BLE001 - a store that fails in any way lets nobody in
        return Deny(Reason.STORE_UNAVAILABLE, _named(token, key_id, policy), cause=failure)
    return decision


async def _look_up(
    ports: RequestPorts,
    token: Secret,
    fingerprint: Fingerprint,
    key_id: str,
    client: str,
    address: str | None,
    *,
    secure: bool,
    fresh: bool,
    is_attempt: bool,
) -> Decision:
    """Decide by the record that the store holds under a key id."""
    policy, tokens = ports.policy, ports.tokens
    for _ in range(LOOKUP_ATTEMPTS):
        record, mark = await ports.find_key(key_id, fresh=fresh)
        if record is None:
            await ports.verify(token, None, client, key_id)
            return Deny(Reason.KEY_UNKNOWN, _named(token, key_id, policy))
        if not isinstance(record, KeyRecord) or record.key.id != key_id:
            raise CorruptDataError("the store answered a look-up with something other than the key")
        # No local holds the digest: a later failure would show it.
        is_matched = tokens.matched(fingerprint, record.digest)
        if not is_matched and await ports.verify(token, record.digest, client, key_id) is not True:
            ports.blocklist.note_failure(key_id)
            return Deny(Reason.SECRET_WRONG, key_id)
        decision = judge(record, ports.now(), policy, address)
        enters = isinstance(decision, Allow) and (secure or not policy.require_https)
        if (
            is_matched
            and not enters
            and await ports.verify(token, record.digest, client, key_id) is not True
        ):
            return Deny(Reason.SECRET_WRONG, key_id)
        if isinstance(decision, Deny):
            if decision.reason is not Reason.ADDRESS_NOT_ALLOWED:
                # The change feed might still vouch for an older look-up, which must not let it in.
                tokens.discard(fingerprint)
            return decision
        if tokens.remember(fingerprint, record, decision, mark) is True:
            if is_attempt:
                ports.offer_rehash(key_id, token, record.digest)
            if decision.rates is None and record.organization.plan is not None:
                ports.note_unknown_plan(record.organization)
            return decision
    return Deny(Reason.STORE_UNAVAILABLE, key_id)  # the key changed during every look-up


def judge(record: KeyRecord, now: datetime, policy: Policy, address: str | None) -> Decision:
    """Decide what a genuine token may do at a time.

    Args:
        record: Its key and organization.
        now: The time.
        policy: The settings that decisions need.
        address: The client's address.
    """
    key = record.key
    status = key.status(now)
    if status is not KeyStatus.ACTIVE:
        return _refused(_DEAD[status], key)
    if record.organization.disabled_at is not None:
        return _refused(Reason.ORGANIZATION_DISABLED, key)
    if not _is_within(key.allowed_networks, address):
        # Neither the answer nor its time shows a thief that the token is genuine.
        return _refused(Reason.ADDRESS_NOT_ALLOWED, key)
    return policy.allow(record)


def check_transport(decision: Decision, policy: Policy, *, secure: bool) -> Decision:
    """Refuse a request over plain HTTP if HTTPS is required.

    Args:
        decision: The decision so far. The refusal names its key, which counts as exposed.
        policy: The settings that decisions need.
        secure: Whether the client's connection is encrypted.
    """
    if secure or not policy.require_https:
        return decision
    if isinstance(decision, Deny):
        if decision.reason is Reason.ADDRESS_NOT_ALLOWED:  # a live key, sent in plain text
            return replace(decision, reason=Reason.TRANSPORT_INSECURE)
        return _INSECURE
    principal = decision.principal
    return Deny(
        Reason.TRANSPORT_INSECURE,
        principal.key_id,
        principal.organization,
        family=principal.family,
    )


def authorize(allow: Allow, requirement: Requirement | None) -> Decision:
    """Decide whether a principal has the scopes that are required.

    Args:
        allow: The decision that let the principal in.
        requirement: The scopes, or None if no scope is needed.
    """
    principal = allow.principal
    if requirement is None:
        return allow
    if requirement.met_by(principal.grant):
        allow.needed.add(requirement.all_of)
        if requirement.any_of:
            allow.needed.add(requirement.any_of)
        return allow
    return Deny(
        Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=requirement.scopes
    )


def _refused(reason: Reason, key: Key) -> Deny:
    return Deny(reason, key.id, key.organization, family=key.family)


def _is_within(networks: tuple[str, ...], address: str | None) -> bool:
    return not networks or contains(networks, address)


def _may_come(allow: Allow, policy: Policy, address: str | None, *, secure: bool) -> bool:
    """Return whether a live key may be used from an address, and over its transport."""
    return _is_within(allow.networks, address) and (secure or not policy.require_https)


def _was_verified(ports: RequestPorts, token: Secret, address: str | None, *, secure: bool) -> bool:
    known = ports.tokens.verified_as(ports.tokens.fingerprint(token))
    return known is not None and _may_come(known, ports.policy, address, secure=secure)


def _named(token: Secret, key_id: str, policy: Policy) -> str | None:
    """Return the id that a refusal may name though no key was found under it, or None."""
    return key_id if policy.may_name(token, key_id) else None


def _is_failed_attempt(decision: Deny) -> bool:
    # A slow hash that has begun costs as much as a guess, even if it does not end in time.
    return decision.reason in _FAILED_ATTEMPTS or isinstance(decision.cause, HashTimeoutError)


async def _count_failure(ports: RequestPorts, decision: Deny, limit: Limit, client: str) -> Deny:
    """Count a failed attempt; refuse the client for a time once its attempts are used up."""
    charges = failure_charges(limit, client)
    outcome = await ports.counters.hit(charges)
    if outcome is None:
        return decision
    refused = not outcome.admitted
    if not refused:
        if all(tally.remaining for tally in outcome.tallies):
            return decision
        # That was the last attempt. Later ones are refused before any port is called.
        nothing = [0] * len(charges)
        outcome = await ports.counters.adjust(charges, nothing, nothing, None)
    wait = max((tally.retry_after for tally in outcome.tallies), default=0.0) if outcome else 0.0
    if limit.enforce and wait > 0:
        ports.blocklist.block(client, wait)
    return _too_many_failures(wait) if refused else decision


def _too_many_failures(wait: float) -> Deny:
    return Deny(Reason.TOO_MANY_FAILURES, retry_after=max(1, ceil(wait)))
