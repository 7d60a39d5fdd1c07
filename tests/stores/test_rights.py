"""What a store's user must be allowed: all that keyguard does, as documentation lists it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from keyguard import Keyguard, StoreUnavailableError
from tests.examples.pages import blocks, page
from tests.services import MariaDB, PostgreSQL, RedisCluster, RedisServer, running
from tests.stored import Stored, use_all
from tests.stores.conftest import opened
from tests.stores.records import organization

PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 10.0}
NOBODY = 65534

PAGE = page("docs/stores.md").partition("## Rights\n")[2].partition("\n## ")[0]
(POSTGRESQL_RIGHTS, MYSQL_RIGHTS), [REDIS_RIGHTS] = blocks(PAGE, "sql"), blocks(PAGE, "text")


class GuardedMariaDB(MariaDB):
    """A server that asks what its users may do."""

    def command(self) -> list[str]:
        return [part for part in super().command() if part != "--skip-grant-tables"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMariaDB]:
    with running(GuardedMariaDB) as server:
        yield server


@pytest.fixture
def allowed(
    request: pytest.FixtureRequest, flavour: str, runner: asyncio.Runner
) -> Iterator[Stored]:
    """A guard whose user may do what documentation lists, and nothing else."""
    stored = Stored(request.param[0], flavour, runner, request.param[1](request), PATIENT)
    yield stored
    stored.close()


def postgresql_url(request: pytest.FixtureRequest) -> str:
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = server.create_named()
    url = f"postgresql://keyguard@/{name}?host={server.sockets}"
    with Keyguard(url) as guard:
        guard.migrate()
    rights = POSTGRESQL_RIGHTS.replace("service", f"service_{name}")
    server.execute(rights, name)
    return url.replace("keyguard@", f"service_{name}@")


def mysql_url(request: pytest.FixtureRequest) -> str:
    server: GuardedMariaDB = request.getfixturevalue("guarded")
    url, _ = server.create_database()
    name = make_url(url).database
    rights = re.sub(r"\b(migration|service)\b", rf"\1_{name}", MYSQL_RIGHTS)
    for statement in rights.replace("app.", f"{name}.").split(";\n"):
        if statement:
            server.execute(statement)
    with Keyguard(url.replace("root", f"migration_{name}")) as guard:
        guard.migrate()
    return url.replace("root", f"service_{name}")


def redis_url(request: pytest.FixtureRequest) -> str:
    server: RedisServer = request.getfixturevalue("own_redis")
    server.call(*REDIS_RIGHTS.split())
    return server.url.replace("//", "//service:hunter2@").replace("/0", "/3")


def cluster_url(request: pytest.FixtureRequest) -> str:
    with_more = f"{REDIS_RIGHTS} +cluster|slots +command"
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    cluster.flush()
    for server in cluster.servers:
        server.call(*with_more.split())
    return cluster.url.replace("//", "//service:hunter2@")


SERVERS = [
    ("postgresql", postgresql_url),
    ("mariadb", mysql_url),
    ("redis", redis_url),
    ("redis_cluster", cluster_url),
]


@pytest.mark.campaign("async-postgresql", "sync-mariadb", "sync-redis]", "async-redis_cluster")
@pytest.mark.parametrize("allowed", SERVERS, ids=[kind for kind, _ in SERVERS], indirect=True)
def test_what_documentation_lists_is_enough(allowed: Stored) -> None:
    use_all(allowed)


@pytest.fixture
def forbidding(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Any]]:
    """A store whose user may do what documentation lists, and how to take something from it."""
    kind: str = request.param
    url = dict(SERVERS)[kind](request)
    if kind == "redis":
        server: Any = request.getfixturevalue("own_redis")
        return url, lambda command: server.call("ACL", "SETUSER", "service", *command.split())
    parsed = make_url(url)
    server = request.getfixturevalue("guarded" if kind == "mariadb" else kind)
    if kind == "mariadb":
        return url, lambda command: server.execute(f"REVOKE {command} FROM {parsed.username}")
    return url, lambda command: server.execute(
        f"REVOKE {command} FROM {parsed.username}", parsed.database
    )


@pytest.mark.parametrize(
    ("forbidding", "taken", "words"),
    [
        ("postgresql", "UPDATE ON keyguard_feed", "permission denied for table keyguard_feed"),
        ("mariadb", "INSERT ON {}.*", "INSERT command denied to user 'service_"),
        ("redis", "-evalsha", "this user has no permissions to run the 'evalsha' command"),
        ("redis", "-xadd", "The user executing the script can't run this command or subcommand"),
        ("redis", "resetkeys ~other:*", "this user has no permissions to access one of the keys"),
    ],
    indirect=["forbidding"],
)
def test_a_right_that_is_missing_is_named(
    forbidding: Any, taken: str, words: str, flavour: str, runner: asyncio.Runner
) -> None:
    url, take = forbidding
    stored = Stored("", flavour, runner, url, PATIENT)
    take(taken.format(make_url(url).database))
    again = stored.another()
    with pytest.raises(
        StoreUnavailableError, match=r"refuses keyguard's user a right \("
    ) as caught:
        again.organizations.create("other")
    assert words in str(caught.value)
    assert "down, slow" not in str(caught.value)
    stored.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Have files refuse what their modes forbid, which they do not refuse to root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose files another user may reach."""
    folder = Path(tempfile.mkdtemp(prefix="keyguard-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_sqlite_file_that_can_not_be_written_is_told_as_such(
    folder: Path, what: str, flavour: str, runner: asyncio.Runner
) -> None:
    url = f"sqlite:///{folder}/keys.db"
    with Keyguard(url) as guard:
        guard.migrate()
    (folder / "keys.db").chmod(0o644 if what == "file" else 0o666)
    folder.chmod(0o755 if what == "folder" else 0o777)
    store = opened(flavour, url, runner)
    with unprivileged():
        with pytest.raises(StoreUnavailableError) as caught:
            store.add_organization(organization())
        store.close()
    assert str(caught.value).startswith(
        f"sqlite+pysqlite:///{folder}/keys.db or its directory can't be read and written by"
    )


def test_a_directory_in_which_no_file_can_be_made_is_told_as_such(
    folder: Path, flavour: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, f"sqlite:///{folder}/keys.db", runner)
    with unprivileged(), pytest.raises(StoreUnavailableError) as caught:
        store.migrate()
    store.close()
    assert str(caught.value).startswith(
        f"sqlite+pysqlite:///{folder}/keys.db or its directory can't be"
    )


def test_a_standby_is_told_as_such(
    postgresql: PostgreSQL, flavour: str, runner: asyncio.Runner
) -> None:
    name = postgresql.create_named()
    url = f"postgresql://keyguard@/{name}?host={postgresql.sockets}"
    Stored("", "sync", runner, url).close()
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = opened(flavour, url, runner)
    with pytest.raises(StoreUnavailableError, match="is a replica, or otherwise read-only, and"):
        store.add_organization(organization())
    store.close()
