"""Keyguard in front of any ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar, cast

from keyguard.adapters._endpoints import check_endpoints, find_protection, find_router
from keyguard.context import ACCESS, Access
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.ratelimit.gates import AsyncGate
from keyguard.sansio.charges import NO_LIMITS
from keyguard.sansio.charging import Charged
from keyguard.sansio.decisions import AccessDenied, Allow, Deny
from keyguard.sansio.requests import CREDENTIAL_FIELDS, Principal, Request
from keyguard.sansio.responses import LIMIT_FIELDS, RETIRES_FIELD, Response
from keyguard.sansio.rules import PublicPaths, route_path

__all__ = ["ASGIApp", "KeyguardMiddleware", "Message", "Receive", "Scope", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

T = TypeVar("T")

_POLICY_VIOLATION, _INTERNAL_ERROR = 1008, 1011  # RFC 6455, section 7.4.1
_SERVER_ERROR = 500
# What may come before an answer without being one, and what a WebSocket can be closed after.
_PRELUDES = ("http.response.early_hint", "http.response.debug")
_LIMIT_FIELDS = frozenset(name.encode() for name in LIMIT_FIELDS)
_OPEN_WEBSOCKET = ("websocket.accept", "websocket.send")


class KeyguardMiddleware:
    """Let only requests with a live key through to an ASGI application.

    The application finds the principal in ``scope["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`. The caller's scope stays as it was. Lifespan
    passes; a scope type that is not known is refused.

    Args:
        app: The application.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.

    Raises:
        ConfigurationError: The guard is no :class:`~keyguard.AsyncKeyguard`.
        InvalidValueError: A public path is none, or an endpoint requires a scope that the guard's
            catalogue does not know.
    """

    def __init__(
        self, app: ASGIApp, guard: AsyncKeyguard, *, public: Iterable[str] | None = None
    ) -> None:
        if not isinstance(guard, AsyncKeyguard):
            raise ConfigurationError(
                f"an ASGI application takes an AsyncKeyguard, not {type(guard).__name__}"
            )
        check_endpoints(app, guard.policy.catalogue)
        self.app = app
        self.guard = guard
        self._recall = guard._recall
        self._require_https = guard.policy.require_https
        self._public = PublicPaths(guard.settings.public if public is None else public)
        self._public_paths = self._public.paths
        self._router = find_router(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind != "http" and kind != "websocket":  # noqa: PLR1714 - faster on the warm path
            if kind == "lifespan":
                return await self.app(scope, partial(self._flushing, receive), send)
            raise ConfigurationError(f"keyguard lets no ASGI scope of type {kind!r} through")
        public = (
            scope["path"] in self._public_paths or scope.get("root_path")
        ) and self._is_public(scope)
        exchange = _Exchange(self.guard, scope, send)
        del scope  # it holds the token: a traceback that passes here must not show it
        principal = None
        if not public:
            allow = self._known(exchange.scope)
            if allow is None:
                decision = await self._decide(exchange)
                if not isinstance(decision, Allow):
                    return await exchange.answer(decision)
                allow = decision
            exchange.allow = allow
            exchange.retires = allow.retires
            principal = allow.principal
            if allow.limits is not NO_LIMITS:
                if self._router is None and self.guard.gate.memory is not None:
                    exchange.due = True
                    refusal = exchange.charge()  # which never waits
                else:
                    refusal = await self._charge(exchange, allow)
                if refusal is not None:
                    self.guard.report(refusal, address=exchange.address)
                    return await exchange.answer(refusal)
        present = ACCESS.set(exchange)
        try:
            await self.app(self.child_scope(exchange.scope, principal), receive, exchange.send)
        except (AccessDenied, ExceptionGroup) as failure:
            if not await exchange.conclude(failure):
                raise
        finally:
            ACCESS.reset(present)

    def child_scope(self, scope: Scope, principal: Principal | None) -> Scope:
        """Return what the application gets to see of a connection."""
        return {**scope, "keyguard.principal": principal}

    def _is_public(self, scope: Scope) -> bool:
        path = route_path(scope["path"], scope.get("root_path", ""))
        return self._public.admits(path, scope.get("raw_path"))

    def _known(self, scope: Scope) -> Allow | None:
        field = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if field is not None:
                    return None
                field = value
        if field is None or (self._require_https and not _is_secure(scope)):
            return None
        return self._recall(field)

    async def _flushing(self, receive: Receive) -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await self.guard.flush()  # the server serves nobody any more
        return message

    async def _charge(self, exchange: _Exchange, allow: Allow) -> Deny | None:
        """Charge all limits together: those of the key, and of the route where it can be told."""
        exchange.due = True
        protection = None
        if self._router is not None:
            protection = find_protection(self._router, exchange.scope)
            refusal = protection.refuses(allow)
            if refusal is not None:
                return refusal
        return await exchange.acharge(protection.limits if protection else ())

    async def _decide(self, exchange: _Exchange) -> Allow | Deny:
        return await self.guard.authenticate(
            [value for name, value in exchange.scope["headers"] if name == b"authorization"],
            secure=_is_secure(exchange.scope),
            address=exchange.address,
        )


class _Exchange(Access):
    """One connection: who it is, and how it is answered where a decorator refuses it.

    It keeps the scope out of the middleware's own frame. A framework may turn the refusal into a
    500 before the middleware sees the exception; that answer is replaced.
    """

    _last: Message | None = None
    _answered = False

    def __init__(self, guard: AsyncKeyguard, scope: Scope, send: Send) -> None:
        self.scope = scope
        self._guard = guard
        self._send = send
        if guard.gate.memory is None:
            self._loop = _running_loop()

    @property
    def address(self) -> str | None:
        client = self.scope.get("client")
        return client[0] if client else None

    @property
    def gate(self) -> AsyncGate:
        return self._guard.gate

    def request(self) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name not in CREDENTIAL_FIELDS:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Request(
            method=self.scope.get("method", "GET"),
            path=route_path(self.scope["path"], self.scope.get("root_path", "")),
            query=self.scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            address=self.address,
        )

    def report_exceeded(self, charged: Charged) -> None:
        self._guard.report_exceeded(charged, self.address)

    def on_the_loop(self, answer: Awaitable[T]) -> T:
        loop = self._loop
        if loop is None or loop is _running_loop():
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
        status = message.get("status", 0)
        if message["type"] == "websocket.close" and message.get("code") == _INTERNAL_ERROR:
            status = _SERVER_ERROR
        if self.denied is not None and not self._begun and self.hides_refusal(status):
            await self._refuse(self.denied)
            return
        if message["type"] not in _PRELUDES:
            self.denied = None  # the application answers as it sees fit
        if message["type"] == "http.response.start":
            message = self._adorned(message)
        self._last = message
        await self._send(message)

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
        if not self._begun:
            await self._refuse(failure.decision)  # type: ignore[union-attr]
        elif self._last is not None and self._last["type"] in _OPEN_WEBSOCKET:
            await self._close()
        else:
            return False
        return True

    async def _refuse(self, deny: Deny) -> None:
        self._answered = True
        self._guard.report(deny, address=self.address)
        await self.answer(deny)

    async def answer(self, deny: Deny) -> None:
        """Send the answer to a refused connection, whose body is not read."""
        response = self._guard.respond(deny)
        if self.scope["type"] == "http":
            await self._respond(response, "http.response", head=self.scope["method"] == "HEAD")
        elif "websocket.http.response" in (self.scope.get("extensions") or ()):
            await self._respond(response, "websocket.http.response", head=False)
        else:
            await self._close()

    async def _respond(self, response: Response, kind: str, *, head: bool) -> None:
        headers = _encoded(response.headers)
        await self._send({"type": f"{kind}.start", "status": response.status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": b"" if head else response.body})

    async def _close(self) -> None:
        await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_lower(name), value.encode()) for name, value in fields]


@lru_cache(64)
def _lower(name: str) -> bytes:
    return name.lower().encode()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # another library's loop
        return None


def _is_secure(scope: Scope) -> bool:
    return scope.get("scheme") in ("https", "wss")
