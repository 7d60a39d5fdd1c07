"""What a key store must be able to do, in both flavours.

A backend decides nothing. Every method is whole or did not happen, and raises a
:class:`~keyguard.exceptions.BackendError` (with the driver's error as ``__cause__``) where the
store fails. A store of your own needs these methods and nothing else; honour
:func:`keyguard.deadlines.remaining` as the driver's timeout where the store is across a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from keyguard.sansio.audit import AuditEntry
from keyguard.sansio.commits import Commit
from keyguard.sansio.models import Key, KeyDigest, KeyFilter, KeyRecord, Organization, Use
from keyguard.sansio.values import Page

__all__ = ["AsyncBackend", "AsyncChangeFeed", "Backend", "ChangeFeed", "News"]


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
            BackendError: The store failed. A later call starts anew, at the same position.
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
class Backend(Protocol):
    """A key store for sync code."""

    def migrate(self) -> None:
        """Create the store's tables or bring them up to date; safe to call at every start.

        Raises:
            SchemaError: They are newer than this version of keyguard.
        """

    def close(self) -> None:
        """Give back what the backend opened itself; calling it twice is fine."""

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
class AsyncBackend(Protocol):
    """A key store for async code: :class:`Backend`, awaited."""

    async def migrate(self) -> None:
        """See :meth:`Backend.migrate`."""

    async def aclose(self) -> None:
        """See :meth:`Backend.close`."""

    async def commit(self, commit: Commit) -> bool:
        """See :meth:`Backend.commit`."""
        ...

    async def find_organization(self, name: str) -> Organization | None:
        """See :meth:`Backend.find_organization`."""
        ...

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """See :meth:`Backend.list_organizations`."""
        ...

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """See :meth:`Backend.find_key`."""
        ...

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """See :meth:`Backend.find_existing`."""
        ...

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """See :meth:`Backend.list_keys`."""
        ...

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """See :meth:`Backend.list_digests`."""
        ...

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """See :meth:`Backend.rehash_key`."""

    async def mark_used(self, uses: Sequence[Use]) -> None:
        """See :meth:`Backend.mark_used`."""

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """See :meth:`Backend.list_audit`."""
        ...

    def feed(self) -> AsyncChangeFeed | None:
        """See :meth:`Backend.feed`."""
        ...
