"""The servers that several packages of tests run against, one of each for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import MariaDB, PostgreSQL, running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running(MariaDB) as server:
        yield server
