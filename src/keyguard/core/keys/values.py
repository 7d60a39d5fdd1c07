"""Checks of the values of records, and the types that records and lists share."""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NoReturn, TypeVar

from keyguard.exceptions import InvalidValueError, shown

T_co = TypeVar("T_co", covariant=True)

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
ORGANIZATION_ID = re.compile(r"org_[0-9A-Za-z]{16}\Z")
FAMILY_ID = re.compile(r"fam_[0-9A-Za-z]{16}\Z")
ORGANIZATION_NAME = re.compile(rf"{ORGANIZATION_ID.pattern}|{_SLUG.pattern}")
_LONGEST_TEXT = 200
_MOST_METADATA = 50
_LONGEST_METADATA = 500
_MOST_COMPOSED = 4
"""How many characters normalization makes one of, at most."""

# Fixed ranges, as each Python reads what another has stored, and their own tables differ: controls,
# separators of lines and paragraphs, what embeds, overrides or isolates a direction, surrogates,
# and code points that are no characters.
_NO_CHARACTERS = "".join(f"{chr(last - 1)}{chr(last)}" for last in range(0xFFFF, 0x110000, 0x10000))
_UNFIT = re.compile(
    "[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef" + _NO_CHARACTERS + "]"
)
_BLANK = re.compile("[ \xa0\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]*\\Z")


def check_ids(*ids: tuple[str, object, re.Pattern[str]]) -> None:
    """Refuse ids, each given with what it is called and its pattern, if one does not match."""
    for what, value, pattern in ids:
        if not isinstance(value, str) or not pattern.match(value):
            raise InvalidValueError(f"{shown(value)} is no {what}")


def check_slug(value: object) -> None:
    """Refuse a value that is no slug."""
    if not isinstance(value, str) or not _SLUG.match(value):
        raise InvalidValueError(
            f"{shown(value)} is no organization slug: use 1 to 63 lower-case letters, digits and "
            "inner '-', such as 'acme-labs'"
        )


def check_text(what: str, value: object) -> str:
    """Return a text of 1 to 200 characters as it is stored, in NFC.

    Only what is to be stored is checked. Whatever was stored is taken when it is read, and shown by
    :func:`escaped`.

    Raises:
        InvalidValueError: The value is no such text, or has characters that could deceive.
    """
    text = _normalized(what, value, _LONGEST_TEXT)
    if text is None or _BLANK.match(text):
        raise InvalidValueError(f"{what} takes 1 to {_LONGEST_TEXT} characters, not {shown(value)}")
    return text


def _normalized(what: str, value: object, longest: int) -> str | None:
    """Return a text in NFC; None if it is no text or too long.

    Normalization never changes what an older Python made of characters that it knows. It leaves
    those that it does not know as they are.
    """
    if not isinstance(value, str) or len(value) > longest * _MOST_COMPOSED:
        return None
    if not fits(value):
        raise InvalidValueError(
            f"{what} takes no control characters, line breaks or direction overrides, "
            f"not {shown(value)}"
        )
    text = unicodedata.normalize("NFC", value)
    return text if len(text) <= longest else None


def fits(text: str) -> bool:
    """Tell whether a text has only characters that can be stored, the same in every Python."""
    return _UNFIT.search(text) is None


def escaped(text: str) -> str:
    """Return a text in which characters that could deceive are replaced by escape sequences."""
    return _UNFIT.sub(lambda found: ascii(found[0])[1:-1], text)


def check_texts(*texts: tuple[str, object]) -> None:
    """Refuse values of a record, each given with what it is called, if one is no text."""
    for what, value in texts:
        if not isinstance(value, str):
            raise InvalidValueError(f"{what} takes a text, not {shown(value)}")


def settle_times(record: object, *names: str) -> None:
    """Set fields of a frozen record to the same times in UTC, where they are not None."""
    for name in names:
        value = getattr(record, name)
        if value is None:
            continue
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise InvalidValueError(
                f"{name} takes an aware datetime, such as datetime.now(UTC), not {shown(value)}"
            )
        object.__setattr__(record, name, value.astimezone(UTC))


def check_metadata(value: Mapping[str, str]) -> Metadata:
    """Return metadata as it is stored, in NFC.

    Raises:
        InvalidValueError: The value is no mapping of short texts, a text has characters that could
            deceive, or two names are the same in NFC.
    """
    given = read_metadata(value)
    notes: dict[str, str] = {}
    for name, text in given.items() if len(given) <= _MOST_METADATA else ():
        stored_name, stored_text = (
            _normalized("metadata", item, _LONGEST_METADATA) for item in (name, text)
        )
        if stored_name is None or stored_text is None:
            break
        if stored_name in notes:
            raise InvalidValueError(f"metadata names {shown(stored_name)} twice")
        notes[stored_name] = stored_text
    if len(notes) < len(given):
        raise InvalidValueError(
            f"metadata takes at most {_MOST_METADATA} items "
            f"of at most {_LONGEST_METADATA} characters each"
        )
    return Metadata(notes)


def read_metadata(value: Mapping[str, str]) -> Metadata:
    """Return metadata as it was stored, which does not change, so that requests can share it."""
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else [None]
    if not all(isinstance(item, str) for item in items):
        raise InvalidValueError("metadata takes a mapping of strings to strings")
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


class Unchanged(enum.Enum):
    """The type of :data:`UNCHANGED`."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED = Unchanged.UNCHANGED
"""Stands for a field that keeps its value; None would clear it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a list.

    Args:
        items: The records, oldest first.
        next: The value of ``after`` for the next page, or None at the end.
    """

    items: tuple[T_co, ...]
    next: str | None = None

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
