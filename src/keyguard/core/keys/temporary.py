"""Temporary values: sessions, links that work once, and the answers to repeated calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from keyguard.core.values import check_ids, settle_times
from keyguard.exceptions import InvalidValueError

_KIND = re.compile(r"[a-z][a-z_-]{0,31}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LARGEST_VALUE = 8192


@dataclass(frozen=True, slots=True)
class Temporary:
    """A value that is kept until it expires.

    Args:
        kind: Its kind, such as ``session``: at most 32 lower-case letters, ``-`` and ``_``.
        digest: The SHA-256 digest of what its client holds, in 64 hex digits.
        value: A text of at most 8192 bytes in UTF-8.
        expires_at: When it ends.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    kind: str
    digest: str
    value: str = field(repr=False)
    expires_at: datetime

    def __post_init__(self) -> None:
        check_temporary(self.kind, self.digest)
        try:
            fits = len(self.value.encode()) <= _LARGEST_VALUE
        except (AttributeError, UnicodeEncodeError):
            fits = False
        if not fits:
            raise InvalidValueError(f"a value takes a text of at most {_LARGEST_VALUE} bytes")
        settle_times(self, "expires_at")


def unexpired(record: Temporary | None, now: datetime) -> Temporary | None:
    """Return a value that was found, or None if it has expired by then."""
    return record if record is not None and now < record.expires_at else None


def check_temporary(kind: object, digest: object) -> None:
    """Refuse a malformed kind or digest of a temporary value.

    Raises:
        InvalidValueError: The kind or the digest has the wrong type or form.
    """
    check_ids(("kind of value", kind, _KIND), ("SHA-256 digest in hex digits", digest, _DIGEST))
