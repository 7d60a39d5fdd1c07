"""One ASGI connection from request to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from keyguard.adapters._asgi_scope import Message, Scope, ScopeReader, Send
from keyguard.adapters._blocking_counters import BlockingCounters, running_loop
from keyguard.adapters._swallowed import hides_refusal, repeats_refusal, sole_refusal
from keyguard.core.access.answers import LIMIT_FIELDS, RETIRES_FIELD, Response, encoded
from keyguard.core.access.decisions import AccessDenied, Allow, Deny
from keyguard.core.limits.ports import Counters
from keyguard.guard import AsyncKeyguard
from keyguard.request.ledger import forgive

__all__ = ["ASGIExchange"]

# These messages may come before an answer; they do not begin it.
_PRELUDES = ("http.response.early_hint", "http.response.debug")
_LIMIT_FIELDS = frozenset(name.encode() for name in LIMIT_FIELDS)


class ASGIExchange(ScopeReader):
    """One connection: its scope, its state, and how a refusal from inside is answered.

    It keeps the scope out of the middleware's own frame. A framework may turn a refusal into a 500
    before the middleware sees the exception; that answer is replaced.
    """

    _last: Message | None = None
    _answered = False
    loop: asyncio.AbstractEventLoop | None = None
    """The event loop that serves the connection, where counters live across a network."""

    _settling: tuple[asyncio.Task[None], ...] = ()  # the loop holds tasks weakly

    inner: Scope | None = None
    """The scope that the application gets, while it serves the connection."""

    def __init__(self, guard: AsyncKeyguard, scope: Scope, send: Send) -> None:
        self.scope = scope
        # Every request asks for these. Python finds them sooner on the object than on its class.
        self.allow: Allow | None = None
        self.refusal: Deny | None = None
        self.due = self.adds_fields = False
        self.guard = guard
        self._send = send

    @property
    def blocking_counters(self) -> Counters:
        """The way to the counters for a plain function; it never suspends."""
        breaker = self.guard.breaker
        return breaker if breaker.memory is not None else BlockingCounters(breaker, self.loop)

    def settle_blocking(self, settle: Callable[[Counters], Coroutine[object, None, None]]) -> None:
        breaker = self.guard.breaker
        if self.loop is None or self.loop is not running_loop() or not breaker.suspends:
            super().settle_blocking(settle)
        else:
            self._settling += (self.loop.create_task(settle(breaker)),)

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on a message of the application, unless it only hides a refusal."""
        if self.refusal is None:
            if self.adds_fields and message["type"] == "http.response.start":
                message = self._with_fields(message)
            self._last = message
            send = self._send  # a call of an attribute takes longer
            return send(message)
        return self._send_after_refusal(message)

    def _with_fields(self, message: Message) -> Message:
        guard, receipt = self.guard, self.receipt
        if guard.tells_answers:
            self.tell_answer(self._status_of(message))
        headers = [*message.get("headers", ())]
        if receipt is not None:
            for name, _ in headers:
                if name.lower() in _LIMIT_FIELDS:
                    break  # the application has a limiter of its own
            else:
                headers += guard.encoded_limit_fields(receipt)
        if self.retires is not None:
            headers += encoded([(RETIRES_FIELD, self.retires)])
        message = {**message}
        message["headers"] = headers  # together with the copy it takes twice as long
        return message

    async def _send_after_refusal(self, message: Message) -> None:
        if self._answered:
            return  # the rest of an answer that was replaced
        if self.refusal is not None:
            status = self._status_of(message)
            if not self._has_begun and hides_refusal(self, status):
                await self._answer_refusal(self.refusal)
                return
            if message["type"] not in _PRELUDES:
                message = self._with_lost_fields(message, self.refusal)
                if repeats_refusal(self, status):
                    await forgive(self, self.refusal)
                self.refusal = None  # the application gives an answer of its own
        if message["type"] == "http.response.start":
            message = self._with_fields(message)
        self._last = message
        await self._send(message)

    def _with_lost_fields(self, message: Message, refusal: Deny) -> Message:
        headers = message.get("headers", ())
        names = (name.decode("latin-1") for name, _ in headers)
        lost = self.guard.respond(refusal).lost_from(message.get("status", 0), names)
        return {**message, "headers": [*headers, *encoded(lost)]} if lost else message

    def _status_of(self, message: Message) -> int:
        status: int = message.get("status", 0)
        return status

    @property
    def _has_begun(self) -> bool:
        """Whether the application has begun its answer, so that no other can be sent."""
        return self._last is not None and self._last["type"] not in _PRELUDES

    async def conclude(self, failure: AccessDenied | ExceptionGroup[Exception]) -> bool:
        """Answer a refusal that came out of the application.

        Returns:
            False if the exception was more than a refusal, or if it is too late to answer.
        """
        refusal = sole_refusal(failure)
        if refusal is None:
            return False
        if self._answered:
            return True
        if self._has_begun:
            return await self._break_off()
        await self._answer_refusal(refusal)
        return True

    async def _break_off(self) -> bool:
        """End an answer that has begun; return False if there is no way to."""
        return False

    async def _answer_refusal(self, deny: Deny) -> None:
        self._answered = True
        self.report(deny)
        await forgive(self, deny)
        await self.answer(deny)

    def answer(self, deny: Deny) -> Awaitable[None]:
        """Send the answer to a refused connection, without reading its body."""
        return self._respond(self.guard.respond(deny), "http.response")

    async def _respond(self, response: Response, kind: str) -> None:
        body = b"" if self.scope.get("method") == "HEAD" else response.body
        headers = [*response.encoded_headers]  # middleware around this one may change the list
        await self._send({"type": f"{kind}.start", "status": response.status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": body})
