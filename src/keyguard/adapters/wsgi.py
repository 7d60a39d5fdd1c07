"""Keyguard in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from keyguard.adapters._admission import Admission
from keyguard.adapters._wsgi_connection import Environ, rewrite
from keyguard.adapters._wsgi_exchange import Body, Exchange, StartResponse
from keyguard.core.access.decisions import AccessDenied, Allow, Decision, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.limits.charges import NO_LIMITS
from keyguard.exceptions import ConfigurationError
from keyguard.freshness.background import flush_on_sigterm
from keyguard.guard import Keyguard
from keyguard.request.context import ACCESS

__all__ = ["Environ", "Exchange", "KeyguardMiddleware", "StartResponse", "WSGIApp"]

WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_WHOLE = (list, tuple)  # bodies behind which nothing of the application runs any more


class KeyguardMiddleware(Admission):
    """Let only requests with a live key through to a WSGI application.

    The application finds the principal in ``environ["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`, also while its body is iterated.

    Args:
        app: The application.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is no :class:`~keyguard.Keyguard`.
        InvalidValueError: A public path or a rule is none, or the application requires a scope that
            the guard's catalogue does not know.
    """

    defers = False
    """Whether somebody further inside, who knows the route, charges what is due."""

    def __init__(
        self,
        app: WSGIApp,
        guard: Keyguard,
        *,
        public: Iterable[str] | None = None,
        rules: Iterable[Rule] | None = None,
    ) -> None:
        if not isinstance(guard, Keyguard):
            raise ConfigurationError(
                f"a WSGI application takes a Keyguard, not {type(guard).__name__}"
            )
        super().__init__(app, guard, public, rules)
        flush_on_sigterm()
        self.app = app
        self.guard = guard
        paths = {*self.rule_book.paths, *(("",) if "/" in self.rule_book.paths else ())}
        self._public_paths = frozenset(path.encode().decode("latin-1") for path in paths)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        exchange = Exchange(self, environ, start_response)
        del environ  # it holds the token: a traceback that passes here must not show it
        refusal = self.admit(exchange)
        if refusal is not None:
            return self.refuse(refusal, exchange)
        allow = exchange.allow
        principal = None if allow is None else allow.principal
        exchange.environ["keyguard.principal"] = principal
        if self._upstream is not None:
            rewrite(exchange.environ, self._upstream, principal)
        present = ACCESS.set(exchange)
        try:
            body = self.app(exchange.environ, exchange.begin)
        except AccessDenied as denied:
            return exchange.refuse(denied.decision)
        finally:
            ACCESS.reset(present)
        if exchange.instead is not None:
            Body(body, exchange).close()
            return exchange.instead
        if isinstance(body, _WHOLE) or _is_file(body, exchange.environ):
            return body
        return Body(body, exchange)

    def admit(self, exchange: Exchange) -> Deny | None:
        """Let a request in, and charge it; or return the refusal, which was reported.

        Args:
            exchange: The request.
        """
        refusal = None if self._recognizes(exchange) else self._identify(exchange)
        if refusal is None and exchange.due and not self.defers:
            refusal = exchange.charge()
            if refusal is not None:
                self.reported(refusal, exchange)
        return refusal

    def refuse(self, deny: Deny, exchange: Exchange) -> Iterable[bytes]:
        """Answer a refused request, whose body is not read.

        Args:
            deny: The refusal.
            exchange: The request, and the server's ``start_response``.
        """
        response = self.guard.respond(deny)
        exchange.start_response(response.status_line, list(response.headers), *exchange.failure())
        return [] if exchange.environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _recognizes(self, exchange: Exchange) -> bool:
        """Let in a key that was seen before, where that is all there is to ask: the warm path."""
        environ = exchange.environ
        field = environ.get("HTTP_AUTHORIZATION")
        if field is None or self._asks_more or environ.get("PATH_INFO") in self._public_paths:
            return False
        allow = self._recall(field.encode("latin-1", "replace"))
        if allow is None:
            return False
        exchange.allow = allow
        if allow.retires is not None:
            exchange.retires = allow.retires
        if allow.limits is not NO_LIMITS:
            exchange.due = True
        return True

    def _identify(self, exchange: Exchange) -> Deny | None:
        refusal = self.look_at(exchange)
        if refusal is not None or self.passes_unasked(exchange):
            return refusal
        decision: Decision | None = self.recall(exchange)
        if decision is None:
            decision = self.guard.authenticate(
                exchange.credentials(), secure=exchange.is_secure, address=exchange.address
            )
        return self.enter(exchange, decision) if isinstance(decision, Allow) else decision


def _is_file(body: object, environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
