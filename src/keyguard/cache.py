"""The memory of verified tokens.

A token is remembered by the SHA-256 digest of ``Bearer <token>``, never itself, and only once it
was verified: unknown ones leave no trace, so a flood of them pushes nothing out. An entry carries
its key's times, which are checked on every hit, and is looked up again after ``max_staleness``.
What changes in this process is forgotten at once by all its guards, and a look-up that was under
way meanwhile is not believed.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from hashlib import sha256

from keyguard._process import Clock, after_fork
from keyguard.sansio.decisions import Allow
from keyguard.sansio.models import KeyRecord
from keyguard.sansio.secret import Secret
from keyguard.sansio.tokens import TokenFormat

__all__ = ["VerifiedTokens", "spelling"]

_SCHEME = "Bearer "
_FAR_PAST = float("-inf")
_FAR_FUTURE = float("inf")
_RECENT_CHANGES = 1024

# The one thing that guards share: ids are unique, so to forget too much is all it can do.
_memories: weakref.WeakValueDictionary[int, VerifiedTokens] = weakref.WeakValueDictionary()


@dataclass(slots=True)
class _Entry:
    allow: Allow
    digest: str  # the stored form that the token matched
    not_before: float
    expires_at: float
    fresh_until: float


class VerifiedTokens:
    """Remembers up to ``size`` verified tokens.

    Args:
        tokens: What the service's tokens look like.
        size: How many; 0 remembers none.
        max_staleness: Seconds for which an entry is believed.
        clock: Where time comes from.
    """

    def __init__(
        self, tokens: TokenFormat, *, size: int, max_staleness: float, clock: Clock
    ) -> None:
        self._field_start = f"{_SCHEME}{tokens.prefix}_".encode()
        self._field_length = len(_SCHEME) + tokens.length
        self._size = size
        self._max_staleness = max_staleness
        self._time = clock.time
        self._monotonic = clock.monotonic
        self._start_afresh()
        after_fork(self._start_afresh)
        _memories[id(self)] = self

    def _start_afresh(self) -> None:
        self._entries: dict[bytes, _Entry] = {}  # by token digest, oldest fill first
        self._held: dict[str, set[bytes]] = {}  # subject -> token digests
        self._changed: dict[str, int] = {}  # subject -> change number, oldest first
        self._change = 0
        self._lock = threading.Lock()

    def recall(self, field: bytes) -> Allow | None:
        """Return what an ``Authorization`` field was verified as lately.

        This is the warm path of every request. Neither transport nor scopes are in the answer.

        Args:
            field: The field value. Only the usual spelling, ``Bearer <token>``, is recognized, and
                only what has the length and prefix of one is hashed.

        Returns:
            The decision, or None where it must be taken.
        """
        if len(field) != self._field_length or not field.startswith(self._field_start):
            return None
        entry = self._entries.get(sha256(field).digest())
        if entry is not None and self._monotonic() < entry.fresh_until:  # noqa: SIM102
            if entry.not_before <= self._time() < entry.expires_at:
                return entry.allow
        return None

    def begin(self) -> tuple[int, float]:
        """Return the mark from which a look-up is judged; take it before looking."""
        return self._change, self._monotonic()

    def matched(self, token: Secret, digest: str) -> bool:
        """Tell whether a token is known to match a stored form, sparing the hash.

        The answer outlives the entry's freshness: a match of two constants never goes stale.
        """
        entry = self._entries.get(_name(token))
        return entry is not None and entry.digest == digest

    def knows(self, token: Secret) -> bool:
        """Tell whether a token is remembered, however stale."""
        return _name(token) in self._entries

    def remember(
        self, token: Secret, record: KeyRecord, allow: Allow, mark: tuple[int, float]
    ) -> bool:
        """Keep a verified token.

        Args:
            token: The token.
            record: What the look-up found.
            allow: What it is good for.
            mark: What :meth:`begin` returned before the look-up.

        Returns:
            False where the key or its organization changed since the mark: nothing is kept, and
            what was found must not be used.
        """
        key = record.key
        change, looked_at = mark
        entry = _Entry(
            allow=allow,
            digest=record.digest,
            not_before=key.not_before.timestamp() if key.not_before else _FAR_PAST,
            expires_at=key.expires_at.timestamp() if key.expires_at else _FAR_FUTURE,
            fresh_until=looked_at + self._max_staleness,
        )
        name = _name(token)
        with self._lock:
            if self._changed_since(change, key.id, key.organization):
                return False
            self._drop(name)
            if self._size:
                if len(self._entries) >= self._size:
                    self._drop(next(iter(self._entries)))
                self._entries[name] = entry
                for subject in (key.id, key.organization):
                    self._held.setdefault(subject, set()).add(name)
            return True

    @staticmethod
    def forget(subject: str) -> None:
        """Drop what this process remembers of a key or organization, which has just changed.

        Every guard of the process forgets it, whichever made the change: an administrator's sync
        code and the service's async code have one each.

        Args:
            subject: The id of the key or organization.
        """
        for reference in _memories.valuerefs():
            memory = reference()
            if memory is not None:
                memory._forget(subject)

    def _forget(self, subject: str) -> None:
        with self._lock:
            self._change += 1
            self._changed.pop(subject, None)
            self._changed[subject] = self._change
            while len(self._changed) > _RECENT_CHANGES:
                del self._changed[next(iter(self._changed))]
            for name in tuple(self._held.get(subject, ())):
                self._drop(name)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, name: bytes) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        principal = entry.allow.principal
        for subject in (principal.key_id, principal.organization):
            names = self._held[subject]
            names.discard(name)
            if not names:
                del self._held[subject]

    def _changed_since(self, change: int, *subjects: str) -> bool:
        if self._change - change > _RECENT_CHANGES:
            return True  # more changed than is kept in mind
        return any(self._changed.get(subject, 0) > change for subject in subjects)


def spelling(token: Secret) -> bytes:
    """Return the ``Authorization`` field under which a token is remembered."""
    return f"{_SCHEME}{token.reveal()}".encode()


def _name(token: Secret) -> bytes:
    return sha256(spelling(token)).digest()
