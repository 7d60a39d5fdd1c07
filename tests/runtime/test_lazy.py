"""A module that is imported at its first use."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from keyguard.runtime.lazy import Lazy, asyncio, once


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


def test_a_part_of_an_object_is_made_at_its_first_use_and_kept() -> None:
    made = list[object]()

    class Whole:
        @once
        def part(self) -> object:
            """The part."""
            made.append(object())
            return made[-1]

    whole = Whole()
    assert made == []
    assert whole.part is whole.part is made[0]
    assert len(made) == 1
    assert Whole.part.__doc__ == "The part."


def test_threads_that_make_a_part_together_get_the_same_one() -> None:
    both = threading.Barrier(2)

    class Whole:
        @once
        def part(self) -> object:
            both.wait(20)
            return object()

    whole = Whole()
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: whole.part, range(2))

    assert first is second
