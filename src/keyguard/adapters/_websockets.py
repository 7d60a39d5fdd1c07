"""WebSockets: refused before they are accepted, and ended once their key is good for nothing."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from functools import partial
from typing import Any

from keyguard.adapters._asgi_connection import ASGIApp, Message, Receive, Scope, Send
from keyguard.adapters._asgi_exchange import Exchange, running_loop
from keyguard.context import ACCESS
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.sansio.decisions import Allow, Deny, Reason
from keyguard.sansio.subprotocols import TokenProtocol

__all__ = ["OpenConnections", "WebSocketExchange"]

_POLICY_VIOLATION, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1008, 1011, 1013  # RFC 6455, 7.4.1, and IANA
_SERVER_ERROR = 500
_PROTOCOL_FIELD = b"sec-websocket-protocol"
_OPEN = ("websocket.accept", "websocket.send")
_AT_ONCE = 50  # look-ups of one round


class WebSocketExchange(Exchange):
    """One WebSocket. What it may be closed after is the application's accept and its messages."""

    ended = False
    _marker: str | None = None

    def __init__(
        self, guard: AsyncKeyguard, scope: Scope, send: Send, protocol: TokenProtocol | None
    ) -> None:
        if protocol is not None and "subprotocols" in scope:
            offer = protocol.read(scope["subprotocols"])
            self.offered = tuple(
                field.reveal().encode("latin-1", "replace") for field in offer.fields
            )
            self._marker = protocol.name if offer.marked else None
            scope = _without_protocol(scope, offer.others)
        super().__init__(guard, scope, send)

    async def answer(self, deny: Deny) -> None:
        """Refuse the WebSocket: with an HTTP answer where the server can, else by closing it."""
        if "websocket.http.response" in (self.scope.get("extensions") or ()):
            response = self._guard.respond(deny)
            await self._respond(response, "websocket.http.response", head=False)
        else:
            await self._close(_POLICY_VIOLATION)

    def send(self, message: Message) -> Any:
        """Pass a message of the application on, unless the connection was ended here."""
        if self.ended:
            # As a server says it (ASGI, "send after disconnect"), for an application that only
            # ever sends.
            raise ConnectionAbortedError("keyguard has closed this WebSocket: its key was revoked")
        if (
            self._marker is not None
            and message["type"] == "websocket.accept"
            and not message.get("subprotocol")  # which a browser takes for a failure
        ):
            message = {**message, "subprotocol": self._marker}
        return super().send(message)

    async def end(self, code: int) -> None:
        """Close a connection that was let in."""
        if not self.ended:
            self.ended = True
            if self._last is None or self._last["type"] in _OPEN:
                await self._close(code)

    def _status_of(self, message: Message) -> int:
        if message["type"] == "websocket.close" and message.get("code") == _INTERNAL_ERROR:
            return _SERVER_ERROR
        return super()._status_of(message)

    async def _break_off(self) -> bool:
        if self._last is None or self._last["type"] not in _OPEN:
            return False
        await self._close(_POLICY_VIOLATION)
        return True

    async def _close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": ""})


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
                await app(scope, partial(_receive, exchange, receive), send)
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
        await exchange.end(_TRY_AGAIN_LATER if unknown else _POLICY_VIOLATION)


async def _receive(exchange: WebSocketExchange, receive: Receive) -> Message:
    message = None if exchange.ended else await receive()
    if message is None or exchange.ended:
        return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION, "reason": ""}
    return message


def _without_protocol(scope: Scope, others: tuple[str, ...]) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != _PROTOCOL_FIELD]
    if others:
        headers.append((_PROTOCOL_FIELD, ", ".join(others).encode("latin-1", "replace")))
    return {**scope, "subprotocols": list(others), "headers": headers}
