"""An organization keeps a key with ``admin``, unless somebody insists."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from keyguard.core.access.effects import Flow
from keyguard.core.access.policy import Policy
from keyguard.core.keys.commit import Change, changed
from keyguard.core.keys.records import Key, KeyFilter, KeyRecord, KeyStatus
from keyguard.core.management.common import all_keys
from keyguard.core.management.effects import ReadPolicy
from keyguard.exceptions import RefusedError

__all__ = ["ADMIN", "refuse_to_lose_the_last"]

ADMIN = "admin"


def refuse_to_lose_the_last(
    record: KeyRecord,
    after: Key,
    now: datetime,
    *,
    force: bool = False,
    besides: Collection[str] = (),
) -> Flow[tuple[Change, ...]]:
    """Refuse to take the last key with ``admin`` from an organization, at once or by a nearer end.

    Args:
        record: The key as it is.
        after: The key as it shall be.
        now: The time now.
        force: Whether somebody insists.
        besides: The ids of other keys that end in the same commit.

    Returns:
        What else has to be committed, so that of two keys that end at the same time one stays: a
        new version of the organization.

    Raises:
        RefusedError: It is the last.
    """
    policy = yield from ReadPolicy()
    owner = record.organization
    if not _administers(policy, record.key, now):
        return ()
    end = after.ends_at if _administers(policy, after, now) else now
    if not _ends_before(end, record.key.ends_at):
        return ()
    gone = {record.key.id, *besides}
    others = yield from all_keys(KeyFilter(organization=owner.id, alive_at=now))
    # One that has a successor is about to end, and so can be nobody's replacement.
    if not force and not any(
        other.successor is None
        and _administers(policy, other, now)
        and _ends_before(end, other.ends_at)
        for other in others
        if other.id not in gone
    ):
        raise RefusedError(
            f"key {record.key.id!r} is the last of organization {owner.slug!r} that has "
            f"{ADMIN!r}; issue another first, or insist with force"
        )
    return (Change(owner, changed(owner)),)


def _ends_before(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one < other)


def _administers(policy: Policy, key: Key, now: datetime) -> bool:
    return key.status(now) is KeyStatus.ACTIVE and ADMIN in policy.grant(key.scopes)
