"""What a store of keys and a store of counters must be able to do, in both flavours.

A store decides nothing. Every method is whole or did not happen, and raises a
:class:`~keyguard.exceptions.StoreError` (with the driver's error as ``__cause__``) where the
store fails. A store of your own needs these methods and nothing else. Where it is across a network,
use :func:`keyguard.runtime.deadlines.remaining` as the driver's timeout.

A limiter decides only whether there is room: a bucket's name, size, strategy and cost come with
each charge. Where a limiter fails, the guard goes on as ``on_limiter_error`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.core.keys.values import Page
from keyguard.core.limits.charges import Charge, Outcome

__all__ = [
    "AsyncChangeFeed",
    "AsyncRateLimiter",
    "AsyncStore",
    "ChangeFeed",
    "News",
    "RateLimiter",
    "Store",
]


class News(NamedTuple):
    """What a change feed told.

    Args:
        position: Where in the feed the reader stands now.
        subjects: The ids of the keys and organizations that changed; None where that can't be told,
            and everything may have.
        whole: Whether that is all that had changed by then; else the next read goes on at once.
    """

    position: str
    subjects: tuple[str, ...] | None
    whole: bool = True


class ChangeFeed(Protocol):
    """A reader of the audit trail, for one thread."""

    def read(self, position: str | None, patience: float) -> News:
        """Return what changed after a position.

        Args:
            position: What the last call returned; None to learn where the feed ends now.
            patience: Seconds for which it may wait for something to change, where the store can
                tell of it; else it returns at once.

        Raises:
            StoreError: The store failed. A later call starts anew, at the same position.
        """
        ...

    def close(self) -> None:
        """Give back what the feed opened for itself; calling it twice is fine."""


class AsyncChangeFeed(Protocol):
    """A reader of the audit trail, for one task: :class:`ChangeFeed`, awaited."""

    async def read(self, position: str | None, patience: float) -> News:
        """See :meth:`ChangeFeed.read`."""
        ...

    async def aclose(self) -> None:
        """See :meth:`ChangeFeed.close`."""


@runtime_checkable
class Store(Protocol):
    """A key store for sync code."""

    def migrate(self) -> None:
        """Create the store's tables or bring them up to date; safe to call at every start.

        Raises:
            SchemaError: They are newer than this version of keyguard.
        """

    def close(self) -> None:
        """Give back what the store opened itself; calling it twice is fine."""

    def commit(self, commit: Commit) -> bool:
        """Make all changes of a commit and add its entries to the audit trail, or do nothing.

        Entries get ids that rise in the order in which commits are seen.

        Returns:
            False where a record that the commit expects has another version, or is gone.

        Raises:
            RefusedError: The slug or id of a new organization, or the id of a new key, is taken.
        """
        ...

    def find_organization(self, name: str) -> Organization | None:
        """Return the organization whose id or slug is ``name``; an exact, case-sensitive match."""
        ...

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """Return up to ``limit`` organizations, by time of creation and then id.

        Args:
            after: The id behind which to start, or None. An unknown one gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    def find_key(self, key_id: str) -> KeyRecord | None:
        """Return a key with its organization as both stand now; an exact, case-sensitive match."""
        ...

    def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """Return those of up to 1000 ids that are the ids of keys."""
        ...

    def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """Return up to ``limit`` keys that a filter admits, by time of creation and then id.

        Args:
            wanted: Which; dead ones are listed unless it says otherwise.
            after: The id behind which to start, or None. An unknown one gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """Return up to ``limit`` stored forms of keys that are not revoked, by key id."""
        ...

    def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """Replace the stored form of a key's token, if it is still the old one.

        It is no change of the key: neither its version nor the audit trail moves.
        """

    def mark_used(self, uses: Sequence[Use]) -> None:
        """Set when keys were last used, where that is later than what the store knows.

        It is no change of the key: neither its version nor the audit trail moves.
        """

    def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """Return up to ``limit`` entries of the audit trail, newest first.

        Args:
            organization: The id of the organization whose entries are wanted, or None for all.
            subject: The id of the only record whose entries are wanted, or None.
            after: The id behind which to start, or None.
            limit: How many at most, at least 1.
        """
        ...

    def feed(self) -> ChangeFeed | None:
        """Return a new reader of the audit trail; nothing is opened before its first read.

        None where only this process can change the store, whose guards know of it anyway.
        """
        ...


@runtime_checkable
class AsyncStore(Protocol):
    """A key store for async code: :class:`Store`, awaited."""

    async def migrate(self) -> None:
        """See :meth:`Store.migrate`."""

    async def aclose(self) -> None:
        """See :meth:`Store.close`."""

    async def commit(self, commit: Commit) -> bool:
        """See :meth:`Store.commit`."""
        ...

    async def find_organization(self, name: str) -> Organization | None:
        """See :meth:`Store.find_organization`."""
        ...

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :meth:`Store.list_organizations`."""
        ...

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :meth:`Store.find_key`."""
        ...

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """See :meth:`Store.find_existing`."""
        ...

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """See :meth:`Store.list_keys`."""
        ...

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """See :meth:`Store.list_digests`."""
        ...

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """See :meth:`Store.rehash_key`."""

    async def mark_used(self, uses: Sequence[Use]) -> None:
        """See :meth:`Store.mark_used`."""

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """See :meth:`Store.list_audit`."""
        ...

    def feed(self) -> AsyncChangeFeed | None:
        """See :meth:`Store.feed`."""
        ...


@runtime_checkable
class RateLimiter(Protocol):
    """A store of counters for sync code; one that never waits serves async code as well."""

    def migrate(self) -> None:
        """Create what the store needs or bring it up to date; safe to call at every start."""

    def close(self) -> None:
        """Give back what the limiter opened itself; calling it twice is fine."""

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """Count charges, all or none, in one step that no other process can come between.

        Args:
            charges: At least one, all of one owner. Where one that is enforced has no room, nothing
                is counted at all; one that is not enforced is counted where it has room.

        Returns:
            Whether they were counted, and how each bucket stands after it.
        """
        ...

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """Count more, whatever room there is, or give back.

        Args:
            charges: The buckets; their costs mean nothing here.
            units: How many to add to each; a negative number is given back, down to nothing; with
                0 a bucket is only looked at, and not made.
            ends_at: What the tally of each said when it was counted, for what is given back.
                Nothing is once that time has come, as it would be credit for more than the limit
                admits.

        Returns:
            An outcome that is admitted, and how each bucket stands after it, as for a cost of 1.
        """
        ...


@runtime_checkable
class AsyncRateLimiter(Protocol):
    """A store of counters for async code: :class:`RateLimiter`, awaited."""

    async def migrate(self) -> None:
        """See :meth:`RateLimiter.migrate`."""

    async def aclose(self) -> None:
        """See :meth:`RateLimiter.close`."""

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        """See :meth:`RateLimiter.hit`."""
        ...

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """See :meth:`RateLimiter.adjust`."""
        ...
