"""What one operation changes in the key store: all of it, or nothing.

A flow reads, decides, and asks for a commit that names what it read. Where a record no longer
stands as it was read, nothing is done, and the flow decides anew. So two that decide at the same
time can't both win, on any store, without a lock being held while a decision is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.records import Key, KeyRecord, Organization, fields_of

__all__ = ["Change", "Commit", "changed"]

Record = TypeVar("Record", Key, Organization)


@dataclass(frozen=True, slots=True)
class Change:
    """One record, as it was read and as it shall be; only what differs is written.

    Args:
        before: As it was read.
        after: As it shall be, one version later.
    """

    before: Key | Organization
    after: Key | Organization

    @property
    def id(self) -> str:
        """The record's id."""
        return self.before.id

    def columns(self) -> dict[str, Any]:
        """Return the fields to set, the version among them."""
        old = fields_of(self.before)
        return {name: new for name, new in fields_of(self.after).items() if new != old[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """All that one operation changes.

    Args:
        entries: What is added to the audit trail.
        organizations: New organizations.
        keys: New keys, each of an organization that is among ``unchanged``.
        changes: Records to change; they must still have the version that was read.
        unchanged: Records that must still have the version that was read.
    """

    entries: tuple[AuditEntry, ...]
    organizations: tuple[Organization, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    unchanged: tuple[Key | Organization, ...] = ()

    def subjects(self) -> tuple[str, ...]:
        """Return the ids of all keys and organizations that it adds or changes."""
        return (
            *(one.id for one in self.organizations),
            *(record.key.id for record in self.keys),
            *(change.id for change in self.changes),
        )

    def expected(self) -> dict[str, int]:
        """Return the versions that records must still have, by id."""
        return {
            **{one.id: one.version for one in self.unchanged},
            **{change.id: change.before.version for change in self.changes},
        }


def changed(record: Record, **fields: Any) -> Record:
    """Return a record with some fields changed, one version later.

    Raises:
        InvalidValueError: A value is not as said.
    """
    return replace(record, **fields, version=record.version + 1)
