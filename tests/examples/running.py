"""The example services, running for real, and how they are called."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from werkzeug.serving import make_server

from examples import aiaas
from examples.flask_app.app import create_app as create_flask_app
from examples.starlette_app.app import create_app as create_starlette_app
from keyguard import IssuedKey, Keyguard

FRAMEWORKS = ("starlette", "flask")

# What a server or a CORS layer adds by itself, and the field that differs from one to the next.
OF_THE_SERVER = {"date", "server", "connection", "vary", "ratelimit"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Service:
    """One example service on a port of its own."""

    port: int
    app: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(
        self,
        path: str,
        token: str | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        authorization: str | None = None,
    ) -> Answer:
        if token is not None:
            authorization = f"Bearer {token}"
        headers = {"Connection": "close"}
        if authorization is not None:
            headers["Authorization"] = authorization
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            fields = ((name.lower(), value) for name, value in response.getheaders())
            kept = sorted(field for field in fields if field[0] not in OF_THE_SERVER)
            return Answer(response.status, tuple(kept), response.read())

    def revoke(self, key_id: str) -> None:
        """Revoke a key through the service's own guard."""
        self._ask(lambda guard: guard.keys.revoke(key_id))

    def flush(self) -> None:
        """Tell the store what the service's own guard has counted."""
        self._ask(lambda guard: guard.flush())

    def _ask(self, question: Callable[[Any], Any]) -> None:
        if hasattr(self.app, "state"):
            call = question(self.app.state.guard)
            asyncio.run_coroutine_threadsafe(call, self.app.state.loop).result(30)
        else:
            question(self.app.config["GUARD"])


@contextmanager
def running(framework: str, url: str) -> Iterator[Service]:
    """Serve an example. The socket listens from the start, so a client need not wait for it."""
    serve = {"starlette": _running_starlette, "flask": _running_flask}[framework]
    with socket.create_server(("127.0.0.1", 0)) as sock, serve(sock, url) as app:
        yield Service(sock.getsockname()[1], app)


def made(create_app: Callable[[], Any], url: str) -> Any:
    """Make an application as its users do: the environment names the key store."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEYGUARD_URL", url)
        return create_app()


@contextmanager
def _running_starlette(sock: socket.socket, url: str) -> Iterator[Any]:
    app = made(create_starlette_app, url)
    with over_asgi(sock, app) as app.state.loop:
        yield app


@contextmanager
def over_asgi(sock: socket.socket, app: Any) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve an application with uvicorn, in a thread; yield its event loop."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    loop: Future[asyncio.AbstractEventLoop] = Future()

    async def serve() -> None:
        loop.set_result(asyncio.get_running_loop())
        await server.serve([sock.dup()])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield loop.result()
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _running_flask(sock: socket.socket, url: str) -> Iterator[Any]:
    app = made(create_flask_app, url)
    with app.config["GUARD"], over_wsgi(sock, app):
        yield app


@contextmanager
def over_wsgi(sock: socket.socket, app: Any) -> Iterator[None]:
    """Serve an application with werkzeug, in threads."""
    with make_server(*sock.getsockname(), app, threaded=True, fd=sock.fileno()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


KEYS = {
    "writer": ("acme", ["inference:read", "inference:write"]),
    "reader": ("acme", ["inference:read"]),
    "analyst": ("acme", ["analytics:read"]),
    "admin": ("acme", ["admin"]),
    "everything": ("acme", ["*"]),
    "nothing": ("acme", []),
    "globex reader": ("globex", ["inference:*"]),
    "globex analyst": ("globex", ["analytics:read"]),
    "globex admin": ("globex", ["admin"]),
}


class Store:
    """A store with two organizations, a key for every case, and a guard beside the services'."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.guard = Keyguard(url, settings=aiaas.settings())
        self.guard.migrate()
        for slug in ("acme", "globex"):
            self.guard.organizations.create(slug)
        self.issued = {
            name: self.issue(name, scopes, organization=organization)
            for name, (organization, scopes) in KEYS.items()
        }
        revoked = self.issued["revoked"] = self.issue("revoked", ["*"])
        self.guard.keys.revoke(revoked.key.id)

    def issue(self, name: str, scopes: list[str], *, organization: str = "acme") -> IssuedKey:
        return self.guard.keys.issue(
            organization=organization, name=name, scopes=scopes, expires_in=timedelta(days=90)
        )

    def token(self, name: str) -> str:
        return self.issued[name].token.reveal()


def curl() -> str:
    """Return the program. Without it, skip the test, or fail where CI runs."""
    program = shutil.which("curl")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is not installed: apt-get install curl")
        pytest.skip("curl is not installed: apt-get install curl")
    return program
