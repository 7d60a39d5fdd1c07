"""The WebSockets that are open, ended once their key is good for nothing."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from math import inf
from typing import Any, TypeAlias

from keyguard.adapters._asgi_connection import Receive
from keyguard.adapters._asgi_exchange import Exchange, running_loop
from keyguard.adapters._websocket_exchange import POLICY_VIOLATION, WebSocketExchange
from keyguard.core.access.decisions import Allow, Reason
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard

__all__ = ["OpenConnections"]

_TRY_AGAIN_LATER = 1013  # of IANA's registry of close codes
_Asked: TypeAlias = tuple[tuple[bytes, ...], bool, str | None]  # fields, whether secure, address

_AT_ONCE = 50  # look-ups
_SHORTEST_ROUND = 0.05
_GRAIN = 0.01


class OpenConnections:
    """The WebSockets that are open, each ended within ``max_staleness`` of its key's end.

    One task for each event loop, while any is open. It asks the cache, which is told of changes by
    the feed; and the store, where the cache can't vouch for a key much longer. What the store does
    not answer in time is ended as well: nobody knows whether the key is still good.

    Args:
        guard: Who decides.
    """

    def __init__(self, guard: AsyncKeyguard) -> None:
        self._guard = guard
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = (
            weakref.WeakKeyDictionary()
        )

    def enter(self, exchange: Exchange, receive: Receive) -> Receive:
        """Take a connection in; return the ``receive`` that its application is to use.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        loop = running_loop()
        if loop is None:
            raise ConfigurationError("close_on_revoke needs asyncio: no other event loop will do")
        if not isinstance(exchange, WebSocketExchange) or exchange.allow is None:
            return receive
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self._guard, loop)
        watch.enter(exchange)
        return partial(exchange.received, receive)

    def leave(self, exchange: Exchange) -> None:
        """Let a connection go."""
        loop = running_loop()
        if loop is None or not isinstance(exchange, WebSocketExchange):
            return
        watch = self._watches.get(loop)
        if watch is not None and watch.leave(exchange):
            del self._watches[loop]  # it holds the loop


class _Watch:
    """The open connections of one event loop, as long as there are any.

    A round comes a quarter of ``max_staleness`` after the one before, with a change, or when what
    is known of a key ends. A key that is known to be good for less than half of it is looked up,
    and what is not answered by then is given up.
    """

    def __init__(self, guard: AsyncKeyguard, loop: asyncio.AbstractEventLoop) -> None:
        self._guard = guard
        self._loop = loop
        self._good_until: dict[WebSocketExchange, float] = {}  # the open ones, on the loop's clock
        self._changed = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asking: set[_Asked] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._pause = max(guard.settings.max_staleness / 4, _SHORTEST_ROUND)
        self._task = self._started(self._run(), "keyguard-websockets")

    def enter(self, exchange: WebSocketExchange) -> None:
        # What let it in may be almost as old as is believed. What is not remembered was looked up.
        vouched = self._guard.vouched_for(exchange.credentials())
        fresh = max(4 * self._pause - self._guard.settings.store_timeout, self._pause)
        self._good_until[exchange] = self._loop.time() + (vouched or fresh)
        self._changed.set()

    def leave(self, exchange: WebSocketExchange) -> bool:
        """Let a connection go; return whether it was the last, and the watch is over."""
        if exchange not in self._good_until:
            return False
        del self._good_until[exchange]
        if self._good_until:
            return False
        self._task.cancel()
        return True

    async def _run(self) -> None:
        with self._guard.watching(self._wake):
            while True:
                self._changed.clear()
                self._look()
                open_until = (until for one, until in self._good_until.items() if not one.over)
                ends = min(open_until, default=inf) - self._loop.time()
                try:
                    async with asyncio.timeout(max(_GRAIN, min(self._pause, ends))):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _look(self) -> None:
        now = self._loop.time()
        unsure: dict[_Asked, list[WebSocketExchange]] = {}
        for exchange, until in tuple(self._good_until.items()):
            asked = (tuple(exchange.credentials()), exchange.is_secure, exchange.address)
            vouched = self._guard.vouched_for(asked[0])
            good_until = self._good_until[exchange] = max(until, now + vouched)
            if good_until <= now:
                self._end([exchange], _TRY_AGAIN_LATER)
            elif vouched < 2 * self._pause and not exchange.over:
                unsure.setdefault(asked, []).append(exchange)
        for asked, exchanges in unsure.items():
            if asked not in self._asking:
                self._asking.add(asked)
                self._aside(self._ask(asked, exchanges))

    async def _ask(self, asked: _Asked, exchanges: list[WebSocketExchange]) -> None:
        fields, secure, address = asked
        try:
            async with self._turns:
                asked_at = self._loop.time()
                decision = await self._guard.check_again(fields, secure=secure, address=address)
        finally:
            self._asking.discard(asked)
        if isinstance(decision, Allow):
            for exchange in exchanges:
                if exchange in self._good_until:  # still
                    self._good_until[exchange] = asked_at + 4 * self._pause
        elif decision.reason is not Reason.STORE_UNAVAILABLE:
            self._end(exchanges, POLICY_VIOLATION)

    def _end(self, exchanges: Iterable[WebSocketExchange], code: int) -> None:
        for exchange in exchanges:
            if not exchange.over:
                exchange.over = True
                # Aside, for a client that reads nothing may hold it up.
                self._aside(exchange.end(code))

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._started(_quietly(work), "keyguard-websocket")
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _started(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        # In a context of its own: that of a connection would never be freed.
        return self._loop.create_task(work, name=name, context=contextvars.Context())


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - a client that has left, or a store: the next round sees to it
        return
