"""The records of organizations and keys.

All are frozen, and check their values when they are built. A record accepts any text, so that every
stored record can be read; the operations check the texts before they store them
(:mod:`keyguard.core.texts`). Times are aware datetimes in UTC with microseconds. A record's
version counts its changes: a store replaces a record only if it still has the version that was read
(:mod:`keyguard.core.keys.commit`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from keyguard.core.identity.networks import parse_networks
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.limits.limit import Limit, read_limits
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.values import (
    FAMILY_ID,
    LONGEST,
    ORGANIZATION_ID,
    Metadata,
    Value,
    check_ids,
    check_plan_name,
    check_slug,
    check_texts,
    check_time_zone,
    check_version,
    read_metadata,
    settle_times,
)
from keyguard.exceptions import InvalidValueError, shown

if TYPE_CHECKING:  # only changes need these
    from keyguard.core.keys.requests import KeyRequest, KeyTerms

_TIMES = ("not_before", "expires_at", "revoked_at", "grace_ends_at", "last_used_at")

LARGEST_NUMBER = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Organization(Value):
    """The tenant that owns keys.

    Args:
        id: ``org_`` and 16 base62 digits.
        slug: Its unique short name: 1 to 63 lower-case letters, digits and inner ``-``.
        name: Its name for people, at most 200 characters.
        created_at: When it was created.
        disabled_at: When it was disabled, or None. Its keys do not work while it is disabled.
        limits: The limits of its keys, together or each; see :class:`~keyguard.Limit`.
        scopes: The most that its keys may do, whatever they are granted; None for no ceiling.
        max_key_lifetime: The longest lifetime of its keys, at least a second; None for no bound.
        max_keys: How many keys it may have at a time; None for no bound. Keys that have ended do
            not count. A key and those that it was rotated from and to count as one.
        time_zone: The IANA name of a time zone; usage is kept by its days; at most 64 characters.
        plan: The name of its plan among those of the settings, at most 64 characters, or None.
        metadata: The service's own notes, strings to strings.
        version: Counts its changes, from 1.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    id: str
    slug: str
    name: str
    created_at: datetime
    disabled_at: datetime | None = None
    limits: tuple[Limit, ...] = ()
    scopes: frozenset[str] | None = None
    max_key_lifetime: timedelta | None = None
    max_keys: int | None = None
    time_zone: str = "UTC"
    plan: str | None = None
    metadata: Mapping[str, str] = field(default_factory=Metadata, hash=False)
    version: int = 1

    def __post_init__(self) -> None:
        check_ids(("organization id", self.id, ORGANIZATION_ID))
        check_slug(self.slug)
        check_texts(("an organization's name", self.name))
        check_time_zone(self.time_zone)
        if self.plan is not None:
            check_plan_name(self.plan)
        if not isinstance(self.metadata, Metadata):  # which was checked when it was made
            object.__setattr__(self, "metadata", read_metadata(self.metadata))
        if self.limits != ():
            limits = read_limits(self.limits, "organization", stored=True)
            object.__setattr__(self, "limits", limits)
        if self.scopes is not None:
            object.__setattr__(self, "scopes", parse_granted(self.scopes))
        lifetime = self.max_key_lifetime
        if lifetime is not None and (
            not isinstance(lifetime, timedelta) or not timedelta(seconds=1) <= lifetime <= LONGEST
        ):
            raise InvalidValueError(
                f"max_key_lifetime takes a timedelta from a second to {LONGEST.days} days, "
                f"not {shown(lifetime)}"
            )
        most = self.max_keys
        if most is not None and (
            isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= LARGEST_NUMBER
        ):
            raise InvalidValueError(
                f"max_keys takes a whole number from 1 to {LARGEST_NUMBER}, not {shown(most)}"
            )
        check_version(self.version)
        settle_times(self, "created_at", optional=["disabled_at"])


class KeyStatus(enum.StrEnum):
    """The state of a key at an instant."""

    ACTIVE = "active"
    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    ROTATED = "rotated"
    REVOKED = "revoked"


