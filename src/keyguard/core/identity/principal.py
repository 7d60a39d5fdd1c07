"""The principal that makes a request, and the parts of the request that decisions may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyguard.core.identity.scopes import Requirement, ScopeGrant
from keyguard.core.values import Metadata, Value, read_metadata
from keyguard.exceptions import InvalidValueError, shown

CREDENTIAL_FIELDS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""The header fields that a :class:`Request` does not contain, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Principal(Value):
    """The identity of a request that keyguard let in.

    Args:
        key_id: The id of its key; safe to log.
        family: The family of that key.
        organization: The id of the organization that owns it.
        grant: Its scopes; ``"a" in principal.grant`` honours wildcards and implications.
        metadata: The key's notes.

    Raises:
        InvalidValueError: A value has the wrong type. :func:`keyguard.testing.make_principal` takes
            the scopes as a list.
    """

    key_id: str
    family: str
    organization: str
    grant: ScopeGrant
    metadata: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.grant, ScopeGrant):
            raise InvalidValueError(
                "a principal's grant is a ScopeGrant, such as ScopeGrant(frozenset({'a:b'})), not "
                f"{shown(self.grant)}; in tests, keyguard.testing.make_principal takes a list"
            )
        for name in ("key_id", "family", "organization"):
            if not isinstance(value := getattr(self, name), str):
                raise InvalidValueError(f"a principal's {name} is a string, not {shown(value)}")
        if not isinstance(self.metadata, Metadata):  # which was checked when it was made
            object.__setattr__(self, "metadata", read_metadata(self.metadata))

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that were granted to the key, without implied ones."""
        return self.grant.granted

    def has_scopes(self, *scopes: str) -> bool:
        """Return whether the principal has all of these scopes.

        Raises:
            InvalidValueError: No scope is given, or a scope is malformed.
        """
        if not scopes:
            raise InvalidValueError("has_scopes takes at least one scope")
        return Requirement.of(scopes).met_by(self.grant)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Request(Value):
    """A request, as the functions of a limit see it, whatever the framework.

    Args:
        method: The request method, in upper case; ``GET`` for a WebSocket.
        path: The path that the router sees, decoded.
        query: The query string as the client sent it, without ``?``.
        headers: The header fields by name in lower case, fields of the same name joined by commas;
            without the fields that carry credentials (:data:`CREDENTIAL_FIELDS`).
        address: The client's address, if it is known.

    Raises:
        InvalidValueError: A value has the wrong type.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    address: str | None = None

    def __post_init__(self) -> None:
        for name in ("method", "path", "query"):
            if not isinstance(value := getattr(self, name), str):
                raise InvalidValueError(f"a request's {name} is a string, not {shown(value)}")
        headers: object = self.headers  # a caller may pass anything
        items = [*headers, *headers.values()] if isinstance(headers, Mapping) else [None]
        if not all(isinstance(item, str) for item in items):
            raise InvalidValueError("a request's headers are a mapping of strings to strings")
        if not isinstance(self.address, str | None):
            raise InvalidValueError(f"an address is a string or None, not {shown(self.address)}")
