"""The records: organizations, keys, and what a request is once it is let in.

All are frozen and checked where they are built. Times are aware datetimes, kept in UTC with
microseconds. A record's version counts its changes: what was read is only ever replaced where it
still stands as it was read (:mod:`keyguard.core.keys.commit`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from keyguard.core.identity.networks import parse_networks
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.keys.values import (
    FAMILY_ID,
    ORGANIZATION_ID,
    Page,
    as_utc,
    check_metadata,
    check_pattern,
    check_slug,
    check_text,
)
from keyguard.core.limits.limit import Limit, read_limits
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError

__all__ = [
    "ImportReport",
    "IssuedKey",
    "Key",
    "KeyDigest",
    "KeyFilter",
    "KeyRecord",
    "KeyStatus",
    "Organization",
    "Page",
    "RefusedRow",
    "RevocationReason",
    "RotatedKey",
    "Use",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The tenant that owns keys.

    Args:
        id: ``org_`` and 16 base62 digits.
        slug: Its short name, unique: lower-case letters, digits and inner ``-``, at most 63.
        name: Its name for people, at most 200 characters.
        created_at: When it was created.
        disabled_at: Since when none of its keys works, or None.
        limits: What its keys may ask for, together or each; see :class:`~keyguard.Limit`.
        scopes: All that its keys may do, whatever they are granted; None for anything.
        max_key_lifetime: How long its keys work at the most; None for ever.
        version: How often it was changed, from 1 on.

    Raises:
        InvalidValueError: A value is not as said.
    """

    id: str
    slug: str
    name: str
    created_at: datetime
    disabled_at: datetime | None = None
    limits: tuple[Limit, ...] = ()
    scopes: frozenset[str] | None = None
    max_key_lifetime: timedelta | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_pattern("organization id", self.id, ORGANIZATION_ID)
        check_slug(self.slug)
        check_text("an organization's name", self.name)
        object.__setattr__(self, "limits", read_limits(self.limits, "organization", stored=True))
        if self.scopes is not None:
            object.__setattr__(self, "scopes", parse_granted(self.scopes))
        lifetime = self.max_key_lifetime
        if lifetime is not None and (
            not isinstance(lifetime, timedelta) or lifetime < timedelta(seconds=1)
        ):
            raise InvalidValueError(
                f"max_key_lifetime takes a timedelta of at least a second, not {lifetime!r}"
            )
        for name in ("created_at", "disabled_at"):
            object.__setattr__(self, name, as_utc(name, getattr(self, name)))


class KeyStatus(enum.StrEnum):
    """What a key is good for at one instant."""

    ACTIVE = "active"
    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    ROTATED = "rotated"
    REVOKED = "revoked"


