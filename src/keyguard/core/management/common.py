"""What the flows of several kinds share: deciding anew, who may what, ids, and pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from keyguard.core.access.effects import Flow, ReadClock
from keyguard.core.access.policy import Policy
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import ScopeGrant, parse_granted
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyFilter, KeyRecord, KeyStatus, Organization
from keyguard.core.keys.values import ORGANIZATION_NAME, check_text
from keyguard.core.management.effects import (
    CommitChanges,
    FindKey,
    FindOrganization,
    ListKeys,
    ReadPolicy,
)
from keyguard.core.tokens.format import KEY_ID
from keyguard.exceptions import (
    InvalidValueError,
    NotFoundError,
    RefusedError,
    StoreUnavailableError,
)

__all__ = [
    "LARGEST_PAGE",
    "Authority",
    "all_keys",
    "authority_of",
    "check_actor",
    "check_ceiling",
    "check_end",
    "check_has",
    "check_id",
    "check_widening",
    "find_organization",
    "find_record",
    "granted_scopes",
    "owner_grant",
    "page_size",
    "refuse_disabled",
    "settled",
    "unknown",
]

Result = TypeVar("Result")

LARGEST_PAGE = 1000
LONGEST_ID = 63
_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Authority:
    """What an actor may do, as its key stands in the store now, however old its principal is.

    Args:
        record: The record of its key; None for the service or a name, which nothing binds.
        grant: What that key may do now.
    """

    record: KeyRecord | None = None
    grant: ScopeGrant | None = None

    def reaches(self, organization: str) -> bool:
        """Tell whether it may change the organization of that id, and its keys."""
        return self.record is None or self.record.organization.id == organization

    def beyond(self, scopes: Iterable[str]) -> list[str]:
        """Return those of some scopes that it has not."""
        grant = self.grant
        return [] if grant is None else sorted(scope for scope in scopes if scope not in grant)

    def bind(self, commit: Commit) -> Commit | None:
        """Return a commit that fails where the actor's key or organization changed meanwhile.

        Returns:
            The commit; None where what it rests on was read later, and is another version.
        """
        if self.record is None:
            return commit
        expected = commit.expected()
        own = (self.record.organization, self.record.key)
        if any(expected.get(one.id, one.version) != one.version for one in own):
            return None
        return replace(commit, unchanged=(*commit.unchanged, *own))


_ANYBODY = Authority()


def authority_of(actor: Actor) -> Flow[Authority]:
    """Return what an actor may do now.

    Raises:
        RefusedError: It is a principal whose key lets nobody in any more.
    """
    if not isinstance(actor, Principal):
        return _ANYBODY
    record = yield from FindKey(actor.key_id)
    if record is None:
        raise RefusedError(f"key {actor.key_id!r} is gone, and can change nothing")
    status = record.key.status((yield from ReadClock()))
    if status is not KeyStatus.ACTIVE:
        what = status.value.replace("_", " ")
        raise RefusedError(f"key {actor.key_id!r} is {what}, and can change nothing")
    if record.organization.disabled_at is not None:
        raise RefusedError(
            f"the organization of key {actor.key_id!r} is disabled, so it can change nothing"
        )
    policy = yield from ReadPolicy()
    return Authority(record, policy.principal(record).grant)


def settled(
    actor: Actor, attempt: Callable[[Authority], Flow[tuple[Commit | None, Result]]]
) -> Flow[Result]:
    """Decide until what was decided could be done.

    Args:
        actor: Who wants it. What it may do is read anew for each attempt, and the commit holds
            only if that has not changed.
        attempt: Reads and decides, by what the actor may do; returns what to commit, or None for
            nothing, and the result.

    Raises:
        RefusedError: The actor's key lets nobody in any more.
        StoreUnavailableError: Others changed the same records under every attempt.
    """
    for _ in range(_ATTEMPTS):
        authority = yield from authority_of(actor)
        commit, result = yield from attempt(authority)
        if commit is None:
            return result
        bound = authority.bind(commit)
        if bound is not None and (yield from CommitChanges(bound)) is True:
            return result
    raise StoreUnavailableError("others change the same records all the time; try again")


def find_organization(name: str, authority: Authority = _ANYBODY) -> Flow[Organization]:
    """Return an organization by id or slug, if whoever asks reaches it.

    Raises:
        NotFoundError: There is none.
    """
    check_id("organization", name, ORGANIZATION_NAME)
    found = yield from FindOrganization(name)
    if found is None or not authority.reaches(found.id):
        raise unknown("organization", name)
    return found


def find_record(key_id: str, authority: Authority = _ANYBODY) -> Flow[KeyRecord]:
    """Return a key's record, if whoever asks reaches it.

    Raises:
        NotFoundError: There is none.
    """
    check_id("key", key_id, KEY_ID)
    found = yield from FindKey(key_id)
    if found is None or not authority.reaches(found.organization.id):
        raise unknown("key", key_id)
    return found


def all_keys(wanted: KeyFilter) -> Flow[list[Key]]:
    """Return all keys that a filter admits, page by page."""
    keys: list[Key] = []
    after: str | None = None
    while True:
        page = yield from ListKeys(wanted, after, LARGEST_PAGE)
        keys += page.items
        if page.next is None:
            return keys
        after = page.next


def granted_scopes(policy: Policy, scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes as they can be granted.

    Raises:
        InvalidValueError: One is no scope, or outside the catalogue.
    """
    granted = parse_granted(scopes)
    if policy.catalogue is not None:
        policy.catalogue.check_granted(granted)
    return granted


