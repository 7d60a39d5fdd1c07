"""How keyguard stores tokens: digest schemes and the pepper ring.

A generated token carries 256 random bits, so one approved hash is enough (NIST SP 800-63B, section
5.1.2.2 asks for more only below 112 bits): HMAC-SHA-256 under a pepper that lives outside the
database, or plain SHA-256 if no pepper is set. A service can choose Argon2id (RFC 9106, OWASP
parameters) for all keys; an imported token of less than 112 bits always gets it. The stored form
names its scheme, so schemes and peppers change without invalidating keys.

    $hmac-sha256$<pepper id>$<digest>      $sha256$<digest>      $argon2id$v=19$m=...$salt$digest

Digests that other systems made verify as they are, until the next use of the key replaces them:

    $sha512$<digest>      $sha256-tail$<separator>$<digest of what follows it>
    $argon2i$...          $argon2d$...          $2a$, $2b$, $2y$ (bcrypt)

This is the only place where secrets are compared, always in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import argon2

from keyguard.core.tokens.foreign import (
    LARGEST_BCRYPT_COST,
    MOST_ARGON2,
    ForeignFormat,
    is_guessable,
)
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    ConfigurationError,
    CorruptDataError,
    InvalidValueError,
    MissingExtraError,
    StoreError,
    StoreUnavailableError,
    shown,
)

if TYPE_CHECKING:
    from keyguard.settings.peppers import Pepper

SCHEMES = ("hmac-sha256", "sha256", "argon2id")

# OWASP Password Storage Cheat Sheet, Argon2id
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_NOTHING = bytes(32)
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}(?:[A-Za-z0-9_-]{43})?\Z")  # of 32 bytes, or of 64
_SLOW = ("$argon2", "$2")
_BCRYPT = r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}\Z"
_BCRYPT_READS = 72  # bytes; bcrypt ignores the rest


def scheme_of(digest: str) -> str:
    """Return the scheme of a stored form, for people to read.

    Returns:
        The scheme, with the id of its pepper if it uses one (``hmac-sha256:1a2b3c4d``);
        ``unknown`` for a text that keyguard did not store.
    """
    match digest.split("$"):
        case ["", "hmac-sha256", pepper_id, _]:
            return f"hmac-sha256:{pepper_id}"
        case ["", "sha256" | "sha512" | "argon2id" | "argon2i" | "argon2d" as scheme, *_]:
            return scheme
        case ["", "sha256-tail", *_]:
            return "sha256"
        case ["", "2a" | "2b" | "2y", *_]:
            return "bcrypt"
        case _:
            return "unknown"


def read_peppers(peppers: Iterable[object]) -> tuple[Secret, ...]:
    """Return the pepper ring as secrets.

    Raises:
        InvalidValueError: The ring is no list, or holds something other than secrets and strings.
    """
    if isinstance(peppers, str | Secret) or not isinstance(peppers, Iterable):
        raise InvalidValueError("peppers are a list, the newest first")
    return tuple(map(_as_secret, peppers))


def _as_secret(pepper: object) -> Secret:
    if not isinstance(pepper, Secret | str):
        raise InvalidValueError(f"a pepper is a Secret or a string, not a {type(pepper).__name__}")
    return pepper if isinstance(pepper, Secret) else Secret(pepper)


class TokenHasher:
    """Hashes tokens under the current scheme and verifies them under any.

    Args:
        scheme: One of :data:`SCHEMES`; None means ``hmac-sha256`` if there is a pepper, otherwise
            ``sha256``.
        peppers: The ring, newest first: the first hashes, all verify.
        formats: The formats of imported tokens, by which the secret part of a token is found.

    Raises:
        InvalidValueError: A pepper is short, weak or given twice; the scheme is unknown.
        ConfigurationError: ``hmac-sha256`` is chosen without a pepper.
    """

    def __init__(
        self,
        scheme: str | None = None,
        peppers: Sequence[Secret] = (),
        formats: Sequence[ForeignFormat] = (),
    ) -> None:
        ring: list[Pepper] = []
        if peppers:
            from keyguard.settings.peppers import Pepper

            ring = [Pepper(pepper) for pepper in peppers]
        self._ring = {pepper.id: pepper for pepper in ring}
        if len(self._ring) < len(ring):
            raise InvalidValueError("a pepper is given twice")
        self._current = ring[0] if ring else None
        self._formats = formats
        self.scheme = ("hmac-sha256" if ring else "sha256") if scheme is None else scheme
        if self.scheme not in SCHEMES:
            raise InvalidValueError(
                f"unknown hasher {shown(scheme)}; use one of: {', '.join(SCHEMES)}"
            )
        if self.scheme == "hmac-sha256" and not ring:
            raise ConfigurationError("hasher 'hmac-sha256' needs a pepper: set KEYGUARD_PEPPER")
        self.hashes_slowly = self.scheme == "argon2id"
        """Whether hashing a new token takes a slow hash."""
        self.pepper_ids = tuple(self._ring)
        """The ids under which stored forms name the peppers of the ring, newest first."""
        self.current = self.scheme
        """The scheme of a new token's stored form, as :func:`scheme_of` names it."""
        if self.scheme == "hmac-sha256":
            self.current += f":{self.pepper_ids[0]}"

    def is_slow(self, digest: str | None) -> bool:
        """Return whether verifying against a stored form takes a slow hash.

        None stands for an unknown key: keyguard never computes a slow hash for one.
        """
        return digest is not None and digest.startswith(_SLOW)

    def is_outdated(self, token: Secret, digest: str) -> bool:
        """Return whether :meth:`rehash` would give a better stored form than this one.

        Args:
            token: The token, which matched.
            digest: Its stored form.
        """
        match digest.split("$"):
            case ["", "argon2id", *_]:
                return _asks_for_less(digest) or not self.rehashes_slowly(token)
            case ["", "hmac-sha256", pepper_id, _]:
                return self.current != f"hmac-sha256:{pepper_id}"
            case ["", "sha256", _]:
                return self.current != "sha256"
            case _:
                return True

    def hash(self, token: Secret) -> str:
        """Return the form in which to store a token."""
        if self.hashes_slowly:
            return self.hash_slowly(token)
        if self._current is not None and self.scheme == "hmac-sha256":
            return f"$hmac-sha256${self._current.id}${_encode(self._current.digest(token))}"
        return f"$sha256${_encode(_sha256(token))}"

    def hash_slowly(self, token: Secret) -> str:
        """Return the form in which to store a token of less than 112 bits: Argon2id always."""
        with suppress(argon2.exceptions.HashingError, MemoryError):
            return _ARGON2.hash(token.reveal().encode())
        raise _no_memory()

    def rehash(self, token: Secret) -> str:
        """Return the form that replaces an outdated one.

        Args:
            token: The token, which matched.
        """
        return self.hash_slowly(token) if self.rehashes_slowly(token) else self.hash(token)

    def rehashes_slowly(self, token: Secret) -> bool:
        """Return whether :meth:`rehash` takes a slow hash."""
        return self.hashes_slowly or is_guessable(token, self._formats)

    def verify(self, token: Secret, digest: str | None) -> bool:
        """Return whether a stored form belongs to a token.

        Args:
            token: The token as the client sent it.
            digest: The stored form, or None for an unknown key: the answer is False then, after
                the work of the current scheme's fast hash.

        Raises:
            CorruptDataError: The stored form is damaged, or names a scheme that keyguard does not
                know or a pepper that is not in the ring.
            MissingExtraError: The stored form is bcrypt's, and that package is not installed.
        """
        if digest is None:
            computed = self._current.digest(token) if self._current else _sha256(token)
            hmac.compare_digest(computed, _NOTHING)
            return False
        match digest.split("$"):
            case ["", "sha256", value]:
                return hmac.compare_digest(_decode(value), _sha256(token))
            case ["", "hmac-sha256", pepper_id, value]:
                if pepper_id not in self._ring:
                    raise CorruptDataError(
                        f"a stored digest needs the pepper {pepper_id!r}, which this process does "
                        "not have: add it to KEYGUARD_PEPPER, or to the file that "
                        "KEYGUARD_PEPPER_FILE names; Settings.from_env() reads them"
                    )
                return hmac.compare_digest(_decode(value), self._ring[pepper_id].digest(token))
            case ["", "argon2id" | "argon2i" | "argon2d", *_]:
                return _verify_argon2(token, digest)
            case ["", "sha512", value]:
                computed = hashlib.sha512(token.reveal().encode()).digest()
                return hmac.compare_digest(_decode(value), computed)
            case ["", "sha256-tail", "|" | "_" as separator, value]:
                return hmac.compare_digest(_decode(value), _sha256(_tail(token, separator)))
            case ["", "2a" | "2b" | "2y", *_]:
                return _verify_bcrypt(token, digest)
            case _:
                raise CorruptDataError("a stored digest names no scheme that keyguard knows")


