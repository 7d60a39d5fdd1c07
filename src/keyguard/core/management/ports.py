"""What management asks of the outside. The guard puts the ports together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from keyguard.core.access.policy import Policy
from keyguard.core.keys.audit import Action
from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.management.request_terms import RequestTerms
from keyguard.core.tokens.secret import Secret
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.ports import UsageStore


class ManagementPorts(Protocol):
    """The outside of an operation on organizations, keys or the audit trail."""

    @property
    def policy(self) -> Policy:
        """What the service has settled."""
        ...

    @property
    def store(self) -> KeyStore:
        """The key store. Each call has the deadline of management.

        The guard forgets what a commit changes, also when the commit failed: it may have happened.
        """
        ...

    @property
    def usage(self) -> UsageStore:
        """The store of usage. Each call has the deadline of management.

        Raises:
            ConfigurationError: The guard counts no usage, or its key store keeps none.
        """
        ...

    @property
    def bucket(self) -> int:
        """The shortest time by which usage is told apart, in seconds."""
        ...

    @property
    def longest_call(self) -> timedelta:
        """The most that one call of the key store takes."""
        ...

    @property
    def request_terms(self) -> RequestTerms:
        """What the service has settled about requests for keys."""
        ...

    @property
    def keep_ended_keys(self) -> timedelta | None:
        """For how long a key that has ended is kept before it may be deleted; None for ever."""
        ...

    @property
    def keep_audit(self) -> timedelta | None:
        """For how long an audit entry is kept before it may be deleted; None for ever."""
        ...

    def tell_request(self, action: Action, request: KeyRequest) -> None:
        """Tell the hooks what became of a request for a key."""

    def tell_hint(self, hint: Hint) -> None:
        """Tell the hooks of a hint that is new."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def draw_entropy(self, size: int) -> bytes:
        """Return so many bytes from a cryptographically secure source."""
        ...

    async def hash(self, token: Secret) -> str:
        """Return the digest under which a token is stored."""
        ...

    async def hash_weak(self, token: Secret) -> str:
        """Return a slow digest for a token that can be guessed."""
        ...

    async def verify(self, token: Secret, digest: str | None) -> bool:
        """Tell whether a token is the one behind a stored digest; None is never."""
        ...

    def scheme_of(self, digest: str) -> str:
        """Return a digest's scheme, with its pepper's id where it takes one."""
        ...

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        """Return how buckets stand, and count nothing.

        Raises:
            StoreError: The store of the counters failed.
        """
        ...
