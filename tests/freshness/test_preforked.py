"""A server that forks after the application was loaded: ``gunicorn --preload`` with 4 workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from keyguard import Keyguard
from keyguard.stores.base import KeepsUsage
from tests.services import free_port, until
from tests.stores.conftest import make_database

WORKERS = 4
MAX_STALENESS = 2.0


@pytest.mark.campaign("postgresql")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_every_worker_of_a_preforked_server_follows_the_feed_and_flushes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    with Keyguard(database.url) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        warm, doomed, live = (
            guard.keys.issue(organization="acme", name=name) for name in ("warm", "doomed", "live")
        )
        port = free_port()
        answered = Counter({"allowed": 1})  # by the process that forks the others
        environment = {
            **os.environ,
            "KEYGUARD_URL": database.url,
            "WARM_TOKEN": warm.token.reveal(),
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS),
             "--worker-tmp-dir", str(tmp_path), "--bind", f"127.0.0.1:{port}",
             "--log-level", "warning", "--no-control-socket", "tests.freshness.preforked:app"],
            cwd=Path(__file__).parents[2], env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:

            def answer(token: str) -> httpx.Response:
                fields = {"Authorization": f"Bearer {token}"}
                answer = httpx.get(f"http://127.0.0.1:{port}/", headers=fields, timeout=60)
                answered["allowed" if answer.status_code == 200 else "key_revoked"] += 1
                return answer

            def answers() -> bool:
                try:
                    return answer(live.token.reveal()).status_code == 200
                except httpx.TransportError:
                    return False

            until(answers)
            seen: set[str] = set()

            def all_seen() -> bool:
                seen.add(answer(doomed.token.reveal()).text)
                return len(seen) == WORKERS

            until(all_seen)
            guard.keys.revoke(doomed.key.id)
            died = time.monotonic()
            while time.monotonic() < died + MAX_STALENESS + 0.5:
                began = time.monotonic()
                accepted = answer(doomed.token.reveal()).status_code == 200
                assert not accepted or began - died <= MAX_STALENESS
            assert not accepted
            assert answer(live.token.reveal()).status_code == 200
        finally:
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=60)
        assert "Traceback" not in said, said
        assert guard.keys.get(live.key.id).last_used_at is not None
        if isinstance(guard._store, KeepsUsage):
            report = guard.usage.report(organization="acme", group_by="outcome")
            counted: Counter[str] = Counter()
            for item in report.items:  # of one day, or of two around midnight
                counted[item.group] += item.n
            assert counted == answered
            assert list(guard._store.usage().writers()) == []
