"""The records: organizations, keys, and what a request is once it is let in.

All are frozen and checked where they are built. Times are aware datetimes, kept in UTC with
microseconds.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NoReturn, TypeVar

from keyguard.exceptions import InvalidValueError
from keyguard.sansio.limits import Limit, read_limits
from keyguard.sansio.scopes import parse_granted
from keyguard.sansio.secret import Secret
from keyguard.sansio.tokens import KEY_ID

__all__ = [
    "ORGANIZATION_NAME",
    "UNCHANGED",
    "IssuedKey",
    "Key",
    "KeyChanges",
    "KeyRecord",
    "KeyStatus",
    "Metadata",
    "Organization",
    "OrganizationChanges",
    "Page",
    "Unchanged",
]

T_co = TypeVar("T_co", covariant=True)

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_ORGANIZATION_ID = re.compile(r"org_[0-9A-Za-z]{16}\Z")
_FAMILY_ID = re.compile(r"fam_[0-9A-Za-z]{16}\Z")
ORGANIZATION_NAME = re.compile(rf"{_ORGANIZATION_ID.pattern}|{_SLUG.pattern}")
_LONGEST_TEXT = 200
_MOST_METADATA = 50
_LONGEST_METADATA = 500


def _check_pattern(what: str, value: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.match(value):
        raise InvalidValueError(f"{value!r} is no {what}")


def _check_slug(value: object) -> None:
    if not isinstance(value, str) or not _SLUG.match(value):
        raise InvalidValueError(
            f"{value!r} is no organization slug: use 1 to 63 lower-case letters, digits and inner "
            "'-', such as 'acme-labs'"
        )


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_TEXT:
        raise InvalidValueError(f"{what} takes 1 to {_LONGEST_TEXT} characters, not {value!r}")
    if not value.isprintable():
        raise InvalidValueError(f"{what} takes printable characters only, not {value!r}")


def _as_utc(what: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidValueError(
            f"{what} takes an aware datetime, such as datetime.now(UTC), not {value!r}"
        )
    return value.astimezone(UTC)


def _check_metadata(value: Mapping[str, str]) -> Mapping[str, str]:
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else [None]
    if not all(isinstance(item, str) for item in items):
        raise InvalidValueError("metadata takes a mapping of strings to strings")
    if len(value) > _MOST_METADATA or any(len(item or "") > _LONGEST_METADATA for item in items):
        raise InvalidValueError(
            f"metadata takes at most {_MOST_METADATA} items "
            f"of at most {_LONGEST_METADATA} characters each"
        )
    return Metadata(value)


def _refuse_change(*_: object, **__: object) -> NoReturn:
    raise TypeError("metadata does not change; pass keys.update a new mapping")


_unchangeable: Any = _refuse_change


class Metadata(dict[str, str]):
    """A dictionary that does not change, so that requests can share it."""

    __setitem__ = __delitem__ = __ior__ = _unchangeable
    clear = pop = popitem = setdefault = update = _unchangeable

    def __reduce__(self) -> tuple[Any, ...]:
        return Metadata, (dict(self),)


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

    Raises:
        InvalidValueError: A value is not as said.
    """

    id: str
    slug: str
    name: str
    created_at: datetime
    disabled_at: datetime | None = None
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        _check_pattern("organization id", self.id, _ORGANIZATION_ID)
        _check_slug(self.slug)
        _check_text("an organization's name", self.name)
        object.__setattr__(self, "limits", read_limits(self.limits, "organization", stored=True))
        for name in ("created_at", "disabled_at"):
            object.__setattr__(self, name, _as_utc(name, getattr(self, name)))


class KeyStatus(enum.StrEnum):
    """What a key is good for at one instant."""

    ACTIVE = "active"
    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


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
        revoked_reason: Why, in free text, or None.
        metadata: The service's own notes, strings to strings.
        limits: What it may ask for; see :class:`~keyguard.Limit`.

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
    revoked_reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        _check_pattern("key id", self.id, KEY_ID)
        _check_pattern("key family", self.family, _FAMILY_ID)
        _check_pattern("organization id", self.organization, _ORGANIZATION_ID)
        _check_text("a key's name", self.name)
        if self.revoked_reason is not None:
            _check_text("a revocation's reason", self.revoked_reason)
        object.__setattr__(self, "scopes", parse_granted(self.scopes))
        object.__setattr__(self, "metadata", _check_metadata(self.metadata))
        object.__setattr__(self, "limits", read_limits(self.limits, "key", stored=True))
        for name in ("created_at", "not_before", "expires_at", "revoked_at"):
            object.__setattr__(self, name, _as_utc(name, getattr(self, name)))

    def status(self, now: datetime) -> KeyStatus:
        """Tell what the key is good for at ``now``; its organization's state is not in it."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStatus.EXPIRED
        if self.not_before is not None and now < self.not_before:
            return KeyStatus.NOT_YET_VALID
        return KeyStatus.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What a backend keeps of a key: one look-up gives all that a decision needs.

    Args:
        key: The key.
        organization: The organization that owns it, as it stands now.
        digest: The stored form of the token, naming its scheme (:mod:`keyguard.hashing`).

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


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A key and its token, at the only time the token exists.

    Args:
        key: The key, as it was stored.
        token: What the client sends; shown once, and nowhere kept.
    """

    key: Key
    token: Secret


class Unchanged(enum.Enum):
    """The type of :data:`UNCHANGED`."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED = Unchanged.UNCHANGED
"""Says that a column keeps its value, where None would clear it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanges:
    """The columns of a key that one update sets; a record is never written back whole.

    Args:
        name: The new name.
        scopes: The new scopes.
        not_before: The new start, None for at once.
        expires_at: The new end, None for never.
        metadata: The new notes, which replace the old ones.
        limits: The new limits, which replace the old ones.
    """

    name: str | Unchanged = UNCHANGED
    scopes: frozenset[str] | Unchanged = UNCHANGED
    not_before: datetime | Unchanged | None = UNCHANGED
    expires_at: datetime | Unchanged | None = UNCHANGED
    metadata: Mapping[str, str] | Unchanged = UNCHANGED
    limits: tuple[Limit, ...] | Unchanged = UNCHANGED

    def columns(self) -> dict[str, Any]:
        """Return the columns that change, by name."""
        return _changed(self, self.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationChanges:
    """The columns of an organization that one update sets.

    Args:
        name: The new name.
        limits: The new limits, which replace the old ones.
    """

    name: str | Unchanged = UNCHANGED
    limits: tuple[Limit, ...] | Unchanged = UNCHANGED

    def columns(self) -> dict[str, Any]:
        """Return the columns that change, by name."""
        return _changed(self, self.__slots__)


def _changed(changes: object, names: Iterable[str]) -> dict[str, Any]:
    values = ((name, getattr(changes, name)) for name in names)
    return {name: value for name, value in values if value is not UNCHANGED}


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a list.

    Args:
        items: The records, oldest first.
        next: What to pass as ``after`` for the page that follows, or None at the end.
    """

    items: tuple[T_co, ...]
    next: str | None = None

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
