"""The ports through which a request reaches stores, memory and the clock.

Methods that may wait are coroutines; the others are ordinary functions. The guard puts the ports
together. For sync code none of the coroutines suspends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from keyguard.core.access.decisions import Allow
from keyguard.core.access.policy import Policy
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import KeyRecord, Organization
from keyguard.core.limits.ports import Counters
from keyguard.core.tokens.secret import Secret

Mark: TypeAlias = tuple[int, float]
"""When a look-up began: how many changes this process knew of, and monotonic seconds."""

Found: TypeAlias = tuple[KeyRecord | None, Mark]
"""What the store holds under a key id, and when that look-up began."""


@dataclass(slots=True, eq=False, repr=False)
class Fingerprint:
    """The name of a token in memory. Like a :class:`Secret`, its ``repr`` shows nothing.

    Args:
        digest: SHA-256 of ``Bearer <token>``. It would let a weak imported token be guessed.
    """

    digest: bytes


class TokenMemory(Protocol):
    """The tokens that this process has verified. A token is named by its fingerprint."""

    def fingerprint(self, token: Secret) -> Fingerprint:
        """Return the name under which a token is remembered."""
        ...

    def recall_any(self, fingerprint: Fingerprint) -> Allow | None:
        """Return the verified decision on a token, if it is fresh enough to rely on."""
        ...

    def verified_as(self, fingerprint: Fingerprint) -> Allow | None:
        """Return the verified decision on a token, however old it is."""
        ...

    def matched(self, fingerprint: Fingerprint, digest: str) -> bool:
        """Return whether a token is known to match a stored digest."""
        ...

    def remember(
        self, fingerprint: Fingerprint, record: KeyRecord, allow: Allow, mark: Mark
    ) -> bool:
        """Remember a verified token; return False if its key changed since ``mark``."""
        ...

    def discard(self, fingerprint: Fingerprint) -> None:
        """Forget a token that the store no longer accepts."""


class Blocklist(Protocol):
    """The client addresses that failed too often."""

    def blocked_for(self, client: str) -> float | None:
        """Return for how many seconds a client is still refused, or None."""
        ...

    def block(self, client: str, seconds: float) -> None:
        """Refuse a client for a number of seconds."""

    def note_failure(self, name: str) -> None:
        """Note a failed attempt, by its client or by the key that was guessed at."""


class RequestPorts(Protocol):
    """All ports of a request."""

    @property
    def policy(self) -> Policy:
        """The settings that decisions need."""
        ...

    @property
    def tokens(self) -> TokenMemory:
        """The tokens that this process has verified."""
        ...

    @property
    def blocklist(self) -> Blocklist:
        """The client addresses that failed too often."""
        ...

    @property
    def counters(self) -> Counters:
        """The counters of limits."""
        ...

    async def find_key(self, key_id: str, *, fresh: bool) -> Found:
        """Look a key up. Concurrent look-ups of one key share a query, unless ``fresh`` is given.

        Raises:
            StoreError: The store failed.
        """
        ...

    async def verify(self, token: Secret, digest: str | None, client: str, key_id: str) -> bool:
        """Return whether a stored digest belongs to a token.

        For an unknown key the digest is None. The answer is then False, after the work of a
        comparison. Slow hashes take turns by client and by key, so that guesses do not delay the
        first use of another key.
        """
        ...

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def note_use(self, principal: Principal, address: str | None) -> None:
        """Note the time and the address at which a key was let in, for its ``last_used_at``."""

    def offer_rehash(self, key_id: str, token: Secret, digest: str) -> None:
        """Hash a genuine token again, in the background, if its digest is outdated."""

    def note_unknown_plan(self, organization: Organization) -> None:
        """Note that an organization has a plan that the settings do not know."""
