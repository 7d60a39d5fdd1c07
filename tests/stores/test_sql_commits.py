"""Commits to SQL databases: what a crash leaves of a commit, and that commits are serial."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Use
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import within
from keyguard.stores.opening import open_store
from tests.services import python
from tests.stores.changes import adding, changing
from tests.stores.conftest import DATABASES, DEADLINE, Database, Plain, make_database
from tests.stores.records import LATER, NOON, key, organization, record

# A child process is killed at each step of a commit in turn, until a child gets through.
CRASH = """
import json, os, signal, sys
from dataclasses import replace
from sqlalchemy import event
from keyguard.stores.opening import open_store
from keyguard.core.keys.commit import Commit
from tests.stores.changes import adding, changing
from tests.stores.records import key, organization, record


def attempt(number, acknowledge):
    backend = open_store(sys.argv[1])
    found = backend.find_key(key(1).id)
    left = number

    def step(*_):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    event.listen(backend.database.writes, "before_cursor_execute", step)
    event.listen(backend.database.writes, "after_cursor_execute", step)
    dialect, do_commit = backend.database.writes.dialect, backend.database.writes.dialect.do_commit

    def commit(connection):
        step()
        do_commit(connection)
        step()

    dialect.do_commit = commit
    owner, new = organization(100 + number), record(100 + number, owner=found.organization)
    parts = adding(owner), adding(new), changing(found.key, name=f"attempt {number}")
    whole = Commit(
        entries=sum((part.entries for part in parts), ()),
        organizations=parts[0].organizations,
        keys=parts[1].keys,
        changes=parts[2].changes,
        unchanged=(found.organization,),
    )
    assert backend.commit(whole) is True
    os.write(acknowledge, b"1")
    if left > 0:
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


for number in range(100):
    heard, acknowledge = os.pipe()
    child = os.fork()
    if child == 0:
        attempt(number, acknowledge)
    os.close(acknowledge)
    _, status = os.waitpid(child, 0)
    print(json.dumps({"acknowledged": os.read(heard, 1) == b"1", "survived": status == 0}))
    os.close(heard)
    if status == 0:
        break
