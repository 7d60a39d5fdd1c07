"""Wraps the application that the environment names, for ``keyguard.asgi`` and ``keyguard.wsgi``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from keyguard.adapters import asgi, wsgi
from keyguard.exceptions import ConfigurationError
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.runtime.loading import load_application, takes
from keyguard.settings.config import Settings
from keyguard.settings.sources import read_stores, read_variable

__all__ = ["asgi_of", "wsgi_of"]

_APP = "KEYGUARD_APP"


def asgi_of(environ: Mapping[str, str]) -> asgi.KeyguardMiddleware:
    """Return the ASGI application that ``KEYGUARD_APP`` names, behind keyguard.

    Args:
        environ: The environment, which also has the settings and names the stores.

    Raises:
        ConfigurationError: A variable is missing or not valid, or the application can't be loaded
            or is no ASGI application.
        InvalidValueError: The value of a setting is not valid.
    """
    url, limiter = _stores(environ)
    app = _load(environ)
    if not _is_asgi(app):
        raise _misplaced(app, "ASGI", "WSGI" if _is_wsgi(app) else None)
    settings = Settings.from_env(environ)
    return asgi.KeyguardMiddleware(app, AsyncKeyguard(url, limiter=limiter, settings=settings))


def wsgi_of(environ: Mapping[str, str]) -> wsgi.KeyguardMiddleware:
    """Return the WSGI application that ``KEYGUARD_APP`` names, behind keyguard.

    It takes and raises the same as :func:`asgi_of`.
    """
    url, limiter = _stores(environ)
    app = _load(environ)
    if not _is_wsgi(app):
        raise _misplaced(app, "WSGI", "ASGI" if _is_asgi(app) else None)
    settings = Settings.from_env(environ)
    return wsgi.KeyguardMiddleware(app, Keyguard(url, limiter=limiter, settings=settings))


def _load(environ: Mapping[str, str]) -> object:
    name = read_variable(environ, _APP)
    if not name:
        raise ConfigurationError(
            f"no application is named: set {_APP}, such as {_APP}=service.main:app"
        )
    return load_application(name)


def _stores(environ: Mapping[str, str]) -> tuple[str, str | None]:
    url, limiter = read_stores(environ)
    if not url:
        raise ConfigurationError(
            "no key store is named: set KEYGUARD_URL, such as KEYGUARD_URL=sqlite:///keys.db, or "
            "write url into the file that KEYGUARD_CONFIG names"
        )
    return url, limiter


def _is_asgi(app: object) -> TypeGuard[asgi.ASGIApp]:
    return takes(app, 3)


def _is_wsgi(app: object) -> TypeGuard[wsgi.WSGIApp]:
    return takes(app, 2)


def _misplaced(app: object, wanted: str, other: str | None) -> ConfigurationError:
    if other is not None:
        advice = f"it looks like one of {other}: serve keyguard.{other.lower()}:app"
    elif takes(app, 0):
        advice = "if it makes one, write () after its name"
    else:
        advice = "name the attribute that holds the application"
    return ConfigurationError(
        f"{_APP} names a {type(app).__name__}, which is no {wanted} application; {advice}"
    )
