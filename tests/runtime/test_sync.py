"""How sync code runs a coroutine of the core: no event loop, no suspension."""

from __future__ import annotations

import types
from collections.abc import Generator

import pytest

from keyguard.runtime.sync import run_sync


@types.coroutine
def suspended() -> Generator[None, None, None]:
    yield


async def answer(value: int) -> int:
    return value


def test_the_result_is_returned() -> None:
    async def added() -> int:
        return await answer(1) + await answer(2)

    assert run_sync(added()) == 3


def test_what_a_coroutine_raises_comes_out() -> None:
    async def fails() -> int:
        return 1 // await answer(0)

    with pytest.raises(ZeroDivisionError):
        run_sync(fails())


def test_a_stop_iteration_that_leaks_out_of_a_store_is_not_a_result() -> None:
    async def leaks() -> str:
        raise StopIteration("let in")

    with pytest.raises(RuntimeError, match=r"StopIteration"):
        run_sync(leaks())


def test_a_port_that_suspends_is_an_error_and_the_coroutine_is_closed() -> None:
    closed: list[str] = []

    async def waits() -> str:
        try:
            await suspended()
        finally:
            closed.append("closed")
        return "let in"

    with pytest.raises(RuntimeError, match="suspended"):
        run_sync(waits())
    assert closed == ["closed"]


def test_a_coroutine_is_finished_however_it_ends() -> None:
    closed: list[str] = []

    async def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            closed.append("closed")

    with pytest.raises(KeyboardInterrupt):
        run_sync(interrupted())
    assert closed == ["closed"]
