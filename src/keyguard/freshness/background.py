"""What a guard does beside requests: follow the change feed, tell the store of uses, hash anew.

One worker for each guard, started at its first look-up: a daemon thread in sync code, a task in
async code. What it does is one generator, which yields calls that may have to be awaited.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import signal
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from keyguard.core.keys.records import Use
from keyguard.core.tokens.secret import Secret
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.drivers import arun, run
from keyguard.runtime.events import Event, FeedFailed, FeedRecovered
from keyguard.runtime.hash_pool import HashPool
from keyguard.runtime.lazy import asyncio
from keyguard.runtime.process import Clock, after_fork
from keyguard.settings.hashing import TokenHasher
from keyguard.stores.base import AsyncStore, News, Store

__all__ = ["AsyncBackgroundWork", "BackgroundWork", "flush_on_sigterm"]

Course: TypeAlias = Generator[Callable[[], Any], Any, None]

FLUSH_EVERY = 60.0
"""Seconds between two flushes of uses: what a process that is killed can lose."""

_LONGEST_PATIENCE = 1.0
_LONGEST_PARTING = 2.0  # seconds between SIGTERM and the end
_MOST_USES = 500  # in one call of the store
_MOST_REHASHES = 1000  # waiting


class _BackgroundWork(ABC):
    """What both flavours share.

    Args:
        store: Where keys live.
        tokens: What has to be kept in step with it.
        hasher: Hashes tokens as they shall be stored.
        pool: Where slow hashes are made.
        clock: Where time comes from.
        timeout: Seconds that one call of the store may take.
        max_staleness: Seconds within which a change is to be known.
        tell: Takes events.
    """

    def __init__(
        self,
        store: Any,
        tokens: VerifiedTokens,
        hasher: TokenHasher,
        pool: HashPool,
        *,
        clock: Clock,
        timeout: float,
        max_staleness: float,
        tell: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._hasher = hasher
        self._pool = pool
        self._clock = clock
        self._timeout = timeout
        # A quarter, so that an answer that just misses a change still leaves time for the next.
        self._patience = min(_LONGEST_PATIENCE, max_staleness / 4)
        self._tell = tell
        self._follows = max_staleness > 0
        self._failed_at: float | None = None
        self._rehashes: deque[tuple[str, str, Secret]] = deque(maxlen=_MOST_REHASHES)
        self._is_alone = False

    def abandon(self) -> None:
        """Have the worker end when it next looks, for nobody holds the guard any more."""
        # Called by the garbage collector, amid anything, even the worker's own wait: an Event,
        # whose lock that may hold, would never let go.
        self._is_alone = True

    def rehash(self, key_id: str, digest: str, token: Secret) -> None:
        """Have a genuine token stored under the current scheme, when there is time.

        Args:
            key_id: The token's key.
            digest: Its stored form.
            token: The token.
        """
        self._rehashes.append((key_id, digest, token))

    def _course(self, feed: Any, is_over: Callable[[], bool]) -> Course:
        position: str | None = None
        flushed_at = self._clock.monotonic()
        while not is_over():
            began = self._clock.monotonic()
            busy = False
            if feed is not None and self._follows:
                try:
                    patience = 0.0 if self._rehashes else self._patience
                    news = yield partial(self._read, feed, position, patience)
                    busy = self._apply(position, news, began)
                    position = news.position
                except Exception as failure:  # noqa: BLE001 - told once, and tried again
                    self._note_failure(failure)
                else:
                    self._note_success()
            if self._rehashes:
                # One, then the feed again: a slow hash takes as long as a change may lag.
                yield from self._hash_anew()
                busy = True
            if self._clock.monotonic() - flushed_at >= FLUSH_EVERY:
                flushed_at = self._clock.monotonic()
                yield from self._flush()
            spent = self._clock.monotonic() - began
            pause = (self._patience or _LONGEST_PATIENCE) - spent
            if not busy and pause > 0:
                yield partial(self._sleep, pause)

    def _apply(self, position: str | None, news: News, asked_at: float) -> bool:
        """Forget what changed; return whether there may be more to hear at once."""
        if position is None or news.subjects is None:
            # What was remembered before the feed was followed may have changed before, too.
            self._tokens.forget_all()
        else:
            self._tokens.forget_here(news.subjects)
        if news.whole:
            # Amid a backlog nobody can tell: what changed may be told only by the next read.
            self._tokens.vouch(asked_at)
        # The first answer only says where to begin: who slept now would be deaf meanwhile.
        return bool(news.subjects) or position is None

    def _hash_anew(self) -> Course:
        key_id, old, token = self._rehashes.popleft()
        with suppress(Exception):  # the next use of the key tries again
            new = yield partial(self._hash, token, old)
            yield partial(self._call, "rehash_key", key_id, old, new)

    def _flush(self) -> Course:
        uses = self._tokens.take_uses()
        while uses:
            portion, uses = uses[:_MOST_USES], uses[_MOST_USES:]
            try:
                yield partial(self._call, "mark_used", portion)
            except BaseException as failure:  # cancelled, too: they are told later
                self._give_back([*portion, *uses])
                if isinstance(failure, Exception):
                    return
                raise

    def _give_back(self, uses: list[Use]) -> None:
        for use in uses:
            self._tokens.note_use(use)

    def _note_failure(self, failure: Exception) -> None:
        if self._failed_at is None:
            self._failed_at = self._clock.monotonic()
            self._tell(FeedFailed(at=self._now(), cause=failure))

    def _note_success(self) -> None:
        if self._failed_at is not None:
            lasted = self._clock.monotonic() - self._failed_at
            self._failed_at = None
            self._tell(FeedRecovered(at=self._now(), lasted=lasted))

    def _now(self) -> Any:
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._clock.time(), UTC)

    @abstractmethod
    def _read(self, feed: Any, position: str | None, patience: float) -> Any:
        """Ask the feed."""

    @abstractmethod
    def _call(self, method: str, *args: Any) -> Any:
        """Call the store within its deadline."""

    @abstractmethod
    def _hash(self, token: Secret, old: str) -> Any:
        """Return the form in which a token is to be stored instead of an outdated one."""

    @abstractmethod
    def _sleep(self, seconds: float) -> Any:
        """Wait, or until it is over."""


class BackgroundWork(_BackgroundWork):
    """The worker of a guard for sync code: a daemon thread."""

    _store: Store

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker, if it does not run."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            with self._lock:
                if self._thread is thread and not self._over.is_set():
                    _flush_at_exit(self)
                    worker = threading.Thread(
                        target=self._work, name="keyguard-background", daemon=True
                    )
                    # No thread may be to be had: the next look-up tries again.
                    with suppress(RuntimeError):
                        worker.start()
                        self._thread = worker

    def close(self) -> None:
        """End the worker, and tell the store of all uses."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._over.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._patience + self._timeout)
        self.flush()
        with self._lock:
            self._over = threading.Event()  # a guard that is used again starts again

    def flush(self) -> None:
        """Tell the store of all uses now."""
        run(self._flush(), _called)

    def _work(self) -> None:
        over = self._over
        feed = self._store.feed()
        try:
            run(self._course(feed, lambda: self._is_alone or over.is_set()), _called)
        finally:
            if feed is not None:
                with suppress(Exception):
                    feed.close()

    def _read(self, feed: Any, position: str | None, patience: float) -> Any:
        with within(patience + self._timeout):
            return feed.read(position, patience)

    def _call(self, method: str, *args: Any) -> Any:
        with within(self._timeout):
            return getattr(self._store, method)(*args)

    def _hash(self, token: Secret, old: str) -> str:
        job = partial(self._hasher.rehash, token, old)
        slow = self._hasher.rehashes_slowly(token, old)
        return self._pool.run(job) if slow else job()

    def _sleep(self, seconds: float) -> None:
        self._over.wait(seconds)


