"""A module that is imported at its first use."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from keyguard.runtime.lazy import Lazy, asyncio


def test_it_is_imported_at_its_first_use_and_from_then_on_is_the_module_itself() -> None:
    code = (
        "import sys; from keyguard.runtime.lazy import asyncio;"
        "was = 'asyncio' in sys.modules; found = asyncio.Event;"
        "print(was, found is sys.modules['asyncio'].Event, type(asyncio).__name__)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split()[1:] == ["True", "module"]


def test_a_name_that_the_module_lacks_is_an_attribute_error() -> None:
    lazy = Lazy("asyncio")

    with pytest.raises(AttributeError):
        _ = lazy.nonsense

    assert type(lazy) is ModuleType
    assert lazy.Event is asyncio.Event


def test_threads_may_use_it_first_together() -> None:
    for _ in range(50):
        lazy = Lazy("json")
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _, lazy=lazy: lazy.dumps, range(8)))

        assert len(set(found)) == 1
