"""Reading an application, whatever it is made of: wrappers off, then its framework's table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from keyguard.adapters._admission import Admission
from keyguard.exceptions import ConfigurationError
from keyguard.routes.loading import importing
from keyguard.routes.table import Place, Route
from keyguard.sansio.paths import REST

__all__ = ["is_a", "read", "read_application", "read_project"]

# Under which names middleware keeps what it wraps.
_INSIDE = ("app", "application", "wsgi_app", "asgi_app", "wrapped", "_app", "__wrapped__")


def read_application(app: Any) -> list[Route]:
    """Return the routes of an application.

    Args:
        app: An application of Starlette, FastAPI, Flask or Django, with or without middleware
            around it.

    Raises:
        ConfigurationError: It is of another kind.
    """
    routes = list(read(app, Place()))
    if len(routes) == 1 and routes[0].place.path == "" and routes[0].segments == (REST,):
        raise ConfigurationError(
            f"the application is a {type(app).__name__}, whose routes can't be read: only those of "
            "Starlette, FastAPI, Flask and Django can"
        )
    return routes


def read_project() -> list[Route]:
    """Return the routes of the Django project that ``DJANGO_SETTINGS_MODULE`` names.

    Raises:
        ConfigurationError: It names none, or it can't be used.
    """
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise ConfigurationError(
            "say which application: keyguard routes module:attribute, or for Django set "
            "DJANGO_SETTINGS_MODULE"
        )
    with importing("the project of DJANGO_SETTINGS_MODULE"):
        import django

        from keyguard.routes import django as projects

        django.setup()
        return list(projects.read(Place()))


def read(app: Any, place: Place) -> Iterator[Route]:
    """Give the routes of an application, or of a part; of one that can't be read, one for all.

    Args:
        app: The application, or a middleware around it.
        place: Where it lies.
    """
    seen: list[object] = []
    while not any(app is one for one in seen):
        seen.append(app)
        guard: object = app
        if isinstance(guard, Admission):
            place = place.behind(guard)
        flask_app = _flask_of(app)
        if flask_app is not None:
            from keyguard.routes import flask

            yield from flask.read(flask_app, place)
            return
        if is_a(app, "starlette.applications.Starlette", "starlette.routing.Router"):
            from keyguard.routes import starlette

            yield from starlette.read(app, place)
            return
        if is_a(app, "django.core.handlers.base.BaseHandler"):
            from keyguard.routes import django

            with importing("the URLconf of the project"):
                routes = list(django.read(place))
            yield from routes
            return
        if is_a(app, "werkzeug.middleware.dispatcher.DispatcherMiddleware"):
            for path, mounted in app.mounts.items():
                segments = tuple(path.rstrip("/").split("/")[1:])
                yield from read(mounted, place.below(path.rstrip("/"), segments))
        inside = (_attribute(app, name) for name in _INSIDE)
        app = next((one for one in inside if one is not None), app)
    yield Route(place=place, path="/{path:path}", segments=(REST,), methods=None)


def is_a(value: object, *names: str) -> bool:
    """Tell whether a value is of a class that is named by its module and name.

    A framework is not imported to find out that an application is not of it.
    """
    return any(f"{one.__module__}.{one.__qualname__}" in names for one in type(value).__mro__)


def _flask_of(app: Any) -> Any:
    """Return the application whose bound method ``wsgi_app`` this is: what its middleware wraps."""
    owner = getattr(app, "__self__", None)
    return owner if is_a(owner, "flask.app.Flask") else None


def _attribute(app: Any, name: str) -> Any:
    try:
        return getattr(app, name, None)
    except Exception:  # noqa: BLE001 - another's property; what can't be read is reported as that
        return None
