"""The shape of the adapters: thin."""

from pathlib import Path

import pytest

import keyguard.adapters

MODULES = sorted(Path(keyguard.adapters.__file__).parent.rglob("*.py"))
MOST_LINES = 200


@pytest.mark.parametrize("module", MODULES, ids=lambda module: "-".join(module.parts[-2:]))
def test_an_adapter_has_at_most_two_hundred_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES
