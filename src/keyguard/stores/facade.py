"""Stores for sync code, made of coroutines that never suspend.

A store of keys or counters is written once, as ``async def`` over a port that executes a statement
or a command. Where that port is a driver for sync code, its coroutines end at once; these classes
run them, with the plain methods of :mod:`keyguard.stores.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Concatenate, Generic, ParamSpec, TypeVar

from keyguard.core.usage.ports import UsageStore
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import (
    AsyncBatchRateLimiter,
    AsyncChangeFeed,
    AsyncRateLimiter,
    AsyncReplica,
    AsyncStore,
    ChangeFeed,
)

P = ParamSpec("P")
R = TypeVar("R")
Awaited = TypeVar("Awaited")


class _Sync(Generic[Awaited]):
    """What the classes for sync code share.

    Args:
        awaited: The same for async code, over a port that never suspends.
    """

    def __init__(self, awaited: Awaited) -> None:
        self._awaited = awaited


def _plain(
    method: Callable[Concatenate[Awaited, P], Coroutine[object, None, R]],
) -> Callable[Concatenate[_Sync[Awaited], P], R]:
    """Return a method that runs the awaited one of the same name."""
    name = method.__name__

    def call(self: _Sync[Awaited], /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = run_sync(getattr(self._awaited, name)(*args, **kwargs))
        return result

    call.__name__ = name  # observers of a store are told the names of its methods
    return call


class SyncChangeFeed(_Sync[AsyncChangeFeed]):
    """A change feed for one thread."""

    read = _plain(AsyncChangeFeed.read)
    close = _plain(AsyncChangeFeed.aclose)


class SyncStore(_Sync[AsyncStore]):
    """A key store for sync code."""

    migrate = _plain(AsyncStore.migrate)
    close = _plain(AsyncStore.aclose)
    commit = _plain(AsyncStore.commit)
    end = _plain(AsyncStore.end)
    find_organization = _plain(AsyncStore.find_organization)
    list_organizations = _plain(AsyncStore.list_organizations)
    find_key = _plain(AsyncStore.find_key)
    find_existing = _plain(AsyncStore.find_existing)
    list_keys = _plain(AsyncStore.list_keys)
    list_digests = _plain(AsyncStore.list_digests)
    rehash_key = _plain(AsyncStore.rehash_key)
    mark_used = _plain(AsyncStore.mark_used)
    list_audit = _plain(AsyncStore.list_audit)
    delete_audit = _plain(AsyncStore.delete_audit)
    find_request = _plain(AsyncStore.find_request)
    list_requests = _plain(AsyncStore.list_requests)
    put_temporary = _plain(AsyncStore.put_temporary)
    replace_temporary = _plain(AsyncStore.replace_temporary)
    find_temporary = _plain(AsyncStore.find_temporary)
    take_temporary = _plain(AsyncStore.take_temporary)

    def feed(self) -> ChangeFeed | None:
        feed = self._awaited.feed()
        return None if feed is None else SyncChangeFeed(feed)


class SyncReplica(_Sync[AsyncReplica]):
    """A read replica for sync code."""

    def __init__(self, awaited: AsyncReplica) -> None:
        super().__init__(awaited)
        self.place = awaited.place

    read_key = _plain(AsyncReplica.read_key)
    tend = _plain(AsyncReplica.tend)
    close = _plain(AsyncReplica.aclose)


class SyncRateLimiter(_Sync[AsyncRateLimiter]):
    """A store of counters for sync code."""

    migrate = _plain(AsyncRateLimiter.migrate)
    close = _plain(AsyncRateLimiter.aclose)
    hit = _plain(AsyncRateLimiter.hit)
    adjust = _plain(AsyncRateLimiter.adjust)


class SyncBatchRateLimiter(SyncRateLimiter):
    """A store of counters for sync code that counts several hits in one call."""

    _awaited: AsyncBatchRateLimiter
    hit_all = _plain(AsyncBatchRateLimiter.hit_all)


class SyncUsage(_Sync[UsageStore]):
    """A store of usage for sync code."""

    add = _plain(UsageStore.add)
    totals = _plain(UsageStore.totals)
    largest = _plain(UsageStore.largest)
    writers = _plain(UsageStore.writers)
    leave = _plain(UsageStore.leave)
    unfolded = _plain(UsageStore.unfolded)
    fold = _plain(UsageStore.fold)
    forget = _plain(UsageStore.forget)
    dismiss = _plain(UsageStore.dismiss)
    dismissed = _plain(UsageStore.dismissed)
