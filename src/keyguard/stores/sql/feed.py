"""The change feed where the database can't tell of commits: it is asked."""

from __future__ import annotations

from keyguard.runtime.deadlines import remaining
from keyguard.stores.base import News
from keyguard.stores.sql import queries
from keyguard.stores.sql.database import Database

__all__ = ["ASKING", "SqlFeed"]

ASKING = 5.0
"""Seconds that a question or a connection takes at most, where no deadline is set."""


class SqlFeed:
    """A reader of the audit trail that asks and does not wait.

    Args:
        database: The database of the audit trail.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, position: str | None, patience: float) -> News:
        """See :meth:`keyguard.stores.base.AsyncChangeFeed.read`."""
        del patience
        return await self._ask(position)

    async def aclose(self) -> None:
        """See :meth:`keyguard.stores.base.AsyncChangeFeed.aclose`."""

    async def _ask(self, position: str | None) -> News:
        if remaining() is not None:
            return await self._database.read(queries.read_feed, position)
        async with self._database.within(ASKING):
            return await self._database.read(queries.read_feed, position)
