"""The rule that an organization keeps an administrator, unless force is given.

The rule is checked against the state after a change. If an operation would end a key that has
``admin``, take that scope from it, or bind it to networks, another key must remain that lasts and
works from the same networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from keyguard.core.access.policy import Policy
from keyguard.core.identity.networks import within_networks
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, KeyStatus, Organization
from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import CorruptDataError, RefusedError

ADMIN = "admin"

LASTING = timedelta(days=7)
"""For how long an administrator must work to replace another that works for longer."""

_MOST_WITNESSES = 5


async def keep_an_administrator(
    ports: ManagementPorts,
    owner: Organization,
    before: Sequence[Key],
    after: Sequence[Key],
    now: datetime,
    *,
    family: str | None = None,
) -> tuple[Key, ...]:
    """Refuse to leave an organization without a key that has ``admin``, now or soon.

    Args:
        ports: The ports of management.
        owner: The organization.
        before: Its keys that change, as they are.
        after: The same keys as they will be, and new ones.
        now: The time.
        family: A family that ends as a whole, so that none of its keys can be the one that remains.

    Returns:
        Keys of which at least one must be unchanged when the change is made; empty if none is
        needed.

    Raises:
        RefusedError: No administrator would remain. A key counts as one if it works from the same
            networks, and for a week or until the end of the key that changes.
    """
    policy = ports.policy
    lost = [key for key in before if _will_administer(policy, owner, key, now)]

    def replaces(key: Key) -> bool:
        # A key that has a successor is about to end.
        return (
            key.successor is None
            and key.family != family
            and administers(policy, owner, key, now)
            and all(_lasts_as_long(key, other, now) for other in lost)
            and all(within_networks(other.allowed_networks, key.allowed_networks) for other in lost)
        )

    if not lost or any(replaces(key) for key in after):
        return ()
    gone = {key.id for key in before}
    has_others = False

    def fits(key: Key) -> bool:
        nonlocal has_others
        if key.id in gone:
            return False
        has_others = has_others or administers(policy, owner, key, now)
        return replaces(key)

    found = await _first_keys(ports, owner, now, fits)
    if not found:
        enough = " for long enough and from the same networks" if has_others else ""
        raise RefusedError(
            f"key {lost[0].id!r} is the last key of organization {owner.slug!r} that has "
            f"{ADMIN!r}{enough}; issue another one first, or use force"
        )
    return found


async def refuse_to_cut_administrators(
    ports: ManagementPorts, before: Organization, after: Organization, now: datetime
) -> None:
    """Refuse to take ``admin`` from an organization that has a key with it.

    Raises:
        RefusedError: The organization's new ceiling does not admit ``admin``.
    """
    policy = ports.policy
    if not _admits(policy, before) or _admits(policy, after):
        return
    if await _first_keys(ports, before, now, lambda key: administers(policy, before, key, now)):
        raise RefusedError(
            f"organization {before.slug!r} would no longer have a key with {ADMIN!r}; leave this "
            "scope to the organization, or use force"
        )


def administers(policy: Policy, owner: Organization, key: Key, now: datetime) -> bool:
    """Return whether a key works now and has ``admin``."""
    active = key.status(now) is KeyStatus.ACTIVE
    return active and ADMIN in policy.grant(key.scopes) and _admits(policy, owner)


def administering_scopes(policy: Policy) -> frozenset[str]:
    """Return the scopes with which a key has ``admin``, by name, wildcard or implication."""
    named = {ADMIN, *(policy.catalogue or ())}
    wild = {"*", *(f"{name.rpartition(':')[0]}:*" for name in named if ":" in name)}
    return frozenset(s for s in named | wild if ADMIN in policy.grant(frozenset({s})))


def _will_administer(policy: Policy, owner: Organization, key: Key, now: datetime) -> bool:
    """Return whether a key administers now, or will unless it is changed."""
    works = key.status(now) in (KeyStatus.ACTIVE, KeyStatus.NOT_YET_VALID)
    return works and ADMIN in policy.grant(key.scopes) and _admits(policy, owner)


def _admits(policy: Policy, owner: Organization) -> bool:
    return owner.scopes is None or ADMIN in policy.grant(owner.scopes)


def _lasts_as_long(key: Key, other: Key, now: datetime) -> bool:
    """Return whether a key works until another ends, or for a week."""
    if key.ends_at is None:
        return True
    if other.ends_at is not None and key.ends_at >= other.ends_at:
        return True
    return key.ends_at - now >= LASTING


async def _first_keys(
    ports: ManagementPorts, owner: Organization, now: datetime, fits: Callable[[Key], bool]
) -> tuple[Key, ...]:
    """Return some keys of an organization that fit, as they are now; none if no key fits."""
    wanted = KeyFilter(organization=owner.id, alive_at=now)
    after: str | None = None
    while True:
        page = await ports.store.list_keys(wanted, after=after, limit=LARGEST_PAGE)
        # Each key is read again: reading a page takes a while, and its keys may have changed since.
        found = [key for key in page.items if fits(key)][:_MOST_WITNESSES]
        present = [await _present(ports, key.id) for key in found]
        fresh = tuple(key for key in present if key is not None and fits(key))
        if fresh or page.next is None:
            return fresh
        after = page.next


async def _present(ports: ManagementPorts, key_id: str) -> Key | None:
    """Return a key as it is now; None if its record is gone or can't be read."""
    record = None
    with suppress(CorruptDataError):
        record = await ports.store.find_key(key_id)
    return None if record is None else record.key
