"""The rule that an organization has at most as many keys as it may."""

from __future__ import annotations

from datetime import datetime

from keyguard.core.keys.commit import Change, changed
from keyguard.core.keys.records import Key, KeyFilter, Organization
from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import RefusedError


def counts(key: Key, now: datetime) -> bool:
    """Tell whether a key counts: it has not ended and has no successor, which counts instead."""
    return key.successor is None and KeyFilter(alive_at=now).admits(key)


async def make_room(
    ports: ManagementPorts, owner: Organization, new: int, now: datetime
) -> tuple[Change, ...]:
    """Refuse new keys for which an organization has no room.

    Args:
        ports: The outside.
        owner: The organization.
        new: How many keys begin to count.
        now: The time.

    Returns:
        What the commit must hold as well: a new version of the organization, so that two operations
        never take the same room. Nothing if the number of keys has no bound.

    Raises:
        RefusedError: The organization would have more than its ``max_keys``.
    """
    most = owner.max_keys
    if most is None or not new:
        return ()
    wanted = KeyFilter(organization=owner.id, alive_at=now)
    count, after = 0, None
    while count + new <= most:
        page = await ports.store.list_keys(wanted, after=after, limit=LARGEST_PAGE)
        count += sum(counts(key, now) for key in page.items)
        after = page.next
        if after is None:
            break
    if count + new > most:
        raise RefusedError(
            f"organization {owner.slug!r} may have at most {most} keys at a time; revoke keys, or "
            "raise max_keys as the service"
        )
    return (Change(owner, changed(owner)),)
