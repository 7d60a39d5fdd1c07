"""A server that does not let keyguard in says so in a sentence of its own, never a password."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Deny, Keyguard, StoreUnavailableError
from keyguard.cli.app import run
from keyguard.core.access.decisions import Reason
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenFormat, TokenParts
from tests.services import PostgreSQL, RedisCluster, RedisSentinel, RedisServer, running
from tests.stored import Called
from tests.stores.test_rights import GuardedMariaDB

TOKEN = TokenFormat("kg_live").mint(TokenParts.draw(bytes(ENTROPY_SIZE))).reveal()
PATIENT = {"store_timeout": 30.0, "management_timeout": 30.0}

LOGIN = r"does not let keyguard in; check the user and password of the URL"
DATABASE = r"does not let keyguard in, as there is no such database.*; (create it, or )?check its n"
RIGHT = r"refuses keyguard's user a right \((permission|Access) denied .*\); grant "
SENTINEL = r"^the Sentinels of redis\+sentinel://.* do not let keyguard in; check sentinel_username"


class GuardedPostgreSQL(PostgreSQL):
    """A server that asks all but one user for a password."""

    def install(self) -> None:
        super().install()
        rules = "local all keyguard trust\nlocal barred all reject\nlocal all all scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)


def postgresql(server: GuardedPostgreSQL) -> str:
    for statement in (
        "CREATE ROLE service LOGIN PASSWORD 'right'",
        "CREATE ROLE barred NOLOGIN PASSWORD 'right'",
        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
        "CREATE DATABASE foreign_one",
        "REVOKE CONNECT ON DATABASE foreign_one FROM PUBLIC",
        "CREATE DATABASE barred",
    ):
        server.execute(statement)
    return f"postgresql://{{}}@/{{}}?host={server.sockets}"


def mariadb(server: GuardedMariaDB) -> str:
    for statement in (
        "CREATE DATABASE postgres",
        "CREATE DATABASE foreign_one",
        "CREATE USER service IDENTIFIED BY 'right'",
        "GRANT ALL ON postgres.* TO service",
        "CREATE USER barred IDENTIFIED BY 'right' ACCOUNT LOCK",
    ):
        server.execute(statement)
    return f"mariadb://{{}}@localhost/{{}}?unix_socket={server.sockets / 'mariadb'}"


def redis(server: RedisServer) -> str:
    for rule in ("service on >right ~* +@all", "barred off >right", "default on resetpass >right"):
        server.call("ACL", "SETUSER", *rule.split())
    server.options["requirepass"] = "right"
    return f"redis://{{}}@127.0.0.1:{server.port}/{{}}"


def cluster(servers: RedisCluster) -> str:
    for server in servers.servers:
        server.call("ACL", "SETUSER", "service", "on", ">right", "~*", "+@all")
    return servers.url.replace("//", "//{}@") + "{}"


def sentinel(servers: RedisSentinel) -> str:
    for server in servers.servers:
        server.call("ACL", "SETUSER", "service", "on", ">right", "~*", "&*", "+@all")
    return servers.url.replace("//", "//{}@").replace("/0", "/{}")


SERVERS: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
    "postgresql": (GuardedPostgreSQL, postgresql),
    "mariadb": (GuardedMariaDB, mariadb),
    "redis": (RedisServer, redis),
    "redis_cluster": (RedisCluster, cluster),
    "redis_sentinel": (RedisSentinel, sentinel),
}
# The user, the database and what the error says; "hunter2" is a wrong password.
CASES = [
    ("postgresql", "service:hunter2", "postgres", LOGIN),
    ("postgresql", "service", "postgres", LOGIN),
    ("postgresql", "nobody:hunter2", "postgres", LOGIN),
    ("postgresql", "barred:right", "postgres", LOGIN),
    ("postgresql", "service:right", "barred", LOGIN),
    ("postgresql", "service:right", "nowhere", DATABASE),
    ("postgresql", "service:right", "closed", DATABASE),
    ("postgresql", "service:right", "foreign_one", RIGHT),
    ("mariadb", "service:hunter2", "postgres", LOGIN),
    ("mariadb", "service", "postgres", LOGIN),
    ("mariadb", "nobody:hunter2", "postgres", LOGIN),
    ("mariadb", "barred:right", "postgres", LOGIN),
    ("mariadb", "root:", "nowhere", DATABASE),
    ("mariadb", "service:right", "foreign_one", RIGHT),
    ("redis", ":hunter2", "0", LOGIN),
    ("redis", "", "0", LOGIN),
    ("redis", "service:hunter2", "0", LOGIN),
    ("redis", "nobody:hunter2", "0", LOGIN),
    ("redis", "barred:right", "0", LOGIN),
    ("redis", "service:right", "10000", DATABASE),
    ("redis_cluster", "service:hunter2", "", LOGIN),
    ("redis_cluster", "nobody:hunter2", "", LOGIN),
    ("redis_sentinel", "service:hunter2", "0", LOGIN),
    ("redis_sentinel", "service:right", "0?sentinel_password=hunter2", SENTINEL),
    ("redis_sentinel", "", "0?sentinel_username=a&sentinel_password=hunter2", SENTINEL),
]


@pytest.fixture(scope="module")
def templates() -> Iterator[Callable[[str], str]]:
    """Start each kind of server once; return the URL of its databases."""
    made: dict[str, str] = {}
    with ExitStack() as stack:

        def get(kind: str) -> str:
            if kind not in made:
                start, prepare = SERVERS[kind]
                made[kind] = prepare(stack.enter_context(running(start)))
            return made[kind]

        yield get


@pytest.mark.parametrize(("kind", "user", "database", "says"), CASES)
def test_a_server_that_does_not_let_keyguard_in_says_what_it_refuses(
    kind: str,
    user: str,
    database: str,
    says: str,
    templates: Callable[[str], str],
    flavour: str,
    runner: asyncio.Runner,
) -> None:
    url = templates(kind).format(user, database)

    async def on_the_loop() -> Any:
        return AsyncKeyguard(url, hooks=[], **PATIENT)

    made = Keyguard(url, hooks=[], **PATIENT) if flavour == "sync" else runner.run(on_the_loop())
    guard = Called(made, runner)
    for call in (guard.migrate, lambda: guard.organizations.get("acme")):
        with pytest.raises(StoreUnavailableError, match=says) as refused:
            call()
        assert "hunter2" not in str(refused.value)
        assert "down, slow" not in str(refused.value)
    decision = guard.authenticate([f"Bearer {TOKEN}"])
    guard.close() if flavour == "sync" else guard.aclose()
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.parametrize(
    ("kind", "user", "database", "says"), [case for case in CASES if "hunter2" in str(case)]
)
def test_the_doctor_says_what_a_server_refuses(
    kind: str,
    user: str,
    database: str,
    says: str,
    templates: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor", "--url", templates(kind).format(user, database)]) == 1
    said = capsys.readouterr()
    assert re.search(says.strip("^"), said.out)
    assert "hunter2" not in said.out + said.err
