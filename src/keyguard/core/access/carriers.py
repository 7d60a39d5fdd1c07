"""Carriers: where a request may carry its key, besides ``Authorization: Bearer``.

A key that is read becomes the value of an ``Authorization: Bearer`` field, so that the grammar, the
memory and the order of checks are the same for each carrier. Two carriers in one request are two
such values, which is malformed (RFC 6750, section 2).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence

from keyguard.exceptions import InvalidValueError, shown

FIELD_NAME = r"[A-Za-z][A-Za-z0-9-]{0,63}\Z"
"""The names of header fields that a setting takes."""
TAKEN_FIELDS = (
    r"(authorization|proxy-.*|cookie|host|connection|content-.*|transfer-encoding|te|trailer|"
    r"upgrade|expect|forwarded|x-forwarded-.*|sec-.*)\Z"
)
"""The names that have a meaning in HTTP, or another one for keyguard."""

_BEARER, _BASIC = "bearer", "basic"
_KNOWN = "'bearer', 'basic', 'scheme:Api-Key' and 'header:X-API-Key', with names of your own"


class Carriers:
    """The carriers that a service accepts.

    Args:
        names: ``"bearer"`` for ``Authorization: Bearer <key>``; ``"basic"`` for HTTP Basic with the
            key as password (RFC 7617); ``"scheme:Api-Key"`` for ``Authorization: Api-Key <key>``;
            ``"header:X-API-Key"`` for ``X-API-Key: <key>``. Answers name the first one first.

    Attributes:
        names: As given.
        schemes: The schemes of ``Authorization`` that carry keys, as challenges name them.
        header_names: The other fields that carry keys.
        headers: The names in ``header_names``, in lower case.
        fields: The names of all fields that are read, in lower case.
        forms: How a client may send a key, in words.

    Raises:
        InvalidValueError: A carrier is unknown or named twice, or no carrier is given.
    """

    __slots__ = ("_lower", "fields", "forms", "header_names", "headers", "names", "schemes")

    def __init__(self, names: Iterable[str]) -> None:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InvalidValueError(f"carriers are a list, of {_KNOWN}")
        self.names = tuple(names)
        schemes: list[str] = []
        headers: list[str] = []
        forms: list[str] = []
        for name in self.names:
            kind, _, value = name.partition(":") if isinstance(name, str) else ("", "", "")
            if name in (_BEARER, _BASIC):
                schemes.append(name.title())
                bearer = name == _BEARER
                forms.append(
                    "Authorization: Bearer <key>"
                    if bearer
                    else "HTTP Basic with it as the password"
                )
            elif kind == "scheme" and re.match(FIELD_NAME, value):
                schemes.append(value)
                forms.append(f"Authorization: {value} <key>")
            elif (
                kind == "header"
                and re.match(FIELD_NAME, value)
                and not re.match(TAKEN_FIELDS, value, re.IGNORECASE)
            ):
                headers.append(value)
                forms.append(f"{value}: <key>")
            else:
                raise InvalidValueError(
                    f"{shown(name)} is not a valid carrier of keys; use one of: {_KNOWN}"
                )
        self._lower = frozenset(scheme.lower() for scheme in schemes)
        self.schemes = tuple(schemes)
        self.header_names = tuple(headers)
        self.headers = tuple(header.lower() for header in headers)
        self.fields = (*(("authorization",) if schemes else ()), *self.headers)
        self.forms = tuple(forms)
        if not forms or len({*self._lower, *self.headers}) != len(forms):
            raise InvalidValueError("carriers name at least one way to send a key, and none twice")

    def read(self, fields: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the credentials of a request, as values of ``Authorization`` fields.

        A scheme that is no carrier is the application's own. Beside a key in a header, its field is
        ignored. Alone, its field is returned as it is, unless the scheme is ``Bearer``.

        Args:
            fields: The values of the request's fields by name, in lower case.
        """
        named = [
            f"Bearer {value.strip()}"
            for name in self.headers
            for value in fields.get(name, ())
            if value.strip()
        ]
        sent = fields.get("authorization", ())
        if len(sent) > 1:
            return [*sent, *named]  # malformed
        return [*(found for value in sent for found in self._bearer(value, named)), *named]

    def _bearer(self, value: str, named: Sequence[str]) -> Iterator[str]:
        scheme, _, rest = value.strip(" \t").partition(" ")
        kind = scheme.lower()
        if kind in self._lower:
            if kind == _BASIC:
                rest = _password(rest.strip(" "))
            yield value if kind == _BEARER else f"Bearer {rest}"
        elif not named and kind != _BEARER:
            yield value


def _password(credentials: str) -> str:
    """Return the password of Basic credentials; an empty one if they are malformed."""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
