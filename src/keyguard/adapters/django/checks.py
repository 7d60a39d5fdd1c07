"""Keyguard's system checks for Django: ``manage.py check``."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from keyguard.adapters._cors import is_cors_layer
from keyguard.adapters.django.middleware import KeyguardMiddleware
from keyguard.adapters.django.setup import Setup, read_setup
from keyguard.adapters.django.views import (
    check_view,
    resolve_in_django,
    samples_in_django,
    views_of_urlconf,
)
from keyguard.core.http.spellings import find_escapes
from keyguard.exceptions import KeyguardError

__all__ = ["check_keyguard"]

_CACHES = {
    "django.middleware.cache.CacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
    "django.middleware.cache.UpdateCacheMiddleware",
}
# Middleware that answers requests itself, or reads the user.
_LATER = _CACHES | {
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.contrib.redirects.middleware.RedirectFallbackMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.locale.LocaleMiddleware",
}
_PATH = "'keyguard.adapters.django.KeyguardMiddleware'"


def check_keyguard(**_: object) -> list[checks.CheckMessage]:
    """Return the errors and warnings about a project's setup of keyguard."""
    try:
        setup = read_setup()
    except KeyguardError as failure:
        return [checks.Error(str(failure), id="keyguard.E001")]
    return [*_middleware(), *_flavours(setup), *_scopes(setup), *_escapes(setup)]


def _middleware() -> Iterator[checks.CheckMessage]:
    found, own = _found()
    if not own:
        yield checks.Error(
            "KeyguardMiddleware is not in MIDDLEWARE: nothing is guarded.",
            hint=f"Put {_PATH} at its beginning.",
            id="keyguard.E002",
        )
        return
    if len(own) > 1:
        yield checks.Error(
            "KeyguardMiddleware is in MIDDLEWARE more than once: limits would count twice.",
            hint="Keep the first.",
            id="keyguard.E003",
        )
    for path, loaded in found[: own[0]]:
        if _names(loaded) & _LATER:
            yield checks.Error(
                f"{path} comes before KeyguardMiddleware, and answers or asks who the user is "
                "before any key was checked.",
                hint=f"Move {_PATH} before it; only SecurityMiddleware and the like come first.",
                id="keyguard.E004",
            )
    for path, loaded in found[own[0] :]:
        if is_cors_layer(loaded):
            yield checks.Warning(
                f"{path} comes after KeyguardMiddleware: browsers can't read refusals, and their "
                "preflights get 401.",
                hint=f"Move it before {_PATH}.",
                id="keyguard.W003",
            )
    for path, loaded in found:
        if _names(loaded) & _CACHES:
            yield checks.Warning(
                f"{path} serves a cached answer with Cache-Control: public to every key, whichever "
                "key it was made for and whatever scopes HasScopes asks for; before Django 5.2.19, "
                "every cached answer.",
                hint="Call an answer public only if every key may see it, or use cache_page "
                "below the decorators of a view, with vary_on_headers('Authorization').",
                id="keyguard.W001",
            )


def _flavours(setup: Setup) -> Iterator[checks.CheckMessage]:
    over_asgi = getattr(settings, "ASGI_APPLICATION", None)
    if over_asgi and setup.async_guard is None:
        yield checks.Warning(
            "ASGI_APPLICATION is set, and KEYGUARD names no AsyncKeyguard: over ASGI every "
            "request would be refused with 500.",
            hint="Name one in KEYGUARD['async_guard'].",
            id="keyguard.W002",
        )
    elif over_asgi and setup.guard is not None:
        found, own = _found()
        later = found[own[0] + 1 :] if own else []
        if not _is_served_async(later):
            names = [path for path, loaded in later if not getattr(loaded, "async_capable", False)]
            yield checks.Warning(
                f"{', '.join(names)} after KeyguardMiddleware can't be async, and so Django takes "
                "the Keyguard: over ASGI every request would be refused with 500.",
                hint="Move it in front of KeyguardMiddleware, make it async-capable, or name the "
                "AsyncKeyguard alone, in KEYGUARD['guard'].",
                id="keyguard.W002",
            )
    if getattr(settings, "WSGI_APPLICATION", None) and not over_asgi and setup.guard is None:
        yield checks.Warning(
            "WSGI_APPLICATION is set, and KEYGUARD names no Keyguard: over WSGI, and with "
            "runserver, every request would be refused with 500.",
            hint="Name one in KEYGUARD['guard'] and the AsyncKeyguard in KEYGUARD['async_guard'], "
            "or set ASGI_APPLICATION instead.",
            id="keyguard.W002",
        )


def _found() -> tuple[list[tuple[str, object]], list[int]]:
    """Return the project's middleware with its paths, and where in it keyguard's own stands."""
    found = [(path, _loaded(path)) for path in settings.MIDDLEWARE]
    return found, [number for number, (_, loaded) in enumerate(found) if _is_own(loaded)]


def _is_served_async(middleware: list[tuple[str, object]]) -> bool:
    """Return whether Django, over ASGI, runs the middleware before these as async code."""
    is_async = True
    for _, loaded in reversed(middleware):
        if is_async or not getattr(loaded, "sync_capable", True):
            is_async = getattr(loaded, "async_capable", False)
    return is_async


def _scopes(setup: Setup) -> Iterator[checks.CheckMessage]:
    for guard in (setup.guard, setup.async_guard):
        if guard is not None and guard.policy.checks_endpoints:
            for view in views_of_urlconf():
                try:
                    check_view(view, guard.policy)
                except KeyguardError as failure:
                    kind = getattr(view, "view_class", getattr(view, "cls", view))
                    name = f"{kind.__module__}.{getattr(kind, '__qualname__', kind)}"
                    yield checks.Error(f"{name}: {failure}", id="keyguard.E005")
            return


def _escapes(setup: Setup) -> Iterator[checks.CheckMessage]:
    try:
        books = setup.rule_books()
    except KeyguardError as failure:
        yield checks.Error(str(failure), id="keyguard.E001")
        return
    for book in books:
        for escape in find_escapes(book, resolve_in_django, samples_in_django()):
            yield checks.Error(f"{escape}.", id="keyguard.E006")


def _loaded(path: str) -> object:
    try:
        return import_string(path)
    except ImportError:
        return None  # Django itself refuses it


def _is_own(loaded: object) -> bool:
    return isinstance(loaded, type) and issubclass(loaded, KeyguardMiddleware)


def _names(loaded: object) -> set[str]:
    kinds: tuple[type, ...] = loaded.__mro__ if isinstance(loaded, type) else ()
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
