"""Keyguard in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from keyguard.adapters._admission import Admission
from keyguard.adapters._asgi_connection import ASGIApp, Message, Receive, Scope, Send
from keyguard.adapters._asgi_exchange import Exchange
from keyguard.adapters._endpoints import UNKNOWN, find_protection, find_root_path, find_router
from keyguard.adapters._websocket_exchange import WebSocketExchange
from keyguard.adapters._websockets import OpenConnections
from keyguard.core.access.decisions import AccessDenied, Allow, Decision, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal
from keyguard.core.limits.charges import NO_LIMITS
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.request.context import ACCESS
from keyguard.request.decorators import Protection, is_declared, protection_of

__all__ = ["ASGIApp", "KeyguardMiddleware", "Message", "Receive", "Scope", "Send"]


class KeyguardMiddleware(Admission):
    """Let only requests with a live key through to an ASGI application.

    The application finds the principal in ``scope["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`. The caller's scope stays as it was. Lifespan
    passes; a scope type that is not known is refused.

    Args:
        app: The application.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is no :class:`~keyguard.AsyncKeyguard`.
        InvalidValueError: A public path or a rule is none, or an endpoint requires a scope that the
            guard's catalogue does not know.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: AsyncKeyguard,
        *,
        public: Iterable[str] | None = None,
        rules: Iterable[Rule] | None = None,
    ) -> None:
        if not isinstance(guard, AsyncKeyguard):
            raise ConfigurationError(
                f"an ASGI application takes an AsyncKeyguard, not {type(guard).__name__}"
            )
        super().__init__(app, guard, public, rules)
        self.app = app
        self.guard = guard
        self._token_protocol = guard.settings.token_protocol()
        self._root_path = find_root_path(app)
        self._connections = OpenConnections(guard) if guard.settings.close_on_revoke else None
        self._router = find_router(app, self.is_declared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if self._root_path and kind != "lifespan":
            scope = {**scope, "root_path": self._root_path}  # as the application will do
        if kind == "http":
            exchange = Exchange(self.guard, scope, send)
        elif kind == "websocket":
            exchange = WebSocketExchange(self.guard, scope, send, self._token_protocol)
        elif kind == "lifespan":
            return await self.app(scope, partial(self._flushing, receive), send)
        else:
            raise ConfigurationError(f"keyguard lets no ASGI scope of type {kind!r} through")
        del scope  # it holds the token: a traceback that passes here must not show it
        if not self._recognizes(exchange):
            refusal = await self._identify(exchange)
            if refusal is not None:
                return await exchange.answer(refusal)
        if exchange.due:
            refusal = await self._charge(exchange)
            if refusal is not None:
                return await exchange.answer(refusal)
        present = ACCESS.set(exchange)
        watch = self._connections
        try:
            if watch is not None and kind == "websocket":
                receive = watch.enter(exchange, receive)
            allow = exchange.allow
            principal = None if allow is None else allow.principal
            if self._upstream is None:
                await self.app(self.child_scope(exchange.scope, principal), receive, exchange.send)
            else:
                await self.app(self.told_scope(exchange, principal), receive, exchange.send)
        except (AccessDenied, ExceptionGroup) as failure:
            if not await exchange.conclude(failure):
                raise
        finally:
            ACCESS.reset(present)
            if watch is not None and kind == "websocket":
                watch.leave(exchange)

    async def admit(self, exchange: Exchange) -> Deny | None:
        """Let a connection in, and charge it; or return the refusal, which was reported.

        Args:
            exchange: The connection.
        """
        refusal = None if self._recognizes(exchange) else await self._identify(exchange)
        if refusal is None and exchange.due:
            refusal = await self._charge(exchange)
        return refusal

    def child_scope(self, scope: Scope, principal: Principal | None) -> Scope:
        """Return what the application gets to see of a connection."""
        return {**scope, "keyguard.principal": principal}

    def told_scope(self, exchange: Exchange, principal: Principal | None) -> Scope:
        """Return what an application gets to see that is told in fields who the principal is."""
        scope = self.child_scope(exchange.scope, principal)
        if self._upstream is not None:
            told = [
                (raw.decode("latin-1"), value.decode("latin-1")) for raw, value in scope["headers"]
            ]
            scope["headers"] = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in self._upstream.rewritten(told, principal)
            ]
        return scope

    def is_declared(self, node: Any) -> bool:
        """Tell whether scopes or limits are declared on an endpoint, or on a route."""
        return is_declared(node)

    def declared_on(self, route: Any, endpoint: Any, method: str) -> Protection:  # noqa: ARG002 - the route is for FastAPI
        """Return what stands before an endpoint, as far as it is declared on it or its route."""
        return protection_of(endpoint, method)

    def _recognizes(self, exchange: Exchange) -> bool:
        """Let in a key that was seen before, where that is all there is to ask: the warm path."""
        scope = exchange.scope
        if self._asks_more or scope["path"] in self._public_paths or scope.get("root_path"):
            return False
        field = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if field is not None:
                    return False
                field = value
        if field is None or exchange.offered:
            return False
        allow = self._recall(field)
        if allow is None:
            return False
        exchange.allow = allow
        if allow.retires is not None:
            exchange.retires = allow.retires
        if allow.limits is not NO_LIMITS:
            exchange.due = True
        return True

    async def _identify(self, exchange: Exchange) -> Deny | None:
        refusal = self.look_at(exchange)
        if refusal is not None or self.passes_unasked(exchange):
            return refusal
        decision: Decision | None = self.recall(exchange)
        if decision is None:
            decision = await self.guard.authenticate(
                exchange.credentials(), secure=exchange.is_secure, address=exchange.address
            )
        return self.enter(exchange, decision) if isinstance(decision, Allow) else decision

    async def _charge(self, exchange: Exchange) -> Deny | None:
        """Charge all limits together: those of the key, of the rule, and of the route if known."""
        if self._router is None and self.guard.breaker.memory is not None:
            refusal = exchange.charge()  # which never waits
        else:
            protection = UNKNOWN
            if self._router is not None and exchange.allow is not None:
                protection = find_protection(self._router, exchange.scope, self.declared_on)
            allow = exchange.allow
            refusal = None if allow is None else protection.refuses(allow)
            if refusal is None:
                refusal = await exchange.acharge(protection.limits)
        return None if refusal is None else self.reported(refusal, exchange)

    async def _flushing(self, receive: Receive) -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await self.guard.flush()  # the server serves nobody any more
        return message
