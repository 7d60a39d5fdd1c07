"""How values that expire are kept."""

from __future__ import annotations

from contextlib import suppress

from keyguard.core.keys.temporary import Temporary, check_temporary
from keyguard.core.management.common import Operations
from keyguard.exceptions import CorruptDataError


class AsyncTemporaries(Operations):
    """The values that expire in one guard's key store, for async code."""

    async def put(self, record: Temporary) -> bool:
        """Keep a value until it expires, unless one of its kind and digest is kept.

        See :meth:`~keyguard.guard.temporary.Temporaries.put`.
        """
        return await self._ports.store.put_temporary(record, self._ports.now())

    async def replace(self, record: Temporary) -> bool:
        """Replace the value of the same kind and digest, if one is kept.

        See :meth:`~keyguard.guard.temporary.Temporaries.replace`.
        """
        return await self._ports.store.replace_temporary(record, self._ports.now())

    async def find(self, kind: str, digest: str) -> Temporary | None:
        """Return the value of a kind and digest, or None if it has expired or never was.

        See :meth:`~keyguard.guard.temporary.Temporaries.find`.
        """
        check_temporary(kind, digest)
        return await self._ports.store.find_temporary(kind, digest, self._ports.now())

    async def take(self, kind: str, digest: str) -> Temporary | None:
        """Delete the value of a kind and digest, and return it if it had not expired.

        See :meth:`~keyguard.guard.temporary.Temporaries.take`.
        """
        check_temporary(kind, digest)
        return await self._ports.store.take_temporary(kind, digest, self._ports.now())

    async def drop(self, kind: str, digest: str) -> None:
        """Delete the value of a kind and digest, if there is one.

        See :meth:`~keyguard.guard.temporary.Temporaries.drop`.
        """
        with suppress(CorruptDataError):  # which was deleted all the same
            await self.take(kind, digest)
