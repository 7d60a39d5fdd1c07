"""The protocol between admission and the adapters' requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from keyguard.core.access.decisions import Allow
from keyguard.core.http.rules import Rule
from keyguard.core.http.trusted_proxies import Client
from keyguard.core.limits.limit import RouteLimit

__all__ = ["AdmissionRequest"]


class AdmissionRequest(Protocol):
    """What admission reads and notes of a request. Each adapter implements it.

    Attributes:
        allow: The decision that let the request in.
        retires: When its key ends, as an HTTP date, if the key has a successor.
        due: Whether limits have yet to be charged.
        cache_missed: Whether the cache of verified tokens was asked and did not know the token.
        client: The client behind trusted proxies, if there are any.
        rule: The rule for the path, if there is one.
        rule_limits: The limits that this rule sets.
        peer: The address that holds the connection, if it has one.
        address: The client's address, if it is known.
        is_secure: Whether the client's connection is encrypted.
        method: The request method.
        path: The path that the router sees, decoded.
        raw_path: The path of the request line, if the server tells it.
    """

    allow: Allow | None
    retires: str | None
    due: bool
    cache_missed: bool
    client: Client | None
    rule: Rule | None
    rule_limits: tuple[RouteLimit, ...]

    @property
    def peer(self) -> str | None: ...
    @property
    def address(self) -> str | None: ...
    @property
    def is_secure(self) -> bool: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def raw_path(self) -> bytes | None: ...

    def lone_field(self) -> bytes | None:
        """Return the value of the ``Authorization`` field if there is exactly one."""
        ...

    def credentials(self) -> Sequence[str | bytes]:
        """Return the values of the ``Authorization`` fields, as received."""
        ...

    def fields_named(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the values of some fields by name, given in lower case."""
        ...
