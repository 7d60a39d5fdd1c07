"""How organizations and keys come to be, change and end.

What a flow refuses is refused before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from keyguard.exceptions import (
    InvalidValueError,
    NotFoundError,
    RefusedError,
)
from keyguard.sansio.charges import LimitStatus, statuses
from keyguard.sansio.effects import (
    AddKey,
    AddOrganization,
    ChangeKey,
    ChangeOrganization,
    DrawEntropy,
    FindKey,
    FindOrganization,
    Flow,
    HashToken,
    ListKeys,
    ListOrganizations,
    ReadClock,
    ReadLimits,
    ReadPolicy,
    RevokeKey,
    SetOrganizationDisabled,
)
from keyguard.sansio.limits import Limits, read_limits
from keyguard.sansio.models import (
    ORGANIZATION_NAME,
    UNCHANGED,
    IssuedKey,
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
    Unchanged,
)
from keyguard.sansio.policy import Policy
from keyguard.sansio.scopes import parse_granted
from keyguard.sansio.tokens import ENTROPY_SIZE, KEY_ID, TokenParts, base62

__all__ = [
    "create_organization",
    "disable_organization",
    "enable_organization",
    "get_key",
    "get_organization",
    "issue_key",
    "key_limits",
    "list_keys",
    "list_organizations",
    "revoke_key",
    "update_key",
    "update_organization",
]

LARGEST_PAGE = 1000
LONGEST_ID = 63
_ID_ENTROPY = 16


def create_organization(
    slug: str, *, name: str | None = None, limits: Limits = ()
) -> Flow[Organization]:
    """Create an organization.

    Args:
        slug: Its short name, unique: lower-case letters, digits and inner ``-``.
        name: Its name for people; the slug by default.
        limits: What its keys may ask for; a rate without a name is for all of them together.

    Returns:
        The organization, with its new id.

    Raises:
        InvalidValueError: The slug, the name or a limit is not as said.
        RefusedError: There is one of that slug.
        BackendError: The key store failed.
    """
    created_at = yield from ReadClock()
    number = base62((yield from DrawEntropy(_ID_ENTROPY)), 16)
    organization = Organization(
        id=f"org_{number}",
        slug=slug,
        name=slug if name is None else name,
        created_at=created_at,
        limits=read_limits(limits, "organization", stored=True),
    )
    yield from AddOrganization(organization)
    return organization


def get_organization(organization: str) -> Flow[Organization]:
    """Return an organization.

    Args:
        organization: Its id or slug.

    Raises:
        NotFoundError: There is none.
        BackendError: The key store failed.
    """
    _check_id("organization", organization, ORGANIZATION_NAME)
    found = yield from FindOrganization(organization)
    if found is None:
        raise _unknown("organization", organization)
    return found


def list_organizations(*, after: str | None = None, limit: int = 100) -> Flow[Page[Organization]]:
    """Return one page of organizations, oldest first.

    Args:
        after: The ``next`` of the page before, or None for the first.
        limit: How many at most, 1 to 1000.

    Raises:
        InvalidValueError: The limit is out of range.
        BackendError: The key store failed.
    """
    return (yield from ListOrganizations(after, _page_size(limit)))


def update_organization(
    organization: str,
    *,
    name: str | Unchanged = UNCHANGED,
    limits: Limits | Unchanged = UNCHANGED,
) -> Flow[Organization]:
    """Change an organization; what is not given stays.

    Args:
        organization: Its id or slug.
        name: Its new name for people.
        limits: The limits that replace the old ones.

    Returns:
        The organization as it stands after.

    Raises:
        InvalidValueError: A value is not as said.
        NotFoundError: There is no such organization.
        BackendError: The key store failed.
    """
    present = yield from get_organization(organization)
    if not isinstance(limits, Unchanged):
        limits = read_limits(limits, "organization", stored=True)
    changes = OrganizationChanges(name=name, limits=limits)
    replace(present, **changes.columns())  # checks them
    changed = yield from ChangeOrganization(present.id, changes)
    if changed is None:
        raise _unknown("organization", organization)
    return changed


def disable_organization(organization: str) -> Flow[Organization]:
    """Pause an organization: none of its keys works until it is enabled.

    Args:
        organization: Its id or slug.

    Returns:
        The organization as it stands; disabling a disabled one changes nothing.

    Raises:
        NotFoundError: There is none.
        BackendError: The key store failed.
    """
    return (yield from _set_disabled(organization, (yield from ReadClock())))


def enable_organization(organization: str) -> Flow[Organization]:
    """End an organization's pause.

    Args:
        organization: Its id or slug.

    Returns:
        The organization as it stands; enabling an enabled one changes nothing.

    Raises:
        NotFoundError: There is none.
        BackendError: The key store failed.
    """
    return (yield from _set_disabled(organization, None))


def _set_disabled(organization: str, at: datetime | None) -> Flow[Organization]:
    found = yield from get_organization(organization)
    changed = yield from SetOrganizationDisabled(found.id, at)
    if changed is None:
        raise _unknown("organization", organization)
    return changed


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
) -> Flow[IssuedKey]:
    """Issue a key.

    Args:
        organization: Id or slug of the organization that shall own it.
        name: Its name for people, at most 200 characters.
        scopes: What it may do.
        expires_in: How long it works, from now on or from ``not_before``; None for ever.
        expires_at: From when on it works no more, instead of ``expires_in``.
        not_before: From when on it works; None for at once.
        metadata: The service's own notes, strings to strings; not secret.
        limits: What it may ask for. One of the same name as a limit of its organization, or of the
            guard's ``default_limits``, takes that one's place.

    Returns:
        The key and its token. The token is nowhere kept; it is shown here, once.

    Raises:
        InvalidValueError: A value is not as said, or a scope is outside the catalogue.
        NotFoundError: There is no such organization.
        RefusedError: The organization is disabled.
        BackendError: The key store failed.
    """
    policy = yield from ReadPolicy()
    granted = _granted(policy, scopes)
    own_limits = read_limits(limits, "key", stored=True)
    owner = yield from get_organization(organization)
    if owner.disabled_at is not None:
        raise RefusedError(
            f"organization {owner.slug!r} is disabled; enable it before issuing keys"
        )
    now = yield from ReadClock()
    if expires_in is not None:
        if expires_at is not None:
            raise InvalidValueError("give expires_in or expires_at, not both")
        expires_at = _later(now if not_before is None else not_before, expires_in)
    parts = TokenParts.draw((yield from DrawEntropy(ENTROPY_SIZE)))
    family = base62((yield from DrawEntropy(_ID_ENTROPY)), 16)
    key = Key(
        id=parts.key_id,
        family=f"fam_{family}",
        organization=owner.id,
        name=name,
        scopes=granted,
        created_at=now,
        not_before=not_before,
        expires_at=expires_at,
        metadata=metadata or {},
        limits=own_limits,
    )
    _check_times(key, now)
    token = policy.tokens.mint(parts)
    digest = yield from HashToken(token)
    yield from AddKey(KeyRecord(key=key, organization=owner, digest=digest))
    return IssuedKey(key=key, token=token)


def get_key(key_id: str, *, organization: str | None = None) -> Flow[Key]:
    """Return a key.

    Args:
        key_id: Its id.
        organization: Id or slug of the only organization whose key is wanted; one of another
            organization is then not found, exactly like an unknown one. None for any.

    Raises:
        NotFoundError: There is none.
        BackendError: The key store failed.
    """
    _check_id("key", key_id, KEY_ID)
    record = yield from FindKey(key_id)
    if record is None or organization not in (
        None,
        record.organization.id,
        record.organization.slug,
    ):
        raise _unknown("key", key_id)
    return record.key


def key_limits(key_id: str) -> Flow[tuple[LimitStatus, ...]]:
    """Return how the limits of a key stand now: its own, its organization's and the defaults.

    Those that depend on the request (its address, its route) are not among them.

    Args:
        key_id: Its id.

    Raises:
        NotFoundError: There is no such key.
        BackendError: The key store or the store of the counters failed.
    """
    _check_id("key", key_id, KEY_ID)
    record = yield from FindKey(key_id)
    if record is None:
        raise _unknown("key", key_id)
    policy = yield from ReadPolicy()
    charges = policy.allow(record).limits.charges
    if not charges:
        return ()
    outcome = yield from ReadLimits(charges)
    return statuses(charges, outcome.tallies)


def list_keys(
    *,
    organization: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> Flow[Page[Key]]:
    """Return one page of keys, oldest first, dead ones included.

    Args:
        organization: Id or slug of the organization whose keys are wanted, or None for all keys.
        after: The ``next`` of the page before, or None for the first.
        limit: How many at most, 1 to 1000.

    Raises:
        InvalidValueError: The limit is out of range.
        NotFoundError: There is no such organization.
        BackendError: The key store failed.
    """
    size = _page_size(limit)
    if organization is not None:
        organization = (yield from get_organization(organization)).id
    return (yield from ListKeys(organization, after, size))


def update_key(
    key_id: str,
    *,
    name: str | Unchanged = UNCHANGED,
    scopes: Iterable[str] | Unchanged = UNCHANGED,
    not_before: datetime | Unchanged | None = UNCHANGED,
    expires_at: datetime | Unchanged | None = UNCHANGED,
    metadata: Mapping[str, str] | Unchanged = UNCHANGED,
    limits: Limits | Unchanged = UNCHANGED,
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

    Returns:
        The key as it stands after.

    Raises:
        InvalidValueError: A value is not as said, or a scope is outside the catalogue.
        NotFoundError: There is no such key.
        RefusedError: The key is revoked.
        BackendError: The key store failed.
    """
    policy = yield from ReadPolicy()
    granted = scopes if isinstance(scopes, Unchanged) else _granted(policy, scopes)
    if not isinstance(limits, Unchanged):
        limits = read_limits(limits, "key", stored=True)
    present = yield from get_key(key_id)
    _refuse_revoked(present)
    wanted = KeyChanges(
        name=name,
        scopes=granted,
        not_before=not_before,
        expires_at=expires_at,
        metadata=metadata,
        limits=limits,
    ).columns()
    checked = replace(present, **wanted)
    _check_times(checked, None)
    # the columns as Key checked them: UTC, frozen
    changes = KeyChanges(**{column: getattr(checked, column) for column in wanted})
    changed = yield from ChangeKey(key_id, changes)
    if changed is None:
        raise _unknown("key", key_id)
    _refuse_revoked(changed)
    return changed


