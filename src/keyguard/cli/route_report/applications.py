"""Reads the routes of an application: the layers around it, then its framework's table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from keyguard.cli.route_report.layers import (
    DISPATCHER,
    DJANGO,
    FLASK,
    MANAGEMENT,
    STARLETTE,
    behind,
    inside,
    is_a,
)
from keyguard.cli.route_report.route import Place, Route
from keyguard.exceptions import ConfigurationError
from keyguard.runtime.loading import running_application_code, takes


def read_application(app: object, *, needs_routes: bool = True) -> list[Route]:
    """Return the routes of an application, with or without middleware around it.

    It is one of Starlette, FastAPI, Flask or Django; the routes of any other can't be read. Where
    ``needs_routes`` is False, keyguard's middleware around it is enough.
    """
    routes = list(_read(app, Place()))
    if not needs_routes and routes[0].place.guards:
        return routes
    unread = [route for route in routes if not (route.is_app_read or route.is_management)]
    if unread == routes and len(routes) == 1 and not routes[0].place.path:
        advice = "; if it makes one of these, write () after its name" if takes(app, 0) else ""
        raise ConfigurationError(
            f"{_subject(app, routes[0].kind)}, whose routes can't be read: only those of "
            f"Starlette, FastAPI, Flask and Django can; if it wraps one of these, name that one"
            f"{advice}"
        )
    return routes


def _subject(app: object, kind: str) -> str:
    outer = type(app).__name__
    return f"the application is a {kind}" + ("" if outer == kind else f" inside a {outer}")


def names_project() -> bool:
    """Return whether ``DJANGO_SETTINGS_MODULE`` names a Django project."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def read_project() -> list[Route]:
    """Return the routes of the Django project that ``DJANGO_SETTINGS_MODULE`` names."""
    if not names_project():
        raise ConfigurationError(
            "say which application: keyguard routes module:attribute, or for Django set "
            "DJANGO_SETTINGS_MODULE"
        )
    with running_application_code("the project of DJANGO_SETTINGS_MODULE"):
        import django

        from keyguard.cli.route_report.django import read

        django.setup()
        return list(read(Place()))


def _read(app: object, place: Place) -> Iterator[Route]:
    """Give the routes of an application, or one route for an application that can't be read."""
    seen: list[object] = []
    while app is not None and not any(app is layer for layer in seen):
        seen.append(app)
        place = behind(app, place)
        routes = _read_table(app, place)
        if routes is not None:
            yield from routes
            return
        if is_a(app, DISPATCHER):
            mounts: Mapping[str, object] = getattr(app, "mounts", {})
            for path, mounted in mounts.items():
                prefix = path.rstrip("/")
                yield from _read(mounted, place.below(prefix, tuple(prefix.split("/")[1:])))
        app = inside(app)
    yield Route(
        place=place,
        is_app_read=False,
        kind=type(seen[-1]).__name__,
        is_management=is_a(seen[-1], *MANAGEMENT),
    )


def _read_table(app: object, place: Place) -> Iterator[Route] | None:
    """Return the routes of a framework's application, or None for anything else."""
    owner = getattr(app, "__self__", None)
    if is_a(owner, FLASK):  # its own wsgi_app, which Flask's middleware wraps
        from keyguard.cli.route_report import flask

        return flask.read(owner, place)
    if is_a(app, *STARLETTE):
        from keyguard.cli.route_report import starlette

        return starlette.read(app, place, _read)
    if is_a(app, DJANGO):
        from keyguard.cli.route_report import django

        with running_application_code("the URLconf of the project"):
            return iter(list(django.read(place)))
    return None