class AsyncBackgroundWork(_BackgroundWork):
    """The worker of a guard for async code: a task on each event loop. Only asyncio has one."""

    _store: AsyncStore

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )
        self._over = threading.Event()

    def start(self) -> None:
        """Start the worker on this event loop, if it does not run here."""
        loop = _running_loop()
        if loop is None:
            return
        task = self._tasks.get(loop)
        if task is None or task.done():
            self._forget_closed_loops()
            # In a context of its own: that of the request that started it would never be freed.
            context = contextvars.Context()
            self._tasks[loop] = loop.create_task(
                self._work(), name="keyguard-background", context=context
            )

    def _forget_closed_loops(self) -> None:
        # A task holds its loop, so that these would never be freed.
        for reference in self._tasks.keyrefs():
            loop = reference()
            if loop is not None and loop.is_closed():
                self._tasks.pop(loop, None)

    async def aclose(self) -> None:
        """End the worker, and tell the store of all uses."""
        over, self._over = self._over, threading.Event()  # used again, it starts again
        over.set()  # for the workers of other loops
        loop = _running_loop()
        task = None if loop is None else self._tasks.pop(loop, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.flush()

    async def flush(self) -> None:
        """Tell the store of all uses now."""
        await arun(self._flush(), _acalled)

    async def _work(self) -> None:
        feed = self._store.feed()
        try:
            over = self._over
            await arun(self._course(feed, lambda: self._is_alone or over.is_set()), _acalled)
        finally:
            if feed is not None:
                with suppress(Exception):
                    await feed.aclose()

    async def _read(self, feed: Any, position: str | None, patience: float) -> Any:
        async with awithin(patience + self._timeout):
            return await feed.read(position, patience)

    async def _call(self, method: str, *args: Any) -> Any:
        async with awithin(self._timeout):
            return await getattr(self._store, method)(*args)

    async def _hash(self, token: Secret, old: str) -> str:
        job = partial(self._hasher.rehash, token, old)
        slow = self._hasher.rehashes_slowly(token, old)
        return await self._pool.arun(job) if slow else job()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _called(call: Callable[[], Any]) -> Any:
    return call()


async def _acalled(call: Callable[[], Any]) -> Any:
    return await call()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# The end of a process. An async guard is flushed by its application's lifespan instead.

_flushed_at_exit: weakref.WeakSet[BackgroundWork] = weakref.WeakSet()
_exit_watched_in: int | None = None


def _flush_at_exit(background: BackgroundWork) -> None:
    global _exit_watched_in  # noqa: PLW0603 - one watch a process, however many guards
    _flushed_at_exit.add(background)
    if _exit_watched_in is None:
        atexit.register(_part)
    _exit_watched_in = os.getpid()


def flush_on_sigterm() -> None:
    """Flush before SIGTERM ends the process, where nobody else has a handler for it."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: object) -> None:  # noqa: ARG001 - what signal calls
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # On a thread of its own: this one may hold, under the handler, the very lock that it needs.
    parting = threading.Thread(target=_part, name="keyguard-parting", daemon=True)
    parting.start()
    parting.join(_LONGEST_PARTING)
    os.kill(os.getpid(), signal.SIGTERM)


def _part() -> None:
    for background in list(_flushed_at_exit):
        with suppress(Exception):
            background.flush()
