"""Commits as the flows make them, for tests of stores alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from keyguard.sansio.audit import Action, AuditEntry, describe
from keyguard.sansio.commits import Change, Commit, changed
from keyguard.sansio.models import Key, KeyRecord, Organization, RevocationReason
from tests.backends.records import NOON


def adding(*new: Organization | KeyRecord, at: datetime = NOON, actor: str = "test") -> Commit:
    """Return the commit that adds organizations, or keys of organizations that exist."""
    organizations = tuple(one for one in new if isinstance(one, Organization))
    records = tuple(one for one in new if isinstance(one, KeyRecord))
    entries = [describe(Action.ORGANIZATION_CREATED, at, actor, None, o) for o in organizations]
    entries += [describe(Action.KEY_ISSUED, at, actor, None, record.key) for record in records]
    owners = {r.organization.id: r.organization for r in records}
    for one in organizations:
        owners.pop(one.id, None)
    return Commit(
        entries=tuple(entries),
        organizations=organizations,
        keys=records,
        unchanged=tuple(owners.values()),
    )


def changing(before: Key | Organization, at: datetime = NOON, **fields: Any) -> Commit:
    """Return the commit that sets fields of a record as it was read."""
    after = changed(before, **fields)
    action = Action.ORGANIZATION_UPDATED if isinstance(after, Organization) else Action.KEY_UPDATED
    entry: AuditEntry = describe(action, at, "test", before, after)
    return Commit(entries=(entry,), changes=(Change(before, after),))


def revoking(before: Key, at: datetime, note: str | None = None) -> Commit:
    """Return the commit that revokes a key as it was read."""
    why = RevocationReason.KEY_COMPROMISE
    return changing(before, at, revoked_at=at, revoked_reason=why, revoked_note=note)
