"""Reading one ASGI connection from its scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from keyguard.core.http.paths import route_path
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.identity.addresses import Client
from keyguard.core.identity.principal import CREDENTIAL_FIELDS, Principal, Request
from keyguard.request.state import RequestState

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "ScopeReader", "Send", "rewrite", "strip"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ScopeReader(RequestState):
    """Reads what keyguard needs from a scope.

    Attributes:
        scope: The scope.
        offered: The subprotocols in which a WebSocket may offer its token.
    """

    scope: Scope
    offered: tuple[bytes, ...] = ()

    def connection(self) -> Client:
        client = self.scope.get("client")
        secure = self.scope.get("scheme") in ("https", "wss")
        return Client((client[0] or None) if client else None, secure)

    @property
    def method(self) -> str:
        method: str = self.scope.get("method", "GET")
        return method

    @property
    def raw_path(self) -> bytes | None:
        """The path of the request line, if the server provides it.

        Without the ``root_path`` that the server may have put in front of it.
        """
        raw_path: bytes | None = self.scope.get("raw_path")
        root_path: str = self.scope.get("root_path", "")
        if not raw_path or not root_path:
            return raw_path
        as_sent = root_path.encode(errors="replace").decode("latin-1")
        return route_path(raw_path.decode("latin-1"), as_sent).encode("latin-1")

    @property
    def path(self) -> str:
        return route_path(self.scope["path"], self.scope.get("root_path", ""))

    def credentials(self) -> list[bytes]:
        """Return the ``Authorization`` field values, and a subprotocol's token as another one."""
        if self.carriers is not None:
            sent = self.carriers.read(self.fields_named(self.carriers.fields))
            return [*(value.encode("latin-1", "replace") for value in sent), *self.offered]
        headers = self.scope["headers"]
        return [*(value for name, value in headers if name == b"authorization"), *self.offered]

    @property
    def marks_key(self) -> bool:
        return bool(self.offered) or super().marks_key

    def fields_named(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return fields by name, given in lower case; one value for each field line."""
        found: dict[str, list[str]] = {}
        for raw_name, value in self.scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            if name in names:
                found.setdefault(name, []).append(value.decode("latin-1"))
        return found

    def request(self) -> Request:
        headers: dict[str, str] = {}
        secret = CREDENTIAL_FIELDS.union(self.key_headers)
        for raw_name, raw_value in self.scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name not in secret:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Request(
            method=self.method,
            path=self.path,
            query=self.scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            address=self.address,
        )


def strip(scope: Scope, names: Sequence[str]) -> None:
    """Remove fields by name, given in lower case."""
    scope["headers"] = [
        field for field in scope["headers"] if field[0].decode("latin-1").lower() not in names
    ]


def rewrite(scope: Scope, fields: PrincipalFields, principal: Principal | None) -> None:
    """Write the principal into the request's fields, for an application behind another server."""
    sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    scope["headers"] = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in fields.rewritten(sent, principal)
    ]