def revoke_key(key_id: str, *, reason: str | None = None) -> Flow[Key]:
    """Revoke a key, for good.

    Args:
        key_id: Its id.
        reason: Why, in free text, at most 200 characters.

    Returns:
        The key as it stands after. Revoking a revoked key changes nothing; the first time and
        reason stay.

    Raises:
        InvalidValueError: The reason is not as said.
        NotFoundError: There is no such key.
        BackendError: The key store failed.
    """
    present = yield from get_key(key_id)
    now = yield from ReadClock()
    replace(present, revoked_at=now, revoked_reason=reason)  # checks the reason
    revoked = yield from RevokeKey(key_id, now, reason)
    if revoked is None:
        raise _unknown("key", key_id)
    return revoked


def _granted(policy: Policy, scopes: Iterable[str]) -> frozenset[str]:
    granted = parse_granted(scopes)
    if policy.catalogue is not None:
        policy.catalogue.check_granted(granted)
    return granted


def _check_times(key: Key, issued_at: datetime | None) -> None:
    end = key.expires_at
    if end is None:
        return
    if issued_at is not None and end <= issued_at:
        raise InvalidValueError("the key would already have expired; set its end in the future")
    if key.not_before is not None and end <= key.not_before:
        raise InvalidValueError("the key would expire before it starts to work")


