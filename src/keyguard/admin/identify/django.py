"""The user of Django's own sessions, for a console that is mounted beside Django."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.db import close_old_connections
from django.http import HttpRequest

from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person


def django_user(person: Callable[[Any], Person | None]) -> Callable[[Call], Person | None]:
    """Return an ``identify`` that asks for the user of Django's session, under WSGI.

    Args:
        person: Returns the person that a user is, or None. Anonymous and inactive users are not
            asked about.
    """

    def identify(call: Call) -> Person | None:
        request = HttpRequest()
        sessions = import_module(settings.SESSION_ENGINE)
        request.session = sessions.SessionStore(
            call.request.cookies.get(settings.SESSION_COOKIE_NAME)
        )
        close_old_connections()  # as Django does around each request of its own
        try:
            user = get_user(request)
            return person(user) if user.is_authenticated and user.is_active else None
        finally:
            close_old_connections()

    return identify


def async_django_user(
    person: Callable[[Any], Person | None],
) -> Callable[[Call], Awaitable[Person | None]]:
    """Return :func:`django_user` for a console under ASGI."""
    return sync_to_async(django_user(person))
