"""Tokens that another system issued, and how a request that carries one finds its key.

An imported token has no key id of keyguard's in it. Its key is kept under an id that is made of the
token's public part, by SHA-256 over a label and that part, so that the id follows from the token
alone and from nothing else. What has no public part goes by a hash of the whole token.

An id is public, and whoever knows a fast hash of a whole token can try guesses. So a token that can
be guessed is never found by such a hash: only by an HMAC under a key made of a pepper.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any

from keyguard.core.tokens.format import ID_LENGTH, base62
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError

__all__ = [
    "LARGEST_BCRYPT_COST",
    "LONGEST_TOKEN",
    "MOST_ARGON2",
    "SHORTEST_TOKEN",
    "ForeignFormat",
    "read_formats",
]

LARGEST_BCRYPT_COST = 14
"""How much work a stored bcrypt digest may ask for, as the power of 2."""

MOST_ARGON2 = {"time_cost": 16, "memory_cost": 256 * 1024, "parallelism": 8}
"""How much work a stored argon2 digest may ask for, memory in KiB."""

LONGEST_TOKEN = 512
"""Of how many characters an imported token is at most."""

SHORTEST_TOKEN = 6
"""Of how many characters it is at least: fewer are no secret, however slow their hash."""

_SHORTEST_PREFIX, _LONGEST_PREFIX = 4, 32
_LONGEST_PUBLIC = 128

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
_PUBLIC = re.compile(r"[A-Za-z0-9_~+/-]+\Z")
_NUMBERED = re.compile(r"prefix:([1-9][0-9]?)\Z")
_LABEL = b"keyguard imported key\0"
_KNOWN = "token, drf, sanctum, seam, and prefix:4 to prefix:32"
_SEPARATORS = {"drf": ".", "sanctum": "|", "seam": "_"}


class ForeignFormat:
    """How the tokens of another system are told apart and looked up.

    Args:
        name: ``"token"`` for any bearer token; ``"drf"`` for djangorestframework-api-key,
            ``prefix.secret``; ``"sanctum"`` for Laravel Sanctum, ``id|token``; ``"seam"`` for
            prefixed-api-key, ``prefix_short_long``; ``"prefix:N"`` for tokens whose first N
            characters, 4 to 32, are public and differ.
        key: With ``"token"`` only, what a pepper gives for it: ids are then made under it, as they
            have to be for tokens that can be guessed.

    Raises:
        InvalidValueError: There is no such format.
    """

    __slots__ = ("_key", "_size", "name", "separator")

    def __init__(self, name: str, key: Secret | None = None) -> None:
        size = _NUMBERED.match(name) if isinstance(name, str) else None
        self._size = int(size[1]) if size else 0
        if (
            not isinstance(name, str)
            or (size and not _SHORTEST_PREFIX <= self._size <= _LONGEST_PREFIX)
            or not (size or name == "token" or name in _SEPARATORS)
        ):
            shown = repr(name)[:40]
            raise InvalidValueError(f"{shown} is no format of imported tokens; there are: {_KNOWN}")
        if key is not None and name != "token":
            raise InvalidValueError("only the format 'token' makes ids under a key")
        self.name = name
        self.separator = _SEPARATORS.get(name, "")
        """What stands between the public part and the secret, if anything does."""
        self._key = key

    @property
    def keyed(self) -> bool:
        """Whether its ids are made under a key."""
        return self._key is not None

    @property
    def has_public_part(self) -> bool:
        """Whether its tokens have a part that is not secret."""
        return self.name != "token"

    @property
    def numbered(self) -> bool:
        """Whether its public part is so many characters."""
        return self._size > 0

    def lookup(self, token: str) -> str | None:
        """Return the id under which a token's key is kept, or None where it is not of this format.

        Never raises, whatever the string.

        Args:
            token: The whole token.
        """
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            return None
        if self.has_public_part:
            public, secret = self.split(token)
            return self.id_of(public) if _B64TOKEN.match(secret) else None
        if not _B64TOKEN.match(token):
            return None
        if self._key is None:
            return self.id_of_digest(hashlib.sha256(token.encode()).digest())
        digest = hmac.digest(self._key.reveal().encode(), token.encode(), "sha256")
        return base62(digest[:16], ID_LENGTH)

    def split(self, token: str) -> tuple[str, str]:
        """Return a token's public part and its secret one, empty where there is none."""
        if self._size:
            return token[: self._size], token[self._size :]
        if self.name == "seam":  # whose own prefix may hold its separator
            public, _, secret = token.rpartition("_")
            return (public, secret) if "_" in public.strip("_") else ("", "")
        if self.separator:
            public, _, secret = token.partition(self.separator)
            return public, secret
        return "", token

    def id_of(self, public: str) -> str | None:
        """Return the id of the key whose token has this public part; None where it can be none."""
        if len(public) > _LONGEST_PUBLIC or not _PUBLIC.match(public.replace(".", "-")):
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

    def _id(self, part: bytes) -> str:
        digest = hashlib.sha256(_LABEL + self.name.encode() + b"\0" + part).digest()
        return base62(digest[:16], ID_LENGTH)

    def __repr__(self) -> str:
        return f"ForeignFormat({self.name!r}{', keyed' if self.keyed else ''})"


def read_formats(names: Iterable[str], *, keys: Sequence[Secret] = ()) -> tuple[ForeignFormat, ...]:
    """Return formats by name, in the order in which a token is tried as one of them.

    Args:
        names: Their names, see :class:`ForeignFormat`.
        keys: What the peppers give to make ids under, the newest first. With the format ``token``
            each gives one more, which is tried before it: tokens that can be guessed are found
            under the first of them.

    Raises:
        InvalidValueError: One is none, or is named twice.
    """
    given: Any = names  # what callers pass is anything
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidValueError("imported_formats takes a list of formats, such as ['drf']")
    found: list[ForeignFormat] = []
    for name in names:
        if any(one.name == name for one in found):
            raise InvalidValueError(f"imported_formats names {name!r} twice")
        if name == "token":
            # A token that can be guessed is found before its fast hash is asked for.
            found += [ForeignFormat(name, key) for key in keys]
        found.append(ForeignFormat(name))
    return tuple(found)
