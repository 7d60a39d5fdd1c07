"""Keyguard in Flask: the pure WSGI middleware, whose refusals become Flask's errors.

A refusal goes through ``@app.errorhandler(401)`` and the like, and through ``after_request``. If
the application does not handle it, the client gets the same bytes as from every other adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

from keyguard.adapters import wsgi
from keyguard.adapters._endpoints import check_endpoints
from keyguard.adapters._routers import warn_of_escapes
from keyguard.core.access.answers import status_of
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.guard import Keyguard
from keyguard.request.context import current_request, enter_request, leave_request, present_request
from keyguard.request.ledger import enter_route, forgive
from keyguard.request.protection import is_declared, protection_of
from keyguard.runtime.sync import run_sync

try:
    from flask import Flask, Request, request
    from flask.typing import ResponseReturnValue

    from keyguard.adapters._flask_errors import FAILED, PREFLIGHT, answer_to, is_for_flask_cors
    from keyguard.adapters._flask_principal import PrincipalProxy, find_principal
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.flask", "flask") from missing

__all__ = ["FlaskKeyguard", "current_principal"]

EXTENSION, MIDDLEWARE = "keyguard", "keyguard.middleware"
"""The names under which ``app.extensions`` holds the extension and its middleware."""

current_principal: Principal = PrincipalProxy(find_principal)  # type: ignore[assignment]
"""The principal of the present request: a proxy for :func:`keyguard.current_principal`."""


class FlaskKeyguard:
    """Let only requests with a live key through to a Flask application.

    ``FlaskKeyguard(app, guard)``, or ``init_app`` in an application factory. Every path needs a
    key, static files included, except those in ``public``.

    Args:
        app: The application, or None if :meth:`init_app` follows.
        guard: The guard that decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is not a :class:`~keyguard.Keyguard`.
        InvalidValueError: A public path or a rule is malformed, or a view requires a scope that the
            guard's catalogue does not know.
    """

    def __init__(
        self,
        app: Flask | None = None,
        guard: Keyguard | None = None,
        *,
        public: Iterable[str] | None = None,
        rules: Iterable[Rule] | None = None,
    ) -> None:
        self._guard = guard
        self._options = {"public": public, "rules": rules}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, guard: Keyguard | None = None) -> None:
        """Guard an application.

        Args:
            app: The application.
            guard: The guard that decides, if it was not given before.

        Raises:
            ConfigurationError: No guard was given, or the application has one already.
            InvalidValueError: A view requires a scope that the guard's catalogue does not know.
        """
        guard = guard or self._guard
        if guard is None:
            raise ConfigurationError("FlaskKeyguard needs a guard: FlaskKeyguard(app, guard)")
        if EXTENSION in app.extensions:
            raise ConfigurationError("this Flask application has a FlaskKeyguard already")
        middleware = _FlaskMiddleware(app, guard, **self._options)
        for view in app.view_functions.values():
            middleware.check(view)
        app.add_url_rule = _checking(app.add_url_rule, middleware)  # type: ignore[method-assign]
        app.register_error_handler(AccessDenied, middleware.handle)
        app.wsgi_app = middleware  # type: ignore[method-assign]
        app.extensions[EXTENSION] = self
        app.extensions[MIDDLEWARE] = middleware


class _FlaskMiddleware(wsgi.KeyguardMiddleware):
    def __init__(self, app: Flask, guard: Keyguard, **options: Any) -> None:
        super().__init__(app.wsgi_app, guard, **options)
        self._flask, self._is_checked = app, False
        self._protection = lru_cache(maxsize=1024)(protection_of)  # a client may invent a method

    def check(self, view: Callable[..., object]) -> None:
        """Check a view that is registered.

        The first decorated view defers charging until the route is known, before any other
        ``before_request`` function.
        """
        check_endpoints(view, self.guard.policy)
        if not self.charges_later and is_declared(view):
            self.charges_later = True
            self._flask.before_request_funcs.setdefault(None, []).insert(0, self.charge)

    def refuse(self, deny: Deny, exchange: wsgi.WSGIExchange) -> Iterable[bytes]:
        """Let Flask answer a request that was refused before Flask saw it."""
        if exchange.started:
            return super().refuse(deny, exchange)  # too late for an answer of Flask's
        present = enter_request(exchange)
        context = self._flask.request_context(exchange.environ)
        try:
            try:
                context.push()
                answer = (
                    self._flask.response_class(status=204)
                    if deny is PREFLIGHT
                    else answer_to(self._flask, self.guard.respond(deny))
                )
                response = self._flask.finalize_request(answer, from_error_handler=True)
            finally:
                context.pop()  # "with" would not pop a context that was pushed only in part
        except Exception:  # of the session or a teardown function
            self._flask.logger.exception(FAILED)
            return super().refuse(deny, exchange)
        finally:
            leave_request(present)
        return response(exchange.environ, exchange.start_response)

    def _admit(self, exchange: wsgi.WSGIExchange) -> Deny | None:
        if not self._is_checked:  # at the first request Flask has all its routes
            self._is_checked = True
            warn_of_escapes(self._flask, self.admission.rule_book)
        if is_for_flask_cors(self._flask, exchange.environ):
            return PREFLIGHT
        return super()._admit(exchange)

    def charge(self) -> None:
        """Charge the limits of the key and of the route together, if the principal has the scopes.

        The scopes are asked for here because something between Flask and the view's decorators,
        such as a cache, may answer in the view's place.

        Raises:
            AccessDenied: The principal lacks a scope, or a limit has no room.
        """
        state = present_request()
        if state is None or (state.allow is None and not state.due):
            return
        present: Request = cast("Any", request)._get_current_object()  # once, not for each name
        view = self._flask.view_functions.get(present.endpoint or "")
        protection = self._protection(view, present.method)
        refusal = run_sync(enter_route(state, protection))
        if refusal is not None:
            raise state.refuse(refusal)

    def handle(self, refused: AccessDenied) -> ResponseReturnValue:
        """Turn the refusal that a decorator raised into Flask's error."""
        state, refusal = current_request(), refused.decision
        state.refusal = None  # Flask answers it
        state.report(refusal)
        answer = answer_to(self._flask, self.guard.respond(refusal))
        if answer.status_code == status_of(refusal):
            run_sync(forgive(state, refusal))
        return answer


def _checking(
    add_url_rule: Callable[..., None], middleware: _FlaskMiddleware
) -> Callable[..., None]:
    """Return an ``add_url_rule`` that checks each view when it is registered."""

    def checked(
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., object] | None = None,
        *more: Any,
        **options: Any,
    ) -> None:
        if view_func is not None:
            middleware.check(view_func)
        add_url_rule(rule, endpoint, view_func, *more, **options)

    return checked
