"""What a service may pass as its store, and as its limiter."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from keyguard.exceptions import ConfigurationError, MissingExtraError
from keyguard.runtime.deadlines import Patience
from keyguard.stores.limiters import open_async_limiter, open_limiter
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.sql import AsyncSqlStore, SqlStore, opening
from keyguard.stores.sql.counters import AsyncSqlRateLimiter, SqlRateLimiter
from keyguard.stores.sql.threaded import ThreadedDatabase
from tests.stores.changes import adding
from tests.stores.records import organization

BOTH = pytest.mark.parametrize("open_any", [open_store, open_async_store])


@pytest.mark.parametrize(
    ("url", "used", "async_used"),
    [
        ("postgresql://h/db", "postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        ("postgres://h/db", "postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        ("mysql://h/db", "mysql+pymysql://h/db", "mysql+asyncmy://h/db"),
        ("mariadb://h/db", "mariadb+pymysql://h/db", "mariadb+asyncmy://h/db"),
    ],
)
def test_a_url_names_the_driver(url: str, used: str, async_used: str) -> None:
    opened: Any = open_store(url)
    assert isinstance(opened, SqlStore)
    assert str(opened.database.reads.url) == used
    aopened: Any = open_async_store(url)
    assert isinstance(aopened, AsyncSqlStore)
    assert str(aopened.database.reads.url) == async_used


def test_a_driver_may_be_named() -> None:
    assert isinstance(open_store("postgresql+psycopg://h/db"), SqlStore)
    assert isinstance(open_store("mysql+pymysql://h/db"), SqlStore)
    assert isinstance(open_async_store("mysql+asyncmy://h/db"), AsyncSqlStore)


def test_sqlite_is_reached_through_threads_on_an_event_loop(tmp_path: Path) -> None:
    assert isinstance(open_store(f"sqlite:///{tmp_path}/keys.db"), SqlStore)
    store = open_async_store(f"sqlite:///{tmp_path}/keys.db")
    assert isinstance(store, AsyncSqlStore)
    assert isinstance(store.database, ThreadedDatabase)


def test_white_space_around_a_url_is_no_part_of_a_name(tmp_path: Path) -> None:
    opened: Any = open_store(f" sqlite:///{tmp_path}/keys.db\n")

    assert opened.database.reads.url.database == f"{tmp_path}/keys.db"
    assert isinstance(open_async_store("memory://\n"), AsyncMemoryStore)
    assert isinstance(open_limiter("memory://\n", MemoryStore(), clock=time), MemoryRateLimiter)


@pytest.mark.parametrize("url", ["sqlite:///keys\n.db", "redis://:pass\x1b@h", "memcached://h\0"])
def test_a_control_character_in_a_url_is_refused(url: str) -> None:
    refused = pytest.raises(ConfigurationError, match=r"^the URL of a store holds a control char")
    with refused:
        open_store(url)
    with refused:
        open_async_store(url)
    with refused:
        open_limiter(url, MemoryStore(), clock=time)
    with refused:
        open_async_limiter(url, AsyncMemoryStore(), clock=time)


def test_memory_is_opened_by_its_url() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    assert isinstance(open_async_store("memory://"), AsyncMemoryStore)


@BOTH
@pytest.mark.parametrize("url", ["memory:", "memory://name", "memory:///"])
def test_memory_has_no_name(open_any: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"use memory://$"):
        open_any(url)


@BOTH
@pytest.mark.parametrize(
    "url",
    [
        "mssql://h/db",
        "postgresql+asyncpg://h/db",
        "postgresql+psycopg2://h/db",
        "sqlite+aiosqlite:///keys.db",
        "mongodb://h",
        "nonsense://",
    ],
)
def test_other_databases_and_drivers_are_refused(open_any: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"it can use sqlite.pysqlite://, postgresql") as e:
        open_any(url)
    assert url.partition(":")[0] in str(e.value)


def test_the_driver_of_the_other_flavour_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"mysql\+pymysql://"):
        open_store("mysql+asyncmy://h/db")
    with pytest.raises(ConfigurationError, match=r"mysql\+asyncmy://"):
        open_async_store("mysql+pymysql://h/db")


@BOTH
@pytest.mark.parametrize(
    "url", ["", "keys.db", "postgresql://user:hunter2@host:port/db", "postgresql:/hunter2", "://"]
)
def test_a_url_that_cannot_be_read_is_not_shown(open_any: Any, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_any(url)
    assert "sqlite:///keys.db" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@BOTH
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_sqlite_in_memory_is_refused(open_any: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"use memory://"):
        open_any(url)


@BOTH
@pytest.mark.parametrize("url", ["sqlite://keys.db", "sqlite://user:hunter2@keys.db/x"])
def test_an_sqlite_url_with_two_slashes_is_told_how_many_it_takes(open_any: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"three slashes .*sqlite:///keys\.db") as caught:
        open_any(url)
    assert "hunter2" not in str(caught.value)


@BOTH
def test_a_directory_that_does_not_exist_is_named(open_any: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^there is no directory {tmp_path}/no for the"):
        open_any(f"sqlite:///{tmp_path}/no/keys.db")


@BOTH
@pytest.mark.parametrize(
    ("url", "modules", "extra"),
    [
        ("postgresql://h/db", ["psycopg"], "postgresql"),
        ("mysql://h/db", ["pymysql", "asyncmy"], "mysql"),
    ],
)
def test_a_missing_driver_names_the_extra(
    open_any: Any, url: str, modules: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'keyguard\[{extra}\]'$"):
        open_any(url)


def test_without_sqlalchemy_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from keyguard.stores.opening import open_store\n"
        "from keyguard.exceptions import MissingExtraError\n"
        "open_store('memory://')\n"
        "for url in ('sqlite:///keys.db', 'postgres://h/d', 'mysql+pymysql://h/d'):\n"
        "    try: open_store(url)\n"
        "    except MissingExtraError as e: print(e)\n"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.splitlines() == [
        "a key store in an SQL database needs the extra 'sql': pip install 'keyguard[sql]'",
        # The driver is missing as well, and this extra brings both.
        "PostgreSQL needs the extra 'postgresql': pip install 'keyguard[postgresql]'",
        "MySQL needs the extra 'mysql': pip install 'keyguard[mysql]'",
    ]


@BOTH
def test_a_sqlalchemy_that_takes_other_options_is_named_and_not_the_url(
    open_any: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(opening.READS, "an_option_of_a_newer_one", True)

    with pytest.raises(ConfigurationError, match=rf"^SQLAlchemy {version('sqlalchemy')} is not a"):
        open_any("sqlite:///keys.db")


def test_memory_needs_neither_sqlalchemy_nor_a_driver() -> None:
    code = (
        "import sys\n"
        "from keyguard.stores.opening import open_store\n"
        "open_store(open_store('memory://'))\n"
        "print(sorted({'sqlalchemy', 'alembic', 'psycopg', 'pymysql'} & set(sys.modules)))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_migrations_are_imported_by_who_migrates() -> None:
    code = (
        "import sys\n"
        "from keyguard.stores.opening import open_store\n"
        "open_store('postgresql://h/db')\n"
        "print('alembic' in sys.modules)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_an_engine_is_taken() -> None:
    assert isinstance(open_store(create_engine("sqlite:///keys.db")), SqlStore)
    engine = create_async_engine("postgresql+psycopg://h/db")
    assert isinstance(open_async_store(engine), AsyncSqlStore)


def test_an_engine_of_the_other_flavour_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^pass Keyguard an Engine; an AsyncEngine is for"
    ):
        open_store(create_async_engine("postgresql+psycopg://h/db"))
    with pytest.raises(ConfigurationError, match=r"^pass AsyncKeyguard an AsyncEngine; an Engine"):
        open_async_store(create_engine("sqlite://"))


def test_an_engine_of_another_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine("sqlite:///keys.db")
    monkeypatch.setattr(engine.dialect, "name", "oracle")
    with pytest.raises(ConfigurationError, match=r"does not know the database 'oracle'"):
        open_store(engine)


def test_a_store_is_taken_as_it_is() -> None:
    store, async_store = MemoryStore(), AsyncMemoryStore()
    assert open_store(store) is store
    assert open_async_store(async_store) is async_store


def test_a_store_of_the_other_flavour_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"AsyncMemoryStore is for AsyncKeyguard$"):
        open_store(AsyncMemoryStore())
    with pytest.raises(ConfigurationError, match=r"MemoryStore is for Keyguard$"):
        open_async_store(MemoryStore())


@BOTH
@pytest.mark.parametrize("target", [None, 1, object(), b"memory://", Path("keys.db")])
def test_anything_else_is_refused(open_any: Any, target: object) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"; {type(target).__name__} is not one of these$"
    ):
        open_any(target)


def test_two_flavours_may_share_one_memory() -> None:
    import trio

    store = MemoryStore()
    assert store.commit(adding(organization()))
    found = trio.run(AsyncMemoryStore(store).find_organization, "acme-1")
    assert found == organization()


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_sign_in_a_password_that_is_not_escaped_shows_none_of_it(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="written as %40") as refused:
        open_store(f"{kind}://user:sec@ret@localhost/keys")
    assert "sec" not in str(refused.value)
    assert "ret@" not in str(refused.value)


def test_an_option_that_can_t_be_read_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the database URL can't be used"):
        open_store(f"sqlite:///{tmp_path}/keys.db?timeout=soon")


# Limiters


def test_without_a_limiter_the_store_of_the_keys_counts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    store, async_store = open_store(url), open_async_store(url)
    limiter: Any = open_limiter(None, store, clock=time)
    async_limiter: Any = open_async_limiter(None, async_store, clock=time)
    assert isinstance(limiter, SqlRateLimiter)
    assert isinstance(async_limiter, AsyncSqlRateLimiter)
    assert limiter.counters.database is store.database  # type: ignore[attr-defined]
    assert async_limiter.database is async_store.database  # type: ignore[attr-defined]


def test_a_store_that_keeps_no_counters_has_them_in_memory() -> None:
    assert isinstance(open_limiter(None, MemoryStore(), clock=time), MemoryRateLimiter)
    opened = open_async_limiter(None, AsyncMemoryStore(), clock=time)
    assert isinstance(opened, MemoryRateLimiter)


def test_a_limiter_may_be_named_by_a_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/counters.db"
    assert isinstance(open_limiter(url, MemoryStore(), clock=time), SqlRateLimiter)
    opened = open_async_limiter("memory://", AsyncMemoryStore(), clock=time)
    assert isinstance(opened, MemoryRateLimiter)


def test_a_limiter_is_taken_as_it_is() -> None:
    limiter = MemoryRateLimiter()
    assert open_limiter(limiter, MemoryStore(), clock=time) is limiter
    assert open_async_limiter(limiter, AsyncMemoryStore(), clock=time) is limiter


def test_a_limiter_of_the_other_flavour_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    limiter = open_limiter(url, MemoryStore(), clock=time)
    async_limiter = open_async_limiter(url, AsyncMemoryStore(), clock=time)
    with pytest.raises(
        ConfigurationError,
        match=r"^pass Keyguard a RateLimiter; AsyncSqlRateLimiter is for AsyncKeyguard$",
    ):
        open_limiter(async_limiter, MemoryStore(), clock=time)
    with pytest.raises(
        ConfigurationError,
        match=r"^pass AsyncKeyguard an AsyncRateLimiter; SqlRateLimiter is for Keyguard$",
    ):
        open_async_limiter(limiter, AsyncMemoryStore(), clock=time)


@pytest.mark.parametrize("target", [1, object(), b"memory://"])
def test_anything_else_is_no_limiter(target: object) -> None:
    for opener, store in ((open_limiter, MemoryStore()), (open_async_limiter, AsyncMemoryStore())):
        open_any: Any = opener
        with pytest.raises(ConfigurationError, match=rf", not {type(target).__name__}$"):
            open_any(target, store, clock=time)


@pytest.mark.parametrize("url", ["postgresql://h/db", "mariadb://h/db"])
@BOTH
def test_a_connection_to_a_server_has_a_longest_age(open_any: Any, url: str) -> None:
    patience = Patience(max_age=9.0)
    database = open_any(url, patience=patience).database
    assert {database.reads.pool._recycle, database.writes.pool._recycle} == {patience.in_pool}
    assert patience.in_pool + patience.ready == 9.0


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sqlite://", {}),
        ("sqlite:///:memory:", {}),
        ("sqlite:///:memory:", {"poolclass": NullPool}),
        ("sqlite:///:memory:", {"poolclass": StaticPool}),
        ("sqlite:///file:x?mode=memory&uri=true", {"poolclass": NullPool}),
    ],
)
def test_an_engine_in_memory_is_refused_like_its_url(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"in memory would be another one .* memory://"):
        open_store(create_engine(url, **options))


@pytest.mark.parametrize("pool", [StaticPool, SingletonThreadPool])
def test_an_engine_with_one_connection_is_refused(pool: type[Pool], tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/app.db", "postgresql+psycopg://h/db"):
        with pytest.raises(ConfigurationError, match=rf"^an engine on {pool.__name__} gives"):
            open_store(create_engine(url, poolclass=pool))
    engine = create_async_engine("postgresql+psycopg://h/db", poolclass=StaticPool)
    with pytest.raises(ConfigurationError, match=r"^an engine on StaticPool gives"):
        open_async_store(engine)


def test_an_engine_whose_own_function_connects_is_taken(tmp_path: Path) -> None:
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(tmp_path / "app.db"), poolclass=QueuePool
    )
    store = open_store(engine)
    store.migrate()
    assert store.find_key("0" * 16) is None
    engine.dispose()