# The functions below reveal a token only inside the expression that hashes it: a local variable
# would show in the traceback of an error. The frames of argon2 and bcrypt hold the token, so their
# errors become neither the cause nor the context of ours: we raise ours once theirs is handled.


def _sha256(token: Secret) -> bytes:
    return hashlib.sha256(token.reveal().encode()).digest()


def _tail(token: Secret, separator: str) -> Secret:
    """Return the part after the first ``|``, or after the last ``_``."""
    if separator == "|":
        return Secret(token.reveal().partition(separator)[2])
    return Secret(token.reveal().rpartition(separator)[2])


def _asks_for_less(digest: str) -> bool:
    try:
        return _ARGON2.check_needs_rehash(digest)
    except argon2.exceptions.InvalidHashError:
        return True


def _verify_bcrypt(token: Secret, digest: str) -> bool:
    stored = re.match(_BCRYPT, digest)
    if stored is None:
        raise _damaged()
    if int(stored[1]) > LARGEST_BCRYPT_COST:
        raise CorruptDataError("a stored bcrypt digest asks for more work than is allowed")
    try:
        bcrypt = import_module("bcrypt")
    except ImportError:
        raise MissingExtraError("a key that was imported with its bcrypt hash", "bcrypt") from None
    with suppress(ValueError):
        return bool(bcrypt.checkpw(token.reveal().encode()[:_BCRYPT_READS], digest.encode()))
    raise _damaged()


def _verify_argon2(token: Secret, digest: str) -> bool:
    try:
        stored = argon2.extract_parameters(digest)
    except argon2.exceptions.InvalidHashError:
        raise _damaged() from None
    if any(getattr(stored, name) > most for name, most in MOST_ARGON2.items()):
        raise CorruptDataError("a stored argon2 digest asks for more work than is allowed")
    problem: StoreError
    try:
        return _ARGON2.verify(digest, token.reveal().encode())
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.Argon2Error, argon2.exceptions.InvalidHashError):
        problem = _damaged()
    except MemoryError:
        problem = _no_memory()
    raise problem


def _encode(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _decode(value: str) -> bytes:
    if not _DIGEST.match(value):
        raise _damaged()
    # As base64.urlsafe_b64decode does it, in half the time: every look-up needs it.
    padded = value + "=" * (-len(value) % 4)
    return a2b_base64(padded.replace("-", "+").replace("_", "/"))


def _no_memory() -> StoreUnavailableError:
    return StoreUnavailableError("there is not enough memory for a slow hash now; try again later")


def _damaged() -> CorruptDataError:
    return CorruptDataError("a stored digest is damaged")
