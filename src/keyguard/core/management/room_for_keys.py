"""The rule that an organization has at most ``max_keys`` keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from keyguard.core.keys.commit import Change, changed
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, Organization
from keyguard.core.management.common import all_keys
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import RefusedError


def is_live(key: Key, now: datetime) -> bool:
    """Return whether a key has not ended."""
    return KeyFilter(alive_at=now).admits(key)


async def make_room(
    ports: ManagementPorts, owner: Organization, families: Collection[str], now: datetime
) -> tuple[Change, ...]:
    """Refuse new keys for which an organization has no room.

    A key and those that it was rotated from and to count as one.

    Args:
        ports: The ports of management.
        owner: The organization.
        families: The families of keys that begin to work.
        now: The time.

    Returns:
        The changes to add to the commit: a new version of the organization, so that two operations
        never take the same room. Empty if the number of keys has no bound.

    Raises:
        RefusedError: The organization would have more than its ``max_keys``.
    """
    most = owner.max_keys
    if most is None or not families:
        return ()
    wanted = KeyFilter(organization=owner.id, alive_at=now)
    live = {key.family for key in await all_keys(ports, wanted)}
    new = {*families} - live
    if new and len(live) + len(new) > most:
        raise RefusedError(
            f"organization {owner.slug!r} may have at most {most} keys at a time; revoke keys, or "
            "raise max_keys as the service"
        )
    return (Change(owner, changed(owner)),)
