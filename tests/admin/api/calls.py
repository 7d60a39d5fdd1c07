"""Calls of the API through either front end, without a server."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.validate import validator

from keyguard.adapters._wsgi_environ import variable_of


@dataclass(frozen=True)
class Sent:
    """What a client sends. Of people the header ``x-person`` tells, as the host would know them."""

    method: str
    path: str
    token: str | None = None
    person: str | None = None
    query: str = ""
    body: object = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    scheme: str = "https"
    mount: str = ""

    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()

    def fields(self) -> dict[str, str]:
        content = self.content()
        fields = {"host": "keys.example"}
        if content:
            fields |= {"content-type": "application/json", "content-length": str(len(content))}
        if self.token is not None:
            fields["authorization"] = f"Bearer {self.token}"
        if self.person is not None:
            fields |= {"x-person": self.person, "sec-fetch-site": "same-origin"}
        return fields | self.headers


@dataclass(frozen=True)
class Got:
    """What a client gets."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """Return the field of that name, in lower case."""
        (value,) = [value for key, value in self.headers if key == name]
        return value

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Caller = Callable[[Any, Sent], Got]


def call_asgi(app: Any, sent: Sent) -> Got:
    messages: list[Any] = []
    content = sent.content()
    parts = [content[:10], content[10:]]

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": sent.method,
        "scheme": sent.scheme,
        "path": sent.mount + sent.path,
        "raw_path": (sent.mount + sent.path).encode(),
        "query_string": sent.query.encode(),
        "root_path": sent.mount,
        "headers": [(name.encode(), value.encode()) for name, value in sent.fields().items()],
        "client": ("192.0.2.7", 5555),
        "server": ("localhost", 80),
    }
    asyncio.run(app(scope, receive, send))
    start, *bodies = messages
    return Got(
        start["status"],
        tuple((name.decode(), value.decode()) for name, value in start["headers"]),
        b"".join(body.get("body", b"") for body in bodies),
    )


def environ_of(sent: Sent) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": sent.mount,
        "PATH_INFO": sent.path,
        "QUERY_STRING": sent.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": sent.scheme,
        "wsgi.input": io.BytesIO(sent.content()),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in sent.fields().items():
        environ[variable_of(name)] = value
    return environ


def call_wsgi(app: Any, sent: Sent) -> Got:
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    body = validator(app)(environ_of(sent), start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]  # the validator's iterator has it
    ((status, headers),) = started
    return Got(int(status[:3]), tuple((name.lower(), value) for name, value in headers), content)
