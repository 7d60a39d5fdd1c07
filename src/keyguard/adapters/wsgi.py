"""Keyguard in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from keyguard.adapters._entrance import Entrance
from keyguard.adapters._wsgi_environ import Environ, rewrite, strip
from keyguard.adapters._wsgi_exchange import Body, StartResponse, WSGIExchange
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.core.http.rules import Rule
from keyguard.exceptions import ConfigurationError
from keyguard.freshness.process_end import part_on_sigterm
from keyguard.guard import Keyguard
from keyguard.request.context import enter_request, leave_request
from keyguard.request.ledger import charge_sync
from keyguard.runtime.sync import run_sync

__all__ = ["Environ", "KeyguardMiddleware", "StartResponse", "WSGIApp", "WSGIExchange"]

WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_WHOLE = (list, tuple)  # with such a body, the application has nothing left to run


class KeyguardMiddleware:
    """Let only requests with a live key through to a WSGI application.

    The application finds the principal in ``environ["keyguard.principal"]`` (None on a public path)
    and through :func:`keyguard.current_principal`, also while its body is iterated.

    Args:
        app: The application.
        guard: The guard that decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is not a :class:`~keyguard.Keyguard`.
        InvalidValueError: A public path or a rule is malformed, or the application requires a scope
            that the guard's catalogue does not know.
    """

    charges_later = False
    """Whether something further inside, which knows the route, charges what is due."""

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
        part_on_sigterm()
        self.app = app
        self.guard = guard
        self._refuse = self.refuse  # bound once, not for each request
        self.admission = Entrance(app, guard, public, rules)
        self._recognizes = self.admission.warm_path(self._public_paths()).recognizes
        self._strips = guard.settings.strip_credentials
        self._principal_fields = guard.settings.principal_fields or None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        exchange = WSGIExchange(self.guard, environ, start_response, self._refuse)
        field = environ.get("HTTP_AUTHORIZATION")
        recognizes = self._recognizes  # a call of an attribute takes longer
        is_known = field is not None and recognizes(
            exchange, environ.get("PATH_INFO", ""), field.encode("latin-1", "replace")
        )
        del environ, field  # they hold the token: a traceback that passes here must not show it
        refusal = None if is_known else self._admit(exchange)
        if refusal is None and exchange.due and not self.charges_later:
            refusal = charge_sync(exchange)
            if refusal is not None:
                self.admission.reported(refusal, exchange)
        if refusal is not None:
            return self.refuse(refusal, exchange)
        allow = exchange.allow
        principal = None if allow is None else allow.principal
        exchange.environ["keyguard.principal"] = principal
        if self._strips:
            strip(exchange.environ, self.admission.withheld(exchange))
        if self._principal_fields is not None:
            rewrite(exchange.environ, self._principal_fields, principal)
        app = self.app
        present = enter_request(exchange)
        try:
            body = app(exchange.environ, exchange.begin)
        except AccessDenied as denied:
            return exchange.answer(denied.decision)
        finally:
            leave_request(present)
        if exchange.replacement is not None:
            Body(body, exchange).close()
            return exchange.replacement
        if isinstance(body, _WHOLE) or _is_file(body, exchange.environ):
            return body
        return Body(body, exchange)

    def refuse(self, deny: Deny, exchange: WSGIExchange) -> Iterable[bytes]:
        """Answer a refused request, without reading its body."""
        response = self.guard.respond(deny)
        exchange.start_response(response.status_line, [*response.headers], *exchange.failure())
        return [] if exchange.environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _admit(self, exchange: WSGIExchange) -> Deny | None:
        return run_sync(self.admission.admit(exchange))

    def _public_paths(self) -> frozenset[str]:
        """Return the public paths as a server spells them: decoded as latin-1."""
        paths = self.admission.rule_book.paths
        return frozenset(path.encode().decode("latin-1") for path in paths)


def _is_file(body: object, environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