"""


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return make_database(request.param, request, tmp_path, migrated=True)


@pytest.fixture
def backend(database: Database) -> Generator[Plain]:
    """A sync store with one key, in a database of each kind."""
    backend = Plain(database.backend())
    backend.add_organization(organization())
    backend.add_key(record())
    yield backend
    backend.close()


@pytest.mark.campaign("postgresql")
@pytest.mark.timeout(240)
def test_a_process_killed_during_a_commit_leaves_all_of_it_or_nothing(
    backend: Plain, database: Database
) -> None:
    output, _ = python(CRASH, database.url).communicate()
    attempts = [json.loads(line) for line in output.splitlines()]
    assert attempts[-1] == {"acknowledged": True, "survived": True}
    assert len(attempts) > 12  # statements are six at least, each with a before and an after

    backend.add_organization(organization(2))  # no lock is left behind
    trail = list(backend.list_audit(organization=None, subject=None, after=None, limit=1000))
    assert [entry.id for entry in trail] == [str(n) for n in range(len(trail), 0, -1)]
    done = []
    for number, attempt in enumerate(attempts):
        traces = {
            backend.find_organization(organization(100 + number).id) is not None,
            backend.find_key(key(100 + number).id) is not None,
            any(entry.after.get("name") == f"attempt {number}" for entry in trail),
        }
        assert len(traces) == 1
        assert traces == {True} or not attempt["acknowledged"]
        for subject in (organization(100 + number).id, key(100 + number).id):
            assert [entry.subject for entry in trail].count(subject) == len(traces & {True})
        done += [number] * len(traces & {True})
    changed = backend.find_key(key().id).key
    assert (changed.name, changed.version) == (f"attempt {done[-1]}", 1 + len(done))
    assert len(trail) == 3 + 3 * len(done)
    # Killed after the commit and before the answer, and before it and after all else.
    assert len(attempts) > len(done) >= 2


def test_ids_of_entries_rise_in_the_order_in_which_commits_are_seen(backend: Plain) -> None:
    """A reader that has seen an entry has seen all before it, whatever is committed meanwhile."""
    finished = threading.Event()
    seen: list[list[int]] = []

    def watch() -> None:
        while not finished.is_set():
            page = backend.list_audit(organization=None, subject=None, after=None, limit=1000)
            seen.append([int(entry.id) for entry in page])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        backend.together(
            [lambda store, n=n: store.add_organization(organization(n)) for n in range(2, 32)]
        )
    finally:
        finished.set()
        watcher.join()
    assert all(ids == list(range(len(ids), 0, -1)) for ids in seen)


@pytest.mark.timeout(60, func_only=True)
def test_a_commit_that_waits_for_another_waits_until_the_deadline(
    backend: Plain, database: Database
) -> None:
    other = Plain(open_store(database.url))
    with backend.database.writes.connect() as connection:
        connection.execute(text("UPDATE keyguard_feed SET last = last"))
        with within(DEADLINE), pytest.raises(StoreUnavailableError):
            other.commit(changing(key(), name="new"))
        assert other.find_key(key().id) == record()
    assert other.commit(changing(key(), name="new")) is True
    other.close()


@pytest.mark.campaign(
    "postgresql-REPEATABLE READ",
    "postgresql-None",
    "mariadb-REPEATABLE READ",
    "sqlite-SERIALIZABLE",
)
@pytest.mark.parametrize("level", [None, "SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT"])
def test_one_that_waited_sees_what_the_other_did_whatever_the_host_s_level(
    backend: Plain, database: Database, level: str | None
) -> None:
    if database.kind == "sqlite" and level == "REPEATABLE READ":
        pytest.skip("SQLite has no such level")
    options: dict[str, Any] = {} if level is None else {"isolation_level": level}
    engine = create_engine(backend.database.reads.url, pool_size=20, max_overflow=0, **options)
    store = Plain(open_store(engine))
    for _ in range(3):
        present = store.find_key(key().id).key
        commits = [changing(present, name=f"{present.version} {n}") for n in range(20)]
        answers = store.together([lambda store, c=c: store.commit(c) for c in commits])
        assert sorted(answers) == [False] * 19 + [True]
    assert store.find_key(key().id).key.version == 4
    # A refusal leaves nothing of what came before it in the commit.
    assert store.commit(changing(key(version=2), name="x")) is False
    assert len(store.list_audit(organization=None, subject=None, after=None, limit=9)) == 5
    engine.dispose()


def test_uses_and_commits_at_once_never_wait_for_each_other_in_a_circle(backend: Plain) -> None:
    assert backend.commit(adding(*(record(number) for number in range(2, 40))))
    keys = list(backend.list_keys(KeyFilter(), after=None, limit=100))

    def use(store: Any, turn: int) -> None:
        ordered = keys if turn % 2 else keys[::-1]
        store.mark_used([Use(used.id, LATER.replace(second=turn)) for used in ordered])

    def rename(store: Any, turn: int) -> None:
        for renamed in keys[:: 5 + turn] + keys[:: -5 - turn]:
            store.change_key(renamed.id, name=f"{turn}")

    backend.together(
        [lambda store, n=n: use(store, n) for n in range(20)]
        + [lambda store, n=n: rename(store, n) for n in range(3)]
    )
    for used in backend.list_keys(KeyFilter(), after=None, limit=100):
        assert used.last_used_at == LATER.replace(second=19)


def test_only_what_changed_is_written(backend: Plain) -> None:
    statements: list[str] = []
    event.listen(
        backend.database.writes, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    assert backend.commit(changing(key(), name="new", expires_at=LATER))
    (update,) = [sent for sent in statements if sent.startswith("UPDATE keyguard_keys")]
    assert update.split("SET")[1].split("WHERE")[0].count("=") == 3  # and the version
    assert backend.find_key(key().id).key == key(name="new", expires_at=LATER, version=2)


def test_an_import_is_few_statements(backend: Plain) -> None:
    statements: list[str] = []
    event.listen(
        backend.database.writes, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    assert backend.commit(adding(*(record(number) for number in range(2, 502))))
    assert len(statements) < 10


def test_a_use_whose_address_no_column_holds_is_noted_all_the_same(backend: Plain) -> None:
    for second, (address, kept) in enumerate(
        [("x" * 65, "x" * 64), ("nul\0", None), ("\ud800", None), ("\N{ROCKET}", "\N{ROCKET}")]
    ):
        backend.mark_used([Use(key().id, NOON.replace(second=second), address)])
        found = backend.find_key(key().id).key
        assert (found.last_used_at.second, found.last_used_address) == (second, kept)
