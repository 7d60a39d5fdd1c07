"""The changes of one operation to the key store, made all together or not at all.

An operation reads records, decides, and asks for a commit that names the versions it read. If a
record has another version by then, the store changes nothing, and the operation decides again. So
of two concurrent operations only one can succeed, on any store, and nothing is locked while an
operation decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.records import Key, KeyRecord, Organization, fields_of

Record = TypeVar("Record", Key, Organization)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one record; a store writes only the fields that differ.

    Args:
        before: The record as it was read.
        after: The changed record, one version later.
    """

    before: Key | Organization
    after: Key | Organization

    @property
    def id(self) -> str:
        """The record's id."""
        return self.before.id

    def columns(self) -> dict[str, Any]:
        """Return the changed fields by name, with the version."""
        old = fields_of(self.before)
        return {name: new for name, new in fields_of(self.after).items() if new != old[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """All changes of one operation.

    Args:
        entries: New entries of the audit trail.
        organizations: New organizations.
        keys: New keys; the organization of each is in ``unchanged``.
        changes: Records to change. Each must still have the version that was read.
        unchanged: Other records that must still have the version that was read.
    """

    entries: tuple[AuditEntry, ...]
    organizations: tuple[Organization, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    unchanged: tuple[Key | Organization, ...] = ()

    def subjects(self) -> tuple[str, ...]:
        """Return the ids of all keys and organizations that the commit adds or changes."""
        return (
            *(organization.id for organization in self.organizations),
            *(record.key.id for record in self.keys),
            *(change.id for change in self.changes),
        )

    def expected(self) -> dict[str, int]:
        """Return the versions that records must still have, by id."""
        return {
            **{record.id: record.version for record in self.unchanged},
            **{change.id: change.before.version for change in self.changes},
        }


def changed(record: Record, **fields: Any) -> Record:
    """Return a record with some fields changed, one version later.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """
    return replace(record, **fields, version=record.version + 1)
