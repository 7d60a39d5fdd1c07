"""Reading one WSGI request from its environ (PEP 3333)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.identity.addresses import Client
from keyguard.core.identity.principal import CREDENTIAL_FIELDS, Principal, Request
from keyguard.request.state import RequestState

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Environ", "EnvironReader", "rewrite", "strip", "variable_of"]

Environ: TypeAlias = "WSGIEnvironment"

_WITHOUT_PREFIX = ("CONTENT_TYPE", "CONTENT_LENGTH")


class EnvironReader(RequestState):
    """Reads what keyguard needs from an environ.

    Attributes:
        environ: The environ.
    """

    environ: Environ

    def connection(self) -> Client:
        secure = self.environ["wsgi.url_scheme"] == "https"
        return Client(self.environ.get("REMOTE_ADDR") or None, secure)

    @property
    def method(self) -> str:
        method: str = self.environ["REQUEST_METHOD"]
        return method

    @property
    def path(self) -> str:
        raw: str = self.environ.get("PATH_INFO", "")
        if not raw.startswith("/") and self.environ.get("SCRIPT_NAME", "").endswith("/"):
            raw = f"/{raw}"  # the server removed the slash together with its mount point
        return raw.encode("latin-1", "replace").decode("utf-8", "replace")

    @property
    def raw_path(self) -> bytes:
        """The path of the request line; empty if the server does not provide it."""
        target: str = self.environ.get("RAW_URI") or self.environ.get("REQUEST_URI") or ""
        return target.partition("?")[0].encode("latin-1", "replace")

    def credentials(self) -> list[str]:
        """Return the ``Authorization`` field values. A server joins several with commas."""
        if self.carriers is not None:
            return self.carriers.read(self.fields_named(self.carriers.fields))
        field = self.environ.get("HTTP_AUTHORIZATION")
        return [] if field is None else [field]

    def fields_named(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the values of some fields by name, as the server joined them."""
        found = {name: self.environ.get(variable_of(name)) for name in names}
        return {name: [value] for name, value in found.items() if value is not None}

    def request(self) -> Request:
        environ = self.environ
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        for name in _WITHOUT_PREFIX:
            if environ.get(name):
                headers[name.replace("_", "-").lower()] = environ[name]
        for name in (*CREDENTIAL_FIELDS, *self.key_headers):
            headers.pop(name, None)
        return Request(
            method=self.method,
            path=self.path,
            query=environ.get("QUERY_STRING", ""),
            headers=headers,
            address=self.address,
        )


def strip(environ: Environ, names: Sequence[str]) -> None:
    """Remove fields by name, given in lower case."""
    for name in names:
        environ.pop(variable_of(name), None)


def rewrite(environ: Environ, fields: PrincipalFields, principal: Principal | None) -> None:
    """Write the principal into the request's fields, for an application behind another server."""
    before = {name for name in environ if name.startswith("HTTP_")}
    sent = [(name[5:], environ[name]) for name in before]
    rewritten = fields.rewritten(sent, principal)
    after = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in rewritten}
    for name in before - after.keys():
        del environ[name]
    environ.update(after)


def variable_of(name: str) -> str:
    """Return the variable that holds a field.

    Fields whose names differ only in ``_`` and ``-`` have the same variable.
    """
    variable = name.upper().replace("-", "_")
    return variable if variable in _WITHOUT_PREFIX else f"HTTP_{variable}"
