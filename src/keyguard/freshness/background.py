"""The background work of a guard.

It follows the change feed, checks a read replica, writes to the store when keys were last used and
what was counted, and hashes tokens again if their digest is outdated. Each guard has one worker,
started at its first look-up: a daemon thread in sync code, a task in async code. Both run the same
coroutine; in the thread nothing of it suspends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Generic, Protocol, TypeVar

from keyguard.core.access.ports import Mark
from keyguard.core.keys.ports import KeyStore
from keyguard.core.keys.records import Use
from keyguard.core.tokens.secret import Secret
from keyguard.freshness.usage_work import UsageWork
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime import events
from keyguard.runtime.pool import HashPool
from keyguard.runtime.process import Clock, after_fork
from keyguard.settings.hashing import TokenHasher
from keyguard.stores.base import AsyncChangeFeed, ChangeFeed, News

AnyFeed = TypeVar("AnyFeed", ChangeFeed, AsyncChangeFeed)

FLUSH_EVERY = 60.0
"""Seconds between two flushes of uses: what a process that is killed can lose."""

BEAT_EVERY = 5.0
"""Seconds between two beats, for metrics that are written beside the requests."""

_LONGEST_PATIENCE = 1.0
_MOST_USES = 500  # in one call of the store
_MOST_REHASHES = 1000  # waiting


class ReplicaCare(Protocol):
    """The background work for a read replica."""

    async def look_after(self) -> str | None:
        """Check the replica; return its position, if no look-up at that position can be trusted."""
        ...

    def note_behind(self, *, is_foreign: bool) -> None:
        """Note that the replica is not in step.

        Args:
            is_foreign: Whether the primary never had that position.
        """


class BackgroundWork(ABC, Generic[AnyFeed]):
    """The work of a guard's worker, in both flavours.

    Args:
        store: The key store, with a deadline for each call.
        open_feed: Returns a new reader of the change feed, or None where there is no feed.
        tokens: The memory that is kept in step with the store.
        hasher: Hashes tokens.
        pool: Runs slow hashes.
        clock: Where time comes from.
        timeout: Seconds that one call of the store may take.
        max_staleness: Seconds within which a change must be known.
        tell: Reports events to the hooks.
        replica: The read replica, if there is one.
        usage: Writes the counts to the store; None if the store keeps no usage.
        beat: Called every few seconds, and with each flush.
    """

    def __init__(
        self,
        store: KeyStore,
        open_feed: Callable[[], AnyFeed | None],
        tokens: VerifiedTokens,
        hasher: TokenHasher,
        pool: HashPool,
        *,
        clock: Clock,
        timeout: float,
        max_staleness: float,
        tell: Callable[[events.Event], None],
        replica: ReplicaCare | None = None,
        usage: UsageWork | None,
        beat: Callable[[], None],
    ) -> None:
        self._usage = usage
        self._beat = beat
        self._store = store
        self._replica = replica
        self._open_feed: Callable[[], AnyFeed | None] = open_feed
        self._tokens = tokens
        self._hasher = hasher
        self._pool = pool
        self._clock = clock
        self._timeout = timeout
        # A quarter, so that an answer that just misses a change still leaves time for the next.
        self._patience = min(_LONGEST_PATIENCE, max_staleness / 4)
        self._tell = tell
        self._follows = max_staleness > 0
        self._rehashes: deque[tuple[str, str, Secret]] = deque(maxlen=_MOST_REHASHES)
        self._is_abandoned = False
        self._start_afresh()
        after_fork(self._start_afresh)

    @abstractmethod
    def _start_afresh(self) -> None:
        """Make anew what a forked child must not inherit."""
        self._failed_at: float | None = None
        self._known_at: float | None = None  # all changes before this are known

    def abandon(self) -> None:
        """Let the worker end at its next check, because the guard is no longer in use."""
        # The garbage collector calls this at any moment, even within the worker's own wait. An
        # Event's lock, which that wait may hold, would deadlock.
        self._is_abandoned = True

    @property
    def lag(self) -> float | None:
        """Seconds since every change was known; None before the change feed was followed."""
        return None if self._known_at is None else self._clock.monotonic() - self._known_at

    @property
    def is_up(self) -> bool | None:
        """Whether the change feed answers; None before it was asked."""
        if self._failed_at is None and self._known_at is None:
            return None
        return self._failed_at is None

    def rehash(self, key_id: str, digest: str, token: Secret) -> None:
        """Hash a genuine token by the current scheme, when there is time.

        Args:
            key_id: The token's key.
            digest: Its stored digest.
            token: The token.
        """
        self._rehashes.append((key_id, digest, token))

    async def _follow(self, feed: AnyFeed | None, is_over: Callable[[], bool]) -> None:
        """Follow the feed and do all other work, until ``is_over`` returns True."""
        position: str | None = None
        is_behind = False
        flushed_at = beaten_at = self._clock.monotonic()
        while not is_over():
            mark = self._tokens.begin()
            began = mark[1]
            patience = 0.0 if self._rehashes or is_behind else self._patience
            busy = False
            if feed is not None and self._follows:
                try:
                    news = await self._read(feed, position, patience)
                    busy = self._apply(position, news, mark)
                    position = news.position
                    if self._replica is not None:
                        await self._care_for(self._replica, feed)
                except Exception as failure:  # noqa: BLE001 - reported once, and tried again
                    if is_over():  # closing ended the read
                        break
                    self._note_failure(failure)
                else:
                    self._note_success()
            if self._rehashes:
                # One hash, then the feed again: a slow hash takes as long as a change may lag.
                await self._rehash_next()
                busy = True
            if self._clock.monotonic() - flushed_at >= FLUSH_EVERY:
                flushed_at = self._clock.monotonic()
                await self._flush_uses()
            if self._clock.monotonic() - beaten_at >= BEAT_EVERY:
                beaten_at = self._clock.monotonic()
                self._beat()
            if self._usage is not None:
                is_behind = await self._turn(self._usage)
                busy = busy or is_behind
            spent = self._clock.monotonic() - began
            pause = (self._patience or _LONGEST_PATIENCE) - spent
            if not busy and pause > 0:
                await self._sleep(pause)

    async def _care_for(self, replica: ReplicaCare, feed: AnyFeed) -> None:
        """Check the read replica; if it is at an unknown position, ask the primary about it."""
        position = await replica.look_after()
        if position is not None:
            news = await self._read(feed, position, 0.0)
            replica.note_behind(is_foreign=news.subjects is None)

    def _apply(self, position: str | None, news: News, mark: Mark) -> bool:
        """Forget what changed; return whether the feed may have more entries at once."""
        if position is None or news.subjects is None:
            # What was remembered before the feed was followed may have changed before, too.
            self._tokens.forget_all()
        else:
            self._tokens.forget_here(news.subjects)
        if news.whole:
            # During a backlog nothing can be vouched for: the next read may report a change.
            self._tokens.vouch(mark, news.position)
            self._known_at = mark[1]
        # The first answer only says where to begin. A pause now would miss what comes meanwhile.
        return bool(news.subjects) or position is None

    async def _rehash_next(self) -> None:
        key_id, old, token = self._rehashes.popleft()
        with suppress(Exception):  # the next use of the key tries again
            job = partial(self._hasher.rehash, token)
            slow = self._hasher.rehashes_slowly(token)
            new = await self._run_slowly(job) if slow else job()
            await self._store.rehash_key(key_id, old, new)

    async def _flush(self, *, last: bool = False) -> None:
        if self._usage is not None:
            await self._usage.tell(last=last)
        await self._flush_uses()
        self._beat()

    async def _flush_uses(self) -> None:
        uses: list[Use] = self._tokens.take_uses()
        while uses:
            portion: list[Use] = uses[:_MOST_USES]
            uses = uses[_MOST_USES:]
            try:
                await self._store.mark_used(portion)
            except BaseException as failure:  # a cancellation, too: written later
                for use in (*portion, *uses):
                    self._tokens.note_use(use)
                if isinstance(failure, Exception):
                    return
                raise

    def _note_failure(self, failure: Exception) -> None:
        if self._failed_at is None:
            self._failed_at = self._clock.monotonic()
            self._tell(events.FeedFailed(at=self._now(), cause=failure))

    def _note_success(self) -> None:
        if self._failed_at is not None:
            lasted = self._clock.monotonic() - self._failed_at
            self._failed_at = None
            self._tell(events.FeedRecovered(at=self._now(), lasted=lasted))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

    @abstractmethod
    async def _read(self, feed: AnyFeed, position: str | None, patience: float) -> News:
        """Ask the feed, within a deadline."""

    @abstractmethod
    async def _turn(self, usage: UsageWork) -> bool:
        """Do what is due for usage, to its end even if the worker ends meanwhile."""

    @abstractmethod
    async def _run_slowly(self, job: Callable[[], str]) -> str:
        """Run a slow hash."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait."""
