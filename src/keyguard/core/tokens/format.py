"""Tokens: ``<prefix>_<id>_<secret><checksum>``.

A double click selects the whole token (base62 and ``_``), and it is a legal RFC 6750 b64token. The
checksum refuses typing errors and random guesses before any hash or look-up; it is not secret and
proves nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from zlib import crc32

from keyguard.core.tokens.secret import Secret
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError, shown

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 16
SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
CHECKSUM_LENGTH = 6  # 62 ** 6 > 2 ** 32
ENTROPY_SIZE = 16 + 32
"""Random bytes for each token: 16 for the id, 32 for the secret."""

KEY_ID = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}\Z")
_PREFIX = r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z"
_LONGEST_PREFIX = 32


def base62(data: bytes, length: int) -> str:
    """Write bytes, read as a big-endian number modulo ``62 ** length``, in base62.

    Args:
        data: Random bytes. With 16 bits more than ``length`` digits hold, no bias can be measured;
            an exact fit (256 bits in 43 digits) has no bias.
        length: How many digits to return, zero-padded.
    """
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenParts(Value):
    """The parts of a well-formed token.

    Args:
        key_id: The public part, by which a store finds the key.
        secret: The random part.
    """

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def draw(cls, entropy: bytes) -> TokenParts:
        """Return new parts, made from :data:`ENTROPY_SIZE` random bytes."""
        if len(entropy) != ENTROPY_SIZE:
            raise InvalidValueError(f"a token takes {ENTROPY_SIZE} random bytes")
        return cls(base62(entropy[:16], ID_LENGTH), base62(entropy[16:], SECRET_LENGTH))


class TokenFormat:
    """The token format of a service.

    Args:
        prefix: The start of every token, such as ``aiaas_live``: lower-case words joined by ``_``,
            at most 32 characters.

    Raises:
        InvalidValueError: The prefix does not have that form.
    """

    __slots__ = ("_anywhere", "_pattern", "length", "prefix")

    def __init__(self, prefix: str) -> None:
        if (
            not isinstance(prefix, str)
            or not re.match(_PREFIX, prefix)
            or len(prefix) > _LONGEST_PREFIX
        ):
            raise InvalidValueError(
                f"{shown(prefix)} is not a valid token prefix: use lower-case letters and digits, "
                f"words joined by '_', a letter first, at most {_LONGEST_PREFIX} characters, as in "
                "'acme_live'"
            )
        self.prefix = prefix
        self.length = len(prefix) + ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH + 2
        self._pattern = re.compile(
            rf"{prefix}_([0-9A-Za-z]{{{ID_LENGTH}}})_"
            rf"([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})\Z"
        )
        self._anywhere = re.compile(self._pattern.pattern.removesuffix(r"\Z"))

    @property
    def regex(self) -> str:
        """A regular expression that finds leaked tokens of this service in any text."""
        return self._pattern.pattern.replace("(", "").replace(")", "").replace(r"\Z", r"\b")

    def mint(self, parts: TokenParts) -> Secret:
        """Return the token with these parts."""
        body = f"{self.prefix}_{parts.key_id}_{parts.secret}"
        return Secret(body + _checksum(body))

    def draw(self, entropy: bytes) -> tuple[str, Secret]:
        """Return the public part of a new token, and the token.

        Args:
            entropy: :data:`ENTROPY_SIZE` random bytes.
        """
        parts = TokenParts.draw(entropy)
        return parts.key_id, self.mint(parts)

    def is_in(self, text: str) -> bool:
        """Return whether a text holds a token of this service, by its checksum."""
        return any(self.parse(found[0]) is not None for found in self._anywhere.finditer(text))

    def parse(self, token: str) -> TokenParts | None:
        """Return the parts of a token, or None if prefix, length, alphabet or checksum is wrong.

        This never raises, whatever the string.
        """
        if len(token) != self.length:
            return None
        match = self._pattern.match(token)
        if match is None or _checksum(token[:-CHECKSUM_LENGTH]) != match[3]:
            return None
        return TokenParts(match[1], match[2])


_BODY = (
    rf"_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}(?![0-9A-Za-z])"
)


def holds_token(text: str) -> bool:
    """Return whether a text holds a token or a ticket of any service, by its checksum."""
    for body in re.finditer(_BODY, text):
        end = body.end() - CHECKSUM_LENGTH
        for start in range(max(0, body.start() - _LONGEST_PREFIX), body.start()):
            if text[start:end].isascii() and _checksum(text[start:end]) == text[end : body.end()]:
                return True
    return False


_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]


def _checksum(body: str) -> str:
    """Return the CRC-32 in base62, two digits at a time: every request needs it."""
    rest, last = divmod(crc32(body.encode("ascii")), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]
