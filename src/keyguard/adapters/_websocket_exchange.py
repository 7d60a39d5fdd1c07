"""One WebSocket: how it is refused before it is accepted, and how it is ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from keyguard.adapters._asgi_connection import Message, Receive, Scope, Send
from keyguard.adapters._asgi_exchange import Exchange
from keyguard.core.access.answers import status_of
from keyguard.core.access.decisions import Deny
from keyguard.core.http.websocket_token import TokenProtocol
from keyguard.guard import AsyncKeyguard

__all__ = ["POLICY_VIOLATION", "WebSocketExchange"]

POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_UNAUTHORIZED = 3000  # as IANA has it; some servers let an application say no code below
_INTERNAL_ERRORS = (1011, 4500)  # RFC 6455's, and Litestar's: 4000 and the HTTP status
_SERVER_ERROR = 500
_PROTOCOL_FIELD = b"sec-websocket-protocol"
_LONGEST_FAREWELL = 10.0  # seconds, for a client that reads nothing any more
_OPEN = ("websocket.accept", "websocket.send")


class WebSocketExchange(Exchange):
    """One WebSocket. What it may be closed after is the application's accept and its messages."""

    over = False
    """Whether it is at its end, by either side."""

    _ended = False
    _receiving: asyncio.Future[Message] | None = None
    _said: asyncio.Event | None = None
    _marker: str | None = None

    def __init__(
        self, guard: AsyncKeyguard, scope: Scope, send: Send, protocol: TokenProtocol | None
    ) -> None:
        super().__init__(guard, scope, send)
        if protocol is not None and "subprotocols" in scope:
            offer = protocol.read(scope["subprotocols"])
            self.offered = tuple(one.reveal().encode("latin-1", "replace") for one in offer.fields)
            self._marker = protocol.name if offer.marked else None
            self.scope = _without_protocol(scope, offer.others)

    async def answer(self, deny: Deny) -> None:
        """Refuse the WebSocket: with an HTTP answer where the server can, else by closing it."""
        if "websocket.http.response" in (self.scope.get("extensions") or ()):
            response = self._guard.respond(deny)
            await self._respond(response, "websocket.http.response", head=False)
        else:
            await self._close(POLICY_VIOLATION)

    def send(self, message: Message) -> Any:
        """Pass a message of the application on, unless the connection was ended here."""
        if self._ended:
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

    async def received(self, receive: Receive) -> Message:
        """Return what the application receives: the server's message, or that it is over."""
        message = None if self._ended else await self._until_ended(receive)
        if message is None or self._ended:
            if self._said is not None:
                await self._said.wait()  # where the application leaves first, no code is sent
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": ""}
        self.over = self.over or message["type"] == "websocket.disconnect"
        return message

    async def _until_ended(self, receive: Receive) -> Message | None:
        self._receiving = asyncio.ensure_future(receive())
        try:
            return await self._receiving
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._ended or (task is not None and task.cancelling()):
                raise
            return None

    async def end(self, code: int) -> None:
        """Close a connection that was let in; wait for it no longer than the client may take."""
        self.over = self._ended = True
        self._said = asyncio.Event()
        if self._receiving is not None:
            self._receiving.cancel()  # there are servers that send nothing while they are asked
        try:
            if self._last is None or self._last["type"] in _OPEN:
                async with asyncio.timeout(_LONGEST_FAREWELL):
                    await self._close_somehow(code)
        finally:
            self._said.set()

    async def _close_somehow(self, code: int) -> None:
        for one in (code, _UNAUTHORIZED):
            with suppress(Exception):  # it may be gone, or the server wants another code
                await self._close(one)
                return

    def _status_of(self, message: Message) -> int:
        if message["type"] == "websocket.close":
            if message.get("code") in _INTERNAL_ERRORS:
                return _SERVER_ERROR
            if self.denied is not None and self._last is None:
                return status_of(self.denied)  # to the client it is a refusal of some kind
        return super()._status_of(message)

    async def _break_off(self) -> bool:
        if self._last is None or self._last["type"] not in _OPEN:
            return False
        await self._close(POLICY_VIOLATION)
        return True

    async def _close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": ""})


def _without_protocol(scope: Scope, others: tuple[str, ...]) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != _PROTOCOL_FIELD]
    if others:
        headers.append((_PROTOCOL_FIELD, ", ".join(others).encode("latin-1", "replace")))
    return {**scope, "subprotocols": list(others), "headers": headers}
