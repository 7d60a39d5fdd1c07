"""Keyguard's part of Django's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from django.conf import settings
from django.utils.module_loading import import_string

from keyguard.core.http.rule_book import RuleBook
from keyguard.exceptions import ConfigurationError, shown
from keyguard.guard import AsyncKeyguard, Keyguard

__all__ = ["Setup", "read_setup"]

_EXAMPLE = "KEYGUARD = {'guard': 'project.guards.guard'}"
_KNOWN = ("guard", "async_guard", "public", "rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The guards of a project, one for each way in which it is served.

    Args:
        guard: The guard that decides over WSGI, or None.
        async_guard: The guard that decides over ASGI, or None.
        options: The middleware's other arguments, if they are given: ``public`` and ``rules``.
    """

    guard: Keyguard | None
    async_guard: AsyncKeyguard | None
    options: Mapping[str, Any]

    def rule_books(self) -> list[RuleBook]:
        """Return the rules of the middleware: two where WSGI and ASGI have different ones."""
        books: list[RuleBook] = []
        for guard in (self.guard, self.async_guard):
            if guard is not None:
                book = guard.settings.rule_book(**self.options)
                if all(book.rules != other.rules for other in books):
                    books.append(book)
        return books


def read_setup() -> Setup:
    """Return what ``KEYGUARD`` in Django's settings says.

    Raises:
        ConfigurationError: ``KEYGUARD`` is missing or malformed, or names something that is not a
            guard.
    """
    value: object = getattr(settings, "KEYGUARD", None)
    if value is None:
        raise ConfigurationError(f"Django's settings have no KEYGUARD: write {_EXAMPLE}")
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"KEYGUARD is a dictionary: write {_EXAMPLE}")
    given = cast("Mapping[str, Any]", value)
    for name in given:
        if name not in _KNOWN:
            raise ConfigurationError(f"KEYGUARD has no {shown(name)}, only {', '.join(_KNOWN)}")
    if "guard" not in given:
        raise ConfigurationError(f"KEYGUARD names no guard: write {_EXAMPLE}")
    first = _load("guard", given["guard"])
    second: AsyncKeyguard | None = None
    if "async_guard" in given:
        if isinstance(first, AsyncKeyguard):
            raise ConfigurationError(
                "KEYGUARD names two AsyncKeyguards: beside 'async_guard', 'guard' is a Keyguard"
            )
        beside = _load("async_guard", given["async_guard"])
        if not isinstance(beside, AsyncKeyguard):
            raise ConfigurationError(
                "KEYGUARD['async_guard'] is an AsyncKeyguard, not a Keyguard: that is 'guard'"
            )
        second = beside
    options = {name: given[name] for name in ("public", "rules") if name in given}
    if isinstance(first, AsyncKeyguard):
        return Setup(guard=None, async_guard=first, options=options)
    return Setup(guard=first, async_guard=second, options=options)


def _load(name: str, named: object) -> Keyguard | AsyncKeyguard:
    found = named
    if isinstance(named, str):
        if "." not in named:
            raise ConfigurationError(
                f"KEYGUARD[{name!r}] = {shown(named)} can't be imported: it is not a dotted path"
            )
        try:
            found = import_string(named)
        except ImportError as failure:
            raise ConfigurationError(
                f"KEYGUARD[{name!r}] = {named!r} can't be imported: {failure}"
            ) from failure
    if callable(found):
        found = _made(found)
    if not isinstance(found, Keyguard | AsyncKeyguard):
        raise ConfigurationError(
            f"KEYGUARD[{name!r}] is a Keyguard, an AsyncKeyguard, a function that returns one, or "
            f"the dotted path to any of these, not {type(found).__name__}"
        )
    return found


@lru_cache(maxsize=8)  # every handler and every check of a process needs the same guard
def _made(factory: Callable[[], object]) -> object:
    return factory()
