"""How keys come to be, are looked at and change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from keyguard.core.access.effects import Flow, ReadClock
from keyguard.core.identity.networks import parse_networks, within_networks
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import IssuedKey, Key, KeyFilter, KeyRecord, Organization
from keyguard.core.keys.values import UNCHANGED, Page, Unchanged
from keyguard.core.limits.charges import LimitStatus, statuses
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.administrators import refuse_to_lose_the_last
from keyguard.core.management.common import (
    Authority,
    authority_of,
    check_actor,
    check_ceiling,
    check_end,
    check_has,
    find_organization,
    find_record,
    granted_scopes,
    page_size,
    refuse_disabled,
    settled,
    unknown,
)
from keyguard.core.management.effects import (
    DrawEntropy,
    HashToken,
    ListKeys,
    ReadLimits,
    ReadPolicy,
)
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenParts, base62
from keyguard.exceptions import InvalidValueError, RefusedError

__all__ = ["get_key", "issue_key", "key_limits", "later", "list_keys", "update_key"]

_FAMILY_ENTROPY = 16


def issue_key(
    *,
    organization: str,
    name: str,
    scopes: Iterable[str] = (),
    expires_in: timedelta | None = None,
    expires_at: datetime | None = None,
    not_before: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
    limits: Limits = (),
    allowed_networks: Iterable[str] = (),
    actor: Actor = None,
) -> Flow[IssuedKey]:
    """Issue a key.

    Args:
        organization: Id or slug of the organization that shall own it.
        name: Its name for people, at most 200 characters.
        scopes: What it may do.
        expires_in: How long it works, from now on or from ``not_before``; None for as long as its
            organization's keys may.
        expires_at: From when on it works no more, instead of ``expires_in``.
        not_before: From when on it works; None for at once.
        metadata: The service's own notes, strings to strings; not secret.
        limits: What it may ask for. One of the same name as a limit of its organization, or of the
            guard's ``default_limits``, takes that one's place.
        allowed_networks: The networks that it works from, such as ``192.0.2.0/24``; empty for any.
        actor: Who issues it, for the audit trail. A principal issues keys of its own organization
            alone, and can grant no scope that it has not itself.

    Returns:
        The key and its token. The token is nowhere kept; it is shown here, once.

    Raises:
        InvalidValueError: A value is not as said, or a scope is outside the catalogue.
        NotFoundError: There is no such organization.
        RefusedError: The organization is disabled, or it or the actor may not have a scope, or the
            key would work for longer than the organization's keys may, or the actor's key works no
            more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    policy = yield from ReadPolicy()
    granted = granted_scopes(policy, scopes)
    fields: dict[str, Any] = {
        "name": name,
        "scopes": granted,
        "not_before": not_before,
        "metadata": metadata or {},
        "limits": read_limits(limits, "key", stored=True),
        "allowed_networks": parse_networks(allowed_networks),
    }
    if expires_in is not None and expires_at is not None:
        raise InvalidValueError("give expires_in or expires_at, not both")
    # Before anything is drawn: what is refused for the organization's sake costs no slow hash.
    authority = yield from authority_of(actor)
    owner = yield from find_organization(organization, authority)
    refuse_disabled(owner, "issuing keys")
    check_ceiling(policy, authority, owner, granted)
    parts = TokenParts.draw((yield from DrawEntropy(ENTROPY_SIZE)))
    family = base62((yield from DrawEntropy(_FAMILY_ENTROPY)), 16)
    token = policy.tokens.mint(parts)
    key_id = parts.key_id
    del parts
    now = yield from ReadClock()
    start = now if not_before is None else not_before
    digest: str | None = None

    def made(owner: Organization) -> Key:
        end = expires_at
        if expires_in is not None:
            end = later(start, expires_in)
        elif end is None and owner.max_key_lifetime is not None:
            end = later(start, owner.max_key_lifetime)
        key = Key(
            id=key_id,
            family=f"fam_{family}",
            organization=owner.id,
            created_at=now,
            expires_at=end,
            **fields,
        )
        check_end(key, owner, now)
        return key

    made(owner)  # refuses what can't be, before the hash
    digest = yield from HashToken(token)

    def attempt(authority: Authority) -> Flow[tuple[Commit | None, Key]]:
        owner = yield from find_organization(organization, authority)
        refuse_disabled(owner, "issuing keys")
        check_ceiling(policy, authority, owner, granted)
        key = made(owner)
        entry = describe(Action.KEY_ISSUED, now, actor, None, key)
        record = KeyRecord(key=key, organization=owner, digest=digest)
        return Commit(entries=(entry,), keys=(record,), unchanged=(owner,)), key

    key = yield from settled(actor, attempt)
    return IssuedKey(key=key, token=token)


