"""How tokens are stored: digest schemes and the pepper ring.

A generated token carries 256 random bits, so one approved hash is enough (NIST SP 800-63B, section
5.1.2.2 asks for more only below 112 bits): HMAC-SHA-256 under a pepper that lives outside the
database, plain SHA-256 where no pepper is set. Argon2id (RFC 9106, OWASP parameters) can be chosen.
The stored form names its scheme, so schemes and peppers change without invalidating keys.

    $hmac-sha256$<pepper id>$<digest>      $sha256$<digest>      $argon2id$v=19$m=...$salt$digest

This is the only place where secrets are compared, always in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import argon2

from keyguard.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    CorruptDataError,
    InvalidValueError,
)
from keyguard.sansio.secret import Secret

__all__ = ["SCHEMES", "TokenHasher", "parse_peppers", "scheme_of"]

SCHEMES = ("hmac-sha256", "sha256", "argon2id")

_SHORTEST_PEPPER = 32
_FEWEST_DISTINCT_BYTES = 8
_PLACEHOLDER = re.compile(
    rb"change.?me|example|pepper|secret|password|your.?(key|own)|0123456789abcdef", re.I
)

# OWASP Password Storage Cheat Sheet, Argon2id
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MOST_ARGON2 = {"time_cost": 16, "memory_cost": 256 * 1024, "parallelism": 8}
_NOTHING = bytes(32)
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}\Z")


def scheme_of(digest: str) -> str:
    """Return what a stored form hangs on, for people to read.

    Returns:
        The scheme, with a pepper's id where it takes one (``hmac-sha256:1a2b3c4d``); ``unknown``
        for what keyguard did not store.
    """
    match digest.split("$"):
        case ["", "hmac-sha256", pepper_id, _]:
            return f"hmac-sha256:{pepper_id}"
        case ["", "sha256" | "argon2id" as scheme, *_]:
            return scheme
        case _:
            return "unknown"


class _Pepper:
    """One pepper and the id under which stored digests name it."""

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
        return hmac.digest(self._value.reveal().encode(), token.reveal().encode(), "sha256")


def _weakness(pepper: bytes) -> str | None:
    if len(pepper) < _SHORTEST_PEPPER:
        return f"a pepper takes at least {_SHORTEST_PEPPER} random bytes, not {len(pepper)}"
    if (
        len(set(pepper)) < _FEWEST_DISTINCT_BYTES
        or (pepper + pepper).find(pepper, 1) < len(pepper)
        or _PLACEHOLDER.search(pepper)
    ):
        return "this pepper is a placeholder or a pattern, not random"
    return None


def parse_peppers(text: str) -> tuple[Secret, ...]:
    """Read a pepper ring: peppers separated by white space or commas, the newest first."""
    return tuple(Secret(pepper) for pepper in re.split(r"[\s,]+", text) if pepper)


class TokenHasher:
    """Hashes tokens under the current scheme and verifies them under any.

    Args:
        scheme: One of :data:`SCHEMES`; None for ``hmac-sha256`` where there is a pepper, else
            ``sha256``.
        peppers: The ring, newest first: the first hashes, all verify.

    Raises:
        InvalidValueError: A pepper is short, weak or given twice; the scheme is unknown.
        ConfigurationError: ``hmac-sha256`` is chosen without a pepper.
    """

    def __init__(self, scheme: str | None = None, peppers: Sequence[Secret] = ()) -> None:
        ring = [_Pepper(pepper) for pepper in peppers]
        self._ring = {pepper.id: pepper for pepper in ring}
        if len(self._ring) < len(ring):
            raise InvalidValueError("a pepper is given twice")
        self._current = ring[0] if ring else None
        self.scheme = scheme or ("hmac-sha256" if ring else "sha256")
        if self.scheme not in SCHEMES:
            raise InvalidValueError(f"unknown hasher {scheme!r}; there are: {', '.join(SCHEMES)}")
        if self.scheme == "hmac-sha256" and not ring:
            raise ConfigurationError("hasher 'hmac-sha256' needs a pepper: set KEYGUARD_PEPPER")

    @property
    def hashes_slowly(self) -> bool:
        """Whether hashing a new token takes a slow hash."""
        return self.scheme == "argon2id"

    @property
    def pepper_ids(self) -> tuple[str, ...]:
        """The ids under which stored forms name the peppers of the ring, the newest first."""
        return tuple(self._ring)

    @property
    def current(self) -> str:
        """What a new token's stored form hangs on, as :func:`scheme_of` says it."""
        if self._current is not None and self.scheme == "hmac-sha256":
            return f"hmac-sha256:{self._current.id}"
        return self.scheme

    def is_outdated(self, digest: str) -> bool:
        """Tell whether a genuine token would be stored in another form now."""
        return not digest.startswith(f"${self.scheme}$")

    def is_slow(self, digest: str | None) -> bool:
        """Tell whether verifying against a stored form takes a slow hash.

        None stands for an unknown key, for which no slow hash is ever computed.
        """
        return digest is not None and digest.startswith("$argon2")

    def hash(self, token: Secret) -> str:
        """Return the form in which a token is stored."""
        if self.hashes_slowly:
            return _hash_argon2(token)
        if self._current is not None and self.scheme == "hmac-sha256":
            return f"$hmac-sha256${self._current.id}${_encode(self._current.digest(token))}"
        return f"$sha256${_encode(_sha256(token))}"

    def verify(self, token: Secret, digest: str | None) -> bool:
        """Tell whether a token is the one behind a stored form.

        Args:
            token: The token as it was sent.
            digest: The stored form, or None for an unknown key: the answer is False then, after
                the work that the current scheme's fast hash takes.

        Raises:
            CorruptDataError: The stored form is none, or names a pepper that is not in the ring.
        """
        match digest.split("$") if digest is not None else None:
            case None:
                computed = self._current.digest(token) if self._current else _sha256(token)
                hmac.compare_digest(computed, _NOTHING)
                return False
            case ["", "sha256", value]:
                return hmac.compare_digest(_decode(value), _sha256(token))
            case ["", "hmac-sha256", pepper_id, value]:
                return hmac.compare_digest(_decode(value), self._pepper(pepper_id).digest(token))
            case ["", "argon2id", *_]:
                return _verify_argon2(token, str(digest))
            case _:
                raise CorruptDataError("a stored digest names no scheme that keyguard knows")

    def _pepper(self, pepper_id: str) -> _Pepper:
        try:
            return self._ring[pepper_id]
        except KeyError:
            raise CorruptDataError(
                f"a stored digest needs the pepper {pepper_id!r}, which this process does not "
                "have: add it to KEYGUARD_PEPPER"
            ) from None


