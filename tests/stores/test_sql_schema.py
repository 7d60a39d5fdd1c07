"""The schema of the SQL backend: missing, older, newer, damaged, and how it is brought up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from keyguard.core.keys.records import KeyFilter, RevocationReason
from keyguard.exceptions import CorruptDataError, SchemaError, StoreUnavailableError
from keyguard.stores.base import News
from keyguard.stores.sql import HEAD, SqlStore, migrations, schema
from keyguard.stores.sql.tables import TABLES
from tests.loops import event_loop
from tests.services import python
from tests.stores.conftest import Database, Plain, opened
from tests.stores.records import LATER, NOON, key, organization, record

Call = Callable[[], Any]

ADVICE = "run `keyguard migrate` or guard.migrate()"

MIGRATE = """
import sys
from keyguard.stores.opening import open_store
backend = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
backend.migrate()
backend.close()
print("done")
"""

AMIGRATE = """
import asyncio, sys
from keyguard.stores.opening import open_async_store
async def main():
    backend = open_async_store(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await backend.migrate()
    await backend.aclose()
asyncio.run(main())
print("done")
"""


@pytest.fixture
def backend(database: Database) -> Iterator[Plain]:
    """A sync backend in a new database without tables."""
    backend = Plain(database.backend())
    yield backend
    backend.close()


def execute(backend: Plain, *statements: str) -> None:
    with backend._writes.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_the_packaged_head_is_alembics() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == HEAD
    known = [script.revision for script in scripts.walk_revisions()]
    assert known == list(reversed(migrations.REVISIONS))


def test_the_migrations_make_the_tables_that_the_code_uses(backend: Plain) -> None:
    backend.migrate()
    with backend._reads.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "keyguard_version",
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, TABLES) == []


def test_without_tables_every_call_says_to_migrate(database_store: Any) -> None:
    calls: list[Call] = [
        lambda: database_store.find_key(key().id),
        lambda: database_store.feed().read(None, 0),
        lambda: database_store.add_organization(organization()),
        lambda: database_store.list_keys(KeyFilter(), after=None, limit=1),
    ]
    for call in calls:
        with pytest.raises(SchemaError) as caught:
            call()
        assert str(caught.value) == f"the database has no keyguard tables yet; {ADVICE}"


def test_a_store_that_was_migrated_after_all_works(database_store: Any) -> None:
    with pytest.raises(SchemaError):
        database_store.find_key(key().id)
    database_store.migrate()
    assert database_store.find_key(key().id) is None


def test_older_tables_say_to_migrate(backend: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.migrate()
    monkeypatch.setattr(migrations, "HEAD", "0004")
    later: Any = SqlStore(backend._reads)
    with pytest.raises(SchemaError) as caught:
        later.find_key(key().id)
    assert str(caught.value) == (
        f"keyguard's tables are at revision 0003, and this keyguard needs 0004; {ADVICE}"
    )


@pytest.mark.parametrize("call", ["find", "migrate"])
def test_newer_tables_say_to_upgrade_keyguard(
    database_store: Any, database: Database, call: str
) -> None:
    other = Plain(database.backend())
    other.migrate()
    execute(other, "UPDATE keyguard_version SET version_num = '9999'")
    other.close()
    with pytest.raises(SchemaError) as caught:
        database_store.migrate() if call == "migrate" else database_store.find_key(key().id)
    assert str(caught.value) == (
        "keyguard's tables are at revision 9999, which was made by a newer keyguard; "
        "upgrade keyguard"
    )


def test_a_table_that_went_missing_is_named(database_store: Any, database: Database) -> None:
    database_store.migrate()
    assert database_store.find_key(key().id) is None
    other = Plain(database.backend())
    execute(other, "DROP TABLE keyguard_keys")
    other.close()
    with pytest.raises(
        SchemaError, match=r"^the table keyguard_keys is missing, though "
    ) as caught:
        database_store.find_key(key().id)
    assert caught.value.__cause__ is not None


def test_all_tables_that_went_missing_ask_for_a_migration(backend: Plain) -> None:
    backend.migrate()
    assert backend.find_key(key().id) is None
    execute(
        backend,
        "DROP TABLE keyguard_keys",
        "DROP TABLE keyguard_organizations",
        "DROP TABLE keyguard_version",
    )
    with pytest.raises(SchemaError, match=r"has no keyguard tables yet"):
        backend.find_key(key().id)
    backend.migrate()
    assert backend.find_key(key().id) is None


@pytest.mark.parametrize(
    ("assignment", "why"),
    [
        ("name = ''", "a key's name takes 1 to 200 characters"),
        ("family = 'fam'", "is no key family"),
        ("scopes = 'models:read  '", ""),
        ("scopes = 'quo\"te'", ""),
        ("metadata = '{'", ""),
        ("metadata = '[]'", "metadata takes a mapping"),
        ("metadata = '{\"a\": 1}'", "metadata takes a mapping"),
    ],
)
def test_a_foreign_key_row_is_named_and_never_its_digest(
    database_store: Any, database: Database, assignment: str, why: str
) -> None:
    database_store.migrate()
    database_store.add_organization(organization())
    database_store.add_key(record())
    other = Plain(database.backend())
    execute(other, f"UPDATE keyguard_keys SET {assignment.replace(':', chr(92) + ':')}")
    other.close()
    calls: list[Call] = [
        lambda: database_store.find_key(key().id),
        lambda: database_store.list_keys(KeyFilter(), after=None, limit=1),
        lambda: database_store.revoke_key(key().id, NOON, None),
    ]
    for call in calls:
        with pytest.raises(CorruptDataError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"row '{key().id}' of table keyguard_keys is none that keyguard")
        assert message.endswith("; restore it from a backup or delete it")
        assert why in message
        assert "digest-1" not in message


def test_a_foreign_organization_row_is_named(database_store: Any, database: Database) -> None:
    database_store.migrate()
    database_store.add_organization(organization())
    other = Plain(database.backend())
    execute(other, "UPDATE keyguard_organizations SET name = ' '")
    other.close()
    with pytest.raises(
        CorruptDataError, match=rf"^row '{organization().id}' of table keyguard_org"
    ):
        database_store.find_organization("acme-1")


@pytest.mark.parametrize("value", ["garbage", "", "2026-03-01T12:00:00.000000", "0"])
def test_a_time_that_is_none_is_refused_on_sqlite(tmp_path: Path, value: str) -> None:
    backend = Plain(Database("sqlite", f"sqlite:///{tmp_path}/keys.db", "").backend())
    backend.migrate()
    backend.add_organization(organization())
    execute(backend, f"UPDATE keyguard_organizations SET created_at = '{value}'")
    with pytest.raises(CorruptDataError, match=r"of table keyguard_organizations is none that"):
        backend.find_organization("acme-1")
    backend.close()


def test_a_key_whose_organization_is_gone_is_no_unknown_key(tmp_path: Path) -> None:
    backend = Plain(Database("sqlite", f"sqlite:///{tmp_path}/keys.db", "").backend())
    backend.migrate()
    backend.add_organization(organization())
    backend.add_key(record())
    with backend._writes.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("DELETE FROM keyguard_organizations")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.commit()
    with pytest.raises(CorruptDataError, match=rf"it has no organization '{organization().id}'"):
        backend.find_key(key().id)
    backend.close()


@pytest.mark.campaign("sqlite", "postgresql")
def test_ten_processes_may_migrate_at_once(database: Database) -> None:
    processes = [
        python(*((MIGRATE, database.url) if n % 2 else (AMIGRATE, database.async_url)))
        for n in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 10
    backend = database.backend()
    assert backend.find_key(key().id) is None
    with backend._reads.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM keyguard_version")).all() == [HEAD]
    backend.close()


def test_threads_may_migrate_at_once(database_store: Any) -> None:
    database_store.together([lambda backend: backend.migrate() for _ in range(8)])
    assert database_store.find_key(key().id) is None


def test_a_migration_that_was_cut_short_is_finished_by_the_next(
    backend: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = Operations.create_index
    made: list[str] = []

    def create_index(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if len(made) == 2:
            raise ConnectionResetError("the power went out")
        made.append(name)
        return original(self, name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_index", create_index)
        with pytest.raises(StoreUnavailableError):
            backend.migrate()
    with pytest.raises(SchemaError):
        backend.find_key(key().id)
    backend.migrate()
    backend.add_organization(organization())
    backend.add_key(record())
    assert backend.change_key(key().id, name="new") == key(name="new", version=2)
    test_the_migrations_make_the_tables_that_the_code_uses(backend)


def test_a_hosts_own_alembic_and_logging_are_left_alone(backend: Plain) -> None:
    import logging

    from alembic import context, op

    before = (list(logging.getLogger().handlers), logging.getLogger("alembic").level)
    execute(backend, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    execute(backend, "INSERT INTO alembic_version VALUES ('theirs')")
    backend.migrate()

    def versions(connection: Connection) -> Any:
        return connection.scalars(text("SELECT version_num FROM alembic_version")).all()

    with backend._reads.connect() as connection:
        assert versions(connection) == ["theirs"]
    assert (list(logging.getLogger().handlers), logging.getLogger("alembic").level) == before
    for proxy, attribute in ((context, "config"), (op, "create_table")):
        with pytest.raises((NameError, AttributeError)):
            getattr(proxy, attribute)()


def test_a_store_opened_on_one_event_loop_works_on_the_next(database: Database) -> None:
    with event_loop() as first:
        store: Any = opened("async", database.async_url, first)
        store.migrate()
    with event_loop() as second:
        store.runner = second
        assert store.find_key(key().id) is None
        store.close()


# Stores of before

REASONS = ("lost \N{ROCKET} on a train", "superseded", "key-compromise", "x" * 200, None)


def make_old(backend: Plain, revision: str) -> None:
    """Make a store as an older keyguard left it: one organization, and keys revoked or not."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    with backend._writes.connect() as connection:
        schema._VERSION.create(connection)
        context = MigrationContext.configure(
            connection, opts={"version_table": schema._VERSION.name}
        )
        for script in reversed([*scripts.iterate_revisions(revision, None)]):
            script.module.upgrade(Operations(context))
            context.stamp(scripts, script.revision)
        connection.commit()
        moment = {
            "sqlite": "2026-03-01T12:00:00.123456+00:00",
            "postgresql": "2026-03-01T12:00:00.123456+00:00",
        }.get(connection.dialect.name, "2026-03-01T12:00:00.123456")
        connection.execute(
            text(
                "INSERT INTO keyguard_organizations (id, slug, name, created_at) "
                "VALUES (:id, 'acme-1', 'Acme 1', :at)"
            ),
            {"id": organization().id, "at": moment},
        )
        for number, reason in enumerate((*REASONS, None), 1):
            connection.execute(
                text(
                    "INSERT INTO keyguard_keys (id, family, organization_id, name, scopes, "
                    "created_at, metadata, digest, revoked_at, revoked_reason) VALUES (:id, :family"
                    ", :owner, :name, 'models\\:read', :at, '{}', :digest, :revoked, :reason)"
                ),
                {
                    "id": key(number).id,
                    "family": key(number).family,
                    "owner": organization().id,
                    "name": key(number).name,
                    "digest": record(number).digest,
                    "at": moment,
                    "revoked": moment if number <= len(REASONS) else None,
                    "reason": reason,
                },
            )
        connection.commit()


def check_that_it_came_up(backend: Plain) -> None:
    """Check that what an older keyguard kept is still there, and that changes go on from there."""
    ends: list[tuple[RevocationReason | None, str | None]] = [
        (RevocationReason.UNSPECIFIED, REASONS[0]),
        (RevocationReason.SUPERSEDED, None),
        (RevocationReason.UNSPECIFIED, "key-compromise"),
        (RevocationReason.UNSPECIFIED, "x" * 200),
        (None, None),
    ]
    for number, (reason, note) in enumerate(ends, 1):
        dead = record(number, revoked_at=NOON, revoked_reason=reason, revoked_note=note)
        assert backend.find_key(key(number).id) == dead
    alive = key(len(ends) + 1)
    assert backend.find_key(alive.id) == record(len(ends) + 1)
    assert backend.find_organization("acme-1") == organization()
    feed = backend.feed()
    assert feed.read(None, 0) == News("0", ())
    assert backend.change_key(alive.id, expires_at=LATER).version == 2
    assert feed.read("0", 0) == News("1", (alive.id,))
    feed.close()


def check_its_schema(backend: Plain) -> None:
    test_the_migrations_make_the_tables_that_the_code_uses(backend)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_tables_of_before_are_brought_up_with_their_keys(backend: Plain, revision: str) -> None:
    make_old(backend, revision)
    with pytest.raises(SchemaError, match=f"are at revision {revision}, and this keyguard needs"):
        backend.find_key(key().id)
    backend.migrate()
    check_that_it_came_up(backend)
    check_its_schema(backend)


@pytest.mark.campaign("sqlite", "postgresql")
def test_ten_processes_may_bring_up_tables_of_before_at_once(database: Database) -> None:
    backend = Plain(database.backend())
    make_old(backend, "0002")
    processes = [
        python(*((MIGRATE, database.url) if n % 2 else (AMIGRATE, database.async_url)))
        for n in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 10
    check_that_it_came_up(backend)
    check_its_schema(backend)
    backend.close()


def test_a_migration_of_tables_of_before_may_be_cut_short_anywhere(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("add_column", "create_table", "create_index")
    originals: dict[str, Any] = {name: getattr(Operations, name) for name in steps}
    left = 0

    def counted(name: str) -> Any:
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionResetError("the power went out")
            return originals[name](self, *args, **kwargs)

        return step

    backend = Plain(database.backend())
    make_old(backend, "0001")
    with monkeypatch.context() as patch:
        for name in steps:
            patch.setattr(Operations, name, counted(name))
        for allowed in range(100):
            left = allowed  # on MySQL each run goes on where the last one was cut
            try:
                backend.migrate()
                break
            except StoreUnavailableError:
                continue
    check_that_it_came_up(backend)
    check_its_schema(backend)
    backend.close()
