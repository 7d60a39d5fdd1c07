"""Keyguard in Flask: the pure WSGI middleware, whose refusals become Flask's errors.

A refusal goes through ``@app.errorhandler(401)`` and its like, and through ``after_request``; where
the application does not handle it, the client gets the same bytes as from every other adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

from keyguard.adapters import wsgi
from keyguard.adapters._endpoints import check_endpoints
from keyguard.core.access.answers import status_of
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.guard import Keyguard
from keyguard.request.context import ACCESS, present_access
from keyguard.request.context import current_principal as find_principal
from keyguard.request.decorators import is_declared, protection_of

try:
    from flask import Flask, Request, request
    from flask.typing import ResponseReturnValue
    from werkzeug.local import LocalProxy

    from keyguard.adapters._flask_errors import FAILED, answer_to
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.flask", "flask") from missing

__all__ = ["FlaskKeyguard", "current_principal"]

EXTENSION, MIDDLEWARE = "keyguard", "keyguard.middleware"
"""Under these names ``app.extensions`` has the extension, and the middleware that guards."""

current_principal: Principal = LocalProxy(find_principal)  # type: ignore[assignment]
"""Who the present request is, as :func:`keyguard.current_principal` returns it, each time anew."""


class FlaskKeyguard:
    """Let only requests with a live key through to a Flask application.

    ``FlaskKeyguard(app, guard)``, or ``init_app`` in an application factory. Every path needs a
    key, static files included, but for those in ``public``.

    Args:
        app: The application, or None where :meth:`init_app` follows.
        guard: Who decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.

    Raises:
        ConfigurationError: The guard is no :class:`~keyguard.Keyguard`.
        InvalidValueError: A public path is none, or a view requires a scope that the guard's
            catalogue does not know.
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
            guard: Who decides, where it was not given before.

        Raises:
            ConfigurationError: There is no guard, or the application has one already.
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
        self._flask = app
        self._protection = lru_cache(maxsize=1024)(protection_of)  # clients make methods up

    def check(self, view: Callable[..., Any]) -> None:
        """Check a view that is registered; the first that is decorated makes charges wait.

        They are then due once the route is known, before any other ``before_request``.
        """
        check_endpoints(view, self.guard.policy.catalogue)
        if not self.defers and is_declared(view):
            self.defers = True
            self._flask.before_request_funcs.setdefault(None, []).insert(0, self.charge)

    def refuse(self, deny: Deny, exchange: wsgi.Exchange) -> Iterable[bytes]:
        """Let Flask answer a request that was refused before it saw it."""
        if exchange.started:
            return super().refuse(deny, exchange)  # too late for an answer of Flask's
        present = ACCESS.set(exchange)
        context = self._flask.request_context(exchange.environ)
        try:
            try:
                context.push()
                answer = answer_to(self._flask, self.guard.respond(deny))
                response = self._flask.finalize_request(answer, from_error_handler=True)
            finally:
                context.pop()  # also one that was pushed in part, which "with" would leave
        except Exception:  # the session's or a teardown's
            self._flask.logger.exception(FAILED)
            return super().refuse(deny, exchange)
        finally:
            ACCESS.reset(present)
        return response(exchange.environ, exchange.start_response)

    def charge(self) -> None:
        """Charge the limits of the key and of the route together, if the route's scopes are there.

        The scopes are asked for here, before anything between Flask and the view's decorators
        answers in its place, such as a cache.

        Raises:
            AccessDenied: There is no room, or a scope is missing.
        """
        access = ACCESS.get()
        if access is None or (access.allow is None and not access.due):
            return
        present: Request = cast("Any", request)._get_current_object()  # once, not for each name
        view: Any = self._flask.view_functions.get(present.endpoint or "")
        protection = self._protection(view, present.method)
        refusal = None if access.allow is None else protection.refuses(access.allow)
        if refusal is None and access.due:
            refusal = access.charge(() if access.allow is None else protection.limits)
        if refusal is not None:
            raise access.deny(refusal)

    def handle(self, refusal: AccessDenied) -> ResponseReturnValue:
        """Turn a decorator's refusal into Flask's error."""
        access = present_access()
        access.denied = None  # Flask answers it
        self.guard.report(refusal.decision, address=access.address)
        answer = answer_to(self._flask, self.guard.respond(refusal.decision))
        if answer.status_code == status_of(refusal.decision):
            access.forgive(refusal.decision)
        return answer


def _checking(
    add_url_rule: Callable[..., None], middleware: _FlaskMiddleware
) -> Callable[..., None]:
    """Check the views that are registered from now on, when they are, not when they are called."""

    def checked(
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        *more: Any,
        **options: Any,
    ) -> None:
        if view_func is not None:
            middleware.check(view_func)
        add_url_rule(rule, endpoint, view_func, *more, **options)

    return checked
