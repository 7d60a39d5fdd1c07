"""The key store as the core awaits it: one port, with a deadline for each call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import Key, KeyRecord, Organization, Use
from keyguard.core.texts import escaped
from keyguard.core.usage.ports import UsageStore
from keyguard.core.values import Page
from keyguard.exceptions import StoreUnavailableError
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.observers import UNOBSERVED, Observers, observed
from keyguard.stores.base import AsyncStore, Store, SyncUsageStore

if TYPE_CHECKING:  # only changes and reports need these
    from datetime import datetime

    from keyguard.core.keys.audit import AuditEntry
    from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
    from keyguard.core.keys.commit import Commit, Ending
    from keyguard.core.keys.lists import KeyDigest, KeyFilter
    from keyguard.core.keys.requests import KeyRequest, RequestFilter, RequestRecord
    from keyguard.core.keys.temporary import Temporary
    from keyguard.core.usage.values import Flush, Period, Question, Total, Writer

Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")
Asked = TypeVar("Asked")

_logger = logging.getLogger("keyguard")

_TRY_AGAIN = "try again later"
_LOOK_FIRST = "the change may have been made: check before you try again"


async def in_time(seconds: float, answer: Awaitable[Answer], advice: str = _TRY_AGAIN) -> Answer:
    """Await an answer of the key store.

    Args:
        seconds: The time after which the call is ended.
        answer: The call.
        advice: What the message of the error advises.

    Raises:
        StoreUnavailableError: The store did not answer in time.
    """
    try:
        async with awithin(seconds):
            return await answer
    except TimeoutError as late:
        raise StoreUnavailableError(
            f"the key store did not answer within {seconds:g} seconds; {advice}"
        ) from late


class _Port:
    """Calls of a store of either flavour, with a deadline.

    Args:
        timeout: Seconds that a call may take.
        observers: The observers of the calls.
        key_store: The key store, which names the database.
    """

    _room = ""
    """How the names of its operations begin for observers."""

    def __init__(self, timeout: float, observers: Observers, key_store: object) -> None:
        self.timeout = timeout
        self._observers = observers
        self._key_store = key_store

    def around(self, method: object) -> AbstractContextManager[None]:
        """Call a method of the store, and let the observers see the call."""
        observers = self._observers.of_keys
        if not observers:
            return UNOBSERVED
        return observed(observers, self._key_store, self._room + getattr(method, "__name__", ""))

    async def _ask(
        self,
        method: Callable[Arguments, Awaitable[Answer] | Answer],
        *args: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Answer:
        with self.around(method):
            with within(self.timeout):
                answer = method(*args, **options)
            if isinstance(answer, Awaitable):
                return await in_time(self.timeout, answer)  # pyright: ignore[reportUnknownArgumentType]
            return answer


class StorePort(_Port, KeyStore):
    """A store as the core's ``KeyStore``. With a store for sync code no method suspends.

    Args:
        store: The store.
        timeout: Seconds that a call may take.
        observers: The observers of the calls.
    """

    def __init__(self, store: Store | AsyncStore, timeout: float, observers: Observers) -> None:
        super().__init__(timeout, observers, store)
        self._store = store

    async def _list(
        self,
        method: Callable[Arguments, Awaitable[Page[Answer]] | Page[Answer]],
        *args: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Page[Answer]:
        page = await self._ask(method, *args, **options)
        if page.damaged:
            left_out = escaped(", ".join(page.damaged))
            _logger.warning("a list leaves out records that the key store can't read: %s", left_out)
        return page

    async def _change(
        self, method: Callable[[Asked], Awaitable[Answer] | Answer], asked: Asked
    ) -> Answer:
        with self.around(method):
            with within(self.timeout):
                answer = method(asked)
            if isinstance(answer, Awaitable):
                return await in_time(self.timeout, answer, _LOOK_FIRST)  # pyright: ignore[reportUnknownArgumentType]
            return answer

    async def commit(self, commit: Commit) -> bool:
        """Commit, and forget what changes, even after an error: the change may have happened."""
        try:
            return await self._change(self._store.commit, commit)
        finally:
            VerifiedTokens.forget(commit.subjects())

    async def end(self, ending: Ending) -> tuple[str, ...] | None:
        """End keys or an organization, and forget them, even after a failure."""
        ended: tuple[str, ...] | None = None
        try:
            ended = await self._change(self._store.end, ending)
            return ended
        finally:
            # Only the store knows the keys of a family.
            unknown = ended is None and ending.ends_family
            VerifiedTokens.forget(None if unknown else (ending.subject, *(ended or ())))

    async def find_organization(self, name: str) -> Organization | None:
        return await self._ask(self._store.find_organization, name)

    async def list_organizations(self, *, after: str | None, limit: int) -> Page[Organization]:
        return await self._list(self._store.list_organizations, after=after, limit=limit)

    async def find_key(self, key_id: str) -> KeyRecord | None:
        return await self._ask(self._store.find_key, key_id)

    async def find_existing(self, key_ids: Sequence[str]) -> frozenset[str]:
        return await self._ask(self._store.find_existing, key_ids)

    async def list_keys(self, wanted: KeyFilter, *, after: str | None, limit: int) -> Page[Key]:
        return await self._list(self._store.list_keys, wanted, after=after, limit=limit)

    async def list_digests(self, *, after: str | None, limit: int) -> Page[KeyDigest]:
        return await self._list(self._store.list_digests, after=after, limit=limit)

    async def rehash_key(self, key_id: str, old: str, new: str) -> None:
        await self._ask(self._store.rehash_key, key_id, old, new)

    async def mark_used(self, uses: Sequence[Use]) -> None:
        await self._ask(self._store.mark_used, uses)

    async def list_audit(
        self, *, organization: str | None, subject: str | None, after: str | None, limit: int
    ) -> Page[AuditEntry]:
        return await self._list(
            self._store.list_audit,
            organization=organization,
            subject=subject,
            after=after,
            limit=limit,
        )

    async def delete_audit(self, deletion: AuditDeletion) -> AuditPart:
        return await self._change(self._store.delete_audit, deletion)

    async def find_request(self, request_id: str) -> RequestRecord | None:
        return await self._ask(self._store.find_request, request_id)

    async def list_requests(
        self, wanted: RequestFilter, *, after: str | None, limit: int
    ) -> Page[KeyRequest]:
        return await self._list(self._store.list_requests, wanted, after=after, limit=limit)

    async def put_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self._ask(self._store.put_temporary, record, now)

    async def replace_temporary(self, record: Temporary, now: datetime) -> bool:
        return await self._ask(self._store.replace_temporary, record, now)

    async def find_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        return await self._ask(self._store.find_temporary, kind, digest, now)

    async def take_temporary(self, kind: str, digest: str, now: datetime) -> Temporary | None:
        return await self._ask(self._store.take_temporary, kind, digest, now)


class UsagePort(_Port, UsageStore):
    """A store of usage as the core's ``UsageStore``. With one for sync code no method suspends.

    Args:
        usage: The store of usage.
        timeout: Seconds that a call may take.
        observers: The observers of the calls.
        key_store: The key store that keeps the usage.
    """

    _room = "usage."

    def __init__(
        self,
        usage: UsageStore | SyncUsageStore,
        timeout: float,
        observers: Observers,
        key_store: Store | AsyncStore,
    ) -> None:
        super().__init__(timeout, observers, key_store)
        self._usage = usage

    async def add(self, flush: Flush) -> None:
        await self._ask(self._usage.add, flush)

    async def totals(self, question: Question) -> Sequence[Total]:
        return await self._ask(self._usage.totals, question)

    async def largest(self, question: Question) -> Sequence[Total]:
        return await self._ask(self._usage.largest, question)

    async def writers(self) -> Sequence[Writer]:
        return await self._ask(self._usage.writers)

    async def leave(self, writer: str) -> None:
        await self._ask(self._usage.leave, writer)

    async def unfolded(self, before: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        return await self._ask(self._usage.unfolded, before, limit)

    async def fold(self, organization: str, day: Period) -> None:
        await self._ask(self._usage.fold, organization, day)

    async def forget(self, organization: str, before: datetime) -> None:
        await self._ask(self._usage.forget, organization, before)

    async def dismiss(self, organization: str, hint: str, until: datetime) -> None:
        await self._ask(self._usage.dismiss, organization, hint, until)

    async def dismissed(self, organization: str, now: datetime) -> frozenset[str]:
        return await self._ask(self._usage.dismissed, organization, now)
