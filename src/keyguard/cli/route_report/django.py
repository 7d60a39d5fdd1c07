"""The routes of a Django project, as its settings say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from keyguard.adapters._admission import Admission
from keyguard.adapters.django import KeyguardMiddleware
from keyguard.adapters.django.setup import read_setup
from keyguard.adapters.django.views import protection_for
from keyguard.cli.route_report.table import Place, Route, Segments, read_segments
from keyguard.core.http.paths import REST, SEGMENT
from keyguard.request.decorators import Protection, protection_of

__all__ = ["read"]

_PARAMETER = re.compile(r"<(?:(?P<converter>[^>:]+):)?[^>]+>")
_LITERAL = re.compile(r"[A-Za-z0-9_~@/-]*")  # of a regular expression, what stands for itself
_ESCAPED_OR_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\([^()]*\)")
_MAY_BE_LEFT_OUT = ("?", "*", "{")  # after these, what stands before need not be there


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of a path, or all of it.

    Args:
        written: The part as it is written.
        segments: The same, read; the first of them may go on within the part before.
        is_exact: Whether it matches all that the segments say, and not only some of that.
    """

    written: str = ""
    segments: Segments = ("",)
    is_exact: bool = True

    def then(self, inner: _Part) -> _Part:
        """Return this and the part that follows, as one."""
        *begin, end = self.segments
        first, *rest = inner.segments
        met = end if end.endswith(REST) else end + first
        return _Part(
            written=self.written + inner.written,
            segments=(*begin, met, *rest),
            is_exact=self.is_exact and inner.is_exact,
        )


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
    found = _read_project(get_resolver().url_patterns)
    for at in [place.behind(guard) for guard in guards] or [place]:
        for part, view in found:
            yield Route(
                place=at,
                path="/" + part.written,
                segments=part.segments,
                is_exact=part.is_exact,
                methods=_methods_of(view),
                protection=partial(_protection, view),
            )


def _is_own(middleware: Any) -> bool:
    return isinstance(middleware, type) and issubclass(middleware, KeyguardMiddleware)


def _read_project(patterns: list[Any]) -> list[tuple[_Part, Any]]:
    """Return the paths and views, those in other languages too where paths are translated."""
    from django.conf import settings
    from django.utils import translation

    if not _is_translated(patterns):
        return list(_read_patterns(patterns, _Part()))
    found: dict[tuple[_Part, int], tuple[_Part, Any]] = {}
    for language in dict.fromkeys(
        [settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES)]
    ):
        with translation.override(language):
            for part, view in _read_patterns(patterns, _Part()):
                found.setdefault((part, id(view)), (part, view))
    return list(found.values())


def _is_translated(patterns: list[Any]) -> bool:
    return any(
        not isinstance(_spelled(entry.pattern), str)
        or _is_translated(getattr(entry, "url_patterns", []))
        for entry in patterns
    )


def _spelled(pattern: Any) -> Any:
    """Return a pattern as the project has it, which may be a text that is translated later."""
    return getattr(pattern, "_route", getattr(pattern, "_regex", ""))


def _read_patterns(patterns: list[Any], before: _Part) -> Iterator[tuple[_Part, Any]]:
    for entry in patterns:
        for part in _read_pattern(entry.pattern):
            whole = before.then(part)
            if hasattr(entry, "url_patterns"):
                yield from _read_patterns(entry.url_patterns, whole)
            else:
                yield whole, entry.callback


def _read_pattern(pattern: Any) -> Iterator[_Part]:
    """Give what a pattern stands for, in the present language."""
    written = str(_spelled(pattern))
    if hasattr(pattern, "_route"):
        segments = read_segments("/" + written, _PARAMETER, _takes_slashes)
        yield _Part(written=written, segments=segments)
    elif hasattr(pattern, "_regex"):
        yield _read_regex(written, is_whole=pattern._is_endpoint)
    elif hasattr(pattern, "language_prefix"):  # i18n_patterns
        yield _Part(written="<language>/", segments=(SEGMENT, ""))
        if not pattern.prefix_default_language:
            yield _Part()
    else:
        yield _Part(written=str(pattern), segments=(REST,), is_exact=False)


def _read_regex(regex: str, *, is_whole: bool) -> _Part:
    """Return what surely begins each path that a regular expression matches, and a rest.

    Args:
        regex: The regular expression.
        is_whole: Whether nothing follows it.
    """
    if not regex.startswith("^") or _may_begin_otherwise(regex):
        return _Part(written=regex, segments=(REST,), is_exact=False)
    inner = regex.removeprefix("^")
    literal = _LITERAL.match(inner)
    found = "" if literal is None else literal[0]
    rest = inner.removeprefix(found)
    if rest in ("$", "\\Z") or (not rest and not is_whole):
        return _Part(written=regex, segments=tuple(found.split("/")))
    if rest.startswith(_MAY_BE_LEFT_OUT):
        found = found[:-1]
    return _Part(written=regex, segments=tuple((found + REST).split("/")), is_exact=False)


def _may_begin_otherwise(regex: str) -> bool:
    """Tell whether a regular expression may have alternatives that are not within a group."""
    left, groups = _ESCAPED_OR_CLASS.sub("", regex), 1
    while groups:
        left, groups = _GROUP.subn("", left)
    return any(sign in left for sign in "|()") or "(?#" in regex


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
