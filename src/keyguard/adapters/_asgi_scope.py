"""Reading one ASGI connection from its scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from keyguard.core.http.paths import route_path
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.http.trusted_proxies import Client
from keyguard.core.identity.principal import CREDENTIAL_FIELDS, Principal, Request

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "ScopeReader", "Send", "rewritten"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ScopeReader:
    """Reads what keyguard needs from a scope.

    Attributes:
        scope: The scope.
        client: The client behind trusted proxies, if there are any.
        offered: What a WebSocket offers instead of an ``Authorization`` field.
    """

    scope: Scope
    client: Client | None = None
    offered: tuple[bytes, ...] = ()

    @property
    def peer(self) -> str | None:
        """The address that holds the connection, if it has one."""
        client = self.scope.get("client")
        return (client[0] or None) if client else None

    @property
    def address(self) -> str | None:
        """The client's address, if it is known."""
        return self.peer if self.client is None else self.client.address

    @property
    def is_secure(self) -> bool:
        """Whether the client's connection is encrypted."""
        if self.client is not None:
            return self.client.secure
        return self.scope.get("scheme") in ("https", "wss")

    @property
    def method(self) -> str:
        """The request method; a WebSocket's is GET."""
        method: str = self.scope.get("method", "GET")
        return method

    @property
    def raw_path(self) -> bytes | None:
        """The path of the request line, if the server tells it."""
        return self.scope.get("raw_path")

    def lone_field(self) -> bytes | None:
        """Return the value of the ``Authorization`` field if there is exactly one."""
        if self.offered:
            return None
        field = None
        for name, value in self.scope["headers"]:
            if name == b"authorization":
                if field is not None:
                    return None
                field = value
        return field

    @property
    def path(self) -> str:
        """The path that the router sees."""
        return route_path(self.scope["path"], self.scope.get("root_path", ""))

    def credentials(self) -> list[bytes]:
        """Return the ``Authorization`` field values, and what a WebSocket offers instead."""
        headers = self.scope["headers"]
        return [*(value for name, value in headers if name == b"authorization"), *self.offered]

    def fields_named(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return fields by name, given in lower case; one value for each field line."""
        found: dict[str, list[str]] = {}
        for raw_name, value in self.scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            if name in names:
                found.setdefault(name, []).append(value.decode("latin-1"))
        return found

    def request(self) -> Request:
        """Return what the functions of limits see of the request."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name not in CREDENTIAL_FIELDS:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Request(
            method=self.method,
            path=self.path,
            query=self.scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            address=self.address,
        )


def rewritten(scope: Scope, fields: PrincipalFields, principal: Principal | None) -> Scope:
    """Return a scope with the principal in its fields, for an application behind another server."""
    sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in fields.rewritten(sent, principal)
    ]
    return {**scope, "headers": headers}
