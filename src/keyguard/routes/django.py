"""The routes of a Django project, as its settings say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from keyguard.adapters._admission import Admission
from keyguard.adapters.django import KeyguardMiddleware
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import protection_for
from keyguard.decorators import Protection, protection_of
from keyguard.routes.table import Place, Route, Segments, read_segments
from keyguard.sansio.paths import REST

__all__ = ["read"]

_PARAMETER = re.compile(r"<(?:(?P<converter>[^>:]+):)?[^>]+>")
_LITERAL = re.compile(r"[A-Za-z0-9_~@/-]*")  # of a regular expression, what stands for itself


def read(place: Place) -> Iterator[Route]:
    """Give the routes of the project whose settings are the present ones.

    Args:
        place: Where it lies, behind the middleware around it.
    """
    from django.conf import settings
    from django.urls import get_resolver
    from django.utils.module_loading import import_string

    guards: list[Admission] = []
    if any(_is_own(import_string(name)) for name in settings.MIDDLEWARE):
        setup = read_setup()
        options = {"public": None, "rules": None, **setup.options}
        guards += [
            Admission(None, guard, **options)
            for guard in (setup.guard, setup.async_guard)
            if guard is not None
        ]
    if len(guards) > 1 and guards[0].rule_book.rules == guards[1].rule_book.rules:
        guards.pop()  # else a project that is served both ways has each route in two
    patterns: list[Any] = get_resolver().url_patterns
    for at in [place.behind(guard) for guard in guards] or [place]:
        yield from _read_patterns(patterns, at, "", ())


def _is_own(middleware: Any) -> bool:
    return isinstance(middleware, type) and issubclass(middleware, KeyguardMiddleware)


def _read_patterns(
    patterns: list[Any], place: Place, path: str, segments: Segments
) -> Iterator[Route]:
    for entry in patterns:
        written, read = _read_pattern(entry.pattern)
        whole = (*segments[:-1], *_joined(segments[-1:], read))
        if hasattr(entry, "url_patterns"):
            yield from _read_patterns(entry.url_patterns, place, path + written, whole)
            continue
        view = entry.callback
        yield Route(
            place=place,
            path="/" + path + written,
            segments=whole,
            methods=_methods_of(view),
            protection=partial(_protection, view),
        )


def _joined(end: Segments, begin: Segments) -> Segments:
    """Join two parts of a path, which may meet within a segment."""
    if not end:
        return begin
    if REST in (end[0], begin[0]):
        return (REST, *begin[1:])
    return (end[0] + begin[0], *begin[1:])


def _read_pattern(pattern: Any) -> tuple[str, Segments]:
    """Return a part of a path as it is written, and its segments without the slash before."""
    route = getattr(pattern, "_route", None)
    if route is not None:
        return str(route), read_segments("/" + str(route), _PARAMETER, _takes_slashes)
    regex = getattr(pattern, "_regex", None)
    if regex is not None:
        return str(regex), _read_regex(str(regex))
    prefix = str(getattr(pattern, "language_prefix", ""))  # i18n_patterns
    return prefix, tuple(prefix.split("/"))


def _read_regex(regex: str) -> Segments:
    """Return what surely begins each path that a regular expression matches, and a rest."""
    inner = regex.removeprefix("^")
    literal = _LITERAL.match(inner)
    found = "" if literal is None else literal[0]
    if inner.removesuffix("$").removesuffix("\\Z") == found and inner != found:
        return tuple(found.split("/"))
    return (*found.split("/")[:-1], REST)


def _takes_slashes(found: re.Match[str]) -> bool:
    from django.urls.converters import get_converters

    converter = get_converters().get(found["converter"] or "str")
    return converter is None or re.fullmatch(converter.regex, "a/b") is not None


def _protection(view: Any, method: str) -> Protection:
    found = protection_for(view, method)
    made = getattr(view, "cls", None)  # Django REST Framework's
    if made is None:
        return found
    action = getattr(view, "actions", {}).get(method.lower())
    found = found.and_(protection_of(getattr(made, action, None) if action else made, method))
    for permission in made.permission_classes:
        found = found.and_(protection_of(permission))
    return found


def _methods_of(view: Any) -> frozenset[str] | None:
    actions = getattr(view, "actions", None)  # of Django REST Framework's view sets
    if actions:
        return frozenset(method.upper() for method in actions) - {"HEAD"}
    made = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if made is None:
        return None
    names = [name for name in made.http_method_names if hasattr(made, name)]
    found = frozenset(name.upper() for name in names) - {"OPTIONS"}  # Django answers by itself
    return (found - {"HEAD"} if "GET" in found else found) or None