def get_key(key_id: str, *, organization: str | None = None) -> Flow[Key]:
    """Return a key.

    Args:
        key_id: Its id.
        organization: Id or slug of the only organization whose key is wanted; one of another
            organization is then not found, exactly like an unknown one. None for any.

    Raises:
        NotFoundError: There is none.
        StoreError: The key store failed.
    """
    record = yield from find_record(key_id)
    if organization not in (None, record.organization.id, record.organization.slug):
        raise unknown("key", key_id)
    return record.key


def key_limits(key_id: str) -> Flow[tuple[LimitStatus, ...]]:
    """Return how the limits of a key stand now: its own, its organization's and the defaults.

    Those that depend on the request (its address, its route) are not among them.

    Args:
        key_id: Its id.

    Raises:
        NotFoundError: There is no such key.
        StoreError: The key store or the store of the counters failed.
    """
    record = yield from find_record(key_id)
    policy = yield from ReadPolicy()
    charges = policy.allow(record).limits.charges
    if not charges:
        return ()
    outcome = yield from ReadLimits(charges)
    return statuses(charges, outcome.tallies)


def list_keys(
    *,
    organization: str | None = None,
    family: str | None = None,
    expiring_within: timedelta | None = None,
    unused_for: timedelta | None = None,
    after: str | None = None,
    limit: int = 100,
) -> Flow[Page[Key]]:
    """Return one page of keys, oldest first; dead ones included, unless a report is asked for.

    Args:
        organization: Id or slug of the organization whose keys are wanted, or None for all keys.
        family: The only family whose keys are wanted.
        expiring_within: Only keys that work, and will no more after that time: it expires them, or
            the grace of a rotation ends.
        unused_for: Only keys that work, and that nobody has used for that long; one that was never
            used counts from when it was issued.
        after: The ``next`` of the page before, or None for the first.
        limit: How many at most, 1 to 1000.

    Raises:
        InvalidValueError: The limit is out of range, or a span is none.
        NotFoundError: There is no such organization.
        StoreError: The key store failed.
    """
    size = page_size(limit)
    if organization is not None:
        organization = (yield from find_organization(organization)).id
    now = yield from ReadClock()
    report = expiring_within is not None or unused_for is not None
    wanted = KeyFilter(
        organization=organization,
        family=family,
        ends_before=None if expiring_within is None else later(now, expiring_within),
        unused_since=None if unused_for is None else _earlier(now, unused_for),
        alive_at=now if report else None,
    )
    return (yield from ListKeys(wanted, after, size))


