"""Removes tokens from the events of error trackers.

A tracker reads the variables of frames. Those of frameworks hold the header fields of a request,
which keyguard can't keep from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from keyguard.core.tokens.format import ID_LENGTH

__all__ = ["scrub"]

Scrubbed = TypeVar("Scrubbed")

_FILTERED = "[Filtered]"
# A token, or the beginning of one: trackers cut long values. What stands before its secret stays.
_TOKEN = re.compile(rf"([a-z0-9]_[0-9A-Za-z]{{{ID_LENGTH}}}_)[0-9A-Za-z]{{8,}}")
# Credentials of RFC 9110, section 11.4. Imported tokens have no other mark to recognize them by.
_CREDENTIALS = re.compile(
    r"\b(Bearer|Basic|Token|Api-Key)((?:\s|%20)+)[A-Za-z0-9._~+/=|-]{8,}+(?!\[Filtered\])", re.I
)
_FIELDS = re.compile(
    r"((?:redirect_)*(?:http_)?(?:proxy[_-])?(?:authorization|(?:x[_-])?api[_-]key)"
    r"|__Host-keyguard[a-z-]*)\Z",
    re.I,
)
# The cookies of the console and the codes of its links, or the beginning of one.
_SESSIONS = re.compile(r"(__Host-keyguard[a-z-]*=|/sign-in/)[0-9A-Za-z_-]{20,}")


def scrub(event: Scrubbed, _hint: object = None) -> Scrubbed:
    """Return an event of an error tracker without tokens, for Sentry's ``before_send`` and others.

    Tokens and credentials are replaced in texts, lists and dictionaries, at any depth. The id of a
    key stays, because it is safe to log. Fields named ``Authorization``, ``X-API-Key`` or
    ``Api-Key`` lose their whole value, which may be a token of another system. So do the cookies of
    the console, and the codes of its links. A token of another system that stands alone elsewhere
    is not recognized.

    Args:
        event: The event, a text, or any part of one. It is not changed.
        _hint: What Sentry passes as well; not used.
    """
    scrubbed: Scrubbed = _scrubbed(event)
    return scrubbed


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        value = _SESSIONS.sub(rf"\1{_FILTERED}", _TOKEN.sub(rf"\1{_FILTERED}", value))
        return _CREDENTIALS.sub(rf"\1\2{_FILTERED}", value)
    if isinstance(value, bytes):
        return _scrubbed(value.decode("latin-1")).encode("latin-1")
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return {
            _scrubbed(name): _FILTERED if _is_field(name) else _scrubbed(held)
            for name, held in fields.items()
        }
    if isinstance(value, list | tuple):
        parts: list[Any] = [*value]
        if len(parts) == 2 and _is_field(parts[0]):  # a field of an ASGI scope
            return [_scrubbed(parts[0]), _FILTERED]
        scrubbed = [_scrubbed(part) for part in parts]
        return scrubbed if isinstance(value, list) else tuple(scrubbed)
    return value


def _is_field(name: object) -> bool:
    """Return whether a name is that of a field with credentials, plain or as Python writes it."""
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return isinstance(name, str) and bool(_FIELDS.match(name.removeprefix("b").strip("'\"")))
