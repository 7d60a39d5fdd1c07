"""Keyguard in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from keyguard.adapters._asgi_exchange import ASGIExchange
from keyguard.adapters._asgi_scope import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    ScopeReader,
    Send,
    rewrite,
    strip,
)
from keyguard.adapters._blocking_counters import running_loop
from keyguard.adapters._endpoints import (
    each_node,
    find_protection,
    find_root_path,
    find_router,
    lets_in_itself,
    management_paths,
    matching_route,
)
from keyguard.adapters._entrance import Entrance
from keyguard.adapters._open_websockets import OpenWebSockets
from keyguard.adapters._websocket import WebSocketExchange
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError, shown
from keyguard.guard import AsyncKeyguard
from keyguard.request.context import enter_request, leave_request
from keyguard.request.ledger import charge, charge_in_memory, enter_route
from keyguard.request.protection import UNPROTECTED, Protection, all_declared, protection_of
from keyguard.request.state import RequestState

__all__ = ["ASGIApp", "KeyguardMiddleware", "Message", "Receive", "Scope", "Send"]


class KeyguardMiddleware:
    """Let only requests with a live key through to an ASGI application.

    The application finds the principal in ``scope["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`. The caller's scope is not changed. Lifespan
    messages pass; an unknown scope type is refused. A request for the console or the management API
    that is mounted in ``app`` passes unless a rule names its path: they decide by themselves who
    comes in.

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
        self._router = find_router(app)
        has_management = self._router is not None and any(map(lets_in_itself, each_node(app)))
        self.admission = Entrance(
            app, guard, public, rules, self._is_for_management if has_management else None
        )
        self._recognizes = self.admission.warm_path(
            self.admission.rule_book.paths,
            management_paths(self._router) if has_management else (),
        ).recognizes
        self._principal_fields = settings.principal_fields or None
        self._strips = settings.strip_credentials
        self._introduces = (
            self._principal_fields is not None
            or self._strips
            or type(self) is not KeyguardMiddleware
        )
        self._token_protocol = settings.token_protocol
        self._root_path = find_root_path(app)
        self._open_websockets = OpenWebSockets(guard) if settings.close_on_revoke else None
        self._counters = guard.breaker.memory  # None where they live across a network
        declared = UNPROTECTED
        for node in each_node(app):
            declared = declared.and_(self.all_declared(node))
        declared.check_known(guard.policy)
        # All scopes that routes ask for; None if a route has limits of its own, or asks otherwise.
        self._scopes_of_routes = None if declared.limits else declared.plain_scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        app = self.app
        if self._root_path and kind != "lifespan":
            scope = {**scope, "root_path": self._root_path}  # as the application will do
        if kind == "http":
            exchange, headers = ASGIExchange(self.guard, scope, send), scope["headers"]
        elif kind == "lifespan":
            self.admission.begin()
            return await app(scope, partial(self._flushing, receive), send)
        elif kind == "websocket":
            exchange = websocket = WebSocketExchange(self.guard, scope, send, self._token_protocol)
            # The warm path does not read a token from a subprotocol.
            headers = () if websocket.offered else scope["headers"]
            if self._open_websockets is not None:
                app = partial(self._open_websockets.serve, app, websocket)
        else:
            del scope  # as below
            raise ConfigurationError(f"keyguard lets no ASGI scope of type {shown(kind)} through")
        if self._counters is None:
            exchange.loop = running_loop()
        recognizes = self._recognizes  # a call of an attribute takes longer
        is_known = not scope.get("root_path") and recognizes(exchange, scope["path"], None, headers)
        del scope, headers  # they hold the token: a traceback that passes here must not show it
        refusal = None if is_known else await self.admission.admit(exchange)
        if refusal is None and exchange.due:
            if not self._needs_no_route(exchange):
                refusal = await self._charge(exchange)
            elif self._counters is not None:
                refusal = charge_in_memory(exchange, self._counters)
            else:
                refusal = await charge(exchange)
            if refusal is not None:
                self.admission.reported(refusal, exchange)
        if refusal is not None:
            return await exchange.answer(refusal)
        present = enter_request(exchange)
        try:
            allow = exchange.allow
            principal = None if allow is None else allow.principal
            # No local holds a scope: a traceback that passes here must not show the token.
            exchange.inner = {**exchange.scope}
            exchange.inner["keyguard.principal"] = principal
            if self._introduces:
                if self._strips:
                    strip(exchange.inner, self.admission.withheld(exchange))
                if self._principal_fields is not None:
                    rewrite(exchange.inner, self._principal_fields, principal)
                self.introduce(principal, exchange.inner)
            await app(exchange.inner, receive, exchange.send)
        except (AccessDenied, ExceptionGroup) as failure:
            if not await exchange.conclude(failure):
                raise
        finally:
            exchange.inner = None  # a server's timer may hold the exchange until the next request
            leave_request(present)

    def introduce(self, principal: Principal | None, scope: Scope) -> None:
        """Pass the principal to the application, in the way of its framework."""

    def all_declared(self, node: object) -> Protection:
        """Return all that an endpoint or a route declares, for any method."""
        return all_declared(node)

    def declared_on(self, route: object, endpoint: object, method: str) -> Protection:  # noqa: ARG002 - the route is for FastAPI
        """Return the protection that an endpoint, or its route, declares."""
        return protection_of(endpoint, method)

    async def _charge(self, exchange: ASGIExchange) -> Deny | None:
        """Charge all limits together: those of the key, of the rule, and of the route if known."""
        protection = UNPROTECTED
        if self._router is not None:
            protection = find_protection(self._router, exchange.scope, self.declared_on)
        return await enter_route(exchange, protection)

    def _needs_no_route(self, exchange: ASGIExchange) -> bool:
        """Return whether the charges of a request are the same for every route."""
        allow, scopes = exchange.allow, self._scopes_of_routes
        return allow is None or (scopes is not None and scopes <= allow.principal.grant.exact)

    def _is_for_management(self, request: RequestState) -> bool:
        """Return whether a request leads to the console or the management API, and nowhere else."""
        if not isinstance(request, ScopeReader):
            return False
        found = matching_route(self._router, request.scope)
        return found is not None and lets_in_itself(found[0])

    async def _flushing(self, receive: Receive) -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await self.guard._part()  # the server serves no further requests
        return message