def owner_grant(policy: Policy, owner: Organization) -> ScopeGrant | None:
    """Return all that an organization's keys may do, or None for anything."""
    return None if owner.scopes is None else policy.grant(owner.scopes)


def check_actor(actor: Actor) -> None:
    """Refuse who can be no actor.

    Raises:
        InvalidValueError: It is neither a principal nor a short text nor None.
    """
    if actor is not None and not isinstance(actor, Principal):
        check_text("an actor", actor)


def check_ceiling(
    policy: Policy, authority: Authority, owner: Organization, granted: frozenset[str]
) -> None:
    """Refuse to grant what the actor has not itself, or the organization may not have.

    Raises:
        RefusedError: Some scope is above the ceiling; the message names it.
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


def check_has(authority: Authority, granted: Iterable[str]) -> None:
    """Refuse to grant what the actor has not itself.

    Raises:
        RefusedError: It is a principal without some scope; the message names it.
    """
    beyond = authority.beyond(granted)
    if authority.record is not None and beyond:
        raise RefusedError(
            f"key {authority.record.key.id!r} can't grant what it does not have: "
            f"{', '.join(beyond)}"
        )


def check_widening(
    policy: Policy, authority: Authority, owner: Organization, scopes: frozenset[str] | None
) -> None:
    """Refuse to raise an organization's ceiling above the actor: its keys get back what was cut.

    Raises:
        RefusedError: Some scope is above the ceiling; the message names it.
    """
    ceiling = owner_grant(policy, owner)
    if authority.record is None or ceiling is None:
        return
    wanted = frozenset({"*"}) if scopes is None else scopes
    beyond = authority.beyond(one for one in wanted if one not in ceiling)
    if beyond:
        raise RefusedError(
            f"key {authority.record.key.id!r} can't allow what it does not have: "
            f"{', '.join(beyond)}"
        )


def refuse_disabled(owner: Organization, doing: str) -> None:
    """Refuse to make keys of an organization that is disabled.

    Raises:
        RefusedError: It is.
    """
    if owner.disabled_at is not None:
        raise RefusedError(f"organization {owner.slug!r} is disabled; enable it before {doing}")


def check_end(key: Key, owner: Organization, issued_at: datetime | None) -> None:
    """Refuse an end that makes no sense, or that lies beyond what the organization allows.

    Raises:
        InvalidValueError: The key would never work.
        RefusedError: It would work for longer than the organization's keys may.
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
        InvalidValueError: It is out of range.
    """
    if not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise InvalidValueError(f"a page takes 1 to {LARGEST_PAGE} items, not {limit!r}")
    return limit


def check_id(kind: str, name: str, pattern: re.Pattern[str]) -> None:
    """Refuse what can be no id, before it reaches a store: it may be a whole token.

    Raises:
        InvalidValueError: It is no string.
        NotFoundError: It is no id.
    """
    if not isinstance(name, str):
        raise InvalidValueError(
            f"the id of a key or organization is a string, not a {type(name).__name__}"
        )
    if not pattern.match(name):
        if len(name) > LONGEST_ID:
            raise NotFoundError(f"that is no id of any {kind}; pass its id, never a whole token")
        raise unknown(kind, name)


def unknown(kind: str, name: str) -> NotFoundError:
    """Return the error for what does not exist."""
    return NotFoundError(f"there is no {kind} {name!r}")
