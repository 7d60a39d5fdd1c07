"""However a key dies, no other process lets it in for longer than ``max_staleness``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keyguard import IssuedKey, Keyguard
from tests.stores.conftest import Database, make_database

STORES = ("sqlite", "postgresql", "mariadb", "redis")
PUSHING = ("postgresql", "redis")
MAX_STALENESS = 2.0
GRACE = timedelta(seconds=2.5)
"""Of the key that outlives its rotation, longer than a process may take to learn of it."""


WAYS = ("api", "command line", "row", "organization", "no grace", "grace end", "scope", "end")


@dataclass
class Doomed:
    """Keys, each of which dies in its own way, and when that was acknowledged."""

    guard: Keyguard
    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.guard.migrate()
        self.acme = self.guard.organizations.create("acme")
        self.paused = self.guard.organizations.create("paused")
        self.issued: dict[str, IssuedKey] = {}
        for name in (*WAYS, "live"):
            owner = self.paused if name == "organization" else self.acme
            self.issued[name] = self.guard.keys.issue(
                organization=owner.slug, name=name, scopes=["models:read"]
            )
        self.died: dict[str, float] = {}

    def lines(self) -> str:
        tokens = [f"{one.token.reveal()} models:read\n" for one in self.issued.values()]
        return "".join(tokens) + "\n"

    def kill(self, *names: str) -> None:
        """Have keys die, each in the way of its name."""
        ways: dict[str, Callable[[str], object]] = {
            "api": self.guard.keys.revoke,
            "command line": self._by_command,
            "row": self._by_row,
            "organization": lambda _: self.guard.organizations.disable("paused"),
            "no grace": lambda key_id: self.guard.keys.rotate(key_id, grace=timedelta(0)),
            "grace end": lambda key_id: self.guard.keys.rotate(key_id, grace=GRACE),
            "scope": lambda key_id: self.guard.keys.update(key_id, scopes=["other:read"]),
            "end": lambda key_id: self.guard.keys.update(key_id, expires_at=datetime.now(UTC)),
        }
        for name in names or WAYS:
            ways[name](self.issued[name].key.id)
            self.died[name] = time.monotonic()

    def until_refused(self, name: str) -> float:
        """Return how long after it was told a key may be let in at the most, in seconds."""
        # At the end of its grace, of which every process has known for a while by then.
        return GRACE.total_seconds() if name == "grace end" else MAX_STALENESS

    def _by_command(self, key_id: str) -> None:
        subprocess.run(
            [str(Path(sys.executable).with_name("keyguard")), "key", "revoke", key_id],
            env={**os.environ, "KEYGUARD_URL": self.database.url},
            cwd=self.folder, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def _by_row(self, key_id: str) -> None:
        """Change the row behind keyguard's back, with an entry in the feed."""
        if self.database.kind == "redis":
            self.guard.keys.revoke(key_id)  # there are no rows
            return
        from sqlalchemy import create_engine, text

        engine = create_engine(self.guard._store.database.writes.url)  # type: ignore[attr-defined]
        with engine.begin() as connection:
            connection.execute(text("UPDATE keyguard_feed SET last = last + 1, mark = 'abcd'"))
            connection.execute(
                text("UPDATE keyguard_keys SET revoked_at = created_at WHERE id = :id"),
                {"id": key_id},
            )
            connection.execute(
                text(
                    "INSERT INTO keyguard_audit"
                    " (id, at, actor, action, subject, organization, after, mark)"
                    " SELECT last, (SELECT created_at FROM keyguard_keys WHERE id = :id),"
                    " 'operator', 'key.revoked', :id, :owner, '{}', mark FROM keyguard_feed"
                )
                if connection.dialect.name != "mysql"
                else text(
                    "INSERT INTO keyguard_audit"
                    " (id, `at`, actor, action, subject, organization, `after`, mark)"
                    " SELECT last, (SELECT created_at FROM keyguard_keys WHERE id = :id),"
                    " 'operator', 'key.revoked', :id, :owner, '{}', mark FROM keyguard_feed"
                ),
                {"id": key_id, "owner": self.acme.id},
            )
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_notify('keyguard', '')"))
        engine.dispose()


