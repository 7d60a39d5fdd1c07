"""One ASGI connection, as a server tells of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from keyguard.core.http.paths import route_path
from keyguard.core.http.trusted_proxies import Client
from keyguard.core.identity.principal import CREDENTIAL_FIELDS, Request

__all__ = ["ASGIApp", "Connection", "Message", "Receive", "Scope", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Connection:
    """Reads a scope.

    Attributes:
        scope: The scope.
        client: The other end, where proxies were asked for it.
        offered: What a WebSocket offered in the place of ``Authorization`` fields.
    """

    scope: Scope
    client: Client | None = None
    offered: tuple[bytes, ...] = ()

    @property
    def peer(self) -> str | None:
        """The address of who holds the connection, where it has one."""
        client = self.scope.get("client")
        return (client[0] or None) if client else None

    @property
    def address(self) -> str | None:
        """The client's address, where it is known."""
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
        """The path as it stood on the request line, where the server says."""
        return self.scope.get("raw_path")

    def lone_field(self) -> bytes | None:
        """Return the ``Authorization`` field value where there is just one."""
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
        """Return the ``Authorization`` field values, or what stands for them."""
        headers = self.scope["headers"]
        return [*(value for name, value in headers if name == b"authorization"), *self.offered]

    def fields_named(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the values of some fields by name, one item a field line.

        Args:
            names: Their names in lower case.
        """
        found: dict[str, list[str]] = {}
        for raw_name, value in self.scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            if name in names:
                found.setdefault(name, []).append(value.decode("latin-1"))
        return found

    def request(self) -> Request:
        """Return what the functions of limits get to see of the request."""
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
