"""A memcached for the tests."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymemcache.client.base import Client

from tests.services import Missing, Server, free_port, running


class Memcached(Server):
    """A memcached, which forgets all when it ends."""

    name = "memcached"
    crash = signal.SIGKILL

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"

    def find(self) -> Path:
        found = shutil.which("memcached")
        if found is None:
            raise Missing("no memcached here: install memcached")
        return Path(found).parent

    def install(self) -> None:
        """There is nothing to install."""

    def command(self) -> list[str]:
        options = ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0"]
        return [str(self.programs / "memcached"), *options]

    def ping(self) -> None:
        client = Client(("127.0.0.1", self.port), timeout=1, connect_timeout=1)
        try:
            client.version()
        finally:
            client.close()

    def create_database(self) -> tuple[str, str]:
        return self.url, self.url


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    with running(Memcached) as server:
        yield server
