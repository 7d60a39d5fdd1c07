"""Speaking HTTP over a bare socket, and reading what comes back."""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

_PATIENCE = 60.0  # seconds; only a server that never answers is waited for that long
_ERROR = re.compile(r'error="(\w+)"')

# What a server adds of its own accord, and what differs from request to request.
OF_THE_SERVER = {"date", "server", "connection", "keep-alive", "transfer-encoding", "via"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def is_keyguard_s(self) -> bool:
        return (
            self.header("content-type") == "application/problem+json"
            and self.header("cache-control") == "no-store"
        )

    def __str__(self) -> str:
        """Say who answered what: ``200``, ``401 invalid_token``, ``server 400``."""
        if self.is_keyguard_s:
            error = _ERROR.search(self.header("www-authenticate"))
            return f"{self.status} {error[1]}" if error else str(self.status)
        return "200" if self.status == 200 else f"server {self.status}"


class _File(io.BufferedReader):
    """A file that several responses are read from; each would close it."""

    def close(self) -> None:
        """Leave it open."""


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = _File(self.socket.makefile("rb", buffering=0))  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def makefile(self, _mode: str) -> Any:
        return self.file

    def begin(self, method: str = "GET") -> http.client.HTTPResponse:
        """Read the head of an answer."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer."""
        response = self.begin(method)
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(response.status, headers, response.read())

    def close(self) -> None:
        self.socket.close()
        io.BufferedReader.close(self.file)


@contextmanager
def connected(port: int) -> Iterator[Wire]:
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()


def outcome(port: int, request: bytes, method: str = "GET", answers: int = 1) -> str:
    """Send something, and say what comes of it: who answered what, or that it was hung up on."""
    said: list[str] = []
    with connected(port) as wire:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it reads all
            wire.send(request)
        for _ in range(answers):
            try:
                said.append(str(wire.answer(method)))
            except TimeoutError:
                said.append("silent")
                break
            except (http.client.HTTPException, OSError):
                said.append("closed")
                break
    return " + ".join(said)
