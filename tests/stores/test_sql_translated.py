"""Engines of a host that keep keyguard's tables in another schema (``schema_translate_map``)."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.exceptions import SchemaError
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql import migrations
from keyguard.stores.sql.tables import TABLES
from tests.stored import Stored, use_all
from tests.stores.conftest import Awaited, Plain, make_database
from tests.stores.records import organization
from tests.stores.test_sql_schema import LATER_REVISION

PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 10.0}


@dataclass
class Translated:
    """A host's engine that translates to another schema, and one that does not."""

    flavour: str
    schema: str
    engine: Any
    plain: Engine

    def open(self, runner: asyncio.Runner) -> Any:
        if self.flavour == "sync":
            return Plain(open_store(self.engine))
        return Awaited(open_async_store(self.engine), runner)

    def execute(self, statement: str) -> None:
        with self.plain.begin() as connection:
            connection.execute(text(statement))

    def columns(self, table: str) -> set[str]:
        found = inspect(self.plain).get_columns(table, self.schema)
        return {column["name"] for column in found}


@pytest.fixture(
    params=[
        "sqlite-sync",
        *(f"{k}-{f}" for k in ("postgresql", "mariadb") for f in ("sync", "async")),
    ]
)
def translated(
    request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner
) -> Iterator[Translated]:
    kind, flavour = request.param.split("-")
    database = make_database(kind, request, tmp_path)
    url = make_url(database.url)
    url = url.set(
        drivername={"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}.get(
            url.drivername, url.drivername
        )
    )
    schema = f"{url.database}_auth" if kind == "mariadb" else "auth"
    plain = create_engine(url)
    if kind == "sqlite":

        @event.listens_for(plain, "connect")
        def attach(connection: sqlite3.Connection, _entry: object) -> None:
            connection.execute(f"ATTACH DATABASE '{tmp_path}/auth.db' AS auth")

    else:
        with plain.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    options: Any = {"schema_translate_map": {None: schema}}
    engine: Any = plain.execution_options(**options)
    if flavour == "async":
        driver = "mysql+asyncmy" if kind == "mariadb" else url.drivername
        engine = create_async_engine(url.set(drivername=driver), execution_options=options)
    yield Translated(flavour, schema, engine, plain)
    if flavour == "async":
        runner.run(engine.dispose())
    plain.dispose()


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync")
def test_the_tables_are_made_and_used_in_that_schema(
    translated: Translated, runner: asyncio.Runner
) -> None:
    stored = Stored("", translated.flavour, runner, translated.engine, PATIENT)
    use_all(stored)
    stored.another().migrate()
    stored.close()
    inspector = inspect(translated.plain)
    assert {*TABLES.tables, "keyguard_version"} == {*inspector.get_table_names(translated.schema)}
    assert not any(name.startswith("keyguard") for name in inspector.get_table_names())


def test_what_is_missing_in_that_schema_is_told(
    translated: Translated, runner: asyncio.Runner
) -> None:
    store = translated.open(runner)
    with pytest.raises(SchemaError, match="the database has no keyguard tables yet"):
        store.find_key("0" * 16)
    store.migrate()
    assert store.find_key("0" * 16) is None
    translated.execute(f"DROP TABLE {translated.schema}.keyguard_keys")
    with pytest.raises(SchemaError, match=r"^the table keyguard_keys is missing"):
        store.find_key("0" * 16)


def test_later_revisions_change_the_tables_in_that_schema(
    translated: Translated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: asyncio.Runner,
) -> None:
    store = translated.open(runner)
    store.migrate()
    store.add_organization(organization())
    folder = Path(shutil.copytree(Path(migrations.__file__).parent, tmp_path / "migrations"))
    (folder / "versions" / "v0002_later.py").write_text(LATER_REVISION)
    monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(migrations, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(migrations, "HEAD", "0002")
    later = translated.open(runner)
    later.migrate()
    assert "color" in translated.columns("keyguard_keys")
    assert later.find_organization("acme-1") == organization()
