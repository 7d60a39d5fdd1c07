"""Keeps values that expire."""

from __future__ import annotations

from contextlib import suppress

from keyguard.core.keys.temporary import Temporary, check_temporary
from keyguard.core.management.common import Operations
from keyguard.exceptions import CorruptDataError


class Temporaries(Operations):
    """The values that expire in one guard's key store, such as the console's sessions."""

    async def put(self, record: Temporary) -> bool:
        """Keep a value until it expires, unless there is one of the same kind and digest already.

        Args:
            record: The value with its kind, its digest, and when it expires.

        Returns:
            Whether the value was kept.

        Raises:
            StoreError: The key store failed.
        """
        return await self._ports.store.put_temporary(record, self._ports.now())

    async def replace(self, record: Temporary) -> bool:
        """Replace the value of the same kind and digest, if one is kept.

        Args:
            record: The new value.

        Returns:
            Whether a value was replaced. False if the old one has expired, or was taken or dropped.

        Raises:
            StoreError: The key store failed.
        """
        return await self._ports.store.replace_temporary(record, self._ports.now())

    async def find(self, kind: str, digest: str) -> Temporary | None:
        """Return the value of a kind and digest, or None if it has expired or never existed.

        Args:
            kind: The kind.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        check_temporary(kind, digest)
        return await self._ports.store.find_temporary(kind, digest, self._ports.now())

    async def take(self, kind: str, digest: str) -> Temporary | None:
        """Delete the value of a kind and digest, and return it if it had not expired.

        Of several concurrent calls, one gets the value; the others get None.

        Args:
            kind: As for :meth:`find`.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        check_temporary(kind, digest)
        return await self._ports.store.take_temporary(kind, digest, self._ports.now())

    async def drop(self, kind: str, digest: str) -> None:
        """Delete the value of a kind and digest, if there is one.

        Args:
            kind: As for :meth:`find`.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        with suppress(CorruptDataError):  # an expired value is deleted as well
            await self.take(kind, digest)
