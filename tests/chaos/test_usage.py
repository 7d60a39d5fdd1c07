"""What a killed process has counted is told once or lost, and lost only since its last flush."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from keyguard.stores.base import KeepsUsage
from tests.stores.conftest import make_database

# `make chaos` asks for more.
ROUNDS = int(os.environ.get("CHAOS_KILLS", "5"))


@pytest.mark.timeout(60 + 5 * ROUNDS)
@pytest.mark.campaign("redis")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis"])
def test_a_killed_process_doubles_no_count_and_loses_none_that_was_told(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    if not isinstance(database.backend(), KeepsUsage):
        pytest.skip("this store keeps no usage")
    seed = random.randrange(10**9)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.usage_campaign", database.url, str(ROUNDS), str(seed)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(f"{kind}: {done.stdout.strip()}")
