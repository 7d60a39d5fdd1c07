"""Django's views, and the scopes and limits that they declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from django.urls import Resolver404, get_resolver, resolve
from django.utils.regex_helper import normalize

from keyguard.core.access.policy import Policy
from keyguard.core.http.spellings import SAMPLE_VALUES, Resource
from keyguard.exceptions import InvalidValueError, shown
from keyguard.request.decorators import require_scopes
from keyguard.request.protection import Protection, check_declared, protection_of

__all__ = [
    "ScopesRequiredMixin",
    "check_views",
    "protection_for",
    "resolve_in_django",
    "samples_in_django",
    "views_of_urlconf",
]

_FLAGS = re.compile(r"^\(\?[aiLmsux]+\)")  # of a regular expression, which Django can't fill in
_STAND_IN = "django.utils.decorators."  # the function that method_decorator tries decorators on


class ScopesRequiredMixin:
    """Let a class-based view's requests through only for a principal with scopes.

    ::

        class Reports(ScopesRequiredMixin, View):
            required_scopes = ["reports:read"]

    List it before Django's own class, like Django's ``PermissionRequiredMixin``. ``as_view``
    refuses missing or malformed scopes.

    Attributes:
        required_scopes: Scopes that are all needed.
        required_any_of: Scopes of which one is needed.
    """

    required_scopes: ClassVar[Sequence[str]] = ()
    required_any_of: ClassVar[Iterable[str] | None] = None

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:
        """Return the view as a function, guarded.

        Raises:
            InvalidValueError: No scope is given, or a scope breaks the grammar of RFC 6749.
        """
        scopes = initkwargs.get("required_scopes", cls.required_scopes)
        any_of = initkwargs.get("required_any_of", cls.required_any_of)
        if isinstance(scopes, str):
            raise InvalidValueError(f"required_scopes is a list: write [{shown(scopes)}]")
        guarded = require_scopes(*scopes, any_of=any_of)
        return guarded(super().as_view(*args, **initkwargs))  # type: ignore[misc]  # of the view class


def protection_for(view: object, method: str | None) -> Protection:
    """Return the protection of a view. Its limits are charged together with those of the key.

    ``method_decorator`` decorates anew for each call; such a call charges its own limits.
    """
    found = protection_of(view, method or "")
    limits = [limit for limit in found.limits if not limit.route.startswith(_STAND_IN)]
    return found._replace(limits=tuple(dict.fromkeys(limits)))  # a function repeats its class's


def check_views(policy: Policy) -> None:
    """Refuse a URLconf with a view that the settings contradict.

    Raises:
        InvalidValueError: A view requires a scope that the catalogue does not know, or a plan gives
            its limit a rate that the limit's strategy can't count.
    """
    for view in views_of_urlconf():
        check_view(view, policy)


def check_view(view: object, policy: Policy) -> None:
    """Refuse a view that the settings contradict.

    Raises:
        InvalidValueError: The view requires a scope that the catalogue does not know, or a plan
            gives its limit a rate that the limit's strategy can't count.
    """
    check_declared(view, policy)
    kind = getattr(view, "cls", None)  # Django REST Framework's
    if kind is not None:
        check_declared(kind, policy)
        for permission in _permissions(getattr(kind, "permission_classes", ())):
            check_declared(permission, policy)


def resolve_in_django(path: str, _method: str | None) -> Resource | None:
    """Return the view that Django's URLconf names for a path, with the arguments it gets."""
    try:
        found = resolve(path)
    except Resolver404:
        return None
    return found.func, {**found.kwargs, **{str(at): arg for at, arg in enumerate(found.args)}}


def samples_in_django() -> Iterator[str]:
    """Yield paths that the URLconf serves, as far as Django can write its patterns."""
    for written in _written(get_resolver().url_patterns, ""):
        for sample, names in normalize(written):
            paths = [f"/{_filled(sample, names, value)}" for value in SAMPLE_VALUES]
            yield from [path for path in paths if resolve_in_django(path, None) is not None][:1]


def _filled(sample: str, names: list[str], value: str) -> str:
    """Return a pattern from Django's ``normalize`` with a value for each of its names."""
    for name in names:  # formatting would take other percent signs for names as well
        sample = sample.replace(f"%({name})s", value)
    return sample


def _written(patterns: list[Any], before: str) -> Iterator[str]:
    """Yield the paths of a URLconf as regular expressions that Django can fill in."""
    for entry in patterns:
        written = _FLAGS.sub("", entry.pattern.regex.pattern).removeprefix("^")
        path = before + written.removesuffix("\\Z").removesuffix("$")
        with suppress(ValueError):  # an expression that Django can't fill in
            normalize(path)
            if hasattr(entry, "url_patterns"):
                yield from _written(entry.url_patterns, path)
            else:
                yield path


def views_of_urlconf() -> Iterator[object]:
    """Yield every view that Django's URLconf names."""
    pending = list(get_resolver().url_patterns)
    while pending:
        pattern = pending.pop()
        inner = getattr(pattern, "url_patterns", None)
        if inner is None:
            yield pattern.callback
        else:
            pending += inner


def _permissions(classes: Iterable[object]) -> Iterator[object]:
    pending = list(classes)
    while pending:
        permission = pending.pop()
        parts = [getattr(permission, name, None) for name in ("op1_class", "op2_class")]
        pending += [part for part in parts if part is not None]
        yield permission
