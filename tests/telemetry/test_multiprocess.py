"""The multiprocess mode of prometheus-client, with workers that were really forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from keyguard import Keyguard
from tests.examples.pages import ROOT
from tests.services import free_port, until
from tests.telemetry.measured import Samples, sample, scraped

WORKERS = 3


def collected(folder: Path) -> Samples:
    """Return the metrics of all processes, as an application in this mode serves them."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return scraped(registry)


def test_the_counts_of_all_workers_are_added_up_and_none_is_lost_at_their_end(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    with Keyguard(url) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        token = guard.keys.issue(organization="acme", name="test").token.reveal()
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS),
         "--worker-tmp-dir", str(tmp_path), "--bind", f"127.0.0.1:{port}",
         "--log-level", "warning", "--no-control-socket", "tests.telemetry.preforked:app"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "KEYGUARD_URL": url, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
    )  # fmt: skip
    answered = Counter[int]()
    seen = set[str]()
    try:

        def ask(token: str) -> httpx.Response | None:
            fields = {"Authorization": f"Bearer {token}"}
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/", headers=fields, timeout=60)
            except httpx.ConnectError:
                return None
            answered[answer.status_code] += 1
            return answer

        def all_seen() -> bool:
            answer = ask(token)
            if answer is not None:
                seen.add(answer.text)
                ask("x")
            return len(seen) == WORKERS

        until(all_seen)
        # While the workers live, what they have counted is told within seconds.
        until(lambda: decided(collected(folder), "allowed") == answered[200])
        assert sample(collected(folder), "keyguard_feed_up") == 1
        for _ in range(10):
            ask(token)
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)

    assert "Traceback" not in said, said
    samples = collected(folder)
    assert decided(samples, "allowed") == answered[200]
    assert decided(samples, "denied") == answered[401]  # and not what was refused before the fork
    misses = sample(samples, "keyguard_lookups_total", keyguard_cache_result="miss") or 0
    assert misses >= WORKERS
    found = {"db_operation_name": "find_key", "db_system_name": "sqlite"}
    duration = "keyguard_store_operation_duration_seconds_count"
    assert sample(samples, duration, **found) == misses


def decided(samples: Samples, outcome: str) -> float | None:
    return sample(samples, "keyguard_decisions_total", keyguard_outcome=outcome)
