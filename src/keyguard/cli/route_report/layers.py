"""The layers of an application: which are keyguard's, and which application each wraps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from keyguard.adapters import asgi, wsgi
from keyguard.adapters._routers import routers_of
from keyguard.cli.route_report.route import PathRules, Place

DISPATCHER = "werkzeug.middleware.dispatcher.DispatcherMiddleware"
DJANGO = "django.core.handlers.base.BaseHandler"
FLASK = "flask.app.Flask"
MANAGEMENT = ("keyguard.admin.asgi.ASGIApplication", "keyguard.admin.wsgi.WSGIApplication")
_OWN = (asgi.KeyguardMiddleware, wsgi.KeyguardMiddleware)
STARLETTE = ("starlette.applications.Starlette", "starlette.routing.Router")


def behind(layer: object, place: Place) -> Place:
    """Return the place behind a layer, which is another one only behind keyguard's middleware."""
    if isinstance(layer, _OWN):
        inner = getattr(layer.app, "__self__", layer.app)  # Flask's wsgi_app is Flask's
        rules = PathRules(
            layer.admission.rule_book,
            tuple(routers_of(inner)),
            settings=(layer.guard.settings,),
            passes_management=layer.admission.passes_management,
        )
        return place.behind(rules)
    return place


def is_a(value: object, *names: str) -> bool:
    """Return whether a value's class, or one that it inherits from, has one of these full names.

    So no framework is imported to find out that an application belongs to another one.
    """
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(value).__mro__)


def inside(layer: object) -> object:
    """Return the application that a layer passes requests on to, or None where that is unknown.

    Middleware keeps it as ``app``. A wrapper that keeps another application beside it may pass a
    request on to either.
    """
    if is_a(layer, FLASK):
        return getattr(layer, "wsgi_app", None)
    if isinstance(layer, _OWN) or is_a(layer, DISPATCHER):
        return getattr(layer, "app", None)
    kept = _attributes(layer)
    if is_readable([value for name, value in kept.items() if name != "app"]):
        return None
    return kept.get("app")


def is_readable(value: object) -> bool:
    """Return whether a value is an application, wraps one, or is a collection that holds one."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        members = cast("Iterable[object]", value.values() if isinstance(value, Mapping) else value)
        return any(map(is_readable, members))
    return (
        is_a(value, FLASK, DJANGO, DISPATCHER, *STARLETTE)
        or is_a(getattr(value, "__self__", None), FLASK)
        or callable(_attributes(value).get("app"))
    )


def _attributes(value: object) -> Mapping[str, object]:
    return {} if isinstance(value, type) else getattr(value, "__dict__", {})
