"""The key store in an SQL database, in both flavours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
from keyguard.core.keys.temporary import Temporary, unexpired
from keyguard.core.values import Page
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import AsyncChangeFeed, AsyncReplica, AsyncStore, ChangeFeed, Reading
from keyguard.stores.diagnosis import Finding
from keyguard.stores.facade import SyncChangeFeed, SyncStore, SyncUsage
from keyguard.stores.sql import commits, lists, queries, temporary, trail
from keyguard.stores.sql.counters import AsyncSqlRateLimiter, SqlRateLimiter
from keyguard.stores.sql.database import Database, SyncDatabase
from keyguard.stores.sql.diagnosis import diagnose
from keyguard.stores.sql.feed import AsyncListeningFeed, SqlFeed, SyncListeningFeed
from keyguard.stores.sql.migrations import HEAD
from keyguard.stores.sql.rows import temporary_from
from keyguard.stores.sql.usage import SqlUsage


class AsyncSqlStore(AsyncStore):
    """A key store in an SQL database, for code on asyncio.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.system_name = database.dialect

    async def migrate(self) -> None:
        await self.database.migrate()

    async def aclose(self) -> None:
        await self.database.aclose()

    async def commit(self, commit: Commit) -> bool:
        return await self.database.write(commits.apply, commit)

    async def end(self, ending: Ending) -> tuple[str, ...] | None:
        return await self.database.write(commits.end, ending)

    async def find_organization(self, name: str) -> Organization | None:
        return await self.database.read(queries.find_organization, name)

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        return await self.database.read(lists.list_organizations, after, limit)

    async def find_key(self, key_id: str) -> KeyRecord | None:
        return await self.database.read(queries.find_key, key_id)

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        return await self.database.read(queries.find_existing, key_ids)

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        return await self.database.read(lists.list_keys, wanted, after, limit)

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        return await self.database.read(lists.list_digests, after, limit)

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        await self.database.write(queries.rehash_key, key_id, old, new)

    async def mark_used(self, uses: Sequence[Use]) -> None:
        await self.database.write(queries.mark_used, uses)

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        return await self.database.read(lists.list_audit, organization, subject, after, limit)

    async def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        if deletion.dry_run:
            return await self.database.read(trail.count_old, deletion)
        return await self.database.write(trail.delete_old, deletion)

    async def find_request(self, request_id: str) -> RequestRecord | None:
        return await self.database.read(queries.find_request, request_id)

    async def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        return await self.database.read(lists.list_requests, wanted, after, limit)

    async def put_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self.database.write(temporary.put, record, now)

    async def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self.database.write(temporary.replace, record, now)

    async def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        return unexpired(
            temporary_from(await self.database.read(temporary.find, kind, digest)), now
        )

    async def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        # Read when it is deleted for good, so that one that is damaged is deleted too.
        row = await self.database.write(temporary.take, kind, digest)
        return unexpired(temporary_from(row), now)

    def feed(self) -> AsyncChangeFeed:
        return (AsyncListeningFeed if self.database.can_listen else SqlFeed)(self.database)

    def usage(self) -> SqlUsage:
        return SqlUsage(self.database)

    def counters(self, *, owned: bool) -> AsyncSqlRateLimiter:
        """Return counters in the same database.

        Args:
            owned: Whether the counters migrate and close the database.
        """
        return AsyncSqlRateLimiter(self.database, owned=owned)


class SqlStore(SyncStore):
    """A key store in an SQL database, for sync code.

    Args:
        database: The database.
    """

    layout = HEAD

    def __init__(self, database: SyncDatabase) -> None:
        super().__init__(AsyncSqlStore(database))
        self.database = database
        self.system_name = database.dialect

    def diagnose(self) -> list[Finding]:
        return run_sync(self.database.read(diagnose))

    def feed(self) -> ChangeFeed:
        feed = SyncListeningFeed if self.database.can_listen else SqlFeed
        return SyncChangeFeed(feed(self.database))

    def usage(self) -> SyncUsage:
        return SyncUsage(SqlUsage(self.database))

    def counters(self, *, owned: bool) -> SqlRateLimiter:
        return SqlRateLimiter(self.database, owned=owned)


class SqlReplica(AsyncReplica):
    """A read replica of a key store in an SQL database.

    Args:
        database: The replica.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.place = database.place

    async def read_key(self, key_id: str) -> Reading:
        return await self._database.read(queries.read_key, key_id)

    async def tend(self) -> None:
        await self._database.tend()

    async def aclose(self) -> None:
        await self._database.aclose()
