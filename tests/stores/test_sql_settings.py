"""Settings of a server, a role or a database that change what is read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from keyguard.exceptions import ConfigurationError
from keyguard.stores.opening import open_async_store, open_store
from tests.services import OddMariaDB, OddPostgreSQL, PostgreSQL, running
from tests.stored import Stored, use_all
from tests.stores.conftest import Awaited, Plain, opened

PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 10.0}
NAME = "Ünï \\ 'q\" || \N{SNOWMAN} \N{ROCKET}"


def host_engine(url: str, flavour: str, **options: Any) -> Any:
    """Return an engine as a host makes one."""
    parsed = make_url(url)
    drivers = {"postgresql": ("psycopg", "psycopg"), "mysql": ("pymysql", "asyncmy")}
    kind = parsed.get_backend_name()
    driver = drivers[kind][flavour == "async"]
    create: Any = create_engine if flavour == "sync" else create_async_engine
    return create(parsed.set(drivername=f"{kind}+{driver}"), **options)


def dispose(engine: Any, runner: asyncio.Runner) -> None:
    disposing = engine.dispose()
    if disposing is not None:
        runner.run(disposing)


def refusal(target: Any, flavour: str, runner: asyncio.Runner) -> str:
    """Return why a store refuses to migrate, and to look a key up."""
    store: Any
    if isinstance(target, str):
        store = opened(flavour, target, runner)
    elif flavour == "sync":
        store = Plain(open_store(target))
    else:
        store = Awaited(open_async_store(target), runner)
    reasons: set[str] = set()
    for call in (store.migrate, lambda: store.find_key("0" * 16)):
        with pytest.raises(ConfigurationError) as caught:
            call()
        reasons.add(str(caught.value))
    store.close()
    [reason] = reasons
    return reason


@pytest.mark.campaign("sync")
def test_a_guard_works_in_a_host_s_engine_on_odd_servers(
    odd_postgresql: OddPostgreSQL, odd_mariadb: OddMariaDB, flavour: str, runner: asyncio.Runner
) -> None:
    utf8 = {"client_encoding": "utf8"}
    for server, arguments in ((odd_postgresql, utf8), (odd_mariadb, {})):
        engine = host_engine(server.create_database()[0], flavour, connect_args=arguments)
        stored = Stored("", flavour, runner, engine, PATIENT)
        stored.guard.organizations.create("other", name=NAME)
        assert stored.guard.organizations.get("other").name == NAME
        use_all(stored)
        stored.close()
        dispose(engine, runner)


@pytest.mark.campaign("async")
def test_times_that_can_not_be_read_are_refused(
    postgresql: PostgreSQL, flavour: str, runner: asyncio.Runner
) -> None:
    name = postgresql.create_named()
    postgresql.execute(f"ALTER DATABASE {name} SET DateStyle = 'SQL, DMY'")
    url, _ = postgresql.urls(name)
    engine = host_engine(url, flavour)
    for target in (url, engine):
        reason = refusal(target, flavour, runner)
        assert reason.startswith("PostgreSQL writes times as its DateStyle 'SQL, DMY' says, which")
    dispose(engine, runner)
    stored = Stored("", flavour, runner, f"{url}&options=-cdatestyle%3DISO", PATIENT)
    use_all(stored)
    stored.close()


def test_an_encoding_that_lacks_characters_is_refused(
    odd_postgresql: OddPostgreSQL, flavour: str, runner: asyncio.Runner
) -> None:
    engine = host_engine(odd_postgresql.create_database()[0], flavour)
    assert refusal(engine, flavour, runner).startswith("the engine speaks LATIN1 with PostgreSQL, ")
    dispose(engine, runner)


def test_a_character_set_that_lacks_characters_is_refused(
    odd_mariadb: OddMariaDB, flavour: str, runner: asyncio.Runner
) -> None:
    url, _ = odd_mariadb.create_database()
    engine = host_engine(url, flavour, connect_args={"charset": "latin1"})
    assert refusal(engine, flavour, runner).startswith("the engine speaks latin1 with the database")
    dispose(engine, runner)


@pytest.mark.campaign("sync")
def test_a_mode_that_changes_texts_is_refused_in_a_host_s_engine(
    flavour: str, runner: asyncio.Runner
) -> None:
    with running(lambda: OddMariaDB("EMPTY_STRING_IS_NULL")) as server:
        engine = host_engine(server.create_database()[0], flavour)
        assert refusal(engine, flavour, runner).startswith(
            "the sql_mode of the database has EMPTY_STRING_IS_NULL, which changes what keyguard"
        )
        dispose(engine, runner)
