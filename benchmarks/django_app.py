"""A Django project with one view, bare and guarded, for the table of frameworks' adapters.

Each function returns the parts of a trial: name, interface, and the application bare, with the pure
adapter around it, and with Django's own.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from benchmarks.calls import PATH
from keyguard import AsyncKeyguard, Keyguard, require_scopes
from keyguard.adapters import asgi, wsgi

SCOPE = "inference:read"
MIDDLEWARE = "keyguard.adapters.django.KeyguardMiddleware"

Parts = tuple[str, str, Any, Any, Any]

urlpatterns: list[Any] = []


def django_wsgi(guard: Keyguard, _async_guard: AsyncKeyguard) -> Parts:
    """Return the parts of the trial over WSGI."""

    def view(_request: Any) -> HttpResponse:
        return HttpResponse("ok", content_type="text/plain")

    scoped = require_scopes(SCOPE)(view)
    pure = wsgi.KeyguardMiddleware(_wsgi_app(scoped), guard)
    return "Django (WSGI)", "wsgi", _wsgi_app(view), pure, _wsgi_app(scoped, guard)


def django_asgi(_guard: Keyguard, async_guard: AsyncKeyguard) -> Parts:
    """Return the parts of the trial over ASGI."""

    async def view(_request: Any) -> HttpResponse:
        return HttpResponse("ok", content_type="text/plain")

    scoped = require_scopes(SCOPE)(view)
    pure = asgi.KeyguardMiddleware(_asgi_app(scoped), async_guard)
    return "Django (ASGI)", "asgi", _asgi_app(view), pure, _asgi_app(scoped, async_guard)


def _wsgi_app(view: Callable[..., Any], guard: Keyguard | None = None) -> WSGIHandler:
    with _settings(guard):
        handler = WSGIHandler()
    handler.request_class = type("Request", (WSGIRequest,), {"urlconf": _urls(view)})
    return handler


def _asgi_app(view: Callable[..., Any], guard: AsyncKeyguard | None = None) -> Any:
    with _settings(guard):
        handler = ASGIHandler()
    handler.request_class = type("Request", (ASGIRequest,), {"urlconf": _urls(view)})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bodies = [await receive()]

        async def once() -> Any:  # Django then waits for the client to leave
            return bodies.pop() if bodies else await asyncio.get_running_loop().create_future()

        await handler(scope, once, send)

    return app


def _urls(view: Callable[..., Any]) -> tuple[Any, ...]:
    return (path(PATH[1:], view),)


def _settings(guard: Any) -> Any:
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            LOGGING_CONFIG=None,
            MIDDLEWARE=[],
            ROOT_URLCONF=__name__,
            SECRET_KEY="benchmark",
        )
        django.setup()
    if guard is None:
        return override_settings(MIDDLEWARE=[])
    return override_settings(MIDDLEWARE=[MIDDLEWARE], KEYGUARD={"guard": guard})
