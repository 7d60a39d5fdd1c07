"""The servers that several packages of tests run against, one of each for all."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from keyguard import Settings
from tests.folders import SCRATCH
from tests.garbage import collect
from tests.loops import event_loop
from tests.services import (
    MariaDB,
    PgBouncer,
    PostgreSQL,
    PostgresStandby,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    migrate,
    running,
)
from tests.stored import ALL_STORES, FLAVOURS, STORES, Stored, open_stored

ARE_CAMPAIGNS = os.environ.get("CAMPAIGNS") == "1"

# No test depends on how fast the machine is. How many examples there are is settled here alone: a
# test whose examples cost much, or little, takes a part of `settings.default.max_examples`.
settings.register_profile(
    "keyguard",
    max_examples=400 if ARE_CAMPAIGNS else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("keyguard")


# Where pytest makes the folders of `tmp_path`, unless a developer says otherwise.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SCRATCH))

# What is collected stays. To look for garbage among it takes a quarter of the time that it takes.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms of campaigns to `make chaos`, which asks for little else."""
    left = [item for item in items if not _is_asked_for(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if _is_asked_for(item)]


def _is_asked_for(item: pytest.Item) -> bool:
    """Tell whether a test belongs to this run; one with examples has more of them in campaigns."""
    if os.environ.get("SERVERS") == "all":  # make servers, which runs every form
        return True
    if ARE_CAMPAIGNS:
        return _is_long(item) or is_hypothesis_test(getattr(item, "obj", None))
    return not _is_long(item)


def _is_long(item: pytest.Item) -> bool:
    """Tell whether a test is a campaign's, and none of the cases that the suite keeps of it."""
    campaign = item.get_closest_marker("campaign")
    return campaign is not None and not any(f"[{case}" in item.name for case in campaign.args)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as server:
        yield server


@pytest.fixture(scope="session")
def standby() -> Iterator[PostgresStandby]:
    """A standby, of a primary that has few databases: it begins with a copy of all."""
    with running(PostgreSQL) as primary, running(partial(PostgresStandby, primary)) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    with running(partial(PgBouncer, postgresql)) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running(MariaDB) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with running(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with running(RedisCluster) as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[RedisSentinel]:
    # On a busy machine the replica would else take over amid tests that write to the primary.
    with running(partial(RedisSentinel, silence=600_000)) as servers:
        yield servers


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SQLite with keyguard's tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "keys.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that a test may stop, fill and kill."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have guards that come as they are, as documentation shows them, wait for a busy machine."""
    defaults = inspect.unwrap(Settings.__init__).__kwdefaults__
    monkeypatch.setitem(defaults, "store_timeout", 60.0)
    monkeypatch.setitem(defaults, "limiter_timeout", 10.0)


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Leave to no other test what drivers throw away that give up on a server."""
    yield
    collect()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the calls of a test that is no coroutine itself."""
    with event_loop() as runner:
        yield runner


def _opened(
    request: pytest.FixtureRequest, runner: asyncio.Runner, folder: Path
) -> Iterator[Stored]:
    kind, flavour = request.param.split("-")
    marker = request.node.get_closest_marker("settings")
    yield from open_stored(
        kind, flavour, runner, request, folder, **(marker.kwargs if marker else {})
    )


@pytest.fixture(params=[f"{kind}-{flavour}" for kind in STORES for flavour in FLAVOURS])
def stored(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path
) -> Iterator[Stored]:
    """A new store of each kind behind guards of each flavour, with an organization ``acme``.

    ``@pytest.mark.settings(...)`` sets fields of the guards' settings.
    """
    yield from _opened(request, runner, tmp_path)


@pytest.fixture(params=[f"{kind}-{flavour}" for kind in ALL_STORES for flavour in FLAVOURS])
def anywhere(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path
) -> Iterator[Stored]:
    """Like ``stored``, for what each kind of store must keep by its own means."""
    yield from _opened(request, runner, tmp_path)
