"""Reading an application, whatever it is made of: wrappers off, then its framework's table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from keyguard.adapters._admission import Admission
from keyguard.cli.route_report.loading import importing
from keyguard.cli.route_report.table import Place, Route
from keyguard.core.http.paths import REST
from keyguard.exceptions import ConfigurationError

__all__ = ["check_single", "is_a", "read", "read_application", "read_project"]

# Under which names middleware keeps what it wraps, as a property too.
_INSIDE = ("app", "application", "wsgi_app", "asgi_app", "wrapped", "_app", "__wrapped__")
_DISPATCHER = "werkzeug.middleware.dispatcher.DispatcherMiddleware"
_FLASK = "flask.app.Flask"
_STARLETTE = ("starlette.applications.Starlette", "starlette.routing.Router")
_DJANGO = "django.core.handlers.base.BaseHandler"
_TABLES = (*_STARLETTE, _DJANGO, _DISPATCHER)
_NO_SUCH_NAME = "keyguard_no_such_name"  # what has it answers to every name, and leads nowhere

_End: TypeAlias = tuple[int, ...]


def read_application(app: Any) -> list[Route]:
    """Return the routes of an application.

    Args:
        app: An application of Starlette, FastAPI, Flask or Django, with or without middleware
            around it.

    Raises:
        ConfigurationError: It is of another kind, or something in it leads to several applications.
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

        from keyguard.cli.route_report import django as projects

        django.setup()
        return list(projects.read(Place()))


def read(app: Any, place: Place) -> Iterator[Route]:
    """Give the routes of an application, or of a part; of one that can't be read, one for all.

    Args:
        app: The application, or a middleware around it.
        place: Where it lies.

    Raises:
        ConfigurationError: A wrapper leads to several applications; only it knows when to which.
    """
    seen: list[object] = []
    while not any(app is one for one in seen):
        seen.append(app)
        guard: object = app
        if isinstance(guard, Admission):
            place = place.behind(guard)
        flask_app = _flask_of(app)
        if flask_app is not None:
            from keyguard.cli.route_report import flask

            yield from flask.read(flask_app, place)
            return
        if is_a(app, *_STARLETTE):
            from keyguard.cli.route_report import starlette

            yield from starlette.read(app, place)
            return
        if is_a(app, _DJANGO):
            from keyguard.cli.route_report import django

            with importing("the URLconf of the project"):
                routes = list(django.read(place))
            yield from routes
            return
        if is_a(app, _DISPATCHER):
            for path, mounted in app.mounts.items():
                segments = tuple(path.rstrip("/").split("/")[1:])
                yield from read(mounted, place.below(path.rstrip("/"), segments))
        app = _inside(app)
    yield Route(place=place, path="/{path:path}", segments=(REST,), methods=None)


def check_single(name: str, values: Mapping[str, Any], app: Any) -> None:
    """Refuse middleware that is given further applications, besides the one that it wraps.

    Args:
        name: What it is called.
        values: What it is given, each under its name.
        app: The application that it wraps.

    Raises:
        ConfigurationError: One of the values is an application that can be read, or wraps one.
    """
    several = [
        key
        for key, value in values.items()
        if any(_ends(one, {}) - {(id(app),)} for one in _each(value))
    ]
    if several:
        raise _leads_to_several(name, ["app", *several])


def _leads_to_several(name: str, ways: Iterable[str]) -> ConfigurationError:
    return ConfigurationError(
        f"a {name} leads to several applications ({', '.join(sorted({*ways}))}), and which of them "
        "serves a request can't be read: run keyguard routes for each of them"
    )


def _inside(app: Any) -> Any:
    """Return what a wrapper wraps; itself, where that is nothing that can be read."""
    ways: dict[_End, tuple[str, Any]] = {}
    for name, value in _kept(app):
        for end in _ends(value, {id(app): (app, set())}):
            ways.setdefault(end, (name, value))
    if len(ways) > 1:
        raise _leads_to_several(type(app).__name__, [name for name, _ in ways.values()])
    return next((value for _, value in ways.values()), app)


def _ends(value: Any, known: dict[int, tuple[Any, set[_End]]]) -> set[_End]:
    """Return where a value leads: to which applications that can be read, behind which guards.

    Args:
        value: Anything.
        known: Where others lead, which are held lest their ids be given again.
    """
    if isinstance(value, type) or not callable(value):
        return set()
    if id(value) in known:
        return known[id(value)][1]
    table = _flask_of(value) or (value if is_a(value, *_TABLES) else None)
    found: set[_End] = set() if table is None else {(id(table),)}
    known[id(value)] = (value, found)
    if table is None:
        for _, one in _kept(value):
            found |= _ends(one, known)
        if isinstance(value, Admission):  # also where what it guards can't be read
            found = {(id(value), *end) for end in found or {()}}
            known[id(value)] = (value, found)
    return found


def _kept(app: Any) -> Iterator[tuple[str, Any]]:
    """Give what an object keeps, and what it keeps in collections, each under its name."""
    if _attribute(app, _NO_SUCH_NAME) is not None:
        return
    names: Iterable[str] = dict.fromkeys([*_INSIDE, *_attributes(app)])
    if isinstance(app, Admission) or is_a(app, _DISPATCHER):
        names = ["app"]  # all else is their own
    elif is_a(app, _FLASK):
        names = ["wsgi_app"]
    for name in names:
        for one in _each(_attribute(app, name)):
            yield name, one


def _each(value: Any) -> Iterable[Any]:
    if is_a(value, "builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset"):
        return list(value)
    return list(value.values()) if is_a(value, "builtins.dict") else [value]


def _attributes(app: Any) -> Iterator[str]:
    yield from getattr(app, "__dict__", ())
    for kind in type(app).__mro__:
        slots = vars(kind).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def is_a(value: object, *names: str) -> bool:
    """Tell whether a value is of a class that is named by its module and name.

    A framework is not imported to find out that an application is not of it.
    """
    return any(f"{one.__module__}.{one.__qualname__}" in names for one in type(value).__mro__)


def _flask_of(app: Any) -> Any:
    """Return the application whose bound method ``wsgi_app`` this is: what its middleware wraps."""
    owner = getattr(app, "__self__", None)
    return owner if is_a(owner, _FLASK) else None


def _attribute(app: Any, name: str) -> Any:
    try:
        return getattr(app, name, None)
    except Exception:  # noqa: BLE001 - another's property; what can't be read is reported as that
        return None
