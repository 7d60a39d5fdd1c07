"""One ASGI connection: who it is, and how it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from functools import lru_cache
from typing import Any, TypeVar, cast

from keyguard.adapters._asgi_connection import Connection, Message, Scope, Send
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD, Response
from keyguard.core.access.charging import Charged
from keyguard.core.access.decisions import AccessDenied, Allow, Deny
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.request.context import Access
from keyguard.stores.failover import CircuitBreaker

__all__ = ["Exchange", "running_loop"]

T = TypeVar("T")

# What may come before an answer without being one.
_PRELUDES = ("http.response.early_hint", "http.response.debug")
_LIMIT_FIELDS = frozenset(name.encode() for name in LIMIT_FIELDS)


class Exchange(Connection, Access):
    """One connection: who it is, and how it is answered where a decorator refuses it.

    It keeps the scope out of the middleware's own frame. A framework may turn the refusal into a
    500 before the middleware sees the exception; that answer is replaced.
    """

    _last: Message | None = None
    _answered = False

    def __init__(self, guard: AsyncKeyguard, scope: Scope, send: Send) -> None:
        self.scope = scope
        # What every request asks for is found sooner on the object than on its class.
        self.allow: Allow | None = None
        self.denied: Deny | None = None
        self.charged: Charged | None = None
        self.retires: str | None = None
        self.due = False
        self.offered: tuple[bytes, ...] = ()
        self._guard = guard
        self._send = send
        if guard.breaker.memory is None:
            self.waits = True
            self._loop = running_loop()

    @property
    def breaker(self) -> CircuitBreaker:
        """The way to where counters live."""
        return self._guard.breaker

    def report_exceeded(self, charged: Charged) -> None:
        """Tell of limits in shadow mode that had no room."""
        self._guard.report_exceeded(charged, self.address)

    def on_the_loop(self, answer: Awaitable[T]) -> T:
        """Wait, off the event loop, for what has to be awaited on it."""
        loop = self._loop
        if loop is None or loop is running_loop():
            cast("Coroutine[Any, Any, T]", answer).close()
            raise ConfigurationError(
                "limits whose counters live across a network have to be awaited: make the function "
                "async, or in it use settle and refund instead of settle_sync and refund_sync"
            )
        return asyncio.run_coroutine_threadsafe(
            cast("Coroutine[Any, Any, T]", answer), loop
        ).result()

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, unless it only hides a refusal."""
        if self.denied is None:
            if (self.charged is not None or self.retires is not None) and (
                message["type"] == "http.response.start"
            ):
                message = self._adorned(message)
            self._last = message
            return self._send(message)
        return self._send_after_refusal(message)

    def _adorned(self, message: Message) -> Message:
        headers = [*message.get("headers", ())]
        # Unless the application has a limiter of its own.
        if self.charged is not None and not any(
            name.lower() in _LIMIT_FIELDS for name, _ in headers
        ):
            headers += _encoded(self._guard.limit_fields(self.charged))
        if self.retires is not None:
            headers += _encoded([(RETIRES_FIELD, self.retires)])
        return {**message, "headers": headers}

    async def _send_after_refusal(self, message: Message) -> None:
        if self._answered:
            return  # the rest of an answer that was replaced
        if (
            self.denied is not None
            and not self._begun
            and self.hides_refusal(self._status_of(message))
        ):
            await self._refuse(self.denied)
            return
        if message["type"] not in _PRELUDES:
            if self.denied is not None and self.repeats_refusal(self._status_of(message)):
                await self.aforgive(self.denied)
            self.denied = None  # the application answers as it sees fit
        if message["type"] == "http.response.start":
            message = self._adorned(message)
        self._last = message
        await self._send(message)

    def _status_of(self, message: Message) -> int:
        status: int = message.get("status", 0)
        return status

    @property
    def _begun(self) -> bool:
        """Whether the application has begun to answer, so that nothing else can be answered."""
        return self._last is not None and self._last["type"] not in _PRELUDES

    async def conclude(self, failure: AccessDenied | ExceptionGroup[Exception]) -> bool:
        """Answer a refusal that came out of the application; False where that can't be done."""
        if isinstance(failure, ExceptionGroup):
            refusals, rest = failure.split(AccessDenied)
            if refusals is None or rest is not None:
                return False
            found: BaseException = refusals
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            failure = found  # type: ignore[assignment]  # split left only these
        if self._answered:
            return True
        if self._begun:
            return await self._break_off()
        await self._refuse(failure.decision)  # type: ignore[union-attr]
        return True

    async def _break_off(self) -> bool:
        """End an answer that has begun; False where there is no way to."""
        return False

    async def _refuse(self, deny: Deny) -> None:
        self._answered = True
        self._guard.report(deny, address=self.address)
        await self.aforgive(deny)
        await self.answer(deny)

    async def answer(self, deny: Deny) -> None:
        """Send the answer to a refused connection, whose body is not read."""
        response = self._guard.respond(deny)
        await self._respond(response, "http.response", head=self.scope["method"] == "HEAD")

    async def _respond(self, response: Response, kind: str, *, head: bool) -> None:
        headers = _encoded(response.headers)
        await self._send({"type": f"{kind}.start", "status": response.status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": b"" if head else response.body})


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_lower(name), value.encode()) for name, value in fields]


@lru_cache(64)
def _lower(name: str) -> bytes:
    return name.lower().encode()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop of asyncio, or None under another library's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
