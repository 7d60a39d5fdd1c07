"""One request of Django's, from Django's request object to its response."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

from django.http import HttpRequest

from keyguard.adapters._asgi_exchange import ASGIExchange
from keyguard.adapters._asgi_scope import Scope
from keyguard.adapters._asgi_scope import rewrite as rewrite_scope
from keyguard.adapters._asgi_scope import strip as strip_scope
from keyguard.adapters._wsgi_environ import Environ, rewrite, strip
from keyguard.adapters._wsgi_exchange import WSGIExchange
from keyguard.core.access.decisions import Deny
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard, Keyguard

__all__ = [
    "DjangoASGIExchange",
    "DjangoExchange",
    "DjangoWSGIExchange",
    "introduce",
    "open_exchange",
]


class _DjangoRequest:
    """The part of an exchange that Django adds over both interfaces.

    Attributes:
        path_info: The path that Django's resolver sees.
        answered: The refusal that the present answer is for.
    """

    path_info: str
    answered: Deny | None = None

    @property
    def path(self) -> str:
        """The path that Django's resolver sees."""
        return self.path_info


class DjangoWSGIExchange(_DjangoRequest, WSGIExchange):
    """One request over WSGI."""


class DjangoASGIExchange(_DjangoRequest, ASGIExchange):
    """One request over ASGI."""


DjangoExchange: TypeAlias = DjangoWSGIExchange | DjangoASGIExchange


def open_exchange(guard: Keyguard | AsyncKeyguard, request: HttpRequest) -> DjangoExchange:
    """Return the exchange of a request.

    Raises:
        ConfigurationError: The guard is a sync one and the server runs ASGI, or the other way
            round.
    """
    exchange: DjangoExchange
    if isinstance(guard, Keyguard):
        environ: Environ | None = getattr(request, "environ", None)
        if environ is None:
            raise ConfigurationError(
                "Django serves this request over ASGI, which takes an AsyncKeyguard: name one in "
                "KEYGUARD['async_guard']; where one is named, move the middleware that is not "
                "async-capable in front of KeyguardMiddleware"
            )
        exchange = DjangoWSGIExchange(guard, environ, _unused, _unused)
    else:
        scope: Scope | None = getattr(request, "scope", None)
        if scope is None:
            raise ConfigurationError(
                "Django serves this request over WSGI, which takes a Keyguard: name it in "
                "KEYGUARD['guard'], and the AsyncKeyguard in KEYGUARD['async_guard']"
            )
        exchange = DjangoASGIExchange(guard, scope, _unused)
    exchange.path_info = request.path_info
    return exchange


def introduce(
    request: HttpRequest,
    exchange: DjangoExchange,
    fields: PrincipalFields | None,
    withheld: tuple[str, ...],
) -> None:
    """Pass the principal to Django: in ``request.principal``, and in fields for an upstream.

    Fields that the application must not see are removed, and fields in which the client names a
    principal.
    """
    allow = exchange.allow
    principal = None if allow is None else allow.principal
    django_request: Any = request  # whose attributes Django's types do not know
    django_request.principal = principal
    if fields is None and not withheld:
        return
    strip(request.META, withheld)
    if fields is not None:
        rewrite(request.META, fields, principal)
    vars(request).pop("headers", None)  # a view of META that was made before
    if isinstance(exchange, DjangoASGIExchange):
        scope = {**exchange.scope, "keyguard.principal": principal}
        strip_scope(scope, withheld)
        if fields is not None:
            rewrite_scope(scope, fields, principal)
        django_request.scope = scope


def _unused(*_: object) -> NoReturn:
    """Take the place of the server's function, because only Django answers."""
    raise AssertionError