@pytest.fixture
def doomed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Doomed]:
    monkeypatch.delenv("KEYGUARD_PEPPER", raising=False)
    database = make_database(request.param, request, tmp_path)
    with Keyguard(database.url) as guard:
        yield Doomed(guard, database, tmp_path)


class Watcher:
    """Another process that uses the keys."""

    def __init__(self, process: subprocess.Popen[str], names: list[str]) -> None:
        self.process = process
        self.names = names

    def end(self) -> dict[str, Any]:
        """Have it end, and return what it saw of each key."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return dict(zip(self.names, json.loads(out.splitlines()[-1]), strict=True))


@contextmanager
def watching(doomed: Doomed, flavour: str, store_timeout: float = 30.0) -> Iterator[Watcher]:
    url = doomed.database.url if flavour == "sync" else doomed.database.async_url
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.freshness.watcher", flavour, url, str(MAX_STALENESS)],
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2], env={**os.environ, "STORE_TIMEOUT": str(store_timeout)},
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(doomed.lines())
        process.stdin.flush()
        said = process.stdout.readline()
        assert said == "ready\n", process.communicate()[1]
        yield Watcher(process, list(doomed.issued))
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_out(doomed: Doomed) -> None:
    """Wait until no key that died may be let in any more."""
    last = max(died + doomed.until_refused(name) for name, died in doomed.died.items())
    time.sleep(max(0.0, last - time.monotonic()) + 0.2)


def check(doomed: Doomed, seen: dict[str, Any]) -> None:
    for name, died in doomed.died.items():
        last_accepted, first_refused, _ = seen[name]
        assert first_refused is not None, f"{name} is still let in"
        assert last_accepted - died <= doomed.until_refused(name), f"{name} was let in for too long"
    assert seen["live"][1] is None, "what lives is let in"


@pytest.mark.campaign("postgresql-async", "sqlite-sync")
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("doomed", STORES, indirect=True)
def test_however_a_key_dies_another_process_knows_in_time(doomed: Doomed, flavour: str) -> None:
    with watching(doomed, flavour) as watcher:
        doomed.kill()
        wait_out(doomed)
        seen = watcher.end()
    check(doomed, seen)
    assert seen["grace end"][0] > doomed.died["grace end"], "a rotated key works on"
    assert seen["grace end"][2] == "key_rotated"


@pytest.mark.campaign("redis-async")
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("doomed", PUSHING, indirect=True)
def test_a_process_whose_feed_was_cut_knows_in_time(doomed: Doomed, flavour: str) -> None:
    with watching(doomed, flavour) as watcher:
        if doomed.database.kind == "postgresql":
            import psycopg

            with psycopg.connect(doomed.database.url.replace("+psycopg", "")) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
        else:
            server, number = doomed.database.server, doomed.database.url.rpartition("/")[2]
            for client in server.call("CLIENT", "LIST", "TYPE", "normal").decode().splitlines():
                named = dict(field.split("=", 1) for field in client.split())
                if named["db"] == number:
                    server.call("CLIENT", "KILL", "ID", named["id"])
        doomed.kill()
        wait_out(doomed)
        check(doomed, watcher.end())


@pytest.mark.campaign("redis-sync")
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("doomed", STORES, indirect=True)
def test_a_process_that_was_stopped_knows_when_it_goes_on(doomed: Doomed, flavour: str) -> None:
    with watching(doomed, flavour) as watcher:
        watcher.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, watcher.process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            doomed.kill()
            wait_out(doomed)
        finally:
            watcher.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)  # in which it uses the keys again
        check(doomed, watcher.end())


@pytest.mark.campaign("postgresql-async")
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("doomed", PUSHING, indirect=True)
def test_while_the_store_is_silent_nothing_is_let_in_for_longer(
    doomed: Doomed, flavour: str
) -> None:
    with watching(doomed, flavour, store_timeout=0.25) as watcher:
        doomed.kill("api")
        with doomed.database.server.suspended():
            silent_since = time.monotonic()
            time.sleep(MAX_STALENESS + 0.5)
            seen = watcher.end()
    for name, since in (("api", doomed.died["api"]), ("live", silent_since)):
        last_accepted, first_refused, reason = seen[name]
        assert first_refused is not None
        assert last_accepted - since <= MAX_STALENESS
        if name == "live":
            assert reason == "store_unavailable"
