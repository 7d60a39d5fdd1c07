"""When a key was last used is told the store before a server ends, and at most a minute late."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from keyguard import Allow, Keyguard
from tests.services import free_port, until
from tests.stores.conftest import make_database


@pytest.mark.campaign("redis-asgi", "sqlite-wsgi")
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_sigterm_loses_no_use(
    kind: str, server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    with Keyguard(database.url) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        issued = guard.keys.issue(organization="acme", name="used")
        port = free_port()
        url = database.url if server == "wsgi" else database.async_url
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.freshness.served", server, url, str(port)],
            cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:

            def answers() -> bool:
                fields = {"Authorization": f"Bearer {issued.token.reveal()}"}
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/", headers=fields, timeout=10)
                except httpx.TransportError:
                    return False
                return answer.status_code == 200

            until(answers)
            assert guard.keys.get(issued.key.id).last_used_at is None  # not on the request's way
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        assert "Traceback" not in said, said
        key = guard.keys.get(issued.key.id)
        assert key.last_used_at is not None
        assert (key.last_used_at.second, key.last_used_at.microsecond) == (0, 0)
        assert key.last_used_address == "127.0.0.1"


@pytest.mark.campaign("fork]")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_loses_no_use(method: str, tmp_path: Path) -> None:
    with Keyguard(f"sqlite:///{tmp_path}/keys.db") as guard:
        guard.migrate()
        guard.organizations.create("acme")
        issued = guard.keys.issue(organization="acme", name="used")
        token = issued.token.reveal()
        worker = multiprocessing.get_context(method).Process(target=use, args=(tmp_path, token))
        worker.start()
        worker.join(60)

        assert worker.exitcode == 0
        assert guard.keys.get(issued.key.id).last_used_at is not None


def use(folder: Path, token: str) -> None:
    guard = Keyguard(f"sqlite:///{folder}/keys.db", store_timeout=30.0)
    assert isinstance(guard.authenticate([f"Bearer {token}"]), Allow)
