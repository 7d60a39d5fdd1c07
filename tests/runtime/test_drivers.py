"""The two drivers: they carry answers and hold no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from keyguard.runtime.drivers import arun, run

Drive = Callable[[Generator[Any, Any, Any], Callable[[Any], Any]], Any]


def drive_async(flow: Generator[Any, Any, Any], perform: Callable[[Any], Any]) -> Any:
    async def aperform(question: Any) -> Any:
        return perform(question)

    return asyncio.run(arun(flow, aperform))


@pytest.fixture(params=[run, drive_async], ids=["run", "arun"])
def drive(request: pytest.FixtureRequest) -> Drive:
    chosen: Drive = request.param
    return chosen


def test_answers_are_sent_and_the_result_returned(drive: Drive) -> None:
    def flow() -> Generator[int, int, int]:
        return (yield 1) + (yield 2)

    assert drive(flow(), lambda question: question * 10) == 30


def test_a_flow_without_questions_just_returns(drive: Drive) -> None:
    def flow() -> Generator[int, int, str]:
        return "done"
        yield 0

    assert drive(flow(), lambda question: None) == "done"


def test_what_the_outside_raises_is_raised_in_the_flow(drive: Drive) -> None:
    def flow() -> Generator[int, int, str]:
        try:
            yield 1
        except ZeroDivisionError:
            return f"caught {yield 2}"
        return "not caught"

    assert drive(flow(), lambda question: 1 // (question - 1)) == "caught 1"


def test_what_the_flow_does_not_catch_comes_out(drive: Drive) -> None:
    def flow() -> Generator[int, int, None]:
        yield 1

    with pytest.raises(ZeroDivisionError):
        drive(flow(), lambda question: 1 // 0)


def test_a_stop_iteration_that_leaks_out_of_a_store_is_no_result(drive: Drive) -> None:
    def flow() -> Generator[int, int, str]:
        yield 1
        return "let in"

    def leak(question: int) -> Any:
        raise StopIteration("let in")

    with pytest.raises(RuntimeError, match=r"StopIteration"):
        drive(flow(), leak)


def test_a_flow_is_closed_however_it_ends(drive: Drive) -> None:
    closed: list[str] = []

    def flow() -> Generator[int, int, None]:
        try:
            yield 1
        finally:
            closed.append("closed")

    def interrupt(question: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(flow(), interrupt)
    assert closed == ["closed"]
