"""The ports of management. The guard puts them together."""

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
    """All ports of an operation on organizations, keys or the audit trail."""

    @property
    def policy(self) -> Policy:
        """The settings that decisions need."""
        ...

    @property
    def store(self) -> KeyStore:
        """The key store. Each call has the deadline of management.

        The guard forgets the keys that a commit changes, even after an error: the change may have
        happened.
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
        """The shortest period for which usage is kept, in seconds."""
        ...

    @property
    def longest_call(self) -> timedelta:
        """The longest time that one call of the key store takes."""
        ...

    @property
    def request_terms(self) -> RequestTerms:
        """The settings about requests for keys."""
        ...

    @property
    def keep_ended_keys(self) -> timedelta | None:
        """For how long a key that has ended must be kept; None if it is never deleted."""
        ...

    @property
    def keep_audit(self) -> timedelta | None:
        """For how long an entry of the audit trail must be kept; None if it is never deleted."""
        ...

    def tell_request(self, action: Action, request: KeyRequest) -> None:
        """Report a change of a request for a key to the hooks."""

    def tell_hint(self, hint: Hint) -> None:
        """Report a new hint to the hooks."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def draw_entropy(self, size: int) -> bytes:
        """Return a number of bytes from a cryptographically secure source."""
        ...

    async def hash(self, token: Secret) -> str:
        """Return the digest under which a token is stored."""
        ...

    async def hash_weak(self, token: Secret) -> str:
        """Return a slow digest for a token that can be guessed."""
        ...

    async def verify(self, token: Secret, digest: str | None) -> bool:
        """Return whether a stored digest belongs to a token. The answer for None is False."""
        ...

    def scheme_of(self, digest: str) -> str:
        """Return the scheme of a digest, with the pepper's id if it uses one."""
        ...

    async def read_limits(self, charges: Sequence[Charge]) -> Outcome:
        """Return the state of buckets, without counting.

        Raises:
            StoreError: The store of the counters failed.
        """
        ...
