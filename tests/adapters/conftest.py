"""The stacks that several tests run their cases through."""

from __future__ import annotations

import pytest

from tests.adapters.stacks import stacks
from tests.world import World


@pytest.fixture(params=[stack.name for stack in stacks(World())])
def name(request: pytest.FixtureRequest) -> str:
    """The name of each stack."""
    stack: str = request.param
    return stack
