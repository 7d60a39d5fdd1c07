"""The stores that the tests run against."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.sync import run_sync
from keyguard.stores.opening import open_async_store, open_store
from tests.loops import event_loop
from tests.services import OddMariaDB, OddPostgreSQL, PostgreSQL, running
from tests.stores import changes

DATABASES = ("sqlite", "postgresql", "mariadb")
ODD = ("odd_postgresql", "odd_mariadb")
"""Databases whose settings change how values are written, and what statements mean."""

REDISES = ("redis", "redis_cluster", "redis_sentinel")
FLAVOURS = ("sync", "async")

DEADLINE = 0.25
"""Seconds for a call, as the guard gives it."""

Call = Callable[[Any], Any]


@dataclass
class Database:
    """A new database: how to open it in each flavour, and the server it is on."""

    kind: str
    url: str
    async_url: str
    server: Any = None

    def backend(self) -> Any:
        return open_store(self.url)


def make_database(
    kind: str, request: pytest.FixtureRequest, folder: Path, *, migrated: bool = False
) -> Database:
    """Make a new database without tables, or with them, which takes less than to migrate it."""
    if kind == "sqlite":
        path = folder / "keys.db"
        if migrated:
            shutil.copy(request.getfixturevalue("migrated_file"), path)
        url = f"sqlite:///{path}"
        return Database(kind, url, url)
    server: Any = request.getfixturevalue(kind)
    urls = server.create_migrated() if migrated else server.create_database()
    return Database(kind, *urls, server)


@pytest.fixture(scope="session")
def odd_postgresql(postgresql: PostgreSQL) -> OddPostgreSQL:
    return OddPostgreSQL(postgresql)


@pytest.fixture(scope="session")
def odd_mariadb() -> Iterator[OddMariaDB]:
    with running(OddMariaDB) as server:
        yield server


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A new database without tables, on each kind of server."""
    return make_database(request.param, request, tmp_path)


@pytest.fixture(params=["postgresql", "mariadb"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A new database with tables, on each kind that is reached over a socket."""
    return make_database(request.param, request, tmp_path, migrated=True)


class Unsuspended:
    """A store for sync code as one for async code, whose coroutines never suspend."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._backend, name)(*args, **kwargs)

        return answer


Change: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class _Conveniences:
    """What tests do to a store in one call; each change is of :mod:`tests.stores.changes`."""

    def add_organization(self, organization: Any) -> Any:
        return self.follow(changes.add_organization, organization)

    def add_key(self, record: Any) -> Any:
        return self.follow(changes.add_key, record)

    def change_key(self, key_id: str, /, **fields: Any) -> Any:
        return self.follow(changes.change_key, key_id, fields)

    def change_organization(self, wanted: str, /, **fields: Any) -> Any:
        return self.follow(changes.change_organization, wanted, fields)

    def revoke_key(self, key_id: str, at: Any, note: str | None = None) -> Any:
        return self.follow(changes.revoke_key, key_id, at, note)

    def set_organization_disabled(self, name: str, at: Any) -> Any:
        return self.follow(changes.set_organization_disabled, name, at)

    def follow(self, change: Change, *args: Any) -> Any:
        raise NotImplementedError


class Plain(_Conveniences):
    """A backend for sync code, as the tests call it."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def follow(self, change: Change, *args: Any) -> Any:
        return run_sync(change(Unsuspended(self.backend), *args))

    def together(self, calls: list[Call]) -> list[Any]:
        """Make calls at the same time."""
        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(lambda call: call(self), calls))


class Async(_Conveniences):
    """A backend for async code, with the same conveniences, awaited."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    async def follow(self, change: Change, *args: Any) -> Any:
        return await change(self.backend, *args)


class Awaited(_Conveniences):
    """A backend for async code, called as one for sync code is."""

    def __init__(self, backend: Any, runner: asyncio.Runner) -> None:
        self.backend = backend
        self.runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Awaitable[Any]] = getattr(
            self.backend, "aclose" if name == "close" else name
        )

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await method(*args, **kwargs)

        return lambda *args, **kwargs: self.runner.run(awaited(*args, **kwargs))

    def follow(self, change: Change, *args: Any) -> Any:
        return self.runner.run(Async(self.backend).follow(change, *args))

    def feed(self) -> Any:
        feed = self.backend.feed()
        return None if feed is None else Awaited(feed, self.runner)

    def together(self, calls: list[Call]) -> list[Any]:
        """Make calls at the same time, and wait for all."""
        store = Async(self.backend)

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(call(store) for call in calls), return_exceptions=True)

        answers = self.runner.run(gathered())
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers


def opened(
    flavour: str, url: str, runner: asyncio.Runner, *, durable_replicas: int = 0
) -> Plain | Awaited:
    """Open a URL in a flavour."""
    if flavour == "sync":
        return Plain(open_store(url, durable_replicas=durable_replicas))

    async def on_the_loop() -> Any:
        return open_async_store(url, durable_replicas=durable_replicas)

    return Awaited(runner.run(on_the_loop()), runner)


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def database_store(
    flavour: str, database: Database, runner: asyncio.Runner
) -> Iterator[Plain | Awaited]:
    """A store in a new database without tables."""
    store = opened(flavour, database.url if flavour == "sync" else database.async_url, runner)
    yield store
    store.close()


