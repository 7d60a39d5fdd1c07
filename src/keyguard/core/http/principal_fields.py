"""Header fields that pass the principal to an application behind another server.

keyguard drops a client's fields of these names, also in spellings that a server or gateway treats
as the same (``X_Key_Id`` for ``X-Key-Id``). So the application gets only what keyguard writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from keyguard.core.access.carriers import FIELD_NAME, TAKEN_FIELDS
from keyguard.core.identity.principal import Principal
from keyguard.exceptions import InvalidValueError, shown

_OTHER = re.compile(r"[^a-z0-9]")  # some servers and gateways treat these characters as the same
_VALUES: dict[str, Callable[[Principal], str]] = {
    "key_id": lambda principal: principal.key_id,
    "family": lambda principal: principal.family,
    "organization": lambda principal: principal.organization,
    "scopes": lambda principal: " ".join(sorted(principal.scopes)),
}


class PrincipalFields:
    """The header fields that keyguard writes.

    Args:
        fields: The content of each field by its name: ``key_id``, ``family``, ``organization`` or
            ``scopes`` (the granted scopes, separated by spaces).

    Raises:
        InvalidValueError: A name is malformed, has a meaning in HTTP, or occurs twice; or a content
            is unknown.
    """

    __slots__ = ("_writers", "names")

    def __init__(self, fields: Mapping[str, str]) -> None:
        if not isinstance(fields, Mapping):
            raise InvalidValueError(
                "principal_headers is a mapping of field name to its content, such as "
                "{'X-Key-Id': 'key_id'}"
            )
        for name, value in fields.items():
            if not isinstance(name, str) or not re.match(FIELD_NAME, name):
                raise InvalidValueError(
                    f"{shown(name)} is not a valid name for a field: use letters, digits and '-'"
                )
            if re.match(TAKEN_FIELDS, name, re.IGNORECASE):
                raise InvalidValueError(
                    f"{shown(name)} has a meaning in HTTP already; use another name"
                )
            if not isinstance(value, str) or value not in _VALUES:
                known = ", ".join(_VALUES)
                raise InvalidValueError(f"a field holds one of {known}, not {shown(value)}")
        self._writers = tuple((name.lower(), _VALUES[value]) for name, value in fields.items())
        self.names = frozenset(name for name, _ in self._writers)
        if len(self.names) != len(fields):
            raise InvalidValueError("two fields of principal_headers differ only in case")

    def __bool__(self) -> bool:
        return bool(self._writers)

    def claims(self, name: str) -> bool:
        """Return whether a field is one that a client must not send.

        Args:
            name: The name of the field, in any spelling.
        """
        return _OTHER.sub("-", name.lower()) in self.names

    def rewritten(
        self, fields: Iterable[tuple[str, str]], principal: Principal | None
    ) -> list[tuple[str, str]]:
        """Return the fields of a request for the application.

        Leave out the client's fields of these names, and the ``Connection`` options that would make
        a later proxy drop ours (RFC 9110, section 7.6.1).

        Args:
            fields: The names and values that the client sent.
            principal: The principal, or None.
        """
        kept = [(name, value) for name, value in fields if not self.claims(name)]
        return self.written(principal) + [
            (name, self._connection(value) if name.lower() == "connection" else value)
            for name, value in kept
        ]

    def _connection(self, options: str) -> str:
        names = (name.strip() for name in options.split(","))
        return ", ".join(name for name in names if not self.claims(name))

    def written(self, principal: Principal | None) -> list[tuple[str, str]]:
        """Return the fields for a principal, names in lower case; no fields for None."""
        if principal is None:
            return []
        return [(name, value(principal)) for name, value in self._writers]
