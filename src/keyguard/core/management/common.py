"""The helpers that several operations share: repeated decisions, authority, ids and pages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from keyguard.core.access.policy import Policy
from keyguard.core.identity.person import Role
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.keys.audit import Actor, actor_name
from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.management.authority import (
    ADMINISTRATORS,
    ANYBODY,
    Authority,
    authority_of,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.format import KEY_ID, base62
from keyguard.core.values import ORGANIZATION_ID, ORGANIZATION_NAME, Page
from keyguard.exceptions import (
    CorruptDataError,
    ExceededError,
    InvalidValueError,
    NotFoundError,
    OutdatedError,
    RefusedError,
    StoreUnavailableError,
    shown,
)

Result = TypeVar("Result")

LARGEST_PAGE = 1000
LONGEST_ID = 63
_ATTEMPTS = 200
_ID_ENTROPY = 16
_BUSY = "others keep changing the same records; try again"


class Operations:
    """Operations on the key store of one guard, for async code.

    Args:
        ports: The ports of management.
    """

    def __init__(self, ports: ManagementPorts) -> None:
        self._ports = ports


async def settled(
    ports: ManagementPorts,
    actor: Actor,
    attempt: Callable[[Authority], Awaitable[tuple[Commit | None, Result]]],
) -> Result:
    """Decide and commit, and decide again if the records changed in between.

    Args:
        ports: The ports of management.
        actor: Who asks for the change. Its authority is read again for each attempt, and the commit
            fails if that authority has changed.
        attempt: Reads and decides, given the actor's authority. It returns the commit, or None if
            there is nothing to change, and the result.

    Raises:
        RefusedError: The actor's key no longer works.
        StoreUnavailableError: Others changed the same records during every attempt.
    """
    for _ in range(_ATTEMPTS):
        authority = await authority_of(ports, actor)
        commit, result = await attempt(authority)
        if commit is None:
            return result
        bound = authority.bind(commit)
        if bound is not None and (await ports.store.commit(bound)) is True:
            return result
    raise StoreUnavailableError(_BUSY)


async def ended(
    ports: ManagementPorts,
    actor: Actor,
    attempt: Callable[[Authority], Awaitable[Ending]],
) -> tuple[Authority, tuple[str, ...]]:
    """Decide what to end, and end it; decide again only if a condition no longer holds.

    Args:
        ports: The ports of management.
        actor: Who asks for the ending. Nothing ends if its key no longer works.
        attempt: Given the actor's authority, returns the ending.

    Returns:
        The authority of the actor, and the ids of the records that this call ended.

    Raises:
        RefusedError: The actor's key no longer works.
        StoreUnavailableError: Others broke the conditions during every attempt.
    """
    for _ in range(_ATTEMPTS):
        authority = await authority_of(ports, actor)
        ending = await attempt(authority)
        ids = await ports.store.end(authority.bind_ending(ending))
        if ids is not None:
            return authority, ids
    raise StoreUnavailableError(_BUSY)


async def find_organization(
    ports: ManagementPorts,
    name: str,
    authority: Authority = ANYBODY,
    roles: frozenset[Role] = ADMINISTRATORS,
) -> Organization:
    """Return an organization by id or slug, if the actor may see it.

    Args:
        ports: The ports of management.
        name: The id or slug.
        authority: The authority of the actor.
        roles: The roles that a person needs for the operation.

    Raises:
        NotFoundError: The record does not exist, or the actor may not see it.
        RefusedError: The actor is a person who has none of the roles.
    """
    check_id("organization", name, ORGANIZATION_NAME)
    found = await ports.store.find_organization(name)
    if found is None or not authority.reaches(found):
        raise unknown("organization", name)
    authority.check_role(found, roles)
    return found


async def listed_organization(
    ports: ManagementPorts, name: str, authority: Authority = ANYBODY
) -> str:
    """Return the id of an organization, by which its keys and entries are listed.

    Raises:
        NotFoundError: The record does not exist, or the actor may not see it.
        CorruptDataError: The name is a slug, and the record behind it can't be read.
    """
    try:
        return (await find_organization(ports, name, authority)).id
    except CorruptDataError:
        if not ORGANIZATION_ID.match(name):
            raise
        return name


async def find_record(
    ports: ManagementPorts,
    key_id: str,
    authority: Authority = ANYBODY,
    roles: frozenset[Role] = ADMINISTRATORS,
) -> KeyRecord:
    """Return a key's record, if the actor may see it.

    Args:
        ports: The ports of management.
        key_id: The key's id.
        authority: The authority of the actor.
        roles: The roles that a person needs for the operation.

    Raises:
        NotFoundError: The record does not exist, or the actor may not see it.
        RefusedError: The actor is a person who has none of the roles.
    """
    check_id("key", key_id, KEY_ID)
    found = await ports.store.find_key(key_id)
    if found is None or not authority.reaches_key(found):
        raise unknown("key", key_id)
    authority.check_role(found.organization, roles)
    return found


async def all_keys(ports: ManagementPorts, wanted: KeyFilter) -> Page[Key]:
    """Return all keys that a filter admits as one page."""
    found: Page[Key] = Page(())
    after: str | None = None
    while True:
        page = await ports.store.list_keys(wanted, after=after, limit=LARGEST_PAGE)
        found = Page(found.items + page.items, None, found.damaged + page.damaged)
        if page.next is None:
            return found
        after = page.next


def draw_id(ports: ManagementPorts, kind: str) -> str:
    """Return a new id that begins with its kind, such as ``fam``."""
    return f"{kind}_{base62(ports.draw_entropy(_ID_ENTROPY), 16)}"


def granted_scopes(policy: Policy, scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes as they can be granted.

    Raises:
        InvalidValueError: A scope is malformed, or not in the catalogue.
    """
    granted = parse_granted(scopes)
    if policy.catalogue is not None:
        policy.catalogue.check_granted(granted)
    return granted


