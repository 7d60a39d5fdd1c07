"""One WebSocket: its refusal before it is accepted, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from http import HTTPStatus

from keyguard.adapters._asgi_exchange import ASGIExchange
from keyguard.adapters._asgi_scope import Message, Receive, Scope, Send
from keyguard.core.access.answers import status_of
from keyguard.core.access.decisions import Deny
from keyguard.core.http.websocket_token import TokenProtocol
from keyguard.guard import AsyncKeyguard

__all__ = ["POLICY_VIOLATION", "WebSocketExchange"]

POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_UNAUTHORIZED = 3000  # from IANA's registry; some servers refuse lower codes from an application
_INTERNAL_ERRORS = (1011, 4500)  # RFC 6455's, and Litestar's: 4000 plus the HTTP status
_SERVER_ERROR = 500
_PROTOCOL_FIELD = b"sec-websocket-protocol"
_LONGEST_CLOSE = 10.0  # seconds, for a client that no longer reads
_OPEN = ("websocket.accept", "websocket.send")


class WebSocketExchange(ASGIExchange):
    """One WebSocket. It can be closed after the application has accepted it."""

    over = False
    """Whether either side has ended it."""

    _closed_here = False
    _receiving: asyncio.Future[Message] | None = None
    _close_sent: asyncio.Event | None = None
    _marker: str | None = None

    def __init__(
        self, guard: AsyncKeyguard, scope: Scope, send: Send, protocol: TokenProtocol | None
    ) -> None:
        super().__init__(guard, scope, send)
        if protocol is not None and "subprotocols" in scope:
            offer = protocol.read(scope["subprotocols"])
            self.offered = tuple(
                field.reveal().encode("latin-1", "replace") for field in offer.fields
            )
            self._marker = protocol.name if offer.marked else None
            self.scope = _without_protocol(scope, offer.others)

    async def answer(self, deny: Deny) -> None:
        """Refuse the WebSocket: with an HTTP answer if the server can, otherwise by closing it."""
        if "websocket.http.response" in (self.scope.get("extensions") or ()):
            await self._respond(self.guard.respond(deny), "websocket.http.response")
        else:
            await self._close(POLICY_VIOLATION)

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on a message of the application, unless keyguard has closed the connection.

        Raises:
            ConnectionAbortedError: Keyguard has closed it. Servers report a send after a disconnect
                in this way, for an application that only ever sends.
        """
        if self._closed_here:
            raise ConnectionAbortedError("keyguard has closed this WebSocket: its key was revoked")
        if (
            self._marker is not None
            and message["type"] == "websocket.accept"
            and not message.get("subprotocol")  # without one, a browser fails the connection
        ):
            message = {**message, "subprotocol": self._marker}
        if message["type"] == "websocket.accept":
            self.tell_answer(HTTPStatus.SWITCHING_PROTOCOLS)
        return super().send(message)

    async def received(self, receive: Receive) -> Message:
        """Return what the application receives: the server's message, or a disconnect."""
        message = None if self._closed_here else await self._receive_until_closed(receive)
        if message is None or self._closed_here:
            if self._close_sent is not None:
                await self._close_sent.wait()  # if the application returns first, no code is sent
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": ""}
        self.over = self.over or message["type"] == "websocket.disconnect"
        return message

    async def _receive_until_closed(self, receive: Receive) -> Message | None:
        self._receiving = asyncio.ensure_future(receive())
        try:
            return await self._receiving
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed_here or (task is not None and task.cancelling()):
                raise
            return None

    async def end(self, code: int) -> None:
        """Close a connection that was let in, and wait a few seconds at most for the client."""
        self.over = self._closed_here = True
        self._close_sent = asyncio.Event()
        if self._receiving is not None:
            self._receiving.cancel()  # some servers send nothing while the application receives
        try:
            if self._last is None or self._last["type"] in _OPEN:
                async with asyncio.timeout(_LONGEST_CLOSE):
                    await self._close_with_some_code(code)
        finally:
            self._close_sent.set()

    async def _close_with_some_code(self, code: int) -> None:
        for accepted in (code, _UNAUTHORIZED):
            with suppress(Exception):  # the client may be gone, or the server refuses the code
                await self._close(accepted)
                return

    def _status_of(self, message: Message) -> int:
        if message["type"] == "websocket.close":
            if message.get("code") in _INTERNAL_ERRORS:
                return _SERVER_ERROR
            if self.refusal is not None and self._last is None:
                return status_of(self.refusal)  # the client sees a refusal of some kind
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
