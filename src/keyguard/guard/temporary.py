"""Values that expire, for sync code."""

from __future__ import annotations

from keyguard.core.keys.temporary import Temporary
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.temporary import AsyncTemporaries
from keyguard.runtime.sync import run_sync


class Temporaries:
    """The values that expire in one guard's key store."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncTemporaries(ports)

    def put(self, record: Temporary) -> bool:
        """Keep a value until it expires, unless one of its kind and digest is kept.

        Args:
            record: The value with its kind, its digest, and when it expires.

        Returns:
            Whether it is kept now.

        Raises:
            StoreError: The key store failed.
        """
        return run_sync(self._operations.put(record))

    def replace(self, record: Temporary) -> bool:
        """Replace the value of the same kind and digest, if one is kept.

        Args:
            record: The new value.

        Returns:
            Whether one was replaced. None was if it has expired, or was taken or dropped.

        Raises:
            StoreError: The key store failed.
        """
        return run_sync(self._operations.replace(record))

    def find(self, kind: str, digest: str) -> Temporary | None:
        """Return the value of a kind and digest, or None if it has expired or never was.

        Args:
            kind: The kind.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.find(kind, digest))

    def take(self, kind: str, digest: str) -> Temporary | None:
        """Delete the value of a kind and digest, and return it if it had not expired.

        However many take it at once, one gets it; the others get None.

        Args:
            kind: The kind.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.take(kind, digest))

    def drop(self, kind: str, digest: str) -> None:
        """Delete the value of a kind and digest, if there is one.

        Args:
            kind: The kind.
            digest: The digest of what the client holds.

        Raises:
            InvalidValueError: A kind or a digest does not look like that.
            StoreError: The key store failed.
        """
        run_sync(self._operations.drop(kind, digest))