def check_actor(actor: Actor) -> None:
    """Refuse an actor that is not a principal, a person, a short text or None.

    Raises:
        InvalidValueError: The actor is something else.
    """
    actor_name(actor)


def refuse_disabled(owner: Organization, doing: str) -> None:
    """Refuse to make keys for an organization that is disabled.

    Raises:
        RefusedError: The organization is disabled.
    """
    if owner.disabled_at is not None:
        raise RefusedError(f"organization {owner.slug!r} is disabled; enable it before {doing}")


def check_end(key: Key, owner: Organization, issued_at: datetime | None) -> None:
    """Refuse an end that lies before the start, or beyond what the organization allows.

    Raises:
        InvalidValueError: The key would never work.
        ExceededError: The key would work for longer than the organization allows.
    """
    end = key.expires_at
    if end is not None:
        if issued_at is not None and end <= issued_at:
            raise InvalidValueError("the key would already have expired; set its end in the future")
        if key.not_before is not None and end <= key.not_before:
            raise InvalidValueError("the key would expire before it starts to work")
    longest = owner.max_key_lifetime
    if longest is None:
        return
    start = key.created_at if key.not_before is None else key.not_before
    if end is None or end - start > longest:
        raise ExceededError(
            f"keys of organization {owner.slug!r} work for at most {longest}; set an earlier end"
        )


def page_size(limit: int) -> int:
    """Return the size of a page.

    Raises:
        InvalidValueError: The size is out of range.
    """
    if not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise InvalidValueError(f"a page takes 1 to {LARGEST_PAGE} items, not {shown(limit)}")
    return limit


def check_id(kind: str, name: str, pattern: re.Pattern[str]) -> None:
    """Refuse a text that can't be an id before it reaches a store: it may be a whole token.

    Raises:
        InvalidValueError: The value is not a string.
        NotFoundError: The text can't be an id.
    """
    if not isinstance(name, str):
        raise InvalidValueError(
            f"the id of a key or organization is a string, not a {type(name).__name__}"
        )
    if not pattern.match(name):
        if len(name) > LONGEST_ID:
            raise NotFoundError(f"that is not the id of a {kind}; pass its id, never a whole token")
        raise unknown(kind, name)


def unknown(kind: str, name: str) -> NotFoundError:
    """Return the error for a record that does not exist."""
    return NotFoundError(f"there is no {kind} {shown(name)}")


def refuse_revoked(key: Key) -> None:
    """Refuse to change a key that is revoked.

    Raises:
        RefusedError: The key is revoked.
    """
    if key.revoked_at is not None:
        raise RefusedError(f"key {key.id!r} is revoked, which is final; issue a new one")


def check_version(record: Key | Organization | KeyRequest, version: int | None) -> None:
    """Refuse to change a record if its version is not the one that the caller has read.

    Raises:
        OutdatedError: The record has changed since the caller read it.
    """
    if version not in (None, record.version):
        raise OutdatedError(
            f"{record.id!r} has changed: its version is {record.version}, not {shown(version)}"
        )


def later(start: datetime, span: timedelta, latest: datetime | None = None) -> datetime:
    """Return the time that is a span after another time in UTC.

    Args:
        start: The other time.
        span: The span.
        latest: What to return if the time would lie beyond the year 9999; None to refuse the span.

    Raises:
        InvalidValueError: The span is not a positive timedelta, or reaches beyond the year 9999.
    """
    _check_span(span)
    try:
        return start + span
    except OverflowError:
        if latest is not None:
            return latest
        raise InvalidValueError("that span reaches beyond the year 9999") from None


def earlier(end: datetime, span: timedelta) -> datetime:
    """Return the time that is a span before another time in UTC.

    Raises:
        InvalidValueError: The span is not a positive timedelta, or reaches back before the year 1.
    """
    _check_span(span)
    try:
        return end - span
    except OverflowError:
        raise InvalidValueError("that span reaches back before the year 1") from None


def _check_span(span: object) -> None:
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(f"a span is a positive timedelta, not {shown(span)}")
