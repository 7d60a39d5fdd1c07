"""The memory of verified tokens.

A token is remembered under its fingerprint, the SHA-256 digest of ``Bearer <token>``. The token
itself is never kept. Unknown tokens leave no trace, so a flood of them evicts nothing. An entry
carries its key's times, which are checked on every hit. An entry is used for ``max_staleness``
after its key was looked up. It is used longer only while the change feed vouches that nothing has
changed, and never for more than a minute. All guards of a process forget at once what the process
changes, and do not use the result of a look-up that was in progress. Freshness goes by the
monotonic clock, so setting the time of day neither revives nor ends an entry.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from hashlib import sha256

from keyguard.core.access.decisions import Allow
from keyguard.core.access.ports import Fingerprint, Mark
from keyguard.core.keys.records import Key, KeyRecord, Use
from keyguard.core.tokens.foreign import LONGEST_TOKEN
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.freshness.entry import FAR_PAST, Entry
from keyguard.runtime.process import Clock, after_fork, forks_unnoticed

_SCHEME = "Bearer "
_SCHEME_BYTES = _SCHEME.encode()
_FAR_FUTURE = float("inf")
_RECENT_CHANGES = 10_000  # a slow hash outlasts the deletion or import of many keys
_RECENT_POSITIONS = 64
_LONGEST = 60.0  # seconds, even if the feed vouches for longer
_HELD = 10.0  # seconds; no thread pauses for longer between finding an entry and counting in it

MOST_DROPPED = 10_000
"""How many dropped entries may wait for :meth:`VerifiedTokens.take_counted`."""

# Guards share only this. Ids are unique, so at worst a guard forgets too much.
_memories: weakref.WeakValueDictionary[int, VerifiedTokens] = weakref.WeakValueDictionary()


class VerifiedTokens:
    """Remembers up to ``size`` verified tokens.

    Attributes:
        dropped: The entries that were forgotten lately. A request that has found one may still
            count itself there.
        recalled: How often :meth:`recall_any` has answered.

    Args:
        tokens: The format of the service's own tokens.
        size: How many; with 0 nothing is remembered.
        max_staleness: Seconds for which an entry is used.
        clock: Where time comes from.
        sees_all: Whether :meth:`recall` finds nothing, because every client's address is noted.
        foreign: Whether imported tokens may be genuine as well.
    """

    def __init__(
        self,
        tokens: TokenFormat,
        *,
        size: int,
        max_staleness: float,
        clock: Clock,
        sees_all: bool = False,
        foreign: bool = False,
    ) -> None:
        self._field_start = f"{_SCHEME}{tokens.prefix}_".encode()
        self._field_length = len(_SCHEME) + tokens.length
        self._longest_other = len(_SCHEME) + LONGEST_TOKEN if foreign else 0
        self._size = size
        self._max_staleness = max_staleness
        self._sees_all = sees_all
        self._time = clock.time
        self._monotonic = clock.monotonic
        self._start_afresh()
        after_fork(self._start_afresh)
        _memories[id(self)] = self

    def _start_afresh(self) -> None:
        self._entries: dict[bytes, Entry] = {}  # by token digest, the oldest first
        self._open: dict[bytes, Entry] = {}  # those that nothing of the request can refuse
        self._held: dict[str, set[bytes]] = {}  # subject -> token digests
        self._changed: dict[str, int] = {}  # subject -> change number, oldest first
        self._uses: dict[str, Use] = {}  # by key, not yet passed to the store
        self.dropped: list[Entry] = []
        self.recalled = 0
        self._watchers: list[Callable[[], object]] = []
        self._change = 0
        self._vouched_until = FAR_PAST
        self._positions: dict[str, int] = {}  # of the feed -> change number, last heard last
        self._lock = threading.Lock()

    def recall(self, field: bytes) -> Allow | Fingerprint | None:
        """Return the verified decision on an ``Authorization`` field, and note the use.

        This is the warm path of every request. The decision covers neither transport nor scopes.
        Keys that are bound to networks are not found here, because they depend on the client's
        address.

        Args:
            field: The field value. Only the usual spelling, ``Bearer <token>``, is recognized. It
                is hashed only if it has the length of the service's own tokens, or could hold an
                imported one.

        Returns:
            The decision. Otherwise the fingerprint, if the token is one of the service's own and
            :meth:`recall_any` does not know it either; otherwise None.
        """
        if len(field) != self._field_length and (
            len(field) > self._longest_other or not field.startswith(_SCHEME_BYTES)
        ):
            return None
        digest = sha256(field).digest()
        entry = self._open.get(digest)
        if entry is not None:  # the rest is recall_any, without the call
            monotonic = self._monotonic  # a call of an attribute takes longer
            now = monotonic()
            if (
                now < entry.fresh_until or (now < self._vouched_until and now < entry.dies_at)
            ) and (not entry.is_timed or entry.not_before <= self._time() < entry.ends_at):
                entry.used_at = now
                entry.allowed += 1  # nothing is called here, so no other thread comes between
                return entry.allow
        elif digest in self._entries:
            return None
        is_own = len(field) == self._field_length and field.startswith(self._field_start)
        return Fingerprint(digest) if is_own else None

    @staticmethod
    def fingerprint(token: Secret) -> Fingerprint:
        """Return the name under which a token is remembered."""
        return Fingerprint(sha256(f"{_SCHEME}{token.reveal()}".encode()).digest())

    def recall_any(self, fingerprint: Fingerprint) -> Allow | None:
        """Return the verified decision on a token. The caller checks networks and notes the use."""
        entry = self._entries.get(fingerprint.digest)
        if entry is None:
            return None
        now = self._monotonic()
        if (now < entry.fresh_until or (now < self._vouched_until and now < entry.dies_at)) and (
            not entry.is_timed or entry.not_before <= self._time() < entry.ends_at
        ):
            self.recalled += 1
            return entry.allow
        return None

    def begin(self) -> Mark:
        """Return the mark of a look-up that begins now."""
        return self._change, self._monotonic()

    def is_unchanged(self, mark: Mark, *subjects: str) -> bool:
        """Return whether no change of these keys or organizations is known since a mark.

        Args:
            mark: The mark that :meth:`begin` returned.
            subjects: The ids of the keys and organizations.
        """
        with self._lock:
            return not self._changed_since(mark[0], *subjects)

    def is_current(self, key_id: str, mark: Mark) -> bool:
        """Return whether the result of a look-up can still be used."""
        return self.is_unchanged(mark, key_id) and self._monotonic() < mark[1] + self._max_staleness

    def vouch(self, mark: Mark, position: str) -> None:
        """Use entries for longer: all that changed before a mark has been forgotten.

        Args:
            mark: The mark that :meth:`begin` returned before the feed was asked.
            position: The position at which the feed ended then.
        """
        change, at = mark
        with self._lock:
            self._vouched_until = at + self._max_staleness
            self._positions.pop(position, None)
            self._positions[position] = change
            if len(self._positions) > _RECENT_POSITIONS:
                del self._positions[next(iter(self._positions))]

    def knows(self, position: str) -> bool:
        """Return whether the feed has lately ended at a position."""
        return position in self._positions

    def mark_at(self, position: str, key: Key) -> Mark | None:
        """Return the mark of a key that was found on a replica, or None if it can't be trusted.

        A record that has not changed since the feed ended at the replica's position is also the
        primary's as of the feed's last answer: the feed has reported every change in between.

        Args:
            position: The replica's position in the feed.
            key: The key that it had then.
        """
        until = self._vouched_until
        change = self._positions.get(position)
        if change is None or self._monotonic() >= until:
            return None
        mark = change, until - self._max_staleness
        return mark if self.is_unchanged(mark, key.id, key.organization) else None

    def believed_for(self, fingerprint: Fingerprint) -> float:
        """Return for how many seconds a token is believed, unless a change is reported before."""
        entry = self._entries.get(fingerprint.digest)
        if entry is None:
            return 0.0
        until = max(entry.fresh_until, min(self._vouched_until, entry.dies_at))
        time = self._time()
        if not entry.not_before <= time:
            return 0.0
        return max(0.0, min(until - self._monotonic(), entry.ends_at - time))

    @contextmanager
    def watching(self, wake: Callable[[], object]) -> Generator[None]:
        """Call a function after each change, on the thread that learns of the change.

        Args:
            wake: The function. It must be quick and must not raise.
        """
        self._watchers.append(wake)
        try:
            yield
        finally:
            self._watchers.remove(wake)

    def _wake_watchers(self) -> None:
        for wake in tuple(self._watchers):
            wake()

    def matched(self, fingerprint: Fingerprint, digest: str) -> bool:
        """Return whether a token is known to match a stored digest, which saves the hash.

        The answer outlives the entry's freshness: a match of two constants never goes stale.
        """
        entry = self._entries.get(fingerprint.digest)
        return entry is not None and entry.digest == digest

    def verified_as(self, fingerprint: Fingerprint) -> Allow | None:
        """Return the verified decision on a token, however old it is."""
        entry = self._entries.get(fingerprint.digest)
        return None if entry is None else entry.allow

    def remember(
        self, fingerprint: Fingerprint, record: KeyRecord, allow: Allow, mark: Mark
    ) -> bool:
        """Remember a verified token.

        Args:
            fingerprint: The token's fingerprint.
            record: The record that the look-up found.
            allow: What the token may do.
            mark: The mark that :meth:`begin` returned before the look-up.

        Returns:
            False if the key or its organization changed since the mark. Then nothing is remembered,
            and the record must not be used.
        """
        key, (change, looked_at) = record.key, mark
        end = key.ends_at
        entry = Entry(
            allow=allow,
            digest=record.digest,
            not_before=key.not_before.timestamp() if key.not_before else FAR_PAST,
            ends_at=end.timestamp() if end else _FAR_FUTURE,
            fresh_until=looked_at + self._max_staleness,
            dies_at=looked_at + max(self._max_staleness, _LONGEST),
            is_timed=key.not_before is not None or end is not None,
        )
        name = fingerprint.digest
        with self._lock:
            if self._changed_since(change, key.id, key.organization):
                return False
            before = self._drop(name)
            if before is not None:
                entry.told_at = before.told_at
            if self._size and not ("uwsgi" in sys.modules and forks_unnoticed()):  # workers look up
                if len(self._entries) >= self._size:
                    self._drop(next(iter(self._entries)))
                self._entries[name] = entry
                if not allow.networks and not self._sees_all:
                    self._open[name] = entry
                for subject in (key.id, key.organization):
                    self._held.setdefault(subject, set()).add(name)
            return True

    def discard(self, fingerprint: Fingerprint) -> None:
        """Forget a token that the store no longer accepts."""
        if fingerprint.digest in self._entries:
            with self._lock:
                self._drop(fingerprint.digest)

    def note_use(self, use: Use) -> None:
        """Note that a key was let in, other than by :meth:`recall`."""
        with self._lock:
            self._note(use)

    def take_uses(self) -> list[Use]:
        """Return the uses, to the minute, that were not taken before."""
        with self._lock:
            for entry in self._entries.values():
                self._note_use_of(entry)
            uses, self._uses = list(self._uses.values()), {}
        return uses

    def take_counted(self) -> list[Entry]:
        """Return the entries that may have counted requests since the last call.

        One thread at a time may call it.
        """
        until = self._monotonic() - _HELD
        with self._lock:
            entries = [*self._entries.values(), *self.dropped]
            held = self.dropped[-MOST_DROPPED // 2 :]
            self.dropped = [entry for entry in held if entry.dropped_at > until]
        return entries

    def _note_use_of(self, entry: Entry) -> None:
        use = entry.take_use(self._time() - self._monotonic())
        if use is not None:
            self._note(use)

    def _note(self, use: Use) -> None:
        known = self._uses.get(use.key_id)
        at = use.at.replace(second=0, microsecond=0)
        if known is None or known.at < at or (known.at == at and use.address is not None):
            self._uses[use.key_id] = Use(use.key_id, at, use.address)

    def forget_all(self) -> None:
        """Forget everything, because it is not known what has changed."""
        with self._lock:
            self._change += _RECENT_CHANGES + 1
            for name in tuple(self._entries):
                self._drop(name)
        self._wake_watchers()

    @staticmethod
    def forget(subjects: Iterable[str] | None) -> None:
        """Forget keys or organizations that have just changed, in every guard of the process.

        An administrator's sync code and the service's async code may have a guard each.

        Args:
            subjects: The ids of the keys and organizations; None if it is not known which changed.
        """
        for reference in _memories.valuerefs():
            memory = reference()
            if memory is None:
                continue
            if subjects is None:
                memory.forget_all()
            else:
                memory.forget_here(subjects)

    def forget_here(self, subjects: Iterable[str]) -> None:
        """Forget the keys or organizations that this guard's feed reported."""
        for subject in subjects:
            self._forget(subject)

    def _forget(self, subject: str) -> None:
        with self._lock:
            self._change += 1
            self._changed.pop(subject, None)
            self._changed[subject] = self._change
            while len(self._changed) > _RECENT_CHANGES:
                del self._changed[next(iter(self._changed))]
            for name in tuple(self._held.get(subject, ())):
                self._drop(name)
        if self._watchers:
            self._wake_watchers()

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, name: bytes) -> Entry | None:
        self._open.pop(name, None)
        entry = self._entries.pop(name, None)
        if entry is None:
            return None
        self._note_use_of(entry)
        entry.dropped_at = self._monotonic()
        self.dropped.append(entry)
        principal = entry.allow.principal
        for subject in (principal.key_id, principal.organization):
            held = self._held[subject]
            held.discard(name)
            if not held:
                del self._held[subject]
        return entry

    def _changed_since(self, change: int, *subjects: str) -> bool:
        if self._change - change > _RECENT_CHANGES:
            return True  # more changed than is remembered
        for subject in subjects:  # noqa: SIM110 - every look-up asks, and any would take longer
            if self._changed.get(subject, 0) > change:
                return True
        return False
