"""How organizations come to be, change, pause and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from keyguard.core.access.effects import Flow, ReadClock
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Organization
from keyguard.core.keys.values import UNCHANGED, Page, Unchanged
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.common import (
    Authority,
    check_actor,
    check_widening,
    find_organization,
    granted_scopes,
    page_size,
    settled,
)
from keyguard.core.management.effects import (
    CommitChanges,
    DrawEntropy,
    ListOrganizations,
    ReadPolicy,
)
from keyguard.core.tokens.format import base62
from keyguard.exceptions import RefusedError

__all__ = [
    "create_organization",
    "disable_organization",
    "enable_organization",
    "get_organization",
    "list_organizations",
    "update_organization",
]

_ID_ENTROPY = 16


def create_organization(
    slug: str,
    *,
    name: str | None = None,
    limits: Limits = (),
    scopes: Iterable[str] | None = None,
    max_key_lifetime: timedelta | None = None,
    actor: Actor = None,
) -> Flow[Organization]:
    """Create an organization.

    Args:
        slug: Its short name, unique: lower-case letters, digits and inner ``-``.
        name: Its name for people; the slug by default.
        limits: What its keys may ask for; a rate without a name is for all of them together.
        scopes: All that its keys may do, whatever they are granted; None for anything.
        max_key_lifetime: How long its keys work at the most; None for ever.
        actor: Who creates it, for the audit trail; no principal can.

    Returns:
        The organization, with its new id.

    Raises:
        InvalidValueError: The slug, the name or a limit is not as said.
        RefusedError: There is one of that slug, or the actor is a principal.
        StoreError: The key store failed.
    """
    check_actor(actor)
    if isinstance(actor, Principal):
        raise RefusedError(
            f"key {actor.key_id!r} changes only its own organization; create others as the "
            "service, with a name as the actor or none"
        )
    policy = yield from ReadPolicy()
    created_at = yield from ReadClock()
    number = base62((yield from DrawEntropy(_ID_ENTROPY)), 16)
    organization = Organization(
        id=f"org_{number}",
        slug=slug,
        name=slug if name is None else name,
        created_at=created_at,
        limits=read_limits(limits, "organization", stored=True),
        scopes=None if scopes is None else granted_scopes(policy, scopes),
        max_key_lifetime=max_key_lifetime,
    )
    entry = describe(Action.ORGANIZATION_CREATED, created_at, actor, None, organization)
    yield from CommitChanges(Commit(entries=(entry,), organizations=(organization,)))
    return organization


def get_organization(organization: str) -> Flow[Organization]:
    """Return an organization.

    Args:
        organization: Its id or slug.

    Raises:
        NotFoundError: There is none.
        StoreError: The key store failed.
    """
    return (yield from find_organization(organization))


def list_organizations(*, after: str | None = None, limit: int = 100) -> Flow[Page[Organization]]:
    """Return one page of organizations, oldest first.

    Args:
        after: The ``next`` of the page before, or None for the first.
        limit: How many at most, 1 to 1000.

    Raises:
        InvalidValueError: The limit is out of range.
        StoreError: The key store failed.
    """
    return (yield from ListOrganizations(after, page_size(limit)))


def update_organization(
    organization: str,
    *,
    name: str | Unchanged = UNCHANGED,
    limits: Limits | Unchanged = UNCHANGED,
    scopes: Iterable[str] | Unchanged | None = UNCHANGED,
    max_key_lifetime: timedelta | Unchanged | None = UNCHANGED,
    actor: Actor = None,
) -> Flow[Organization]:
    """Change an organization; what is not given stays.

    Args:
        organization: Its id or slug.
        name: Its new name for people.
        limits: The limits that replace the old ones.
        scopes: All that its keys may do from now on, whatever they were granted; None for anything.
        max_key_lifetime: How long keys that are issued from now on work at the most; None for ever.
        actor: Who changes it, for the audit trail. A principal changes no organization but its
            own, and can allow no scope that it has not itself.

    Returns:
        The organization as it stands after.

    Raises:
        InvalidValueError: A value is not as said.
        NotFoundError: There is no such organization.
        RefusedError: The actor has not some scope that the organization's keys would get back, or
            its key works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    policy = yield from ReadPolicy()
    wanted: dict[str, Any] = {"name": name, "limits": limits, "max_key_lifetime": max_key_lifetime}
    if not isinstance(limits, Unchanged):
        wanted["limits"] = read_limits(limits, "organization", stored=True)
    if not isinstance(scopes, Unchanged):
        wanted["scopes"] = None if scopes is None else granted_scopes(policy, scopes)

    def may_change(authority: Authority, present: Organization) -> None:
        if not isinstance(scopes, Unchanged):
            check_widening(policy, authority, present, wanted["scopes"])

    return (
        yield from _change(
            organization, Action.ORGANIZATION_UPDATED, actor, wanted, may_change=may_change
        )
    )


def disable_organization(organization: str, *, actor: Actor = None) -> Flow[Organization]:
    """Pause an organization: none of its keys works until it is enabled.

    Args:
        organization: Its id or slug.
        actor: Who disables it, for the audit trail; a principal only its own.

    Returns:
        The organization as it stands; disabling a disabled one changes nothing.

    Raises:
        NotFoundError: There is none.
        RefusedError: The actor's key works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    now = yield from ReadClock()
    return (yield from _change(organization, Action.ORGANIZATION_DISABLED, actor, {}, at=now))


def enable_organization(organization: str, *, actor: Actor = None) -> Flow[Organization]:
    """End an organization's pause.

    Args:
        organization: Its id or slug.
        actor: Who enables it, for the audit trail; a principal can't, as none works while it is.

    Returns:
        The organization as it stands; enabling an enabled one changes nothing.

    Raises:
        NotFoundError: There is none.
        RefusedError: The actor's key works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    wanted = {"disabled_at": None}
    return (yield from _change(organization, Action.ORGANIZATION_ENABLED, actor, wanted))


def _change(
    organization: str,
    action: Action,
    actor: Actor,
    wanted: dict[str, Any],
    *,
    at: datetime | None = None,
    may_change: Callable[[Authority, Organization], None] | None = None,
) -> Flow[Organization]:
    fields = {name: value for name, value in wanted.items() if value is not UNCHANGED}

    def attempt(authority: Authority) -> Flow[tuple[Commit | None, Organization]]:
        present = yield from find_organization(organization, authority)
        if may_change is not None:
            may_change(authority, present)
        if at is not None and present.disabled_at is None:
            fields["disabled_at"] = at
        after = changed(present, **fields)
        change = Change(present, after)
        if len(change.columns()) == 1:  # the version alone
            return None, present
        entry = describe(action, (yield from ReadClock()), actor, present, after)
        return Commit(entries=(entry,), changes=(change,)), after

    return (yield from settled(actor, attempt))
