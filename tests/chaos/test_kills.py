"""A process that is killed leaves whole changes behind, and all that were acknowledged."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.conftest import make_database

# `make chaos` asks for more.
KILLS = int(os.environ.get("CHAOS_KILLS", "10"))


@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.campaign("sqlite")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis"])
def test_a_killed_process_leaves_whole_changes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    seed = random.randrange(10**9)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.campaign", database.url, str(KILLS), str(seed)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(f"{kind}: {done.stdout.strip()}")