class RevocationReason(enum.StrEnum):
    """The reason of a revocation, in the terms of RFC 5280, section 5.3.1."""

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
            InvalidValueError: No reason has that name.
        """
        try:
            return cls(str(reason).replace("_", " ").replace("-", " "))
        except ValueError:
            known = ", ".join(known.value for known in cls)
            raise InvalidValueError(
                f"{shown(reason)} is not a valid reason; use one of: {known}. Put your own words "
                "into the note"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Key(Value):
    """A key: everything about it that may be shown, without its secret and its digest.

    Args:
        id: The public part of the token, 16 base62 digits; safe to log.
        family: The id that all keys share that descend from one key by rotation.
        organization: The id of the organization that owns it.
        name: Its name for people, at most 200 characters.
        scopes: The granted scopes, perhaps with wildcards.
        created_at: When it was issued.
        not_before: When it begins to work, or None for at once.
        expires_at: When it stops working, or None for never.
        revoked_at: When it was revoked, or None.
        revoked_reason: The reason of the revocation, or None.
        revoked_note: A note on the revocation, at most 200 characters, or None.
        metadata: The service's own notes, strings to strings.
        limits: Its limits; see :class:`~keyguard.Limit`.
        allowed_networks: The networks from which it works, in CIDR notation; empty for any.
        successor: The id of the key that replaces it, or None.
        grace_ends_at: When it stops working because it has a successor, or None.
        rotation_key: The idempotency key of that rotation, or None.
        last_used_at: When keyguard last let it in, to the minute, or None for never.
        last_used_address: The client's address then, if the service records it.
        owner: Who holds the key, as the host names people, at most 200 characters, or None.
        version: Counts its changes, from 1.

    Raises:
        InvalidValueError: A value has the wrong type or form.
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
    metadata: Mapping[str, str] = field(default_factory=Metadata)
    limits: tuple[Limit, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    successor: str | None = None
    grace_ends_at: datetime | None = None
    rotation_key: str | None = None
    last_used_at: datetime | None = None
    last_used_address: str | None = None
    owner: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_ids(
            ("key id", self.id, KEY_ID),
            ("key family", self.family, FAMILY_ID),
            ("organization id", self.organization, ORGANIZATION_ID),
        )
        if self.successor is not None:
            check_ids(("key id", self.successor, KEY_ID))
        check_texts(
            ("a key's name", self.name),
            optional=[
                ("a revocation's note", self.revoked_note),
                ("an idempotency key", self.rotation_key),
                ("an address", self.last_used_address),
                ("a key's owner", self.owner),
            ],
        )
        check_version(self.version)
        if self.revoked_reason is not None:
            object.__setattr__(self, "revoked_reason", RevocationReason.of(self.revoked_reason))
        object.__setattr__(self, "scopes", parse_granted(self.scopes))
        if not isinstance(self.metadata, Metadata):  # which was checked when it was made
            object.__setattr__(self, "metadata", read_metadata(self.metadata))
        if self.limits != ():
            object.__setattr__(self, "limits", read_limits(self.limits, "key", stored=True))
        if self.allowed_networks != ():
            object.__setattr__(self, "allowed_networks", parse_networks(self.allowed_networks))
        settle_times(self, "created_at", optional=_TIMES)

    @property
    def ends_at(self) -> datetime | None:
        """When the key stops working unless it is revoked before; None for never."""
        if self.grace_ends_at is None:
            return self.expires_at
        if self.expires_at is None:
            return self.grace_ends_at
        return min(self.expires_at, self.grace_ends_at)

    @property
    def stops_at(self) -> datetime | None:
        """When the key stopped or will stop working, for whatever reason; None for never."""
        ends = [end for end in (self.revoked_at, self.ends_at) if end is not None]
        return min(ends, default=None)

    def status(self, now: datetime) -> KeyStatus:
        """Return the state of the key at ``now``; its organization does not count."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStatus.EXPIRED
        if self.grace_ends_at is not None and now >= self.grace_ends_at:
            return KeyStatus.ROTATED
        if self.not_before is not None and now < self.not_before:
            return KeyStatus.NOT_YET_VALID
        return KeyStatus.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyRecord(Value):
    """All that a store keeps of a key, so that a decision needs one look-up.

    Args:
        key: The key.
        organization: The organization that owns it.
        digest: The stored form of the token, naming its scheme (:mod:`keyguard.settings.hashing`).

    Raises:
        InvalidValueError: Another organization owns the key, or the digest is no text.
    """

    key: Key
    organization: Organization
    digest: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.key.organization != self.organization.id:
            raise InvalidValueError("a key's record has the organization that owns the key")
        if not isinstance(self.digest, str) or not self.digest:
            raise InvalidValueError("a key's record has the stored form of its token")

    def works(self, now: datetime) -> bool:
        """Return whether the key works at ``now``, from at least one network."""
        active = self.key.status(now) is KeyStatus.ACTIVE
        return active and self.organization.disabled_at is None


class Use(NamedTuple):
    """One use of a key: a request that keyguard let in.

    Args:
        key_id: The key's id.
        at: The time.
        address: The client's address, if the service records it.
    """

    key_id: str
    at: datetime
    address: str | None = None


def fields_of(record: Key | Organization | KeyRequest | KeyTerms) -> dict[str, object]:
    """Return the fields of a record by name."""
    return {name: getattr(record, name) for name in record.__slots__}
