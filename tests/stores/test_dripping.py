"""A deadline bounds a whole call, also where the server sends a byte now and then."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest

from keyguard import AsyncKeyguard, Deny, Keyguard, Reason
from tests.stores.conftest import make_database

PAUSE = 0.05
"""Seconds between two bytes: less than any timeout of one read."""

ENOUGH = 40
"""How many bytes drip, for far longer than the deadline. The rest follows at once."""


class Dripping:
    """Forwards connections to a server; once told so, a byte of its answers at a time.

    A call that no deadline ends is answered in the end, so that its test fails.

    Args:
        address: The server's host and port, or its Unix socket.

    Attributes:
        drips: Set it to have answers drip.
    """

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.drips = threading.Event()
        self._left = ENOUGH
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            if select.select([self._listener], [], [], PAUSE)[0]:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._forward, args=[client])
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        if isinstance(self._address, tuple):
            return socket.create_connection(self._address)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._address)
        return server

    def _forward(self, client: socket.socket) -> None:
        waiting = b""
        with client, self._connect() as server:
            while not self._over.is_set():
                pause = PAUSE if waiting else 0.5
                for ready in select.select([client, server], [], [], pause)[0]:
                    try:
                        data = ready.recv(65536)
                    except OSError:
                        data = b""
                    if not data:
                        return
                    if ready is client:
                        server.sendall(data)
                    elif self.drips.is_set():
                        waiting += data
                    else:
                        client.sendall(data)
                if waiting:
                    size = 1 if self._left else len(waiting)
                    self._left = max(self._left - 1, 0)
                    try:
                        client.sendall(waiting[:size])
                    except OSError:
                        return
                    waiting = waiting[size:]

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture(params=["postgresql", "mariadb", "redis"])
def dripping(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    database = make_database(request.param, request, tmp_path)
    parts = urlsplit(database.url)
    options = dict(parse_qsl(parts.query))
    address: Any = (parts.hostname, parts.port)
    if "unix_socket" in options:
        address = options.pop("unix_socket")
    elif "host" in options:
        address = f"{options.pop('host')}/.s.PGSQL.{options.pop('port', 5432)}"
    server = Dripping(address)
    who, at, _ = parts.netloc.rpartition("@")
    place = f"{who}{at}127.0.0.1:{server.port}"
    through = parts._replace(netloc=place, query=urlencode(options))
    yield server, database.url, urlunsplit(through)
    server.close()


OPTIONS: dict[str, Any] = {"failure_limit": None, "cache_size": 0, "store_timeout": 0.3}


@pytest.mark.campaign("mariadb", "redis")
def test_a_look_up_ends_by_its_deadline(dripping: Any) -> None:
    server, direct, through = dripping
    with Keyguard(direct) as own:
        own.migrate()
        own.organizations.create("acme")
        token = own.keys.issue(organization="acme", name="ci").token.reveal()
    with Keyguard(through, **OPTIONS | {"store_timeout": 30.0}) as warmed:
        assert warmed.authenticate([f"Bearer {token}"])
    with Keyguard(through, **OPTIONS) as guard:
        guard.organizations.get("acme")  # a connection is open
        server.drips.set()
        decision = guard.authenticate([f"Bearer {token}"])
        server.drips.clear()

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.campaign("postgresql")
def test_an_awaited_look_up_ends_by_its_deadline(dripping: Any, runner: Any) -> None:
    server, direct, through = dripping
    with Keyguard(direct) as own:
        own.migrate()
        own.organizations.create("acme")
        token = own.keys.issue(organization="acme", name="ci").token.reveal()

    async def scenario() -> Any:
        async with AsyncKeyguard(through, **OPTIONS) as guard:
            await guard.organizations.get("acme")
            server.drips.set()
            decision = await guard.authenticate([f"Bearer {token}"])
            server.drips.clear()
            return decision

    decision = runner.run(scenario())
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.STORE_UNAVAILABLE
