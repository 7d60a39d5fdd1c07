"""What a store of keys and a store of counters must be able to do, in both flavours.

A store decides nothing. Every method takes effect as a whole or not at all, and raises a
:class:`~keyguard.exceptions.StoreError` (with the driver's error as ``__cause__``) if the store
fails. A store of your own needs only these methods. If it is across a network, use
:func:`keyguard.runtime.deadlines.remaining` as the driver's timeout.

A limiter decides only whether there is room: a bucket's name, size, strategy and cost come with
each charge. If a limiter fails, the guard goes on as ``on_limiter_error`` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.texts import fits
from keyguard.core.values import Page
from keyguard.exceptions import CorruptDataError, StoreError

if TYPE_CHECKING:  # only changes and reports need these
    from datetime import datetime

    from keyguard.core.keys.audit import AuditEntry
    from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
    from keyguard.core.keys.commit import Commit, Ending
    from keyguard.core.keys.lists import KeyDigest, KeyFilter
    from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
    from keyguard.core.keys.temporary import Temporary
    from keyguard.core.usage.ports import UsageStore
    from keyguard.core.usage.values import Flush, Period, Question, Total, Writer

__all__ = [
    "AsyncChangeFeed",
    "AsyncRateLimiter",
    "AsyncReplica",
    "AsyncStore",
    "ChangeFeed",
    "News",
    "RateLimiter",
    "Reading",
    "Replica",
    "Store",
]


_LONGEST_ADDRESS = 64


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=_Identified)
Row = TypeVar("Row")


class Damaged(NamedTuple):
    """A row of a list that can't be read.

    Args:
        id: The id under which it is stored.
    """

    id: str


def read_listed(row_id: str, decode: Callable[[Row], Listed], row: Row) -> Listed | Damaged:
    """Return the record in a row of a list, or :class:`Damaged`. Such a row never ends a list."""
    try:
        record = decode(row)
    except CorruptDataError:
        return Damaged(row_id)
    return record if record.id == row_id else Damaged(row_id)


def storable_address(address: str | None) -> str | None:
    """Return the address of a client as a store keeps it; None if a store can't keep the text."""
    # The server in front chooses the text of the address.
    if address is None or not fits(address):
        return None
    return address[:_LONGEST_ADDRESS]


def page_of(found: Sequence[Listed | Damaged], limit: int) -> Page[Listed]:
    """Return the first page of records that were found with a limit one larger than the page's.

    Args:
        found: Records in order, with the damaged rows between them.
        limit: The largest number of records and damaged rows on a page.
    """
    page = found[:limit]
    return Page(
        tuple(item for item in page if not isinstance(item, Damaged)),
        page[-1].id if len(found) > limit else None,
        tuple(item.id for item in page if isinstance(item, Damaged)),
    )


class News(NamedTuple):
    """The result of a read of a change feed.

    Args:
        position: The reader's position in the feed now.
        subjects: The ids of the keys and organizations that changed; None if it is not known, so
            that everything may have changed.
        whole: Whether these are all changes until then. If not, the next read goes on at once.
    """

    position: str
    subjects: tuple[str, ...] | None
    whole: bool = True


class ChangeFeed(Protocol):
    """A reader of the audit trail, for one thread."""

    def read(self, position: str | None, patience: float) -> News:
        """Return what changed after a position.

        Args:
            position: The position that the last call returned; None to get the present end of the
                feed.
            patience: Seconds for which the feed may wait for a change, if the store can announce
                one. Otherwise it returns at once.

        Raises:
            StoreError: The store failed. A later call starts again at the same position.
        """
        ...

    def close(self) -> None:
        """Close what the feed opened for itself. Calling it twice is safe."""


class AsyncChangeFeed(Protocol):
    """A reader of the audit trail, for one task: :class:`ChangeFeed`, awaited."""

    async def read(self, position: str | None, patience: float) -> News: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class AsyncStore(KeyStore, Protocol):
    """A key store for async code."""

    async def migrate(self) -> None:
        """Create the store's tables or bring them up to date. It is safe to call at every start.

        Raises:
            SchemaError: The tables are newer than this version of keyguard.
        """

    async def aclose(self) -> None:
        """Close what the store opened itself. Calling it twice is safe."""

    def feed(self) -> AsyncChangeFeed | None:
        """Return a new reader of the audit trail. Nothing is opened before its first read.

        None if only this process can change the store, because its guards know of each change.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """A key store for sync code: the methods of :class:`AsyncStore`, not awaited."""

    def migrate(self) -> None: ...

    def close(self) -> None: ...

    def commit(self, commit: Commit) -> bool: ...

    def end(self, ending: Ending) -> tuple[str, ...] | None: ...

    def find_organization(self, name: str) -> Organization | None: ...

    def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]: ...

    def find_key(self, key_id: str) -> KeyRecord | None: ...

    def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]: ...

    def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]: ...

    def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]: ...

    def rehash_key(self, key_id: str, old: str, new: str) -> None: ...

    def mark_used(self, uses: Sequence[Use]) -> None: ...

    def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]: ...

    def delete_audit(self, deletion: AuditDeletion) -> AuditPart: ...

    def find_request(self, request_id: str) -> RequestRecord | None: ...

    def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]: ...

    def put_temporary(self, record: Temporary, now: datetime) -> bool: ...

    def replace_temporary(self, record: Temporary, now: datetime) -> bool: ...

    def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None: ...

    def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None: ...

    def feed(self) -> ChangeFeed | None: ...


class Reading(NamedTuple):
    """The record of a replica under a key id.

    Args:
        record: The key with its organization, or None.
        position: The replica's position in the change feed at that moment.
    """

    record: KeyRecord | None
    position: str


class AsyncReplica(Protocol):
    """A server that follows a key store's primary, for async code. It answers only look-ups."""

    place: str
    """The server's address, without secrets."""

    async def read_key(self, key_id: str) -> Reading:
        """Look a key up, however old the answer is.

        Raises:
            StoreError: The replica failed.
        """
        ...

    async def tend(self) -> None:
        """Keep a connection ready, in the background."""

    async def aclose(self) -> None:
        """Close what the replica opened itself. Calling it twice is safe."""


