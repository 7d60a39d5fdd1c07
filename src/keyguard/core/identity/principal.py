"""A request, as far as decisions may look at it: who it is from, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyguard.core.identity.scopes import Requirement, ScopeGrant
from keyguard.exceptions import InvalidValueError

__all__ = ["CREDENTIAL_FIELDS", "Principal", "Request"]

CREDENTIAL_FIELDS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""The fields that a :class:`Request` does not show, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """What a request is, once it is let in.

    Args:
        key_id: The id of the key it came with; safe to log.
        family: The family of that key.
        organization: The id of the organization that owns it.
        grant: What it may do; ``"a" in principal.grant`` honours wildcards and implications.
        metadata: The key's notes.
    """

    key_id: str
    family: str
    organization: str
    grant: ScopeGrant
    metadata: Mapping[str, str] = field(hash=False)

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes as they were granted to the key."""
        return self.grant.granted

    def has_scopes(self, *scopes: str) -> bool:
        """Tell whether it has all of these scopes.

        Raises:
            InvalidValueError: None is given, or one is no scope.
        """
        if not scopes:
            raise InvalidValueError("has_scopes takes at least one scope")
        return Requirement.of(scopes).met_by(self.grant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a limit's own functions get to see of a request, whatever framework carries it.

    Args:
        method: The request method, in upper case; a WebSocket's is ``GET``.
        path: The path that the router sees, decoded.
        query: The query string as it was sent, without ``?``.
        headers: The fields by name in lower case, several of one name joined by commas; without
            those that carry credentials (:data:`CREDENTIAL_FIELDS`).
        address: The client's address, where it is known.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    address: str | None = None
