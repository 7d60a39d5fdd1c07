"""Fixtures of pytest for applications with keyguard; see docs/how-to/testing.md.

The module stands beside the package, and imports keyguard when a test first asks for a fixture: no
coverage sees what pytest imports at its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keyguard import Settings
    from keyguard.testing import ApiKey, MemoryGuards


@pytest.fixture
def keyguard_settings() -> Settings:
    """The settings of the guards in memory. Override it to return those of your service."""
    from keyguard import Settings

    return Settings()


@pytest.fixture
def memory_guards(keyguard_settings: Settings) -> Iterator[MemoryGuards]:
    """Guards over a new store in memory, with a clock that the test moves."""
    from keyguard.testing import MemoryGuards

    with MemoryGuards(settings=keyguard_settings) as guards:
        yield guards


@pytest.fixture
def api_key(memory_guards: MemoryGuards) -> Callable[..., ApiKey]:
    """Return a function that issues keys: ``api_key(scopes=["inference:write"]).headers``."""
    return memory_guards.issue
