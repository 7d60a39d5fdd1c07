"""What several operations share: deciding again, authority, ids and pages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from keyguard.core.access.policy import Policy
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import ScopeGrant, parse_granted
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyFilter, KeyRecord, KeyStatus, Organization
from keyguard.core.keys.values import ORGANIZATION_NAME, check_text
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.format import KEY_ID
from keyguard.exceptions import (
    InvalidValueError,
    NotFoundError,
    RefusedError,
    StoreUnavailableError,
)

Result = TypeVar("Result")

LARGEST_PAGE = 1000
LONGEST_ID = 63
_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Authority:
    """What an actor may do, as its key stands in the store now.

    Args:
        record: The record of its key; None for the service or a name, which has no bounds.
        grant: What that key may do.
    """

    record: KeyRecord | None = None
    grant: ScopeGrant | None = None

    def reaches(self, organization: str) -> bool:
        """Tell whether the actor may change an organization, given by id, and its keys."""
        return self.record is None or self.record.organization.id == organization

    def bind(self, commit: Commit) -> Commit | None:
        """Return a commit that fails if the actor's key or organization has changed.

        Returns:
            The commit; None if it is already known that they have.
        """
        if self.record is None:
            return commit
        expected = commit.expected()
        own = (self.record.organization, self.record.key)
        if any(expected.get(record.id, record.version) != record.version for record in own):
            return None
        return replace(commit, unchanged=(*commit.unchanged, *own))


_ANYBODY = Authority()


class Operations:
    """Operations on what one guard's key store holds, for async code.

    Args:
        ports: The outside.
    """

    def __init__(self, ports: ManagementPorts) -> None:
        self._ports = ports


async def authority_of(ports: ManagementPorts, actor: Actor) -> Authority:
    """Return what an actor may do now.

    Raises:
        RefusedError: It is a principal whose key no longer works.
    """
    if not isinstance(actor, Principal):
        return _ANYBODY
    record = await ports.store.find_key(actor.key_id)
    if record is None:
        raise RefusedError(f"key {actor.key_id!r} no longer exists, and can change nothing")
    status = record.key.status(ports.now())
    if status is not KeyStatus.ACTIVE:
        what = status.value.replace("_", " ")
        raise RefusedError(f"key {actor.key_id!r} is {what}, and can change nothing")
    if record.organization.disabled_at is not None:
        raise RefusedError(
            f"the organization of key {actor.key_id!r} is disabled, so it can change nothing"
        )
    return Authority(record, ports.policy.principal(record).grant)


async def settled(
    ports: ManagementPorts,
    actor: Actor,
    attempt: Callable[[Authority], Awaitable[tuple[Commit | None, Result]]],
) -> Result:
    """Decide and commit, and decide again if the records changed in between.

    Args:
        ports: The outside.
        actor: Who asks for it. Its authority is read again for each attempt, and the commit fails
            if that authority has changed.
        attempt: Reads and decides, given the actor's authority. It returns what to commit, or None
            for nothing, and the result.

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
    raise StoreUnavailableError("others keep changing the same records; try again")


async def find_organization(
    ports: ManagementPorts, name: str, authority: Authority = _ANYBODY
) -> Organization:
    """Return an organization by id or slug, if the actor may see it.

    Raises:
        NotFoundError: It does not exist, or the actor may not see it.
    """
    check_id("organization", name, ORGANIZATION_NAME)
    found = await ports.store.find_organization(name)
    if found is None or not authority.reaches(found.id):
        raise unknown("organization", name)
    return found


async def find_record(
    ports: ManagementPorts, key_id: str, authority: Authority = _ANYBODY
) -> KeyRecord:
    """Return a key's record, if the actor may see it.

    Raises:
        NotFoundError: It does not exist, or the actor may not see it.
    """
    check_id("key", key_id, KEY_ID)
    found = await ports.store.find_key(key_id)
    if found is None or not authority.reaches(found.organization.id):
        raise unknown("key", key_id)
    return found


async def all_keys(ports: ManagementPorts, wanted: KeyFilter) -> list[Key]:
    """Return all keys that a filter admits, page by page."""
    keys: list[Key] = []
    after: str | None = None
    while True:
        page = await ports.store.list_keys(wanted, after=after, limit=LARGEST_PAGE)
        keys += page.items
        if page.next is None:
            return keys
        after = page.next


