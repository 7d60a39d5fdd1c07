"""The port of a store of keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.values import Page

if TYPE_CHECKING:  # only changes need these
    from keyguard.core.keys.audit import AuditEntry
    from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
    from keyguard.core.keys.commit import Commit, Ending
    from keyguard.core.keys.lists import KeyDigest, KeyFilter
    from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
    from keyguard.core.keys.temporary import Temporary


class KeyStore(Protocol):
    """A store of keys, as the core awaits it. A store decides nothing.

    Every method does all of its work or nothing, and raises a
    :class:`~keyguard.exceptions.StoreError` where the store fails. A list leaves out records that
    can't be read, and names them in its page's ``damaged``. For sync code no method suspends.
    """

    async def commit(self, commit: Commit) -> bool:
        """Make all changes of a commit and add its entries to the audit trail, or do nothing.

        The ids of the entries rise in the order in which commits are seen.

        Returns:
            False if a record that the commit expects has another version, or is gone.

        Raises:
            RefusedError: The slug or id of a new organization, or the id of a new key or request,
                is taken; or, by the store's own clock, a key that is to be deleted has not ended
                for long enough.
        """
        ...

    async def end(self, ending: Ending) -> tuple[str, ...] | None:
        """Revoke keys or disable an organization, and add an entry for each to the audit trail.

        Nothing else that changes the same records at the same time can make it fail.

        Returns:
            The ids of the records that this call ended; empty if there are none, or if all had
            ended before. None, with nothing changed, if the key that asks for it no longer works, a
            key has got a scope that it must not have, or every witness has changed.
        """
        ...

    async def find_organization(self, name: str) -> Organization | None:
        """Return the organization whose id or slug is ``name``. The match is case-sensitive."""
        ...

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        """Return up to ``limit`` organizations, ordered by time of creation and then id.

        Args:
            after: The id after which to start, or None. An unknown id gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """Return a key with its organization, as both stand now. The match is case-sensitive."""
        ...

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        """Return which of up to 1000 ids are the ids of keys."""
        ...

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        """Return up to ``limit`` keys that a filter admits, by time of creation and then id.

        Args:
            wanted: Which keys. Keys that ended are listed unless the filter excludes them.
            after: The id after which to start, or None. It may be the id of a deleted key, as long
                as the audit trail has the entry of its deletion. An unknown id gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        """Return up to ``limit`` stored digests of keys that are not revoked, by key id."""
        ...

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        """Replace the stored digest of a key's token, if it is still the old one.

        This is not a change of the key: neither its version nor the audit trail moves.
        """

    async def mark_used(self, uses: Sequence[Use]) -> None:
        """Set when keys were last used, if that is later than the stored time.

        This is not a change of the keys: neither their versions nor the audit trail move.
        """

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        """Return up to ``limit`` entries of the audit trail, newest first.

        Args:
            organization: The id of the organization whose entries are wanted, or None for all.
            subject: The id of the only record whose entries are wanted, or None.
            after: The id after which to start, or None.
            limit: How many at most, at least 1.
        """
        ...

    async def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        """Look at some entries of the audit trail, the oldest first, and delete those that are old.

        If any are deleted, it adds an entry with their number. Entries that concurrent calls delete
        are counted once.
        """
        ...

    async def find_request(self, request_id: str) -> RequestRecord | None:
        """Return a request for a key. The match is case-sensitive."""
        ...

    async def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        """Return up to ``limit`` requests that a filter admits, by time of creation and then id.

        Args:
            wanted: Which requests.
            after: The id after which to start, or None. An unknown id gives an empty page.
            limit: How many at most, at least 1.
        """
        ...

    async def put_temporary(self, record: Temporary, now: datetime) -> bool:
        """Keep a value until it expires, and delete some that have expired.

        Returns:
            False, with nothing changed, if a value of the same kind and digest is kept.
        """
        ...

    async def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        """Replace the value of the same kind and digest.

        Returns:
            False, with nothing changed, if none is kept.
        """
        ...

    async def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        """Return the value of a kind and digest, if it has not expired."""
        ...

    async def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        """Delete the value of a kind and digest, and return it if it had not expired.

        Of several concurrent calls, one gets it.
        """
        ...
