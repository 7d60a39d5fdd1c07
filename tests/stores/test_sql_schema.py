"""The schema of the SQL store: missing, older, newer, damaged, and how it is brought up to date."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from keyguard.core.keys.lists import KeyFilter
from keyguard.exceptions import CorruptDataError, SchemaError, StoreUnavailableError
from keyguard.stores.opening import open_store
from keyguard.stores.sql import HEAD, migrations
from keyguard.stores.sql.tables import TABLES
from tests.loops import event_loop
from tests.services import python
from tests.stores.conftest import Database, Plain, opened
from tests.stores.records import NOON, key, organization, record

Call = Callable[[], Any]

ADVICE = "run `keyguard migrate` or guard.migrate()"

# Forked, for ten that start take a while to import the same.
MIGRATE = """
import asyncio, multiprocessing, sys
import alembic.command, sqlalchemy.ext.asyncio
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql import migrations

forked = multiprocessing.get_context("fork")
start = forked.Barrier(10)

def migrate(url):
    backend = open_store(url)
    start.wait()
    backend.migrate()
    backend.close()

async def amigrate(url):
    backend = open_async_store(url)
    start.wait()
    await backend.migrate()
    await backend.aclose()

def run(number):
    migrate(sys.argv[1]) if number % 2 else asyncio.run(amigrate(sys.argv[2]))

processes = [forked.Process(target=run, args=(number,)) for number in range(10)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print(sum(process.exitcode == 0 for process in processes), "done")
"""


@pytest.fixture
def backend(database: Database) -> Iterator[Plain]:
    """A sync backend in a new database without tables."""
    backend = Plain(database.backend())
    yield backend
    backend.close()


def execute(backend: Plain, *statements: str) -> None:
    with backend.database.writes.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_the_packaged_head_is_alembics() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == HEAD
    known = [script.revision for script in scripts.walk_revisions()]
    assert known == list(reversed(migrations.REVISIONS))


def test_the_migrations_make_the_tables_that_the_code_uses(backend: Plain) -> None:
    backend.migrate()
    with backend.database.reads.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "keyguard_version",
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, TABLES) == []


def test_without_tables_every_call_says_to_migrate(database_store: Any, database: Any) -> None:
    if database.url.startswith("sqlite"):
        Path(database.url.removeprefix("sqlite:///")).touch()
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


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
def test_a_store_that_was_migrated_after_all_works(database_store: Any) -> None:
    with pytest.raises(SchemaError):
        database_store.find_key(key().id)
    database_store.migrate()
    assert database_store.find_key(key().id) is None


def test_older_tables_say_to_migrate(backend: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.migrate()
    monkeypatch.setattr(migrations, "HEAD", "0002")
    later: Any = open_store(backend.database.reads)
    with pytest.raises(SchemaError) as caught:
        later.find_key(key().id)
    assert str(caught.value) == (
        f"keyguard's tables are at revision 0001, and this keyguard needs 0002; {ADVICE}"
    )


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
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


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
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
        "DROP TABLE keyguard_requests",
        "DROP TABLE keyguard_keys",
        "DROP TABLE keyguard_organizations",
        "DROP TABLE keyguard_version",
    )
    with pytest.raises(SchemaError, match=r"has no keyguard tables yet"):
        backend.find_key(key().id)
    backend.migrate()
    assert backend.find_key(key().id) is None


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
@pytest.mark.parametrize(
    ("assignment", "why"),
    [
        ("family = 'fam'", "is not a valid key family"),
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
        lambda: database_store.revoke_key(key().id, NOON, None),
    ]
    for call in calls:
        with pytest.raises(CorruptDataError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"row '{key().id}' of table keyguard_keys holds ")
        assert message.endswith("; restore it from a backup or delete it")
        assert why in message
        assert "digest-1" not in message


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
def test_a_foreign_organization_row_is_named(database_store: Any, database: Database) -> None:
    database_store.migrate()
    database_store.add_organization(organization())
    other = Plain(database.backend())
    execute(other, "UPDATE keyguard_organizations SET limits = '{'")
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
    with pytest.raises(CorruptDataError, match=r"of table keyguard_organizations holds"):
        backend.find_organization("acme-1")
    backend.close()


def test_a_key_whose_organization_is_gone_is_no_unknown_key(tmp_path: Path) -> None:
    backend = Plain(Database("sqlite", f"sqlite:///{tmp_path}/keys.db", "").backend())
    backend.migrate()
    backend.add_organization(organization())
    backend.add_key(record())
    with backend.database.writes.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("DELETE FROM keyguard_organizations")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.commit()
    with pytest.raises(CorruptDataError, match=rf"it has no organization '{organization().id}'"):
        backend.find_key(key().id)
    backend.close()


@pytest.mark.campaign("postgresql")
def test_ten_processes_may_migrate_at_once(database: Database) -> None:
    said, _ = python(MIGRATE, database.url, database.async_url).communicate()
    assert said == "10 done\n"
    backend = database.backend()
    assert backend.find_key(key().id) is None
    with backend.database.reads.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM keyguard_version")).all() == [HEAD]
    backend.close()


@pytest.mark.campaign("sync-sqlite", "async-postgresql", "sync-mariadb")
def test_threads_may_migrate_at_once(database_store: Any) -> None:
    database_store.together([lambda backend: backend.migrate() for _ in range(8)])
    assert database_store.find_key(key().id) is None


@pytest.mark.campaign("sqlite", "mariadb")
def test_a_migration_may_be_cut_short_anywhere(
    backend: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("create_table", "create_index")
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

    runs = 0
    with monkeypatch.context() as patch:
        for name in steps:
            patch.setattr(Operations, name, counted(name))
        for allowed in range(100):
            left = allowed  # on MySQL each run continues where the last one was cut
            runs += 1
            try:
                backend.migrate()
                break
            except StoreUnavailableError:
                with pytest.raises(SchemaError):
                    backend.find_key(key().id)
    assert runs > 5  # tables
    backend.add_organization(organization())
    backend.add_key(record())
    assert backend.change_key(key().id, name="new") == key(name="new", version=2)
    test_the_migrations_make_the_tables_that_the_code_uses(backend)


LATER_REVISION = """
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"


def upgrade(op):
    op.add_column("keyguard_keys", sa.Column("color", sa.String(9)))
"""


def test_tables_of_an_earlier_keyguard_are_brought_up_with_their_keys(
    backend: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.migrate()
    backend.add_organization(organization())
    backend.add_key(record())
    folder = Path(shutil.copytree(Path(migrations.__file__).parent, tmp_path / "migrations"))
    (folder / "versions" / "v0002_later.py").write_text(LATER_REVISION)
    monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(migrations, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(migrations, "HEAD", "0002")
    later = Plain(open_store(backend.database.writes))
    with pytest.raises(SchemaError, match="are at revision 0001, and this keyguard needs 0002"):
        later.find_key(key().id)
    for _ in range(2):
        later.migrate()
        assert later.find_key(key().id) == record()
    with backend.database.reads.connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("keyguard_keys")}
    assert "color" in columns


def test_a_hosts_own_alembic_and_logging_are_left_alone(backend: Plain) -> None:
    import logging

    from alembic import context, op

    before = (list(logging.getLogger().handlers), logging.getLogger("alembic").level)
    execute(backend, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    execute(backend, "INSERT INTO alembic_version VALUES ('theirs')")
    backend.migrate()

    def versions(connection: Connection) -> Any:
        return connection.scalars(text("SELECT version_num FROM alembic_version")).all()

    with backend.database.reads.connect() as connection:
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