def granted_scopes(policy: Policy, scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes as they can be granted.

    Raises:
        InvalidValueError: A scope is malformed, or not in the catalogue.
    """
    granted = parse_granted(scopes)
    if policy.catalogue is not None:
        policy.catalogue.check_granted(granted)
    return granted


def owner_grant(policy: Policy, owner: Organization) -> ScopeGrant | None:
    """Return the most that an organization's keys may do, or None for no ceiling."""
    return None if owner.scopes is None else policy.grant(owner.scopes)


def check_actor(actor: Actor) -> None:
    """Refuse an actor that is not a principal, a short text or None.

    Raises:
        InvalidValueError: It is something else.
    """
    if actor is not None and not isinstance(actor, Principal):
        check_text("an actor", actor)


def check_ceiling(
    policy: Policy, authority: Authority, owner: Organization, granted: frozenset[str]
) -> None:
    """Refuse to grant what the actor lacks, or what is above the organization's ceiling.

    Raises:
        RefusedError: The message names the scopes.
    """
    ceiling = owner_grant(policy, owner)
    if ceiling is not None:
        beyond = sorted(scope for scope in granted if scope not in ceiling)
        if beyond:
            raise RefusedError(
                f"organization {owner.slug!r} may not have {', '.join(beyond)}; "
                f"its keys may have: {', '.join(ceiling) or 'nothing'}"
            )
    check_has(authority, granted)


def check_has(authority: Authority, scopes: Iterable[str], doing: str = "grant") -> None:
    """Refuse to hand on scopes that the actor lacks.

    Raises:
        RefusedError: The message names them.
    """
    record, grant = authority.record, authority.grant
    beyond = [] if grant is None else sorted(scope for scope in scopes if scope not in grant)
    if record is not None and beyond:
        raise RefusedError(
            f"key {record.key.id!r} can't {doing} what it does not have: {', '.join(beyond)}"
        )


def check_widening(
    policy: Policy, authority: Authority, owner: Organization, scopes: frozenset[str] | None
) -> None:
    """Refuse to raise an organization's ceiling above the actor, as its keys get scopes back.

    Raises:
        RefusedError: The message names the scopes that the actor lacks.
    """
    ceiling = owner_grant(policy, owner)
    if ceiling is not None:
        wanted = frozenset({"*"}) if scopes is None else scopes
        check_has(authority, [scope for scope in wanted if scope not in ceiling], "allow")


def refuse_disabled(owner: Organization, doing: str) -> None:
    """Refuse to make keys of an organization that is disabled.

    Raises:
        RefusedError: The organization is disabled.
    """
    if owner.disabled_at is not None:
        raise RefusedError(f"organization {owner.slug!r} is disabled; enable it before {doing}")


def check_end(key: Key, owner: Organization, issued_at: datetime | None) -> None:
    """Refuse an end that lies before the start, or beyond what the organization allows.

    Raises:
        InvalidValueError: The key would never work.
        RefusedError: The key would work for longer than the organization allows.
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
        raise RefusedError(
            f"keys of organization {owner.slug!r} work for at most {longest}; set an earlier end"
        )


def page_size(limit: int) -> int:
    """Return the size of a page.

    Raises:
        InvalidValueError: The size is out of range.
    """
    if not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise InvalidValueError(f"a page takes 1 to {LARGEST_PAGE} items, not {limit!r}")
    return limit


def check_id(kind: str, name: str, pattern: re.Pattern[str]) -> None:
    """Refuse a text that can't be an id before it reaches a store: it may be a whole token.

    Raises:
        InvalidValueError: It is not a string.
        NotFoundError: It is not an id.
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
    """Return the error for what does not exist."""
    return NotFoundError(f"there is no {kind} {name!r}")


def refuse_revoked(key: Key) -> None:
    """Refuse to change a key that is revoked.

    Raises:
        RefusedError: The key is revoked.
    """
    if key.revoked_at is not None:
        raise RefusedError(f"key {key.id!r} is revoked, which is final; issue a new one")


def later(start: datetime, span: timedelta) -> datetime:
    """Return the time a span after another.

    Raises:
        InvalidValueError: The span is not a positive timedelta, or ends beyond the year 9999.
    """
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(f"a span is a positive timedelta, not {span!r}")
    if not isinstance(start, datetime):
        raise InvalidValueError(f"not_before takes an aware datetime, not {start!r}")
    try:
        return start + span
    except OverflowError:
        raise InvalidValueError("that span reaches beyond the year 9999") from None
