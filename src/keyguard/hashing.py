"""How tokens are stored: digest schemes and the pepper ring.

A generated token carries 256 random bits, so one approved hash is enough (NIST SP 800-63B, section
5.1.2.2 asks for more only below 112 bits): HMAC-SHA-256 under a pepper that lives outside the
database, plain SHA-256 where no pepper is set. Argon2id (RFC 9106, OWASP parameters) can be chosen.
The stored form names its scheme, so schemes and peppers change without invalidating keys.

    $hmac-sha256$<pepper id>$<digest>      $sha256$<digest>      $argon2id$v=19$m=...$salt$digest

This is the only place where secrets are compared, always in constant time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

from keyguard.deadlines import remaining
from keyguard.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    CorruptDataError,
    InvalidValueError,
)
from keyguard.sansio.secret import Secret

__all__ = ["SCHEMES", "HashPool", "TokenHasher", "parse_peppers"]

SCHEMES = ("hmac-sha256", "sha256", "argon2id")

T = TypeVar("T")

_SHORTEST_PEPPER = 32
_FEWEST_DISTINCT_BYTES = 8
_PLACEHOLDER = re.compile(
    rb"change.?me|example|pepper|secret|password|your.?(key|own)|0123456789abcdef", re.I
)

# OWASP Password Storage Cheat Sheet, Argon2id
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MOST_ARGON2 = {"time_cost": 16, "memory_cost": 256 * 1024, "parallelism": 8}
_NOTHING = bytes(32)


class _Pepper:
    """One pepper and the id under which stored digests name it."""

    __slots__ = ("_value", "id")

    def __init__(self, value: Secret) -> None:
        raw = value.reveal().encode()
        if len(raw) < _SHORTEST_PEPPER:
            raise InvalidValueError(
                f"a pepper takes at least {_SHORTEST_PEPPER} random bytes; this one has "
                f"{len(raw)}. Make one with: python -c 'import secrets; "
                "print(secrets.token_urlsafe(48))'"
            )
        if (
            len(set(raw)) < _FEWEST_DISTINCT_BYTES
            or (raw + raw).find(raw, 1) < len(raw)
            or _PLACEHOLDER.search(raw)
        ):
            raise InvalidValueError(
                "this pepper is a placeholder or a pattern, not random. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        self._value = value
        self.id = hashlib.sha256(b"keyguard pepper id\0" + raw).hexdigest()[:8]

    def digest(self, token: bytes) -> bytes:
        return hmac.digest(self._value.reveal().encode(), token, "sha256")


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

    def is_slow(self, digest: str | None) -> bool:
        """Tell whether verifying against a stored form takes a slow hash.

        None stands for an unknown key, for which no slow hash is ever computed.
        """
        return digest is not None and digest.startswith("$argon2")

    def hash(self, token: Secret) -> str:
        """Return the form in which a token is stored."""
        raw = token.reveal().encode()
        if self.hashes_slowly:
            return _ARGON2.hash(raw)
        if self._current is not None and self.scheme == "hmac-sha256":
            return f"$hmac-sha256${self._current.id}${_encode(self._current.digest(raw))}"
        return f"$sha256${_encode(hashlib.sha256(raw).digest())}"

    def verify(self, token: Secret, digest: str | None) -> bool:
        """Tell whether a token is the one behind a stored form.

        Args:
            token: The token as it was sent.
            digest: The stored form, or None for an unknown key: the answer is False then, after
                the work that the current scheme's fast hash takes.

        Raises:
            CorruptDataError: The stored form is none, or names a pepper that is not in the ring.
        """
        raw = token.reveal().encode()
        match digest.split("$") if digest is not None else None:
            case None:
                computed = (
                    self._current.digest(raw) if self._current else hashlib.sha256(raw).digest()
                )
                hmac.compare_digest(computed, _NOTHING)
                return False
            case ["", "sha256", value]:
                return hmac.compare_digest(hashlib.sha256(raw).digest(), _decode(value))
            case ["", "hmac-sha256", pepper_id, value]:
                return hmac.compare_digest(self._pepper(pepper_id).digest(raw), _decode(value))
            case ["", "argon2id", *_]:
                return _verify_argon2(raw, str(digest))
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


def _verify_argon2(raw: bytes, digest: str) -> bool:
    try:
        stored = argon2.extract_parameters(digest)
        if any(getattr(stored, name) > most for name, most in _MOST_ARGON2.items()):
            raise CorruptDataError("a stored argon2 digest asks for more work than is allowed")
        return _ARGON2.verify(digest, raw)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.Argon2Error, argon2.exceptions.InvalidHashError) as broken:
        raise CorruptDataError("a stored argon2 digest is damaged") from broken


def _encode(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _decode(value: str) -> bytes:
    try:
        return urlsafe_b64decode(value + "=")
    except ValueError:
        raise CorruptDataError("a stored digest is damaged") from None


class HashPool:
    """Bounds how many slow hashes run and wait at once, and keeps them off the event loop.

    Args:
        workers: How many run at once, in this process.
        waiting: How many more may wait; what comes above is refused at once.
        patience: Seconds that a waiting sync caller waits at the most.
    """

    def __init__(self, *, workers: int, waiting: int, patience: float = 1.0) -> None:
        self._workers = workers
        self._patience = patience
        self._admitted = threading.BoundedSemaphore(workers + waiting)
        self._running = threading.BoundedSemaphore(workers)
        self._executor: ThreadPoolExecutor | None = None
        self._executor_pid = 0

    def run(self, job: Callable[[], T]) -> T:
        """Run a job in this thread, when its turn comes.

        Raises:
            BackendUnavailableError: Too many run or wait already.
        """
        self._admit()
        try:
            left = remaining()
            if not self._running.acquire(timeout=self._patience if left is None else left):
                raise _overloaded()
            try:
                return job()
            finally:
                self._running.release()
        finally:
            self._admitted.release()

    async def arun(self, job: Callable[[], T]) -> T:
        """Run a job on a worker thread.

        Raises:
            BackendUnavailableError: Too many run or wait already.
            ConfigurationError: The event loop is not asyncio's.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "hasher 'argon2id' needs asyncio; under trio use the default hasher"
            ) from None
        self._admit()
        try:
            future = self._threads().submit(job)
        except BaseException:
            self._admitted.release()
            raise
        future.add_done_callback(lambda _: self._admitted.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop the worker threads once they are done."""
        if self._executor is not None and self._executor_pid == os.getpid():
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None

    def _admit(self) -> None:
        if not self._admitted.acquire(blocking=False):
            raise _overloaded()

    def _threads(self) -> ThreadPoolExecutor:
        if self._executor is None or self._executor_pid != os.getpid():  # a fork has no threads
            self._executor = ThreadPoolExecutor(self._workers, "keyguard-hash")
            self._executor_pid = os.getpid()
        return self._executor


def _overloaded() -> BackendUnavailableError:
    return BackendUnavailableError("too many slow hashes are under way; try again shortly")