def update_key(
    key_id: str,
    *,
    name: str | Unchanged = UNCHANGED,
    scopes: Iterable[str] | Unchanged = UNCHANGED,
    not_before: datetime | Unchanged | None = UNCHANGED,
    expires_at: datetime | Unchanged | None = UNCHANGED,
    metadata: Mapping[str, str] | Unchanged = UNCHANGED,
    limits: Limits | Unchanged = UNCHANGED,
    allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
    force: bool = False,
    actor: Actor = None,
) -> Flow[Key]:
    """Change a key that is not revoked; what is not given stays.

    Args:
        key_id: Its id.
        name: Its new name.
        scopes: All it may do from now on.
        not_before: From when on it works; None for at once.
        expires_at: From when on it works no more; None for ever.
        metadata: The notes that replace the old ones.
        limits: The limits that replace the old ones.
        allowed_networks: The networks that replace the old ones; empty for any.
        force: Take ``admin`` away even from the last key of its organization that has it, or have
            that key end sooner.
        actor: Who changes it, for the audit trail. A principal changes only keys of its own
            organization. It can grant no scope that it has not itself, nor have a key work for
            longer or from more networks that has one.

    Returns:
        The key as it stands after.

    Raises:
        InvalidValueError: A value is not as said, or a scope is outside the catalogue.
        NotFoundError: There is no such key.
        RefusedError: The key is revoked, it would work for longer than its organization's keys
            may, the organization or the actor may not have a scope, it is the last that has
            ``admin``, or the actor's key works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    policy = yield from ReadPolicy()
    wanted: dict[str, Any] = {
        "name": name,
        "scopes": scopes if isinstance(scopes, Unchanged) else granted_scopes(policy, scopes),
        "not_before": not_before,
        "expires_at": expires_at,
        "metadata": metadata,
        "limits": (
            limits if isinstance(limits, Unchanged) else read_limits(limits, "key", stored=True)
        ),
        "allowed_networks": (
            allowed_networks
            if isinstance(allowed_networks, Unchanged)
            else parse_networks(allowed_networks)
        ),
    }
    fields = {column: value for column, value in wanted.items() if value is not UNCHANGED}

    def attempt(authority: Authority) -> Flow[tuple[Commit | None, Key]]:
        record = yield from find_record(key_id, authority)
        present, owner = record.key, record.organization
        refuse_revoked(present)
        after = changed(present, **fields)
        if "scopes" in fields:
            had = policy.grant(present.scopes)  # which is not granted anew
            new = frozenset(scope for scope in after.scopes if scope not in had)
            check_ceiling(policy, authority, owner, new)
        if _works_more(present, after):
            check_has(authority, after.scopes)
        now = yield from ReadClock()
        if not_before is not UNCHANGED or expires_at is not UNCHANGED:
            check_end(after, owner, None)
            _check_start(present, after, owner, now)
        change = Change(present, after)
        if len(change.columns()) == 1:  # the version alone
            return None, present
        guarded = yield from refuse_to_lose_the_last(record, after, now, force=force)
        entry = describe(Action.KEY_UPDATED, now, actor, present, after)
        return Commit(entries=(entry,), changes=(change, *guarded)), after

    return (yield from settled(actor, attempt))


def _works_more(before: Key, after: Key) -> bool:
    """Tell whether a key works when or where it would not have: it has its scopes anew."""
    ends_later = before.expires_at is not None and (
        after.expires_at is None or after.expires_at > before.expires_at
    )
    starts_earlier = before.not_before is not None and (
        after.not_before is None or after.not_before < before.not_before
    )
    more_networks = not within_networks(after.allowed_networks, before.allowed_networks)
    return ends_later or starts_earlier or more_networks


def _check_start(present: Key, after: Key, owner: Organization, now: datetime) -> None:
    """Refuse to begin a key's life anew where its organization limits how long that may be.

    Raises:
        RefusedError: It has begun to work, and would later be as if it had not.
    """
    if owner.max_key_lifetime is None or after.not_before is None:
        return
    start = present.created_at if present.not_before is None else present.not_before
    if start <= now and start < after.not_before:
        raise RefusedError(
            f"key {present.id!r} works already, and keys of organization {owner.slug!r} work for "
            f"at most {owner.max_key_lifetime}: it can't be made to begin later"
        )


def refuse_revoked(key: Key) -> None:
    """Refuse to change what ended for good.

    Raises:
        RefusedError: The key is revoked.
    """
    if key.revoked_at is not None:
        raise RefusedError(f"key {key.id!r} is revoked, which is final; issue a new one")


def later(start: datetime, span: timedelta) -> datetime:
    """Return the time a span after another.

    Raises:
        InvalidValueError: The span is none, or it leads nowhere.
    """
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(f"a span is a positive timedelta, not {span!r}")
    if not isinstance(start, datetime):
        raise InvalidValueError(f"not_before takes an aware datetime, not {start!r}")
    try:
        return start + span
    except OverflowError:
        raise InvalidValueError("that span reaches beyond the year 9999") from None


def _earlier(now: datetime, span: timedelta) -> datetime:
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(f"a span is a positive timedelta, not {span!r}")
    try:
        return now - span
    except OverflowError:
        raise InvalidValueError("that span reaches back before the year 1") from None