class Replica(Protocol):
    """A replica for sync code: the methods of :class:`AsyncReplica`, not awaited."""

    place: str

    def read_key(self, key_id: str) -> Reading: ...

    def tend(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class RateLimiter(Protocol):
    """A store of counters for sync code."""

    def migrate(self) -> None:
        """Create what the store needs or bring it up to date. It is safe to call at every start."""

    def close(self) -> None:
        """Close what the limiter opened itself. Calling it twice is safe."""

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        """Count charges, all or none, in one atomic step.

        Args:
            charges: At least one, all of one owner. If an enforced charge has no room, nothing is
                counted at all. A charge that is not enforced is counted if it has room.

        Returns:
            Whether they were counted, and the state of each bucket afterwards.
        """
        ...

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        """Count more units, even without room, or refund some.

        Args:
            charges: The buckets. Their costs are ignored.
            units: How many to add to each. A negative number is refunded, down to 0. With 0 a
                bucket is only read, and not created.
            ends_at: The ``ends_at`` of each tally when it was counted, for refunds. After that time
                nothing is refunded, because a refund would let the client exceed the limit.

        Returns:
            An outcome that is admitted, with the state of each bucket afterwards, as for a cost of
            1.
        """
        ...


@runtime_checkable
class AsyncRateLimiter(Protocol):
    """A store of counters for async code: :class:`RateLimiter`, awaited."""

    async def migrate(self) -> None: ...

    async def aclose(self) -> None: ...

    async def hit(self, charges: Sequence[Charge]) -> Outcome: ...

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome: ...


@runtime_checkable
class CountsTogether(Protocol):
    """An optional part of a store of counters, by which concurrent hits are counted in one call.

    Where it has an attribute ``counts_owners_together`` that is true, ``hit_all`` takes hits of
    several owners.
    """

    def hit_all(
        self, hits: Sequence[Sequence[Charge]]
    ) -> Sequence[Outcome | StoreError] | Awaitable[Sequence[Outcome | StoreError]]:
        """Count hits of one owner one after another, in one call.

        Args:
            hits: The charges of each hit. Each is counted as by :meth:`RateLimiter.hit`.

        Returns:
            A list of their outcomes, in order. If a hit failed while others were counted, its place
            holds the error. For async code the list is awaited.
        """
        ...


class AsyncBatchRateLimiter(AsyncRateLimiter, Protocol):
    """A store of counters for async code that counts several hits in one call."""

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        (outcome,) = await self.hit_all((charges,))
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> Sequence[Outcome | StoreError]: ...


@runtime_checkable
class AsyncKeepsUsage(Protocol):
    """An optional part of a key store for async code: it keeps usage."""

    def usage(self) -> UsageStore:
        """Return the store of usage. It shares the key store's connections."""
        ...


class SyncUsageStore(Protocol):
    """A store of usage for sync code: the methods of ``UsageStore``, not awaited."""

    def add(self, flush: Flush) -> None: ...

    def totals(self, question: Question) -> Sequence[Total]: ...

    def largest(self, question: Question) -> Sequence[Total]: ...

    def writers(self) -> Sequence[Writer]: ...

    def leave(self, writer: str) -> None: ...

    def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]: ...

    def fold(self, organization: str, day: Period) -> None: ...

    def forget(self, organization: str, before: datetime) -> None: ...

    def dismiss(self, organization: str, hint: str, until: datetime) -> None: ...

    def dismissed(self, organization: str, now: datetime) -> frozenset[str]: ...


@runtime_checkable
class KeepsUsage(Protocol):
    """An optional part of a key store for sync code: it keeps usage."""

    def usage(self) -> SyncUsageStore:
        """Return the store of usage. It shares the key store's connections."""
        ...
