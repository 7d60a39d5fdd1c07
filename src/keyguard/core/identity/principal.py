"""The principal that makes a request, and what decisions may read of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyguard.core.identity.scopes import Requirement, ScopeGrant
from keyguard.exceptions import InvalidValueError

CREDENTIAL_FIELDS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""The header fields that a :class:`Request` does not contain, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The identity of a request that keyguard let in.

    Args:
        key_id: The id of its key; safe to log.
        family: The family of that key.
        organization: The id of the organization that owns it.
        grant: Its scopes; ``"a" in principal.grant`` honours wildcards and implications.
        metadata: The key's notes.
    """

    key_id: str
    family: str
    organization: str
    grant: ScopeGrant
    metadata: Mapping[str, str] = field(hash=False)

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that were granted to the key, without implied ones."""
        return self.grant.granted

    def has_scopes(self, *scopes: str) -> bool:
        """Tell whether the principal has all of these scopes.

        Raises:
            InvalidValueError: No scope is given, or a scope is malformed.
        """
        if not scopes:
            raise InvalidValueError("has_scopes takes at least one scope")
        return Requirement.of(scopes).met_by(self.grant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, as the functions of a limit see it, whatever the framework.

    Args:
        method: The request method, in upper case; ``GET`` for a WebSocket.
        path: The path that the router sees, decoded.
        query: The query string as the client sent it, without ``?``.
        headers: The header fields by name in lower case, fields of the same name joined by commas;
            without the fields that carry credentials (:data:`CREDENTIAL_FIELDS`).
        address: The client's address, if it is known.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    address: str | None = None
