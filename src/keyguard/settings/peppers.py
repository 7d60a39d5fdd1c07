"""Peppers: the keys, kept outside the database, under which tokens are hashed.

What is refused here is what anybody could try first: short ones, patterns, words, placeholders, and
examples of documentation; also where they hide in hex or base64.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode
from itertools import pairwise

from keyguard.core.tokens.secret import Secret
from keyguard.core.tokens.strength import is_weak
from keyguard.exceptions import InvalidValueError

__all__ = ["Pepper", "parse_peppers"]

_SHORTEST_PEPPER = 32
_FEWEST_DISTINCT_BYTES = 8
_PLACEHOLDER = re.compile(
    rb"change.?(me|it|this)|example|insecure|pepper|secret|passw|placeholder|your.?(key|own)"
    rb"|lorem.?ipsum|0123456789|9876543210|abcdefghij|qwerty",
    re.I,
)
# What documentation shows where a secret belongs, by SHA-256: that of Python's secrets and uuid,
# Flask and FastAPI.
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
_LOOKUP_KEY = b"keyguard ids of imported tokens"


class Pepper:
    """One pepper and the id under which stored digests name it.

    Args:
        value: The pepper, at least 32 random bytes.

    Raises:
        InvalidValueError: It is short, a pattern or a placeholder, or somebody's example.
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

    def lookup_key(self) -> Secret:
        """Return what the ids of imported tokens that can be guessed are made under."""
        return Secret(hmac.digest(self._value.reveal().encode(), _LOOKUP_KEY, "sha256").hex())


def _weakness(pepper: bytes) -> str | None:
    if len(pepper) < _SHORTEST_PEPPER:
        return f"a pepper takes at least {_SHORTEST_PEPPER} random bytes, not {len(pepper)}"
    if any(_is_made_up(reading) for reading in _readings(pepper)):
        return "this pepper is a placeholder or a pattern, not random"
    if hashlib.sha256(pepper).hexdigest()[:16] in _PUBLISHED:
        return "this pepper is an example from somebody's documentation, which everybody knows"
    return None


def _readings(pepper: bytes) -> list[bytes]:
    """Return a pepper as it is, and what it is the hex or base64 of."""
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
    if len(set(pepper)) < _FEWEST_DISTINCT_BYTES or _PLACEHOLDER.search(pepper):
        return True
    if pepper.isascii() and is_weak(Secret(pepper.decode())):
        return True
    if any(pepper[size:].startswith(pepper[:-size]) for size in range(1, len(pepper) // 2 + 1)):
        return True  # one block, again and again
    steps = [(after - before) % 256 for before, after in pairwise(pepper)]
    return max(map(steps.count, set(steps))) > len(steps) // 2


def parse_peppers(text: str) -> tuple[Secret, ...]:
    """Read a pepper ring: peppers separated by white space or commas, the newest first."""
    return tuple(Secret(pepper) for pepper in re.split(r"[\s,]+", text) if pepper)
