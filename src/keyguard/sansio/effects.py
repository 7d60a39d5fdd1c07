"""What a flow may ask of the outside.

A flow is a generator that yields effects and is sent their answers::

    record = yield from FindKey(key_id)  # KeyRecord | None, as mypy and pyright infer it

An effect says *what* is asked, and :meth:`Effect.perform` names the one operation of
the outside that answers it, at once or with an awaitable. The drivers (``keyguard._drivers``)
carry the answers back; who the outside is, is decided in ``keyguard._outside``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from keyguard.sansio.audit import AuditEntry
from keyguard.sansio.charges import Charge, Outcome
from keyguard.sansio.commits import Commit
from keyguard.sansio.decisions import Allow
from keyguard.sansio.models import Key, KeyDigest, KeyFilter, KeyRecord, Organization
from keyguard.sansio.policy import Policy
from keyguard.sansio.secret import Secret
from keyguard.sansio.values import Page

__all__ = [
    "AdjustLimits",
    "Block",
    "BlockedFor",
    "CommitChanges",
    "DescribeDigest",
    "Discard",
    "DrawEntropy",
    "Effect",
    "FindExisting",
    "FindKey",
    "FindOrganization",
    "Flow",
    "HashToken",
    "HitLimits",
    "ListAudit",
    "ListDigests",
    "ListKeys",
    "ListOrganizations",
    "LookUp",
    "NoteUse",
    "OfferRehash",
    "ReadClock",
    "ReadLimits",
    "ReadPolicy",
    "Recall",
    "Remember",
    "VerifyToken",
    "WasVerified",
]

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Effect(Generic[Answer]):
    """One question to the outside, with the type of its answer."""

    __slots__ = ()

    changes: ClassVar[bool] = False
    """Whether it changes what is stored; then :meth:`subjects` says of what."""

    asks_backend: ClassVar[bool] = True
    """Whether it has the key store's deadline; counters and slow hashes have their own."""

    def __iter__(self) -> Generator[Effect[Any], Any, Answer]:
        return (yield self)  # type: ignore[no-any-return]  # the driver sends what perform gave

    def perform(self, outside: Any) -> Any:
        """Ask: return the answer or an awaitable of it."""
        raise NotImplementedError

    def subjects(self) -> Sequence[str]:
        """Return the ids of the keys and organizations that it changes."""
        raise NotImplementedError


Flow: TypeAlias = Generator[Effect[Any], Any, Result]


@dataclass(frozen=True, eq=False)
class ReadClock(Effect[datetime]):
    """The time now, in UTC."""

    def perform(self, outside: Any) -> Any:
        return outside.now()


@dataclass(frozen=True, eq=False)
class ReadPolicy(Effect[Policy]):
    """What the service has settled."""

    def perform(self, outside: Any) -> Any:
        return outside.policy


@dataclass(frozen=True, eq=False)
class DrawEntropy(Effect[bytes]):
    """Bytes from a cryptographically secure source."""

    size: int

    def perform(self, outside: Any) -> Any:
        return outside.entropy(self.size)


@dataclass(frozen=True, eq=False)
class HashToken(Effect[str]):
    """The form in which a token is stored."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.hash(self.token)


@dataclass(frozen=True, eq=False)
class DescribeDigest(Effect[str]):
    """What a stored form hangs on: its scheme, and its pepper's id where it takes one."""

    digest: str = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.describe_digest(self.digest)


@dataclass(frozen=True, eq=False)
class VerifyToken(Effect[bool]):
    """Whether a token is the one behind a stored digest.

    ``digest`` is None for an unknown key: the answer is False, after the work of a comparison.
    """

    asks_backend = False

    token: Secret
    digest: str | None = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.verify(self.token, self.digest)


@dataclass(frozen=True, eq=False)
class Recall(Effect[Allow | None]):
    """What a token was verified as lately, or None where it must be looked up."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.recall(self.token)


@dataclass(frozen=True, eq=False)
class Remember(Effect[bool]):
    """Keep a verified token with what it may do.

    The answer is False where the key changed since this flow looked it up: look again.
    """

    token: Secret
    record: KeyRecord
    allow: Allow

    def perform(self, outside: Any) -> Any:
        return outside.remember(self.token, self.record, self.allow)


@dataclass(frozen=True, eq=False)
class Discard(Effect[None]):
    """Remember a token no longer, which was looked up and is dead."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.discard(self.token)


