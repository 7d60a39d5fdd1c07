"""How long a store call may take."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest
import trio

from keyguard.runtime.deadlines import awithin, remaining, within


def test_without_a_deadline_there_is_no_limit() -> None:
    assert remaining() is None


def test_what_is_left_is_counted_from_where_the_deadline_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with within(10):
        assert remaining() == 10
        now[0] += 4
        assert remaining() == 6
        with within(1):
            assert remaining() == 1
        assert remaining() == 6
        now[0] += 60
        assert remaining() == 0
    assert remaining() is None


async def forever() -> None:
    await asyncio.Event().wait()


async def stubborn() -> None:
    """Swallow a cancellation, as asyncio.wait_for of Python 3.11 may."""
    try:
        await forever()
    except asyncio.CancelledError:
        await forever()


@pytest.mark.parametrize("call", [forever, stubborn])
def test_a_call_that_is_late_is_ended_even_if_it_swallows_a_cancellation(call: object) -> None:
    async def main() -> None:
        async with awithin(0.001):
            await call()  # type: ignore[operator]

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_a_call_that_is_cancelled_from_outside_is_cancelled_not_late() -> None:
    async def call() -> None:
        async with awithin(60):
            await forever()

    async def main() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_under_trio_a_late_call_is_ended_too() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with awithin(0.001):
                await trio.sleep_forever()

    trio.run(main)


def test_a_late_call_leaves_no_cancellation_and_no_deadline_behind() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for call in (forever, stubborn):
            with pytest.raises(TimeoutError):
                async with awithin(0.001):
                    await call()
            assert task.cancelling() == 0
            assert remaining() is None
        await asyncio.sleep(0)  # nothing is cancelled late

    asyncio.run(main())


def test_a_call_that_swallows_its_end_and_is_done_is_not_late() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with awithin(0.001):
            with pytest.raises(asyncio.CancelledError):
                await forever()
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_failure_of_a_late_call_stays_what_it_is() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(ZeroDivisionError):
            async with awithin(0.001):
                try:
                    await forever()
                finally:
                    raise ZeroDivisionError
        assert task.cancelling() == 0

    asyncio.run(main())


def test_who_cancels_a_late_call_from_outside_wins() -> None:
    async def call() -> None:
        try:
            async with awithin(0.001):
                try:
                    await forever()
                finally:  # the deadline is over, and now somebody else cancels as well
                    task.cancel()
        finally:
            counted.append(task.cancelling())

    counted: list[int] = []

    async def main() -> None:
        nonlocal task
        task = asyncio.create_task(call())
        with pytest.raises(asyncio.CancelledError):
            await task

    task: asyncio.Task[None]
    asyncio.run(main())
    assert counted == [1]


@pytest.mark.parametrize(("outer", "inner"), [(0.001, 60), (60, 0.001), (0.001, 0.001)])
@pytest.mark.parametrize("call", [forever, stubborn])
def test_deadlines_nest_and_only_the_one_that_is_over_is_told(
    outer: float, inner: float, call: Any
) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        caught: list[str] = []
        try:
            async with awithin(outer):
                try:
                    async with awithin(inner):
                        await call()
                except TimeoutError:
                    caught.append("inside")
                    raise
        except TimeoutError:
            caught.append("outside")
        assert caught[-1] == "outside"
        assert ("inside" in caught) >= (inner < outer)
        assert task.cancelling() == 0

    asyncio.run(main())


def test_asyncio_s_own_timeout_around_a_deadline_is_told_as_its_own() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        late = asyncio.timeout(0.001)
        with pytest.raises(TimeoutError):
            async with late, awithin(60):
                await forever()
        assert late.expired()
        assert task.cancelling() == 0

    asyncio.run(main())


def test_a_deadline_outside_a_task_is_refused() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(step)
        await done.wait()

    def step() -> None:
        with pytest.raises(RuntimeError, match="no task"):
            awithin(1).__aenter__().send(None)  # type: ignore[attr-defined]
        done.set()

    done = asyncio.Event()
    asyncio.run(main())


def test_a_deadline_that_was_met_holds_on_to_nothing() -> None:
    async def main() -> None:
        async def call() -> None:
            async with awithin(60):
                await asyncio.sleep(0)

        task = asyncio.create_task(call())
        await task
        reference = weakref.ref(task)
        del task
        await asyncio.sleep(0)  # what told of its end is gone then
        assert reference() is None

    asyncio.run(main())


def test_under_trio_a_deadline_is_told_and_taken_back() -> None:
    async def main() -> None:
        async with awithin(60):
            left = remaining()
            assert left is not None
            assert 0 < left <= 60
        assert remaining() is None

    trio.run(main)
