"""What the flows behind the managers ask of the outside, beside what requests ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keyguard.core.access.effects import Effect
from keyguard.core.access.policy import Policy
from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization
from keyguard.core.keys.values import Page
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.tokens.secret import Secret

__all__ = [
    "CommitChanges",
    "DescribeDigest",
    "DrawEntropy",
    "FindExisting",
    "FindKey",
    "FindOrganization",
    "HashToken",
    "ListAudit",
    "ListDigests",
    "ListKeys",
    "ListOrganizations",
    "ReadLimits",
    "ReadPolicy",
]


@dataclass(eq=False)
class ReadPolicy(Effect[Policy]):
    """What the service has settled."""

    def perform(self, outside: Any) -> Any:
        return outside.policy


@dataclass(eq=False)
class DrawEntropy(Effect[bytes]):
    """Bytes from a cryptographically secure source."""

    size: int

    def perform(self, outside: Any) -> Any:
        return outside.entropy(self.size)


@dataclass(eq=False)
class HashToken(Effect[str]):
    """The form in which a token is stored."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.hash(self.token)


@dataclass(eq=False)
class DescribeDigest(Effect[str]):
    """What a stored form hangs on: its scheme, and its pepper's id where it takes one."""

    digest: str = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.describe_digest(self.digest)


@dataclass(eq=False)
class ReadLimits(Effect[Outcome]):
    """How buckets stand; where their store fails, so does this."""

    charges: Sequence[Charge]

    def perform(self, outside: Any) -> Any:
        return outside.read_limits(self.charges)


@dataclass(eq=False)
class FindKey(Effect[KeyRecord | None]):
    """The record of a key, with its organization."""

    key_id: str

    def perform(self, outside: Any) -> Any:
        return outside.store.find_key(self.key_id)


@dataclass(eq=False)
class ListKeys(Effect[Page[Key]]):
    """One page of the keys that a filter admits, oldest first."""

    wanted: KeyFilter
    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.store.list_keys(self.wanted, after=self.after, limit=self.limit)


@dataclass(eq=False)
class ListDigests(Effect[Page[KeyDigest]]):
    """One page of the stored forms of keys that are not revoked, by key id."""

    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.store.list_digests(after=self.after, limit=self.limit)


@dataclass(eq=False)
class FindExisting(Effect[frozenset[str]]):
    """Which of some ids are those of keys."""

    key_ids: Sequence[str]

    def perform(self, outside: Any) -> Any:
        return outside.store.find_existing(self.key_ids)


@dataclass(eq=False)
class FindOrganization(Effect[Organization | None]):
    """An organization, by id or slug."""

    name: str

    def perform(self, outside: Any) -> Any:
        return outside.store.find_organization(self.name)


@dataclass(eq=False)
class ListOrganizations(Effect[Page[Organization]]):
    """One page of organizations, oldest first."""

    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.store.list_organizations(after=self.after, limit=self.limit)


@dataclass(eq=False)
class ListAudit(Effect[Page[AuditEntry]]):
    """One page of the audit trail, newest first."""

    organization: str | None
    subject: str | None
    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.store.list_audit(
            organization=self.organization,
            subject=self.subject,
            after=self.after,
            limit=self.limit,
        )


@dataclass(eq=False)
class CommitChanges(Effect[bool]):
    """Make all changes of a commit, or none; False where a record is not as it was read."""

    changes = True
    commit: Commit

    def perform(self, outside: Any) -> Any:
        return outside.store.commit(self.commit)

    def subjects(self) -> Sequence[str]:
        return self.commit.subjects()
