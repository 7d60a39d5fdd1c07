"""What the values of the core have in common: their base, checks of fields, and shared types."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Generic, NoReturn, TypeVar

from keyguard.exceptions import InvalidValueError, shown

T_co = TypeVar("T_co", covariant=True)

_SLUG = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
ORGANIZATION_ID = re.compile(r"org_[0-9A-Za-z]{16}\Z")
FAMILY_ID = re.compile(r"fam_[0-9A-Za-z]{16}\Z")
REQUEST_ID = re.compile(r"req_[0-9A-Za-z]{16}\Z")
NO_PERSON = re.compile(r"fam_|rule:|ticket:|service\Z")
_TIME_ZONE = r"(?=.{1,64}\Z)[A-Z][0-9A-Za-z_+-]*(/[0-9A-Za-z_+-]+)*\Z"
_PLAN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
ORGANIZATION_NAME = re.compile(rf"{ORGANIZATION_ID.pattern}|{_SLUG}")

LATEST = datetime.max.replace(tzinfo=UTC)
"""The last moment that Python can express, in UTC."""

LONGEST = LATEST - datetime.min.replace(tzinfo=UTC)
"""The time between the first moment and the last."""


Member = TypeVar("Member", bound=enum.StrEnum)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Value:
    """A frozen dataclass that is compared, hashed and shown by its fields.

    ``dataclass`` would make these methods for each class, and compile them whenever a process
    imports keyguard. A value that is imported with the package takes them from here instead, and
    is declared with ``eq=False, repr=False``.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(
            tuple(
                getattr(self, field.name)
                for field in fields(self)
                if (field.compare if field.hash is None else field.hash)
            )
        )

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _compared(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in fields(self) if field.compare)


def member_of(kinds: type[Member], value: object, what: str, hint: str = "") -> Member:
    """Return the member of an enumeration that a value names.

    Args:
        kinds: The enumeration.
        value: The value.
        what: What a member is, for the message of an error.
        hint: What the message says at its end.

    Raises:
        InvalidValueError: No member has that name.
    """
    try:
        return kinds(str(value))
    except ValueError:
        known = ", ".join(kinds)
        raise InvalidValueError(
            f"{shown(value)} is not a valid {what}; use one of: {known}{hint}"
        ) from None


def check_ids(*ids: tuple[str, object, re.Pattern[str]]) -> None:
    """Refuse ids that do not match their patterns. Each is given with its name for the message."""
    for what, value, pattern in ids:
        if not isinstance(value, str) or not pattern.match(value):
            raise InvalidValueError(f"{shown(value)} is not a valid {what}")


def check_slug(value: object) -> None:
    """Refuse a value that is no slug."""
    if not isinstance(value, str) or not re.match(_SLUG, value):
        raise InvalidValueError(
            f"{shown(value)} is not a valid organization slug: use 1 to 63 lower-case letters, "
            "digits and inner '-', such as 'acme-labs'"
        )


def check_time_zone(value: object) -> str:
    """Return the name of a time zone; refuse a value that does not have its form."""
    if not isinstance(value, str) or not re.match(_TIME_ZONE, value):
        raise InvalidValueError(
            f"{shown(value)} is not a valid time zone: give a name of the IANA database, such as "
            "'Europe/Berlin' or 'UTC'"
        )
    return value


def check_plan_name(value: object) -> str:
    """Return the name of a plan; refuse a value that does not have its form."""
    if not isinstance(value, str) or not re.match(_PLAN, value):
        raise InvalidValueError(
            f"{shown(value)} is not a valid name of a plan: use 1 to 64 letters, digits, '.', '_' "
            "and '-', such as 'pro'"
        )
    return value


def check_texts(*texts: tuple[str, object], optional: Iterable[tuple[str, object]] = ()) -> None:
    """Refuse values of a record that are no texts. Each is given with its name for the message.

    Args:
        texts: Values that are required.
        optional: Values that may be None.
    """
    for what, value in texts:
        if not isinstance(value, str):
            raise InvalidValueError(f"{what} takes a text, not {shown(value)}")
    for what, value in optional:
        if value is not None and not isinstance(value, str):
            raise InvalidValueError(f"{what} takes a text, not {shown(value)}")


def check_version(value: object) -> None:
    """Refuse a version of a record that is not a count of changes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidValueError(f"a record's version is a whole number, not {shown(value)}")


def settle_times(record: object, *names: str, optional: Iterable[str] = ()) -> None:
    """Set fields of a frozen record to the same times in UTC.

    Args:
        record: The record.
        names: The fields that hold a time.
        optional: The fields that hold a time or None.
    """
    for name in names:
        object.__setattr__(record, name, in_utc(name, getattr(record, name)))
    for name in optional:
        value = getattr(record, name)
        if value is not None:
            object.__setattr__(record, name, in_utc(name, value))


def in_utc(name: str, value: object) -> datetime:
    """Return a time in UTC.

    Args:
        name: The name of the time, for the message of an error.
        value: The time.

    Raises:
        InvalidValueError: The value is no aware datetime, or lies outside the years 1 to 9999 in
            UTC.
    """
    if isinstance(value, datetime) and value.tzinfo is UTC:
        return value  # as every store has it
    try:
        if isinstance(value, datetime) and value.utcoffset() is not None:
            return value.astimezone(UTC)
    except OverflowError:
        raise InvalidValueError(f"{name} lies outside the years 1 to 9999 in UTC") from None
    raise InvalidValueError(
        f"{name} takes an aware datetime, such as datetime.now(UTC), not {shown(value)}"
    )


def read_metadata(value: Mapping[str, str]) -> Metadata:
    """Return stored metadata as an immutable dictionary, which requests can share."""
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else [None]
    if not all(isinstance(item, str) for item in items):
        raise InvalidValueError("metadata takes a mapping of strings to strings")
    return Metadata(value)


def _refuse_change(*_: object, **__: object) -> NoReturn:
    raise TypeError("this mapping does not change; make a new one")


_unchangeable: Any = _refuse_change


class Metadata(dict[str, str]):
    """An immutable dictionary, which requests can share."""

    __setitem__ = __delitem__ = __ior__ = _unchangeable
    clear = pop = popitem = setdefault = update = _unchangeable

    def __reduce__(self) -> tuple[type[Metadata], tuple[dict[str, str]]]:
        return type(self), (dict(self),)


class Unchanged(enum.Enum):
    """The type of :data:`UNCHANGED`."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED = Unchanged.UNCHANGED
"""Stands for a field that keeps its value; None would clear it."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Page(Value, Generic[T_co]):
    """One page of a list.

    Args:
        items: The records, oldest first.
        next: The value of ``after`` for the next page, or None at the end.
        damaged: The ids of records that are left out, because what is stored can't be read.
    """

    items: tuple[T_co, ...]
    next: str | None = None
    damaged: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
