"""Keyguard in Django, over WSGI and ASGI: a middleware, a mixin for views, and system checks.

::

    INSTALLED_APPS = ["keyguard.adapters.django", ...]  # the system checks
    MIDDLEWARE = ["keyguard.adapters.django.KeyguardMiddleware", ...]
    KEYGUARD = {"guard": "project.guards.guard"}

What belongs here: translation between Django and the two pure adapters, and no decision.
"""

from __future__ import annotations

from importlib.util import find_spec

from keyguard.exceptions import MissingExtraError

if find_spec("django") is None:
    raise MissingExtraError("keyguard.adapters.django", "django")

from keyguard.adapters.django.middleware import KeyguardMiddleware
from keyguard.adapters.django.views import ScopesRequiredMixin

__all__ = ["KeyguardMiddleware", "ScopesRequiredMixin"]
