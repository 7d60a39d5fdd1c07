"""The WebSockets that are open, ended once their key is good for nothing."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from functools import partial

from keyguard.adapters._asgi_connection import ASGIApp, Receive, Scope, Send
from keyguard.adapters._asgi_exchange import running_loop
from keyguard.adapters._websocket_exchange import POLICY_VIOLATION, WebSocketExchange
from keyguard.context import ACCESS
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.sansio.decisions import Allow, Reason

__all__ = ["OpenConnections"]

_TRY_AGAIN_LATER = 1013  # of IANA's registry of close codes
_AT_ONCE = 50  # look-ups of one round


class OpenConnections:
    """The WebSockets that are open, each ended within ``max_staleness`` of its key's end.

    One task for each event loop, while any is open. It asks the cache, which is told of changes by
    the feed; and the store, where the cache can't vouch for a key much longer. Where the store is
    down for longer than that, they are ended as well: nobody knows whether the key is still good.

    Args:
        guard: Who decides.
    """

    def __init__(self, guard: AsyncKeyguard) -> None:
        self._guard = guard
        self._open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = (
            weakref.WeakKeyDictionary()
        )

    def watched(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose WebSockets are watched while they are open."""

        async def watching(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = ACCESS.get()
            if not isinstance(exchange, WebSocketExchange) or exchange.allow is None:
                return await app(scope, receive, send)
            open_ones = self._on_this_loop()
            open_ones.enter(exchange)
            try:
                await app(scope, partial(exchange.received, receive), send)
            finally:
                open_ones.leave(exchange)

        return watching

    def _on_this_loop(self) -> _Round:
        loop = running_loop()
        if loop is None:
            raise ConfigurationError("close_on_revoke needs asyncio: no other event loop will do")
        if loop not in self._open:
            self._open[loop] = _Round(self._guard, loop)
        return self._open[loop]


class _Round:
    """The open connections of one event loop."""

    def __init__(self, guard: AsyncKeyguard, loop: asyncio.AbstractEventLoop) -> None:
        self._guard = guard
        self._loop = loop
        self._exchanges: set[WebSocketExchange] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # A change wakes it; else it comes by this often. What the cache vouches for less than twice
        # as long is looked up, so that a change that is only just missed is found in time.
        self._patience = max(guard.settings.max_staleness / 4, 0.01)

    def enter(self, exchange: WebSocketExchange) -> None:
        self._exchanges.add(exchange)
        if self._task is None or self._task.done():
            # In a context of its own: that of this connection would never be freed.
            self._task = self._loop.create_task(
                self._run(), name="keyguard-websockets", context=contextvars.Context()
            )

    def leave(self, exchange: WebSocketExchange) -> None:
        self._exchanges.discard(exchange)
        if not self._exchanges and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        with self._guard.watching(self._wake):
            while self._exchanges:
                self._changed.clear()
                unsure = [one for one in self._exchanges if not self._is_vouched(one)]
                for start in range(0, len(unsure), _AT_ONCE):
                    await asyncio.gather(*map(self._ask, unsure[start : start + _AT_ONCE]))
                try:
                    async with asyncio.timeout(self._patience):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _is_vouched(self, exchange: WebSocketExchange) -> bool:
        return self._guard.vouched_for(exchange.credentials()) >= 2 * self._patience

    async def _ask(self, exchange: WebSocketExchange) -> None:
        decision = await self._guard.check_again(
            exchange.credentials(), secure=exchange.is_secure, address=exchange.address
        )
        if isinstance(decision, Allow):
            return
        unknown = decision.reason is Reason.STORE_UNAVAILABLE
        if unknown and self._guard.vouched_for(exchange.credentials()) > 0:
            return  # it may still answer in time
        await exchange.end(_TRY_AGAIN_LATER if unknown else POLICY_VIOLATION)
