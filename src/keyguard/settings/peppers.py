"""Peppers: the keys, kept outside the database, under which tokens are hashed.

This module refuses the peppers that an attacker would try first: short ones, patterns, words,
placeholders, and examples from documentation, also if they are encoded in hex or base64.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode
from itertools import pairwise

from keyguard.core.tokens.foreign import FEWEST_BITS, most_bits
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError

_SHORTEST_PEPPER = 32
_FEWEST_DISTINCT_BYTES = 8
_PLACEHOLDER = (
    rb"change.?(me|it|this)|example|insecure|pepper|secret|passw|placeholder|your.?(key|own)"
    rb"|lorem.?ipsum|0123456789|9876543210|abcdefghij|qwerty"
)
# Example secrets from the documentation of Python, Flask and FastAPI, by their SHA-256.
_PUBLISHED = frozenset(
    {
        "2598f7d6adc142d8",
        "570dad43de1af4c9",
        "ae15cc9715cd3ee8",
        "b7aa5c72dc85d24e",
        "d676ab3a5cf0a335",
        "f011b9ea0b25d86a",
    }
)
# Words as people write them; a random text without any digit has shorter runs of one case.
_WORD = r"[A-Z]?[a-z]+|[A-Z]+"
_SHORTEST_WORDS = 4  # letters, on average; one random pepper in a million has such runs


class Pepper:
    """One pepper and the id under which stored digests name it.

    Args:
        value: The pepper, at least 32 random bytes.

    Raises:
        InvalidValueError: The pepper is short, a pattern, a placeholder, or a published example.
    """

    __slots__ = ("_value", "id")

    def __init__(self, value: Secret) -> None:
        weakness = _weakness(value.reveal().encode())
        if weakness is not None:
            raise InvalidValueError(
                f"{weakness}. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        self._value = value
        name = hashlib.sha256(b"keyguard pepper id\0" + value.reveal().encode()).hexdigest()
        self.id = name[:8]

    def digest(self, token: Secret) -> bytes:
        """Return the HMAC of a token."""
        return hmac.digest(self._value.reveal().encode(), token.reveal().encode(), "sha256")


def _weakness(pepper: bytes) -> str | None:
    if len(pepper) < _SHORTEST_PEPPER:
        return f"a pepper takes at least {_SHORTEST_PEPPER} random bytes, not {len(pepper)}"
    if any(_is_made_up(reading) for reading in _readings(pepper)):
        return "this pepper is a placeholder or a pattern, not random"
    if hashlib.sha256(pepper).hexdigest()[:16] in _PUBLISHED:
        return "this pepper is an example from published documentation, which everybody knows"
    return None


def _readings(pepper: bytes) -> list[bytes]:
    """Return a pepper as it is, and as decoded from hex and from base64 if it is either."""
    readings = [pepper]
    for decode in (bytes.fromhex, _unbase64):
        try:
            readings.append(decode(pepper.decode()))
        except ValueError:
            continue
    return readings


def _unbase64(text: str) -> bytes:
    bare = text.rstrip("=").replace("+", "-").replace("/", "_")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", bare):
        raise ValueError
    return urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


def _is_made_up(pepper: bytes) -> bool:
    if len(set(pepper)) < _FEWEST_DISTINCT_BYTES or re.search(_PLACEHOLDER, pepper, re.IGNORECASE):
        return True
    if pepper.isascii() and (
        most_bits(pepper.decode()) < FEWEST_BITS or _is_worded(pepper.decode())
    ):
        return True
    if any(pepper[size:].startswith(pepper[:-size]) for size in range(1, len(pepper) // 2 + 1)):
        return True  # it repeats one block
    steps = [(after - before) % 256 for before, after in pairwise(pepper)]
    return max(map(steps.count, set(steps))) > len(steps) // 2


def _is_worded(pepper: str) -> bool:
    words = re.findall(_WORD, pepper)
    return not any(map(str.isdigit, pepper)) and len("".join(words)) >= _SHORTEST_WORDS * len(words)
