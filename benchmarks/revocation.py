"""How long after an acknowledged revocation another process lets the key in for the last time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles

from keyguard import Keyguard
from tests.services import PostgreSQL, RedisServer, running

__all__ = ["MAX_STALENESS", "ROUNDS", "measure"]

ROUNDS = 500
MAX_STALENESS = 5.0
_LONGEST_PAUSE = 0.02  # seconds between two revocations, at most


def measure() -> dict[str, dict[str, list[float]]]:
    """Revoke keys one after another while another process uses them all.

    Returns:
        By store and flavour, milliseconds from each acknowledgement to the first refusal.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgresql = stack.enter_context(running(PostgreSQL)).create_database()
        redis = stack.enter_context(running(RedisServer)).create_database()
        stores = {
            "PostgreSQL": postgresql,
            "Redis": redis,
            "SQLite": (f"sqlite:///{folder}/keys.db",) * 2,
        }
        return {
            name: {
                flavour: _lags(urls[0], flavour, urls[flavour == "async"])
                for flavour in ("sync", "async")
            }
            for name, urls in stores.items()
        }


def spread(lags: list[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the longest."""
    percentiles = quantiles(lags, n=100, method="inclusive")
    return percentiles[49], percentiles[98], max(lags)


def _lags(url: str, flavour: str, watched_url: str) -> list[float]:
    with Keyguard(url, max_staleness=MAX_STALENESS) as guard:
        guard.migrate()
        owner = guard.organizations.create(f"acme-{flavour}")
        issued = [
            guard.keys.issue(organization=owner.id, name=f"key {n}", scopes=["models:read"])
            for n in range(ROUNDS)
        ]
        acknowledged: list[float] = []
        with _watcher(flavour, watched_url, [key.token.reveal() for key in issued]) as watcher:
            for key in issued:
                time.sleep(random.uniform(0, _LONGEST_PAUSE))
                guard.keys.revoke(key.key.id)
                acknowledged.append(time.monotonic())
            time.sleep(MAX_STALENESS / 2)
            out, err = watcher.communicate("\n", timeout=60)
        if watcher.returncode:
            raise RuntimeError(err)
    seen = json.loads(out.splitlines()[-1])
    pairs = zip(seen, acknowledged, strict=True)
    return [max(0.0, (refused - died) * 1000) for (_, refused, _), died in pairs]


@contextmanager
def _watcher(flavour: str, url: str, tokens: list[str]) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.freshness.watcher", flavour, url, str(MAX_STALENESS), "once"],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{token} models:read\n" for token in tokens) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(process.communicate()[1])
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
