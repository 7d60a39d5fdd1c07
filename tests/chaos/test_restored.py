"""A backup that is restored again and again hides no revocation from a process with the feed.

Each round makes changes that a restored backup takes back, and as many afterwards, one of them a
revocation. So the feed stands where it stood, with another history.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from keyguard import IssuedKey, Keyguard
from tests.freshness.test_other_processes import MAX_STALENESS, watching
from tests.services import until
from tests.stores.conftest import Database, make_database

# `make chaos` asks for more.
ROUNDS = max(5, int(os.environ.get("CHAOS_KILLS", "0")) // 4)
TABLES = (
    "keyguard_organizations",
    "keyguard_keys",
    "keyguard_requests",
    "keyguard_audit",
    "keyguard_feed",
)
MOST_CHANGES = 4


class Backup:
    """A backup of a database, and how it is put back while others use the database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.is_file = database.kind == "sqlite"
        self.file, self.copy = folder / "keys.db", folder / "backup.db"
        self.engine = None if self.is_file else create_engine(database.url)

    def make(self) -> None:
        if self.is_file:
            self._copy(self.file, self.copy)
            return
        self._execute("DROP SCHEMA IF EXISTS backup CASCADE", "CREATE SCHEMA backup", *(
            f"CREATE TABLE backup.{name} AS SELECT * FROM {name}" for name in TABLES
        ))  # fmt: skip

    def restore(self) -> None:
        if self.is_file:
            self._copy(self.copy, self.file)
            return
        self._execute(f"TRUNCATE {', '.join(TABLES)}", *(
            f"INSERT INTO {name} SELECT * FROM backup.{name}" for name in TABLES
        ))  # fmt: skip

    def close(self) -> None:
        if self.engine is not None:
            self.engine.dispose()

    def _copy(self, source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)

    def _execute(self, *statements: str) -> None:
        assert self.engine is not None
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement.replace("postgresql+psycopg", "")))


class Watched:
    """Keys, one for each round, and what a process needs that watches them."""

    def __init__(self, database: Database, guard: Keyguard) -> None:
        self.database = database
        guard.migrate()
        guard.organizations.create("acme")
        self.issued: dict[str, IssuedKey] = {
            str(number): guard.keys.issue(organization="acme", name="watched")
            for number in range(ROUNDS)
        }

    def lines(self) -> str:
        return "".join(f"{key.token.reveal()} -\n" for key in self.issued.values()) + "\n"


@pytest.mark.timeout(120 + 3 * ROUNDS)
@pytest.mark.campaign("sqlite-sync")
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nobody_is_let_in_after_the_bound_however_often_a_backup_is_restored(
    kind: str, flavour: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    seed = random.randrange(10**9)
    rng = random.Random(seed)
    backup = Backup(database, tmp_path)
    revoked: dict[str, float] = {}
    with Keyguard(database.url, management_timeout=30.0) as guard:
        watched: Any = Watched(database, guard)

        def change(number: int) -> None:
            guard.organizations.update("acme", name=f"Acme {number} {rng.random()}")

        with watching(watched, flavour) as watcher:
            for name, issued in watched.issued.items():
                backup.make()
                number = rng.randint(1, MOST_CHANGES)
                for lost in range(number):
                    change(lost)
                resumed = time.monotonic() + rng.uniform(0, 0.2)
                until(lambda after=resumed: time.monotonic() >= after)  # type: ignore[misc]
                backup.restore()
                revocation = rng.randrange(number)
                for made in range(number):
                    if made == revocation:
                        guard.keys.revoke(issued.key.id)
                        revoked[name] = time.monotonic()
                    else:
                        change(made)
            over = time.monotonic() + MAX_STALENESS
            until(lambda: time.monotonic() > over)
            seen = watcher.end()
    backup.close()
    late = {
        name: seen[name][0] - at
        for name, at in revoked.items()
        if seen[name][0] > at + MAX_STALENESS
    }
    assert late == {}, f"seed {seed}"
    assert [name for name in revoked if seen[name][1] is None] == [], f"seed {seed}"
    worst = max(seen[name][0] - at for name, at in revoked.items())
    print(f"{kind}, {flavour}: {ROUNDS} restored backups, let in for {worst:.2f} s at most")
