"""Commits as the flows make them, for tests of stores alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from keyguard.core.keys.audit import Action, AuditEntry, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason
from tests.stores.records import NOON


class Call(NamedTuple):
    """One call of a method of a store."""

    name: str
    args: tuple[Any, ...]


Calls: TypeAlias = Generator[Call, Any, Any]


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


# The same in one go, on either flavour: these yield calls of the store, and read again where
# others were faster.


def add_organization(one: Organization) -> Calls:
    """Add an organization."""
    yield from _done(adding(one))


def add_key(record: KeyRecord) -> Calls:
    """Add a key to its organization as that stands now."""
    while True:
        owner = yield Call("find_organization", (record.organization.id,))
        assert owner is not None
        commit = adding(replace(record, organization=owner))
        if (yield Call("commit", (commit,))):
            return


def change_key(key_id: str, fields: dict[str, Any]) -> Calls:
    """Change a key that is not revoked; return it as it stands then, or None."""
    while True:
        record = yield Call("find_key", (key_id,))
        if record is None or record.key.revoked_at is not None:
            return None if record is None else record.key
        commit = changing(record.key, **fields)
        if (yield Call("commit", (commit,))):
            return commit.changes[0].after


def revoke_key(key_id: str, at: datetime, note: str | None) -> Calls:
    """Revoke a key that is not revoked; return it as it stands then, or None."""
    while True:
        record = yield Call("find_key", (key_id,))
        if record is None or record.key.revoked_at is not None:
            return None if record is None else record.key
        commit = revoking(record.key, at, note)
        if (yield Call("commit", (commit,))):
            return commit.changes[0].after


def change_organization(name: str, fields: dict[str, Any]) -> Calls:
    """Change an organization; return it as it stands then, or None."""
    while True:
        found = yield Call("find_organization", (name,))
        if found is None:
            return None
        commit = changing(found, **fields)
        if (yield Call("commit", (commit,))):
            return commit.changes[0].after


def set_organization_disabled(name: str, at: datetime | None) -> Calls:
    """Disable an organization, or enable it; return it as it stands then, or None."""
    return (yield from change_organization(name, {"disabled_at": at}))


def _done(commit: Commit) -> Calls:
    assert (yield Call("commit", (commit,))) is True
