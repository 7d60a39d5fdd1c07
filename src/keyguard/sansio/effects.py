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

from keyguard.sansio.charges import Charge, Outcome
from keyguard.sansio.decisions import Allow
from keyguard.sansio.models import (
    Key,
    KeyChanges,
    KeyRecord,
    Organization,
    OrganizationChanges,
    Page,
)
from keyguard.sansio.policy import Policy
from keyguard.sansio.secret import Secret

__all__ = [
    "AddKey",
    "AddOrganization",
    "AdjustLimits",
    "Block",
    "BlockedFor",
    "ChangeKey",
    "ChangeOrganization",
    "DrawEntropy",
    "Effect",
    "FindKey",
    "FindOrganization",
    "Flow",
    "HashToken",
    "HitLimits",
    "ListKeys",
    "ListOrganizations",
    "ReadClock",
    "ReadLimits",
    "ReadPolicy",
    "Recall",
    "Remember",
    "RevokeKey",
    "SetOrganizationDisabled",
    "VerifyToken",
    "WasVerified",
]

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Effect(Generic[Answer]):
    """One question to the outside, with the type of its answer."""

    __slots__ = ()

    changes: ClassVar[bool] = False
    """Whether it changes what is stored; then :meth:`subject` says of what."""

    asks_backend: ClassVar[bool] = True
    """Whether it has the key store's deadline; counters have a shorter one of their own."""

    def __iter__(self) -> Generator[Effect[Any], Any, Answer]:
        return (yield self)  # type: ignore[no-any-return]  # the driver sends what perform gave

    def perform(self, outside: Any) -> Any:
        """Ask: return the answer or an awaitable of it."""
        raise NotImplementedError

    def subject(self) -> str:
        """Return the id of the key or organization that it changes."""
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
class VerifyToken(Effect[bool]):
    """Whether a token is the one behind a stored digest.

    ``digest`` is None for an unknown key: the answer is False, after the work of a comparison.
    """

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
    """Count more or give back; the answer is how the buckets stand after, None as above."""

    asks_backend = False
    charges: Sequence[Charge]
    units: Sequence[int]

    def perform(self, outside: Any) -> Any:
        return outside.adjust(self.charges, self.units)


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
        return outside.find_key(self.key_id)


@dataclass(frozen=True, eq=False)
class ListKeys(Effect[Page[Key]]):
    """One page of keys, oldest first; of one organization, or of all."""

    organization: str | None
    after: str | None
    limit: int

    def perform(self, outside: Any) -> Any:
        return outside.backend.list_keys(
            organization=self.organization, after=self.after, limit=self.limit
        )


@dataclass(frozen=True, eq=False)
class AddKey(Effect[None]):
    """Store a new key."""

    changes = True
    record: KeyRecord

    def perform(self, outside: Any) -> Any:
        return outside.backend.add_key(self.record)

    def subject(self) -> str:
        return self.record.key.id


@dataclass(frozen=True, eq=False)
class ChangeKey(Effect[Key | None]):
    """Set columns of a key that is not revoked; the answer is the key as it stands after."""

    changes = True
    key_id: str
    columns: KeyChanges

    def perform(self, outside: Any) -> Any:
        return outside.backend.change_key(self.key_id, self.columns)

    def subject(self) -> str:
        return self.key_id


@dataclass(frozen=True, eq=False)
class RevokeKey(Effect[Key | None]):
    """Revoke a key, once; the answer is the key as it stands after."""

    changes = True
    key_id: str
    at: datetime
    reason: str | None

    def perform(self, outside: Any) -> Any:
        return outside.backend.revoke_key(self.key_id, self.at, self.reason)

    def subject(self) -> str:
        return self.key_id


@dataclass(frozen=True, eq=False)
class AddOrganization(Effect[None]):
    """Store a new organization."""

    changes = True
    organization: Organization

    def perform(self, outside: Any) -> Any:
        return outside.backend.add_organization(self.organization)

    def subject(self) -> str:
        return self.organization.id


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
class ChangeOrganization(Effect[Organization | None]):
    """Set columns of an organization; the answer is how it stands after."""

    changes = True
    organization: str
    columns: OrganizationChanges

    def perform(self, outside: Any) -> Any:
        return outside.backend.change_organization(self.organization, self.columns)

    def subject(self) -> str:
        return self.organization


@dataclass(frozen=True, eq=False)
class SetOrganizationDisabled(Effect[Organization | None]):
    """Disable an organization, or enable it with None; the answer is how it stands after."""

    changes = True
    organization: str
    at: datetime | None

    def perform(self, outside: Any) -> Any:
        return outside.backend.set_organization_disabled(self.organization, self.at)

    def subject(self) -> str:
        return self.organization
