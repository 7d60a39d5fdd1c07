"""Tokens that another system issued, and how a request that carries one finds its key.

An imported token does not contain a key id of keyguard's. keyguard keeps its key under an id made
from the token's public part: SHA-256 over a label and that part. The id follows from the token
alone. A token without a public part is found by a hash of the whole token.

Key ids are public, and a fast hash of a whole token lets everybody try guesses. So keyguard imports
a token of less than 112 bits only if it has a public part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from math import log2

from keyguard.core.tokens.format import ID_LENGTH, base62
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, shown

FEWEST_BITS = 112
"""NIST SP 800-63B, section 5.1.2.2, asks for a slow hash below this many bits."""

LARGEST_BCRYPT_COST = 14
"""How much work a stored bcrypt digest may ask for, as the power of 2."""

MOST_ARGON2 = {"time_cost": 16, "memory_cost": 256 * 1024, "parallelism": 8}
"""How much work a stored argon2 digest may ask for; memory in KiB."""

LONGEST_TOKEN = 512
"""The most characters of an imported token."""

SHORTEST_TOKEN = 6
"""The fewest characters of an imported token: fewer are no secret, however slow their hash."""

_SHORTEST_PREFIX, _LONGEST_PREFIX = 4, 32
_LONGEST_PUBLIC = 128

_B64TOKEN = r"[A-Za-z0-9._~+/-]+=*\Z"
_PUBLIC = r"[A-Za-z0-9_~+/-]+\Z"
_NUMBERED = r"prefix:([1-9][0-9]?)\Z"
_LABEL = b"keyguard imported key\0"
_KNOWN = "token, drf, sanctum, seam, and prefix:4 to prefix:32"
_SEPARATORS = {"drf": ".", "sanctum": "|", "seam": "_"}
_HEXADECIMAL = frozenset("0123456789abcdef")


def most_bits(text: str) -> float:
    """Return how many bits a text can carry, by its length and alphabet.

    Only ASCII letters and digits count.

    Args:
        text: The text.
    """
    drawn = "".join(char for char in text if char.isascii() and char.isalnum())
    lower = drawn.lower()
    one_case = drawn in (lower, drawn.upper())
    if one_case and _HEXADECIMAL.issuperset(lower):
        size = 10 if drawn.isdigit() else 16
    else:
        size = (26 if one_case else 52) + (0 if drawn.isalpha() else 10)
    return len(drawn) * log2(size)


class ForeignFormat:
    """One format of imported tokens: how to recognise a token and find its key.

    Args:
        name: ``"token"`` for any bearer token; ``"drf"`` for djangorestframework-api-key,
            ``prefix.secret``; ``"sanctum"`` for Laravel Sanctum, ``id|token``; ``"seam"`` for
            prefixed-api-key, ``prefix_short_long``; ``"prefix:N"`` for tokens whose first N
            characters, 4 to 32, are public and differ.

    Raises:
        InvalidValueError: No format has that name.
    """

    __slots__ = ("_size", "name", "separator")

    def __init__(self, name: str) -> None:
        size = re.match(_NUMBERED, name) if isinstance(name, str) else None
        self._size = int(size[1]) if size else 0
        if (
            not isinstance(name, str)
            or (size and not _SHORTEST_PREFIX <= self._size <= _LONGEST_PREFIX)
            or not (size or name == "token" or name in _SEPARATORS)
        ):
            raise InvalidValueError(
                f"{shown(name)} is not a valid format of imported tokens; use one of: {_KNOWN}"
            )
        self.name = name
        self.separator = _SEPARATORS.get(name, "")
        """What stands between the public part and the secret; empty if nothing does."""

    @property
    def has_public_part(self) -> bool:
        """Whether a part of its tokens is public."""
        return self.name != "token"

    @property
    def numbered(self) -> bool:
        """Whether the public part is a fixed number of characters."""
        return self._size > 0

    def lookup(self, token: str) -> str | None:
        """Return the id of the key that a token belongs to; None if it does not have this format.

        This never raises, whatever the string.

        Args:
            token: The whole token.
        """
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            return None
        if self.has_public_part:
            public, secret = self.split(token)
            return self.id_of(public) if re.match(_B64TOKEN, secret) else None
        if not re.match(_B64TOKEN, token):
            return None
        return self.id_of_digest(hashlib.sha256(token.encode()).digest())

    def split(self, token: str) -> tuple[str, str]:
        """Return the public part and the secret part of a token; a missing part is empty."""
        if self._size:
            return token[: self._size], token[self._size :]
        if self.name == "seam":  # its own prefix may contain the separator
            public, _, secret = token.rpartition("_")
            return (public, secret) if "_" in public.strip("_") else ("", "")
        if self.separator:
            public, _, secret = token.partition(self.separator)
            return public, secret
        return "", token

    def id_of(self, public: str) -> str | None:
        """Return the id of the key whose token has this public part; None if no token has it."""
        if len(public) > _LONGEST_PUBLIC or not re.match(_PUBLIC, public.replace(".", "-")):
            return None
        if self._size and len(public) != self._size:
            return None
        if self.separator in (".", "|") and self.separator in public:
            return None
        if self.name == "seam" and "_" not in public.strip("_"):
            return None
        return self._id(public.encode())

    def id_of_digest(self, digest: bytes) -> str:
        """Return the id of the key whose token has this SHA-256 digest, in the format ``token``."""
        return self._id(digest)

    def is_guessable(self, token: str) -> bool:
        """Return whether the secret part of a token of this format carries less than 112 bits."""
        return most_bits(self.split(token)[1]) < FEWEST_BITS

    def _id(self, part: bytes) -> str:
        digest = hashlib.sha256(_LABEL + self.name.encode() + b"\0" + part).digest()
        return base62(digest[:16], ID_LENGTH)

    def __repr__(self) -> str:
        return f"ForeignFormat({self.name!r})"


def is_guessable(token: Secret, formats: Iterable[ForeignFormat]) -> bool:
    """Return whether a token, or its secret part in one of the formats, has less than 112 bits.

    Args:
        token: The token.
        formats: The formats that it may have.
    """
    if most_bits(token.reveal()) < FEWEST_BITS:
        return True
    return any(
        form.lookup(token.reveal()) is not None and form.is_guessable(token.reveal())
        for form in formats
    )


def read_formats(names: Iterable[str]) -> tuple[ForeignFormat, ...]:
    """Return formats by name, in the order in which keyguard tries them.

    Args:
        names: Their names, see :class:`ForeignFormat`.

    Raises:
        InvalidValueError: A name is unknown, or given twice.
    """
    given: object = names  # a caller may pass anything
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidValueError("imported_formats takes a list of formats, such as ['drf']")
    found: list[ForeignFormat] = []
    for name in names:
        if any(known.name == name for known in found):
            raise InvalidValueError(f"imported_formats names {shown(name)} twice")
        found.append(ForeignFormat(name))
    return tuple(found)
