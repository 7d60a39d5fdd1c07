"""Keyguard in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from keyguard.adapters._admission import Admission, Pending
from keyguard.adapters._asgi_exchange import ASGIExchange
from keyguard.adapters._asgi_scope import ASGIApp, Message, Receive, Scope, Send, rewritten
from keyguard.adapters._endpoints import find_protection, find_root_path, find_router
from keyguard.adapters._open_websockets import OpenWebSockets
from keyguard.adapters._websocket import WebSocketExchange
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard
from keyguard.request.context import CURRENT_REQUEST
from keyguard.request.ledger import charge_in_memory, enter_route
from keyguard.request.protection import UNPROTECTED, Protection, is_declared, protection_of

__all__ = ["ASGIApp", "KeyguardMiddleware", "Message", "Receive", "Scope", "Send"]


class KeyguardMiddleware:
    """Let only requests with a live key through to an ASGI application.

    The application finds the principal in ``scope["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`. The caller's scope stays as it was. Lifespan
    passes; an unknown scope type is refused.

    Args:
        app: The application.
        guard: The guard that decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is not an :class:`~keyguard.AsyncKeyguard`.
        InvalidValueError: A public path or a rule is malformed, or an endpoint requires a scope
            that the guard's catalogue does not know.
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
        settings = guard.settings
        self.app = app
        self.guard = guard
        self.admission = Admission(app, guard, public, rules)
        self._recognizes = self.admission.warm_path(self.admission.rule_book.paths).recognizes
        self._principal_fields = settings.principal_fields or None
        self._token_protocol = settings.token_protocol
        self._root_path = find_root_path(app)
        self._open_websockets = OpenWebSockets(guard) if settings.close_on_revoke else None
        self._router = find_router(app, self.is_declared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            return await self.app(scope, partial(self._flushing, receive), send)
        if self._root_path:
            scope = {**scope, "root_path": self._root_path}  # as the application will do
        app = self.app
        if kind == "http":
            exchange, headers = ASGIExchange(self.guard, scope, send), scope["headers"]
        elif kind == "websocket":
            exchange = websocket = WebSocketExchange(self.guard, scope, send, self._token_protocol)
            # The warm path does not read a token from a subprotocol.
            headers = () if websocket.offered else scope["headers"]
            if self._open_websockets is not None:
                app = partial(self._open_websockets.serve, app, websocket)
        else:
            raise ConfigurationError(f"keyguard lets no ASGI scope of type {kind!r} through")
        is_known = not scope.get("root_path") and self._recognizes(
            exchange, scope["path"], None, headers
        )
        del scope, headers  # they hold the token: a traceback that passes here must not show it
        refusal = None if is_known else await self._admit(exchange)
        if refusal is None and exchange.due:
            refusal = await self._charge(exchange)
        if refusal is not None:
            return await exchange.answer(refusal)
        present = CURRENT_REQUEST.set(exchange)
        try:
            allow = exchange.allow
            principal = None if allow is None else allow.principal
            if self._principal_fields is None:
                await app(self.child_scope(exchange.scope, principal), receive, exchange.send)
            else:
                await app(self._scope_with_fields(exchange, principal), receive, exchange.send)
        except (AccessDenied, ExceptionGroup) as failure:
            if not await exchange.conclude(failure):
                raise
        finally:
            CURRENT_REQUEST.reset(present)

    def child_scope(self, scope: Scope, principal: Principal | None) -> Scope:
        """Return what the application sees of a connection."""
        return {**scope, "keyguard.principal": principal}

    def is_declared(self, node: object) -> bool:
        """Tell whether an endpoint or a route declares scopes or limits."""
        return is_declared(node)

    def declared_on(self, route: object, endpoint: object, method: str) -> Protection:  # noqa: ARG002 - the route is for FastAPI
        """Return the protection that an endpoint, or its route, declares."""
        return protection_of(endpoint, method)

    async def _admit(self, exchange: ASGIExchange) -> Deny | None:
        refusal = self.admission.admit(exchange)
        if refusal is Pending.AUTHENTICATION:
            decision = await self.guard.authenticate(
                exchange.credentials(), secure=exchange.is_secure, address=exchange.address
            )
            return self.admission.enter(exchange, decision)
        return refusal

    async def _charge(self, exchange: ASGIExchange) -> Deny | None:
        """Charge all limits together: those of the key, of the rule, and of the route if known."""
        memory = self.guard.breaker.memory
        if self._router is None and memory is not None:
            refusal = charge_in_memory(exchange, memory)
        else:
            protection = UNPROTECTED
            if self._router is not None and exchange.allow is not None:
                protection = find_protection(self._router, exchange.scope, self.declared_on)
            refusal = await enter_route(exchange, protection)
        return None if refusal is None else self.admission.reported(refusal, exchange)

    def _scope_with_fields(self, exchange: ASGIExchange, principal: Principal | None) -> Scope:
        scope = self.child_scope(exchange.scope, principal)
        if self._principal_fields is None:
            return scope
        return rewritten(scope, self._principal_fields, principal)

    async def _flushing(self, receive: Receive) -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await self.guard.flush()  # the server serves no further requests
        return message
