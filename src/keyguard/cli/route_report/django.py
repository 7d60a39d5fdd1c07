"""The routes of a Django project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from keyguard.adapters.django import KeyguardMiddleware
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import protection_for, resolve_in_django, samples_in_django
from keyguard.cli.route_report.route import PathRules, Place, Route, read_methods, read_segments
from keyguard.core.http.coverage import Segments
from keyguard.core.http.paths import REST, SEGMENT
from keyguard.request.protection import Protection, protection_of

_PARAMETER = re.compile(r"<(?:(?P<converter>[^>:]+):)?[^>]+>")
_PLAIN_REGEX = re.compile(r"\^(?P<text>[A-Za-z0-9_~@/-]*)(?P<end>\$|\\Z)?")


@dataclass(frozen=True, slots=True)
class _Path:
    """A path of the URLconf, or the beginning of one.

    Args:
        written: The path as the project writes it.
        segments: Its segments; the path that follows continues the last one.
        is_read: Whether the segments say exactly which paths match.
    """

    written: str = ""
    segments: Segments = ("",)
    is_read: bool = True

    def then(self, inner: _Path) -> _Path:
        """Return this path with another one after it."""
        written = self.written + inner.written
        if not self.is_read:
            return _Path(written, self.segments, is_read=False)
        *before, last = self.segments
        if not inner.is_read:
            return _Path(written, (*before, REST), is_read=False)
        first, *after = inner.segments
        met = last if last == REST else last + first
        return _Path(written, (*before, met, *after))


def read(place: Place) -> Iterator[Route]:
    """Give the routes of the project whose settings are the present ones."""
    from django.urls import get_resolver

    found = list(_read_patterns(get_resolver().url_patterns, _Path()))
    for at in [place.behind(guard) for guard in _guards()] or [place]:
        for path, view in found:
            yield Route(
                place=at,
                path="/" + path.written,
                segments=path.segments,
                is_path_read=path.is_read,
                methods=_methods_of(view),
                protection=partial(_protection, view),
            )


def _guards() -> list[PathRules]:
    """Return the guards of the middleware."""
    from django.conf import settings
    from django.utils.module_loading import import_string

    middleware = map(import_string, settings.MIDDLEWARE)
    if not any(isinstance(m, type) and issubclass(m, KeyguardMiddleware) for m in middleware):
        return []
    setup = read_setup()
    guards = [guard for guard in (setup.async_guard, setup.guard) if guard is not None]
    settled = tuple(guard.settings for guard in guards)
    samples = tuple(samples_in_django())
    return [
        PathRules(book, (resolve_in_django,), samples, settings=settled)
        for book in setup.rule_books()
    ]


def _read_patterns(patterns: list[Any], before: _Path) -> Iterator[tuple[_Path, Any]]:
    for entry in patterns:
        for path in _read_pattern(entry.pattern):
            if hasattr(entry, "url_patterns"):
                yield from _read_patterns(entry.url_patterns, before.then(path))
            else:
                yield before.then(path), entry.callback


def _read_pattern(pattern: Any) -> Iterator[_Path]:
    if hasattr(pattern, "language_prefix"):  # i18n_patterns
        yield _Path("<language>/", (SEGMENT, ""))
        if not pattern.prefix_default_language:
            yield _Path()
        return
    is_route = hasattr(pattern, "_route")
    written = pattern._route if is_route else getattr(pattern, "_regex", pattern)
    segments: Segments | None = None
    if isinstance(written, str):  # else it is translated
        if is_route:
            segments = read_segments("/" + written, _PARAMETER, _takes_slashes)
        elif plain := _PLAIN_REGEX.fullmatch(written):
            is_whole = plain["end"] is not None or not pattern._is_endpoint
            segments = tuple(plain["text"].split("/")) if is_whole else None
    yield _Path(str(written), segments or (REST,), is_read=segments is not None)


def _takes_slashes(found: re.Match[str]) -> bool:
    from django.urls.converters import get_converters

    converter = get_converters().get(found["converter"] or "str")
    return converter is None or re.fullmatch(converter.regex, "a/b") is not None


def _protection(view: object, method: str) -> Protection:
    found = protection_for(view, method)
    made = getattr(view, "cls", None)  # Django REST Framework's
    if made is None:
        return found
    action = getattr(view, "actions", {}).get(method.lower())
    found = found.and_(protection_of(getattr(made, action, None) if action else made, method))
    for permission in made.permission_classes:
        found = found.and_(protection_of(permission))
    # The view has the declarations of its class, too. A limit is charged once.
    return found._replace(limits=tuple(dict.fromkeys(found.limits)))


def _methods_of(view: object) -> frozenset[str] | None:
    actions = getattr(view, "actions", None)  # of Django REST Framework's view sets
    if actions:
        return read_methods(map(str.upper, actions), answered=["HEAD"])
    made = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if made is None:
        return None
    names = [name.upper() for name in made.http_method_names if hasattr(made, name)]
    return read_methods(names, answered=["OPTIONS"])
