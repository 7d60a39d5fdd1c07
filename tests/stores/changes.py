"""Commits as management makes them, for tests of stores alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from keyguard.core.keys.audit import Action, AuditEntry, describe, describe_deletion
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason
from keyguard.core.keys.requests import KeyRequest, RequestRecord
from tests.stores.records import NOON, organization


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


def asking(asked: KeyRequest, owner: Organization | None = None) -> Commit:
    """Return the commit that adds a request."""
    return Commit(
        entries=(describe(Action.REQUEST_CREATED, NOON, "ann", None, asked),),
        requests=(RequestRecord(request=asked, digest=f"$sha256$ticket-{asked.id}"),),
        unchanged=(owner or organization(),),
    )


def changing(before: Key | Organization, at: datetime = NOON, **fields: Any) -> Commit:
    """Return the commit that sets fields of a record as it was read."""
    after = changed(before, **fields)
    action = Action.ORGANIZATION_UPDATED if isinstance(after, Organization) else Action.KEY_UPDATED
    entry: AuditEntry = describe(action, at, "test", before, after)
    return Commit(entries=(entry,), changes=(Change(before, after),))


def deleting(*keys: Key, at: datetime = NOON, kept: timedelta = timedelta(days=1)) -> Commit:
    """Return the commit that deletes keys as they were read."""
    entries = tuple(describe_deletion(at, "test", each) for each in keys)
    return Commit(entries=entries, deleted=keys, kept=kept)


def revoking(before: Key, at: datetime, note: str | None = None) -> Commit:
    """Return the commit that revokes a key as it was read."""
    why = RevocationReason.KEY_COMPROMISE
    return changing(before, at, revoked_at=at, revoked_reason=why, revoked_note=note)


# The same in one go, over a store of either flavour. They read again if others were faster.


async def add_organization(store: KeyStore, one: Organization) -> Any:
    """Add an organization."""
    assert await store.commit(adding(one)) is True


async def add_key(store: KeyStore, record: KeyRecord) -> Any:
    """Add a key to its organization as that stands now."""
    while True:
        owner = await store.find_organization(record.organization.id)
        assert owner is not None
        commit = adding(replace(record, organization=owner))
        if await store.commit(commit):
            return


async def change_key(store: KeyStore, key_id: str, fields: dict[str, Any]) -> Any:
    """Change a key that is not revoked; return it as it stands then, or None."""
    while True:
        record = await store.find_key(key_id)
        if record is None or record.key.revoked_at is not None:
            return None if record is None else record.key
        commit = changing(record.key, **fields)
        if await store.commit(commit):
            return commit.changes[0].after


async def revoke_key(store: KeyStore, key_id: str, at: datetime, note: str | None) -> Any:
    """Revoke a key that is not revoked; return it as it stands then, or None."""
    while True:
        record = await store.find_key(key_id)
        if record is None or record.key.revoked_at is not None:
            return None if record is None else record.key
        commit = revoking(record.key, at, note)
        if await store.commit(commit):
            return commit.changes[0].after


async def change_organization(store: KeyStore, name: str, fields: dict[str, Any]) -> Any:
    """Change an organization; return it as it stands then, or None."""
    while True:
        found = await store.find_organization(name)
        if found is None:
            return None
        commit = changing(found, **fields)
        if await store.commit(commit):
            return commit.changes[0].after


async def set_organization_disabled(store: KeyStore, name: str, at: datetime | None) -> Any:
    """Disable an organization, or enable it; return it as it stands then, or None."""
    return await change_organization(store, name, {"disabled_at": at})


def trail_of(store: Any, **wanted: Any) -> list[AuditEntry]:
    """Return the first thousand entries of the audit trail, or those of them that are wanted."""
    default: dict[str, Any] = {"organization": None, "subject": None, "after": None, "limit": 1000}
    return list(store.list_audit(**default | wanted))