def _later(start: datetime, span: timedelta) -> datetime:
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(f"expires_in takes a positive timedelta, not {span!r}")
    if not isinstance(start, datetime):
        raise InvalidValueError(f"not_before takes an aware datetime, not {start!r}")
    try:
        return start + span
    except OverflowError:
        raise InvalidValueError("expires_in reaches beyond the year 9999") from None


def _page_size(limit: int) -> int:
    if not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise InvalidValueError(f"a page takes 1 to {LARGEST_PAGE} items, not {limit!r}")
    return limit


def _check_id(kind: str, name: str, pattern: re.Pattern[str]) -> None:
    """Refuse what can be no id, before it reaches a backend: it may be a whole token."""
    if not isinstance(name, str):
        raise InvalidValueError(
            f"the id of a key or organization is a string, not a {type(name).__name__}"
        )
    if not pattern.match(name):
        if len(name) > LONGEST_ID:
            raise NotFoundError(f"that is no id of any {kind}; pass its id, never a whole token")
        raise _unknown(kind, name)


def _unknown(kind: str, name: str) -> NotFoundError:
    return NotFoundError(f"there is no {kind} {name!r}")


def _refuse_revoked(key: Key) -> None:
    if key.revoked_at is not None:
        raise RefusedError(f"key {key.id!r} is revoked, which is final; issue a new one")
