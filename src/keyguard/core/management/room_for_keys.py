"""The rule that an organization has at most as many keys as it may."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from keyguard.core.keys.commit import Change, changed
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, Organization
from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import RefusedError


def is_live(key: Key, now: datetime) -> bool:
    """Tell whether a key has not ended."""
    return KeyFilter(alive_at=now).admits(key)


async def make_room(
    ports: ManagementPorts, owner: Organization, families: Collection[str], now: datetime
) -> tuple[Change, ...]:
    """Refuse new keys for which an organization has no room.

    A key counts together with those that it was rotated from and to.

    Args:
        ports: The outside.
        owner: The organization.
        families: The families of keys that begin to work.
        now: The time.

    Returns:
        What the commit must hold as well: a new version of the organization, so that two operations
        never take the same room. Nothing if the number of keys has no bound.

    Raises:
        RefusedError: The organization would have more than its ``max_keys``.
    """
    most = owner.max_keys
    if most is None or not families:
        return ()
    wanted = KeyFilter(organization=owner.id, alive_at=now)
    live: set[str] = set()
    after: str | None = None
    while True:
        page = await ports.store.list_keys(wanted, after=after, limit=LARGEST_PAGE)
        live |= {key.family for key in page.items}
        after = page.next
        if after is None:
            break
    new = {*families} - live
    if new and len(live) + len(new) > most:
        raise RefusedError(
            f"organization {owner.slug!r} may have at most {most} keys at a time; revoke keys, or "
            "raise max_keys as the service"
        )
    return (Change(owner, changed(owner)),)
