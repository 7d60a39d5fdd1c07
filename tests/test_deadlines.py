"""How long a backend call may take."""

from __future__ import annotations

import asyncio

import pytest
import trio

from keyguard.deadlines import awithin, remaining, within


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
