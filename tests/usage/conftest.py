"""Stores of usage of every kind and flavour, called alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.stores.conftest import Awaited, Database, Plain, empty_store, migrated

__all__ = ["migrated"]

# Each store that keeps usage stands here under the name that tests.stores.conftest gives it.
KINDS = (
    "memory",
    "sqlite",
    "postgresql",
    "mariadb",
    "redis",
    "redis_cluster",
    "redis_sentinel",
)


@pytest.fixture(params=("sync", "async"))
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=KINDS)
def usage(
    request: pytest.FixtureRequest,
    flavour: str,
    migrated: Callable[[str], Database],
    runner: asyncio.Runner,
) -> Iterator[Plain | Awaited]:
    """An empty store of usage of each kind in each flavour."""
    for store in empty_store(request.param, flavour, migrated, runner):
        kept = store.backend.usage()
        yield Plain(kept) if flavour == "sync" else Awaited(kept, runner)
