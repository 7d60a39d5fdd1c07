"""Closes open WebSockets once their keys are no longer valid."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from math import inf
from typing import TypeAlias

from keyguard.adapters._asgi_scope import ASGIApp, Receive, Scope, Send
from keyguard.adapters._blocking_counters import running_loop
from keyguard.adapters._websocket import POLICY_VIOLATION, WebSocketExchange
from keyguard.core.access.decisions import Allow, Reason
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard

__all__ = ["OpenWebSockets"]

_TRY_AGAIN_LATER = 1013  # from IANA's registry of close codes
_Credentials: TypeAlias = tuple[tuple[bytes, ...], bool, str | None]
"""The ``Authorization`` fields, whether the connection is encrypted, and the client's address."""

_AT_ONCE = 50  # look-ups
_SHORTEST_ROUND = 0.05
_GRAIN = 0.01


class OpenWebSockets:
    """The open WebSockets, each closed within ``max_staleness`` of the end of its key.

    One task for each event loop watches them, while any is open. It asks the cache, which the
    change feed keeps fresh, and the store if the cache can vouch for a key only a little longer. If
    the store does not answer in time, the WebSocket is closed as well: nobody knows whether its key
    is still valid.
    """

    def __init__(self, guard: AsyncKeyguard) -> None:
        self._guard = guard
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = (
            weakref.WeakKeyDictionary()
        )

    async def serve(
        self,
        app: ASGIApp,
        exchange: WebSocketExchange,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let an application serve a WebSocket, and watch the key meanwhile.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
        """
        loop = running_loop()
        if loop is None:
            raise ConfigurationError("close_on_revoke needs an event loop of asyncio")
        if exchange.allow is None:
            served = app(scope, receive, send)
            del scope  # it holds the token: a traceback that passes here must not show it
            return await served
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self._guard, loop)
        watch.enter(exchange)
        try:
            served = app(scope, partial(exchange.received, receive), send)
            del scope
            await served
        finally:
            if watch.leave(exchange):
                del self._watches[loop]  # it holds the loop


class _Watch:
    """Watches the open WebSockets of one event loop, as long as there are any.

    It looks at them every quarter of ``max_staleness``, after each change, and when the validity of
    a key runs out. If a key is known to be valid for less than half of ``max_staleness``, it looks
    the key up. If the answer does not come in that time, it closes the WebSocket.
    """

    def __init__(self, guard: AsyncKeyguard, loop: asyncio.AbstractEventLoop) -> None:
        self._guard = guard
        self._loop = loop
        self._valid_until: dict[WebSocketExchange, float] = {}  # on the loop's clock
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._asking: set[_Credentials] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._pause = max(guard.settings.max_staleness / 4, _SHORTEST_ROUND)
        self._task = self._started(self._run(), "keyguard-websockets")

    def enter(self, exchange: WebSocketExchange) -> None:
        # A decision from the cache may be almost max_staleness old. One that the cache does not
        # hold was just looked up.
        vouched = self._guard.vouched_for(exchange.credentials())
        fresh = max(4 * self._pause - self._guard.settings.store_timeout, self._pause)
        self._valid_until[exchange] = self._loop.time() + (vouched or fresh)
        self._changed.set()

    def leave(self, exchange: WebSocketExchange) -> bool:
        """Forget a WebSocket; return whether it was the last, which ends the watch."""
        if exchange not in self._valid_until:
            return False
        del self._valid_until[exchange]
        if self._valid_until:
            return False
        self._task.cancel()
        return True

    async def _run(self) -> None:
        with self._guard.watching(self._wake):
            while True:
                self._changed.clear()
                self._look()
                open_until = (
                    until for exchange, until in self._valid_until.items() if not exchange.over
                )
                ends = min(open_until, default=inf) - self._loop.time()
                try:
                    async with asyncio.timeout(max(_GRAIN, min(self._pause, ends))):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _look(self) -> None:
        now = self._loop.time()
        unsure: dict[_Credentials, list[WebSocketExchange]] = {}
        for exchange, until in tuple(self._valid_until.items()):
            sender = exchange.sender
            asked = (tuple(exchange.credentials()), sender.secure, sender.address)
            vouched = self._guard.vouched_for(asked[0])
            valid_until = self._valid_until[exchange] = max(until, now + vouched)
            if valid_until <= now:
                self._end([exchange], _TRY_AGAIN_LATER)
            elif vouched < 2 * self._pause and not exchange.over:
                unsure.setdefault(asked, []).append(exchange)
        for asked, exchanges in unsure.items():
            if asked not in self._asking:
                self._asking.add(asked)
                self._start_beside(self._ask(asked, exchanges))

    async def _ask(self, asked: _Credentials, exchanges: list[WebSocketExchange]) -> None:
        fields, secure, address = asked
        try:
            async with self._slots:
                asked_at = self._loop.time()
                decision = await self._guard.decide(
                    fields, secure=secure, address=address, fresh=True, is_attempt=False
                )
        finally:
            self._asking.discard(asked)
        if isinstance(decision, Allow):
            for exchange in exchanges:
                if exchange in self._valid_until:  # it is still open
                    self._valid_until[exchange] = asked_at + 4 * self._pause
        elif decision.reason is not Reason.STORE_UNAVAILABLE:
            self._end(exchanges, POLICY_VIOLATION)

    def _end(self, exchanges: Iterable[WebSocketExchange], code: int) -> None:
        for exchange in exchanges:
            if not exchange.over:
                exchange.over = True
                # In a task of its own: a client that reads nothing may delay it.
                self._start_beside(exchange.end(code))

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _start_beside(self, work: Coroutine[object, None, None]) -> None:
        task = self._started(_quietly(work), "keyguard-websocket")
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _started(self, work: Coroutine[object, None, None], name: str) -> asyncio.Task[None]:
        # In a context of its own: the task would keep that of a connection alive.
        return self._loop.create_task(work, name=name, context=contextvars.Context())


async def _quietly(work: Coroutine[object, None, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - the client left, or the store failed: the next round retries
        return
