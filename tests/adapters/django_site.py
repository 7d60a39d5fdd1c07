"""A Django project for the tests: the service of stacks.py, and views of every kind.

Importing it sets Django up, once for the process; what varies is told to ``handler``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings

DATABASE = "file:keyguard?mode=memory&cache=shared"  # for all threads
KEYGUARD = "keyguard.adapters.django.KeyguardMiddleware"

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
        INSTALLED_APPS=["keyguard.adapters.django", "rest_framework"],
        KEYGUARD={"guard": None},
        LOGGING_CONFIG=None,
        MIDDLEWARE=[KEYGUARD],
        REST_FRAMEWORK={"UNAUTHENTICATED_USER": None},
        ROOT_URLCONF="tests.adapters.django_urls",
        SECRET_KEY="tests",
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True},
        ],
    )
    django.setup()

READS: ContextVar[list[str]] = ContextVar("reads")
"""What the service of the present stack was asked for."""


def changed(**options: Any) -> AbstractContextManager[Any]:
    """Change Django's settings for a while."""
    return override_settings(**options)


def wsgi_handler(guard: Any, **options: Any) -> WSGIHandler:
    """Return the project as a WSGI application, guarded."""
    with changed(KEYGUARD={"guard": guard}, **options):
        return WSGIHandler()


def asgi_handler(guard: Any, **options: Any) -> ASGIHandler:
    """Return the project as an ASGI application, guarded."""
    with changed(KEYGUARD={"guard": guard}, **options):
        return ASGIHandler()


def service(serve: Callable[[str], str | None]) -> Callable[..., HttpResponse]:
    """Return the service as one of Django's views."""

    def view(request: Any, **_: str) -> HttpResponse:
        READS.get([]).append(request.path_info)
        return HttpResponse(serve(request.path_info) or "nothing", content_type="text/plain")

    return view


def plain(function: Callable[[], str]) -> Callable[..., HttpResponse]:
    """Return a decorated function of the service as one of Django's views."""

    @wraps(function)
    def view(request: Any) -> HttpResponse:
        READS.get([]).append(request.path_info)
        return HttpResponse(function(), content_type="text/plain")

    return view