# The functions below reveal a token only inside the expression that hashes it: a local variable
# would show in the traceback of whatever goes wrong. Argon2's own frames hold it, so its errors do
# not become a cause.


def _sha256(token: Secret) -> bytes:
    return hashlib.sha256(token.reveal().encode()).digest()


def _hash_argon2(token: Secret) -> str:
    try:
        return _ARGON2.hash(token.reveal().encode())
    except (argon2.exceptions.HashingError, MemoryError):
        raise BackendUnavailableError("there is no memory for a slow hash now") from None


def _verify_argon2(token: Secret, digest: str) -> bool:
    try:
        stored = argon2.extract_parameters(digest)
    except argon2.exceptions.InvalidHashError:
        raise _damaged() from None
    if any(getattr(stored, name) > most for name, most in _MOST_ARGON2.items()):
        raise CorruptDataError("a stored argon2 digest asks for more work than is allowed")
    try:
        return _ARGON2.verify(digest, token.reveal().encode())
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.Argon2Error, argon2.exceptions.InvalidHashError):
        raise _damaged() from None
    except MemoryError:
        raise BackendUnavailableError("there is no memory for a slow hash now") from None


def _encode(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _decode(value: str) -> bytes:
    if not _DIGEST.match(value):
        raise _damaged()
    return urlsafe_b64decode(value + "=")


def _damaged() -> CorruptDataError:
    return CorruptDataError("a stored digest is damaged")
