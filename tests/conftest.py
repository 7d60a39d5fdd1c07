"""The servers that several packages of tests run against, one of each for all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.loops import event_loop
from tests.services import (
    MariaDB,
    PostgreSQL,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    running,
)

# No test depends on how fast the machine is.
settings.register_profile("keyguard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keyguard")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as server:
        yield server


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
    with running(RedisSentinel) as servers:
        yield servers


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that a test may stop, fill and kill."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the calls of a test that is no coroutine itself."""
    with event_loop() as runner:
        yield runner