@pytest.fixture(scope="session")
def migrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Database]:
    """Return one database of each kind, with tables, for all tests to empty and use."""
    made: dict[str, Database] = {}

    def get(kind: str) -> Database:
        if kind not in made:
            made[kind] = make_database(kind, request, tmp_path_factory.mktemp(kind))
            backend = made[kind].backend()
            backend.migrate()
            backend.close()
        return made[kind]

    return get


@pytest.fixture(params=("memory", *DATABASES, *REDISES))
def store(
    request: pytest.FixtureRequest,
    flavour: str,
    migrated: Callable[[str], Database],
    runner: asyncio.Runner,
) -> Iterator[Plain | Awaited]:
    """An empty store of each kind in each flavour."""
    yield from empty_store(request.param, flavour, migrated, runner)


def empty_store(
    kind: str, flavour: str, migrated: Callable[[str], Database], runner: asyncio.Runner
) -> Iterator[Plain | Awaited]:
    """Open an empty store of a kind in a flavour, and close it after the test."""
    if kind == "memory":
        store = opened(flavour, "memory://", runner)
    else:
        database = migrated(kind)
        with closing(database.backend()) as backend:
            empty(database, backend)
        store = opened(flavour, database.url if flavour == "sync" else database.async_url, runner)
    yield store
    store.close()


Fill: TypeAlias = Callable[[Any], None]


class Kept:
    """Stores that are opened once for all tests, by kind and flavour.

    Most of a short test would pass while a new one compiles its statements.
    """

    def __init__(
        self, migrated: Callable[[str], Database], runner: asyncio.Runner, stack: ExitStack
    ) -> None:
        self._migrated, self._runner, self._stack = migrated, runner, stack
        self._opened: dict[tuple[str, str, Any], Plain | Awaited] = {}
        self._rows: dict[tuple[str, Fill], Rows] = {}

    def __call__(self, kind: str, flavour: str, fill: Fill | None = None) -> Any:
        """Return a store that no test may close, empty but for what a function puts into it.

        What it puts into a database is put there again as rows, for all tests after the first.
        """
        if kind == "memory":
            store: Any = opened(flavour, "memory://", self._runner)
            if fill is not None:
                fill(store)
            return store
        database = self._migrated(kind)
        server = getattr(database.server, "server", database.server)
        process = getattr(server, "process", None)  # another one where a test has ended the server
        for each, url in (("sync", database.url), ("async", database.async_url)):
            if (kind, each, process) not in self._opened:
                store = self._opened[kind, each, process] = opened(each, url, self._runner)
                self._stack.callback(store.close)
        sync = self._opened[kind, "sync", process]
        empty(database, sync.backend)
        if fill is not None:
            if rows := self._rows.get((kind, fill)):
                write_rows(sync.backend, rows)
            else:
                fill(sync)
                if kind not in REDISES:
                    self._rows[kind, fill] = read_rows(sync.backend)
        return self._opened[kind, flavour, process]


@pytest.fixture(scope="session")
def kept(migrated: Callable[[str], Database]) -> Iterator[Kept]:
    with event_loop() as runner, ExitStack() as stack:
        yield Kept(migrated, runner, stack)


def empty(database: Database, backend: Any) -> None:
    """Remove all that a store holds."""
    if database.kind in REDISES:
        database.server.flush()
        backend.migrate()
        return
    from sqlalchemy import delete, exists, select, update

    from keyguard.stores.sql.tables import FEED, TABLES

    tables = [table for table in reversed(TABLES.sorted_tables) if table is not FEED]
    with backend.database.writes.begin() as connection:
        connection.execute(update(FEED).values(last=0, mark=""))
        used = connection.execute(select(*(exists().select_from(table) for table in tables))).one()
        for table, is_used in zip(tables, used, strict=True):
            if is_used:
                connection.execute(delete(table))


Rows: TypeAlias = list[tuple[Any, list[dict[str, Any]]]]
"""The rows of each table of a database, as the driver returns and takes them."""


def read_rows(backend: Any) -> Rows:
    """Return all that a database holds."""
    from sqlalchemy import column, select, table

    from keyguard.stores.sql.tables import TABLES

    untyped = [
        table(known.name, *(column(each.name) for each in known.columns))
        for known in TABLES.sorted_tables
    ]
    with backend.database.writes.begin() as connection:
        return [
            (each, [dict(row) for row in connection.execute(select(each)).mappings()])
            for each in untyped
        ]


def write_rows(backend: Any, rows: Rows) -> None:
    """Write rows into an empty database."""
    from sqlalchemy import insert, update

    from keyguard.stores.sql.tables import FEED

    with backend.database.writes.begin() as connection:
        for table, its_rows in rows:
            if table.name == FEED.name:
                connection.execute(update(table).values(its_rows[0]))
            elif its_rows:
                connection.execute(insert(table), its_rows)


def bounded(store: Plain | Awaited, call: Call, seconds: float = DEADLINE) -> Any:
    """Make a call the way the guard does."""
    if isinstance(store, Plain):
        with within(seconds):
            return call(store)

    async def awaited() -> Any:
        try:
            async with awithin(seconds):
                return await call(Async(store.backend))
        except TimeoutError as late:
            raise StoreUnavailableError("late") from late

    return store.runner.run(awaited())