class RevocationReason(enum.StrEnum):
    """Why a key was revoked, in the terms of RFC 5280, section 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key compromise"
    AFFILIATION_CHANGED = "affiliation changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation of operation"
    PRIVILEGE_WITHDRAWN = "privilege withdrawn"

    @classmethod
    def of(cls, reason: RevocationReason | str) -> RevocationReason:
        """Return the reason of that name; ``-`` and ``_`` stand for spaces.

        Raises:
            InvalidValueError: There is none.
        """
        try:
            return cls(str(reason).replace("_", " ").replace("-", " "))
        except ValueError:
            known = ", ".join(one.value for one in cls)
            raise InvalidValueError(
                f"{reason!r} is no reason; there are: {known}. Your own words go into the note"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What may be known of a key: everything but its secret and its digest.

    Args:
        id: The public part of the token, 16 base62 digits; safe to log.
        family: Shared by all keys that descend from one another by rotation.
        organization: The id of the organization that owns it.
        name: Its name for people, at most 200 characters.
        scopes: What it may do; may hold wildcards.
        created_at: When it was issued.
        not_before: From when on it works, or None for at once.
        expires_at: From when on it works no more, or None for never.
        revoked_at: When it was revoked, or None.
        revoked_reason: Why, or None.
        revoked_note: Why in somebody's own words, at most 200 characters, or None.
        metadata: The service's own notes, strings to strings.
        limits: What it may ask for; see :class:`~keyguard.Limit`.
        allowed_networks: The networks that it works from, in CIDR notation; empty for any.
        successor: The id of the key that took its place, or None.
        grace_ends_at: From when on it works no more because it has a successor, or None.
        rotation_key: The idempotency key of that rotation, if one was given.
        last_used_at: When it was last let in, to the minute, or None for never.
        last_used_address: The client's address then, where the service records it.
        version: How often it was changed, from 1 on.

    Raises:
        InvalidValueError: A value is not as said.
    """

    id: str
    family: str
    organization: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    not_before: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: RevocationReason | None = None
    revoked_note: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: tuple[Limit, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    successor: str | None = None
    grace_ends_at: datetime | None = None
    rotation_key: str | None = None
    last_used_at: datetime | None = None
    last_used_address: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_pattern("key id", self.id, KEY_ID)
        check_pattern("key family", self.family, FAMILY_ID)
        check_pattern("organization id", self.organization, ORGANIZATION_ID)
        check_text("a key's name", self.name)
        if self.revoked_note is not None:
            check_text("a revocation's note", self.revoked_note)
        if self.rotation_key is not None:
            check_text("an idempotency key", self.rotation_key)
        if self.successor is not None:
            check_pattern("key id", self.successor, KEY_ID)
        if self.revoked_reason is not None:
            object.__setattr__(self, "revoked_reason", RevocationReason.of(self.revoked_reason))
        object.__setattr__(self, "scopes", parse_granted(self.scopes))
        object.__setattr__(self, "metadata", check_metadata(self.metadata))
        object.__setattr__(self, "limits", read_limits(self.limits, "key", stored=True))
        object.__setattr__(self, "allowed_networks", parse_networks(self.allowed_networks))
        for name in (
            *("created_at", "not_before", "expires_at", "revoked_at"),
            *("grace_ends_at", "last_used_at"),
        ):
            object.__setattr__(self, name, as_utc(name, getattr(self, name)))

    @property
    def ends_at(self) -> datetime | None:
        """From when on it works no more, revoked or not; None for never."""
        ends = [end for end in (self.expires_at, self.grace_ends_at) if end is not None]
        return min(ends, default=None)

    def status(self, now: datetime) -> KeyStatus:
        """Tell what the key is good for at ``now``; its organization's state is not in it."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStatus.EXPIRED
        if self.grace_ends_at is not None and now >= self.grace_ends_at:
            return KeyStatus.ROTATED
        if self.not_before is not None and now < self.not_before:
            return KeyStatus.NOT_YET_VALID
        return KeyStatus.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What a store keeps of a key: one look-up gives all that a decision needs.

    Args:
        key: The key.
        organization: The organization that owns it, as it stands now.
        digest: The stored form of the token, naming its scheme (:mod:`keyguard.settings.hashing`).

    Raises:
        InvalidValueError: The organization is not the key's own, or the digest is no text.
    """

    key: Key
    organization: Organization
    digest: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.key.organization != self.organization.id:
            raise InvalidValueError("a key's record carries the organization that owns the key")
        if not isinstance(self.digest, str) or not self.digest:
            raise InvalidValueError("a key's record carries the stored form of its token")


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """The stored form of one key's token.

    Args:
        id: The key's id.
        digest: The stored form.
    """

    id: str
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A key and its token, at the only time the token exists.

    Args:
        key: The key, as it was stored.
        token: What the client sends; shown once, and nowhere kept.
    """

    key: Key
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """A key that took another's place.

    Args:
        key: The successor, as it was stored.
        predecessor: The key before it, which works until its ``grace_ends_at``.
        token: What the client sends from now on; shown once, and nowhere kept. None where an
            earlier call of the same idempotency key made the successor, and showed it.
    """

    key: Key
    predecessor: Key
    token: Secret | None


class RefusedRow(NamedTuple):
    """A row that was not imported.

    Args:
        line: Its number, from 1 on.
        reason: Why, in one sentence that holds neither the token nor the hash.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What came of an import.

    Args:
        imported: How many keys it added; in a dry run, how many it would have.
        present: How many were there already, from an earlier run.
        refused: The rows that can't be imported, by line.
    """

    imported: int = 0
    present: int = 0
    refused: tuple[RefusedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """That a key was let in.

    Args:
        key_id: Its id.
        at: When last.
        address: The client's address then, where the service records it.
    """

    key_id: str
    at: datetime
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys a list is to hold; without any field set, all.

    Args:
        organization: The id of the organization that owns them.
        family: Their family.
        ends_before: They end before that, and have not ended by ``alive_at``.
        unused_since: They were not let in since, and issued before.
        alive_at: They can still be let in at that time or later.
    """

    organization: str | None = None
    family: str | None = None
    ends_before: datetime | None = None
    unused_since: datetime | None = None
    alive_at: datetime | None = None

    def admits(self, key: Key) -> bool:
        """Tell whether a key is to be listed."""
        if self.organization not in (None, key.organization):
            return False
        if self.family not in (None, key.family):
            return False
        end = key.ends_at
        if self.alive_at is not None and (
            key.revoked_at is not None or (end is not None and end <= self.alive_at)
        ):
            return False
        if self.ends_before is not None and (end is None or end >= self.ends_before):
            return False
        if self.unused_since is None:
            return True
        return (key.last_used_at or key.created_at) < self.unused_since


def fields_of(record: Key | Organization) -> dict[str, Any]:
    """Return the fields of a record by name."""
    return {name: getattr(record, name) for name in record.__slots__}
