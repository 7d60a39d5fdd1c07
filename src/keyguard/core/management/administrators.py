"""Refuses to end an organization's last key with ``admin`` unless force is given."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from keyguard.core.access.policy import Policy
from keyguard.core.keys.commit import Change, changed
from keyguard.core.keys.records import Key, KeyFilter, KeyRecord, KeyStatus
from keyguard.core.management.common import all_keys
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import RefusedError

ADMIN = "admin"


async def refuse_to_lose_the_last(
    ports: ManagementPorts,
    record: KeyRecord,
    after: Key,
    now: datetime,
    *,
    force: bool = False,
    besides: Collection[str] = (),
) -> tuple[Change, ...]:
    """Refuse to end an organization's last key with ``admin``, at once or by an earlier end.

    Args:
        ports: The outside.
        record: The key as it is.
        after: The key as it will be.
        now: The time.
        force: Whether to end it nevertheless.
        besides: The ids of other keys that end in the same commit.

    Returns:
        What the commit must hold as well: a new version of the organization. So of two keys that
        are ended at the same time one stays.

    Raises:
        RefusedError: It is the last key that has ``admin``.
    """
    policy = ports.policy
    owner = record.organization
    if not _administers(policy, record.key, now):
        return ()
    end = after.ends_at if _administers(policy, after, now) else now
    if not _ends_before(end, record.key.ends_at):
        return ()
    gone = {record.key.id, *besides}
    others = await all_keys(ports, KeyFilter(organization=owner.id, alive_at=now))
    # A key that has a successor is about to end, so it can't replace another.
    if not force and not any(
        other.successor is None
        and _administers(policy, other, now)
        and _ends_before(end, other.ends_at)
        for other in others
        if other.id not in gone
    ):
        raise RefusedError(
            f"key {record.key.id!r} is the last of organization {owner.slug!r} that has "
            f"{ADMIN!r}; issue another first, or use force"
        )
    return (Change(owner, changed(owner)),)


def _ends_before(end: datetime | None, other: datetime | None) -> bool:
    return end is not None and (other is None or end < other)


def _administers(policy: Policy, key: Key, now: datetime) -> bool:
    return key.status(now) is KeyStatus.ACTIVE and ADMIN in policy.grant(key.scopes)
