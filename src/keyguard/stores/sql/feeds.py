"""The change feed where the database can't tell of changes: it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import awithin, remaining, within
from keyguard.stores.base import News
from keyguard.stores.sql import operations
from keyguard.stores.sql.flows import Operation

__all__ = ["ASKING", "AsyncSqlFeed", "SqlFeed"]

ASKING = 5.0
"""Seconds that it takes to ask, or to connect, at most, where no deadline is set."""


class SqlFeed:
    """A reader of the audit trail that asks, for sync code.

    Args:
        perform: Runs an operation.
    """

    def __init__(self, perform: Callable[[Operation[News]], News]) -> None:
        self._perform = perform

    def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        del patience
        return self._ask(position)

    def close(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""

    def _ask(self, position: str | None) -> News:
        if remaining() is not None:
            return self._perform(operations.read_feed(position))
        with within(ASKING):
            return self._perform(operations.read_feed(position))


class AsyncSqlFeed:
    """The same for async code.

    Args:
        perform: Runs an operation.
    """

    def __init__(self, perform: Callable[[Operation[News]], Awaitable[News]]) -> None:
        self._perform = perform

    async def read(self, position: str | None, patience: float) -> News:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""
        del patience
        return await self._ask(position)

    async def aclose(self) -> None:
        """See :class:`~keyguard.stores.base.ChangeFeed`."""

    async def _ask(self, position: str | None) -> News:
        if remaining() is not None:
            return await self._perform(operations.read_feed(position))
        try:
            async with awithin(ASKING):
                return await self._perform(operations.read_feed(position))
        except TimeoutError as late:
            raise StoreUnavailableError(
                "the key store did not say in time what has changed; try again later"
            ) from late
