"""The grammar of the ``Authorization`` field (RFC 9110, section 11.6.2; RFC 6750, section 2.1).

    credentials = auth-scheme [ 1*SP ( b64token / ... ) ]
    b64token    = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="

Each function takes time linear in its input.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import cast

from keyguard.core.access.decisions import Reason
from keyguard.core.tokens.secret import Secret

_AUTH_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 token
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_WITH_BAR = re.compile(r"[A-Za-z0-9._~+/|-]+=*\Z")
_JOINED_BEARER = re.compile(r",[ \t]*bearer(?![^ \t,])", re.IGNORECASE)


def describe_misuse(fields: object) -> str | None:
    """Return what is wrong with the type of ``fields``, without showing them; None if it is valid.

    :func:`parse_authorization` does not do this: an error must not have the token in its frames.
    """
    if isinstance(fields, str | bytes):
        return None
    if not isinstance(fields, list | tuple):
        return f"the Authorization fields are a list, not a {type(fields).__name__}"
    each = cast("Iterable[object]", fields)
    kinds = {type(field).__name__ for field in each if not isinstance(field, str | bytes)}
    if kinds:
        return f"an Authorization field is bytes or a string, not a {' or '.join(sorted(kinds))}"
    return None


def parse_authorization(fields: Sequence[str | bytes], *, bar: bool = False) -> Secret | Reason:
    """Find the bearer token in the ``Authorization`` fields of one request.

    Args:
        fields: The field values as received, one item for each field line; bytes, or latin-1
            strings as in WSGI. A single string counts as one field.
        bar: Whether a token may contain ``|``, which Laravel Sanctum sends although the grammar
            does not allow it.

    Returns:
        The token, or the reason why there is no token.
    """
    if isinstance(fields, str | bytes):
        fields = [fields]
    if not fields:
        return Reason.CREDENTIALS_MISSING
    if len(fields) > 1:
        return Reason.CREDENTIALS_MALFORMED
    value = fields[0]
    grammar = _WITH_BAR if bar else _B64TOKEN
    return _parse_field(value.decode("latin-1") if isinstance(value, bytes) else value, grammar)


def open_basic(value: str) -> str:
    """Return what a field of the scheme ``Basic`` holds (RFC 7617), or "" for another scheme.

    It is read as leniently as any application may read it: with other characters in between, in
    the alphabet for URLs, and without padding.
    """
    scheme, _, rest = value.strip(" \t").partition(" ")
    if scheme.lower() != "basic":
        return ""
    digits = _NO_BASE64.sub("", rest.replace("-", "+").replace("_", "/"))
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    return b64decode(digits + "=" * (-len(digits) % 4)).decode("latin-1")


def _parse_field(value: str, grammar: re.Pattern[str]) -> Secret | Reason:
    value = value.strip(" \t")
    if not value:
        return Reason.CREDENTIALS_MISSING
    scheme = _AUTH_SCHEME.match(value)
    if scheme is None:
        return Reason.CREDENTIALS_MALFORMED
    rest = value[scheme.end() :]
    if rest and rest[0] != " ":
        return Reason.CREDENTIALS_MALFORMED
    if scheme[0].lower() != "bearer":
        joined = _JOINED_BEARER.search(rest)
        return Reason.CREDENTIALS_MALFORMED if joined else Reason.SCHEME_UNSUPPORTED
    token = rest.lstrip(" ")
    return Secret(token) if grammar.match(token) else Reason.CREDENTIALS_MALFORMED
