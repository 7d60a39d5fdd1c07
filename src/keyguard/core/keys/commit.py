"""The changes of one operation to the key store, made all together or not at all.

An operation reads records, decides, and asks for a commit that names the versions it read. If a
record has another version by then, the store changes nothing, and the operation decides again. So
only one of two concurrent operations can succeed, on any store, and nothing is locked while an
operation decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from keyguard.core.keys.audit import Action, AuditEntry, plain
from keyguard.core.keys.records import Key, KeyRecord, Organization, fields_of
from keyguard.core.keys.requests import KeyRequest, RequestRecord

Record = TypeVar("Record", Key, Organization, KeyRequest)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one record; a store writes only the fields that differ.

    Args:
        before: The record as it was read.
        after: The changed record, one version later.
    """

    before: Key | Organization | KeyRequest
    after: Key | Organization | KeyRequest

    @property
    def id(self) -> str:
        """The record's id."""
        return self.before.id

    def columns(self) -> dict[str, object]:
        """Return the changed fields by name, with the version; marks of use are no change."""
        old, new = fields_of(self.before), fields_of(self.after)
        changed = [name for name in new if new[name] != old[name]]
        return {name: new[name] for name in changed if not name.startswith("last_used_")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """All changes of one operation.

    Args:
        entries: New entries of the audit trail.
        organizations: New organizations.
        keys: New keys; the organization of each is in ``unchanged``.
        requests: New requests for keys; the organization of each is in ``unchanged``.
        changes: Records to change. Each must still have the version that was read.
        unchanged: Other records that must still have the version that was read.
        witnesses: Keys of which at least one must still have the version that was read. If it is
            empty, no key is checked.
        deleted: Keys to delete, with every entry of an index that leads to them. Each must still
            have the version and the end that were read.
        kept: The time that must have passed since each of these ended, by the store's own clock.
    """

    entries: tuple[AuditEntry, ...]
    organizations: tuple[Organization, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    requests: tuple[RequestRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    unchanged: tuple[Key | Organization | KeyRequest, ...] = ()
    witnesses: tuple[Key, ...] = ()
    deleted: tuple[Key, ...] = ()
    kept: timedelta = timedelta(0)

    def subjects(self) -> tuple[str, ...]:
        """Return the ids of all records that the commit adds, changes or deletes."""
        return (
            *(organization.id for organization in self.organizations),
            *(record.key.id for record in self.keys),
            *(record.request.id for record in self.requests),
            *(change.id for change in self.changes),
            *(key.id for key in self.deleted),
        )

    def expected(self) -> dict[str, int]:
        """Return the versions that records must still have, by id."""
        return {
            **{record.id: record.version for record in self.unchanged},
            **{change.id: change.before.version for change in self.changes},
            **{key.id: key.version for key in self.deleted},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Revokes keys or disables an organization, even if other changes are made to them meanwhile.

    A commit fails if a record has changed since it was read. So the holder of a stolen key could
    delay its revocation by changing it again and again. An ending names no version of the records
    that it ends, and they need not be read before.

    Args:
        subject: The id of a key, of a family of keys, or of an organization.
        action: Its action in the audit trail.
        at: The time.
        actor: The author's name in the audit trail.
        fields: The fields to set, the time first. A record that has that time already stays as it
            is.
        within: The id of the only organization in which anything may end; None for any.
        authority: The id of the key that asks for it, which must work at that time; None if no key
            asks.
        without: Scopes that no key which ends may have by then, because the caller decided for keys
            without them.
        witnesses: Keys of which at least one must still have the version that was read. If it is
            empty, no key is checked.
    """

    subject: str
    action: Action
    at: datetime
    actor: str
    fields: Mapping[str, object]
    within: str | None = None
    authority: str | None = None
    without: frozenset[str] = frozenset()
    witnesses: tuple[Key, ...] = ()

    @property
    def ends_organization(self) -> bool:
        """Whether an organization is disabled; otherwise keys are revoked."""
        return self.subject.startswith("org_")

    @property
    def ends_family(self) -> bool:
        """Whether all keys of a family are revoked."""
        return self.subject.startswith("fam_")

    @property
    def ended_at(self) -> str:
        """The name of the field that holds the time of the end. Every ended record has it."""
        return next(iter(self.fields))

    def entry(self, record_id: str, organization: str) -> AuditEntry:
        """Return the entry of the audit trail for a record that ends.

        Args:
            record_id: The record's id.
            organization: The id of that organization, or of the key's organization.
        """
        return AuditEntry(
            at=self.at,
            actor=self.actor,
            action=self.action,
            subject=record_id,
            organization=organization,
            before=dict.fromkeys(self.fields),
            after=plain(self.fields, self.fields),
        )


def changed(record: Record, **fields: Any) -> Record:
    """Return a record with some fields changed, one version later.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """
    return replace(record, **fields, version=record.version + 1)
