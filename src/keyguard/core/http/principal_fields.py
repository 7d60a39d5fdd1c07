"""Fields that tell an application behind another server who the principal is.

Whatever a client sends under such a name is dropped, also in a spelling that a server or gateway
makes the same (``X_Key_Id`` for ``X-Key-Id``): only what is written here arrives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from keyguard.core.identity.principal import Principal
from keyguard.exceptions import InvalidValueError

__all__ = ["PrincipalFields"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
_OTHER = re.compile(r"[^a-z0-9]")  # what some server or gateway makes the same
_TAKEN = re.compile(
    r"(authorization|proxy-.*|cookie|host|connection|content-.*|transfer-encoding|te|trailer|"
    r"upgrade|expect|forwarded|x-forwarded-.*|sec-.*)\Z",
    re.IGNORECASE,
)
_VALUES: dict[str, Callable[[Principal], str]] = {
    "key_id": lambda principal: principal.key_id,
    "family": lambda principal: principal.family,
    "organization": lambda principal: principal.organization,
    "scopes": lambda principal: " ".join(sorted(principal.scopes)),
}


class PrincipalFields:
    """Which fields are written.

    Args:
        fields: The field name and what it holds: ``key_id``, ``family``, ``organization`` or
            ``scopes`` (as they were granted, separated by spaces).

    Raises:
        InvalidValueError: A name is none, has a meaning already, or is there twice; or there is no
            such value.
    """

    __slots__ = ("_writers", "names")

    def __init__(self, fields: Mapping[str, str]) -> None:
        if not isinstance(fields, Mapping):
            raise InvalidValueError(
                "principal_headers is a mapping of field name to what it holds, such as "
                "{'X-Key-Id': 'key_id'}"
            )
        for name, value in fields.items():
            if not isinstance(name, str) or not _NAME.match(name):
                raise InvalidValueError(
                    f"{name!r} is no name for a field: use letters, digits and '-'"
                )
            if _TAKEN.match(name):
                raise InvalidValueError(f"{name!r} has a meaning in HTTP already; use another name")
            if not isinstance(value, str) or value not in _VALUES:
                known = ", ".join(_VALUES)
                raise InvalidValueError(f"a field holds one of {known}, not {value!r}")
        self._writers = tuple((name.lower(), _VALUES[value]) for name, value in fields.items())
        self.names = frozenset(name for name, _ in self._writers)
        if len(self.names) != len(fields):
            raise InvalidValueError("two fields of principal_headers differ only in case")

    def __bool__(self) -> bool:
        return bool(self._writers)

    def claims(self, name: str) -> bool:
        """Tell whether a client must not send a field.

        Args:
            name: Its name, in any spelling.
        """
        return _OTHER.sub("-", name.lower()) in self.names

    def rewritten(
        self, fields: Iterable[tuple[str, str]], principal: Principal | None
    ) -> list[tuple[str, str]]:
        """Return the fields of a request as the application is to see them.

        What a client wrote under our names is not among them, nor is the ``Connection`` option that
        would have a proxy further on drop ours (RFC 9110, section 7.6.1).

        Args:
            fields: Names and values, as they came.
            principal: Who it is, or None.
        """
        kept = [(name, value) for name, value in fields if not self.claims(name)]
        return self.written(principal) + [
            (name, self._connection(value) if name.lower() == "connection" else value)
            for name, value in kept
        ]

    def _connection(self, options: str) -> str:
        kept = (one.strip() for one in options.split(","))
        return ", ".join(one for one in kept if not self.claims(one))

    def written(self, principal: Principal | None) -> list[tuple[str, str]]:
        """Return the fields of a request, names in lower case; none where there is no principal."""
        if principal is None:
            return []
        return [(name, value(principal)) for name, value in self._writers]