@dataclass(frozen=True, eq=False)
class WasVerified(Effect[bool]):
    """Whether a token was verified here before, however long ago: then it is no guess."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.was_verified(self.token)


@dataclass(frozen=True, eq=False)
class BlockedFor(Effect[float | None]):
    """For how many seconds a client is refused for its failures, or None."""

    client: str

    def perform(self, outside: Any) -> Any:
        return outside.blocked_for(self.client)


@dataclass(frozen=True, eq=False)
class Block(Effect[None]):
    """Refuse a client for so many seconds, without asking anybody again."""

    client: str
    seconds: float

    def perform(self, outside: Any) -> Any:
        return outside.block(self.client, self.seconds)


@dataclass(frozen=True, eq=False)
class HitLimits(Effect[Outcome | None]):
    """Count charges, all or none; None where they can't be counted and that must not pass."""

    asks_backend = False
    charges: Sequence[Charge]

    def perform(self, outside: Any) -> Any:
        return outside.hit(self.charges)


@dataclass(frozen=True, eq=False)
class AdjustLimits(Effect[Outcome | None]):
    """Count more or give back; the answer is how the buckets stand after, None as above.

    It is given back only where ``counter`` counted it, as its
    :class:`~keyguard.sansio.charges.Outcome` says.
    """

    asks_backend = False
    charges: Sequence[Charge]
    units: Sequence[int]
    counter: int | None = None

    def perform(self, outside: Any) -> Any:
        return outside.adjust(self.charges, self.units, self.counter)


@dataclass(frozen=True, eq=False)
class ReadLimits(Effect[Outcome]):
    """How buckets stand; where their store fails, so does this."""

    charges: Sequence[Charge]

    def perform(self, outside: Any) -> Any:
        return outside.read_limits(self.charges)


@dataclass(frozen=True, eq=False)
class FindKey(Effect[KeyRecord | None]):
    """The record of a key, with its organization."""

    key_id: str

    def perform(self, outside: Any) -> Any:
        return outside.backend.find_key(self.key_id)


@dataclass(frozen=True, eq=False)
class LookUp(Effect[KeyRecord | None]):
    """The record of a key for a request; those that ask at the same time share one answer.

    With ``fresh`` it is looked up from now on, and not shared.
    """

    key_id: str
    fresh: bool = False

    def perform(self, outside: Any) -> Any:
        return outside.look_up(self.key_id, fresh=self.fresh)


@dataclass(frozen=True, eq=False)
class NoteUse(Effect[None]):
    """Remember that a key was let in, for its ``last_used_at``."""

    key_id: str
    address: str | None

    def perform(self, outside: Any) -> Any:
        return outside.note_use(self.key_id, self.address)


@dataclass(frozen=True, eq=False)
class OfferRehash(Effect[None]):
    """Have a genuine token stored under the current scheme, in the background, if it is not."""

    key_id: str
    token: Secret
    digest: str = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.rehash(self.key_id, self.token, self.digest)


@dataclass(frozen=True, eq=False)
class ListKeys(Effect[Page[Key]]):
    """One page of the keys that a filter admits, oldest first."""

    wanted: KeyFilter
    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.backend.list_keys(self.wanted, after=self.after, limit=self.limit)


@dataclass(frozen=True, eq=False)
class ListDigests(Effect[Page[KeyDigest]]):
    """One page of the stored forms of keys that are not revoked, by key id."""

    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.backend.list_digests(after=self.after, limit=self.limit)


@dataclass(frozen=True, eq=False)
class FindExisting(Effect[frozenset[str]]):
    """Which of some ids are those of keys."""

    key_ids: Sequence[str]

    def perform(self, outside: Any) -> Any:
        return outside.backend.find_existing(self.key_ids)


@dataclass(frozen=True, eq=False)
class FindOrganization(Effect[Organization | None]):
    """An organization, by id or slug."""

    name: str

    def perform(self, outside: Any) -> Any:
        return outside.backend.find_organization(self.name)


@dataclass(frozen=True, eq=False)
class ListOrganizations(Effect[Page[Organization]]):
    """One page of organizations, oldest first."""

    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.backend.list_organizations(after=self.after, limit=self.limit)


@dataclass(frozen=True, eq=False)
class ListAudit(Effect[Page[AuditEntry]]):
    """One page of the audit trail, newest first."""

    organization: str | None
    subject: str | None
    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.backend.list_audit(
            organization=self.organization,
            subject=self.subject,
            after=self.after,
            limit=self.limit,
        )


@dataclass(frozen=True, eq=False)
class CommitChanges(Effect[bool]):
    """Make all changes of a commit, or none; False where a record is not as it was read."""

    changes = True
    commit: Commit

    def perform(self, outside: Any) -> Any:
        return outside.backend.commit(self.commit)

    def subjects(self) -> Sequence[str]:
        return self.commit.subjects()
