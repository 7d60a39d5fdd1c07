"""Stores for sync code, made of coroutines that never suspend.

A store of keys or counters is written once, as ``async def`` over a port that executes a statement
or a command. Where that port is a driver for sync code, its coroutines end at once; these classes
run them, with the plain methods of :mod:`keyguard.stores.base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.lists import KeyDigest, KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
from keyguard.core.keys.temporary import Temporary
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.values import Page
from keyguard.exceptions import StoreError
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import (
    AsyncBatchRateLimiter,
    AsyncChangeFeed,
    AsyncRateLimiter,
    AsyncReplica,
    AsyncStore,
    ChangeFeed,
    News,
    RateLimiter,
    Reading,
    Replica,
    Store,
    SyncUsageStore,
)

if TYPE_CHECKING:  # only reports need these
    from keyguard.core.usage.ports import UsageStore
    from keyguard.core.usage.values import Flush, Period, Question, Total, Writer


class SyncChangeFeed(ChangeFeed):
    """A change feed for one thread.

    Args:
        feed: The same for async code, over a port that never suspends.
    """

    def __init__(self, feed: AsyncChangeFeed) -> None:
        self._feed = feed

    def read(self, position: str | None, patience: float) -> News:
        return run_sync(self._feed.read(position, patience))

    def close(self) -> None:
        run_sync(self._feed.aclose())


class SyncStore(Store):
    """A key store for sync code.

    Args:
        store: The same for async code, over a port that never suspends.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    def migrate(self) -> None:
        run_sync(self._store.migrate())

    def close(self) -> None:
        run_sync(self._store.aclose())

    def commit(self, commit: Commit) -> bool:
        return run_sync(self._store.commit(commit))

    def end(self, ending: Ending) -> tuple[str, ...] | None:
        return run_sync(self._store.end(ending))

    def find_organization(self, name: str) -> Organization | None:
        return run_sync(self._store.find_organization(name))

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        return run_sync(self._store.list_organizations(after=after, limit=limit))

    def find_key(self, key_id: str) -> KeyRecord | None:
        return run_sync(self._store.find_key(key_id))

    def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        return run_sync(self._store.find_existing(key_ids))

    def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        return run_sync(self._store.list_keys(wanted, after=after, limit=limit))

    def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        return run_sync(self._store.list_digests(after=after, limit=limit))

    def rehash_key(self, key_id: str, old: str, new: str) -> None:
        run_sync(self._store.rehash_key(key_id, old, new))

    def mark_used(self, uses: Sequence[Use]) -> None:
        run_sync(self._store.mark_used(uses))

    def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        return run_sync(
            self._store.list_audit(
                organization=organization, subject=subject, after=after, limit=limit
            )
        )

    def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        return run_sync(self._store.delete_audit(deletion))

    def find_request(self, request_id: str) -> RequestRecord | None:
        return run_sync(self._store.find_request(request_id))

    def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        return run_sync(self._store.list_requests(wanted, after=after, limit=limit))

    def put_temporary(self, record: Temporary, now: datetime) -> bool:
        return run_sync(self._store.put_temporary(record, now))

    def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        return run_sync(self._store.replace_temporary(record, now))

    def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        return run_sync(self._store.find_temporary(kind, digest, now))

    def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        return run_sync(self._store.take_temporary(kind, digest, now))

    def feed(self) -> ChangeFeed | None:
        feed = self._store.feed()
        return None if feed is None else SyncChangeFeed(feed)


class SyncReplica(Replica):
    """A read replica for sync code.

    Args:
        replica: The same for async code, over a port that never suspends.
    """

    def __init__(self, replica: AsyncReplica) -> None:
        self._replica = replica
        self.place = replica.place

    def read_key(self, key_id: str) -> Reading:
        return run_sync(self._replica.read_key(key_id))

    def tend(self) -> None:
        run_sync(self._replica.tend())

    def close(self) -> None:
        run_sync(self._replica.aclose())


class SyncRateLimiter(RateLimiter):
    """A store of counters for sync code.

    Args:
        limiter: The same for async code, over a port that never suspends.
    """

    def __init__(self, limiter: AsyncRateLimiter) -> None:
        self._limiter = limiter

    def migrate(self) -> None:
        run_sync(self._limiter.migrate())

    def close(self) -> None:
        run_sync(self._limiter.aclose())

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        return run_sync(self._limiter.hit(charges))

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        return run_sync(self._limiter.adjust(charges, units, ends_at))


class SyncBatchRateLimiter(SyncRateLimiter):
    """The same for a store that counts several hits in one call."""

    _limiter: AsyncBatchRateLimiter

    def hit_all(self, hits: Sequence[Sequence[Charge]]) -> Sequence[Outcome | StoreError]:
        return run_sync(self._limiter.hit_all(hits))


class SyncUsage(SyncUsageStore):
    """A store of usage for sync code.

    Args:
        usage: The same for async code, over a port that never suspends.
    """

    def __init__(self, usage: UsageStore) -> None:
        self._usage = usage

    def add(self, flush: Flush) -> None:
        run_sync(self._usage.add(flush))

    def totals(self, question: Question) -> Sequence[Total]:
        return run_sync(self._usage.totals(question))

    def largest(self, question: Question) -> Sequence[Total]:
        return run_sync(self._usage.largest(question))

    def writers(self) -> Sequence[Writer]:
        return run_sync(self._usage.writers())

    def leave(self, writer: str) -> None:
        run_sync(self._usage.leave(writer))

    def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        return run_sync(self._usage.unfolded(before, limit))

    def fold(self, organization: str, day: Period) -> None:
        run_sync(self._usage.fold(organization, day))

    def forget(self, organization: str, before: datetime) -> None:
        run_sync(self._usage.forget(organization, before))

    def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        run_sync(self._usage.dismiss(organization, hint, until))

    def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        return run_sync(self._usage.dismissed(organization, now))
