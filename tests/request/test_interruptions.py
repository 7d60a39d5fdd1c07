"""Streams that Python closes while keyguard works, on the thread that holds its locks."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyguard import Keyguard, current_limits
from keyguard.runtime import interruptions
from keyguard.testing import MemoryGuards, MovingClock
from keyguard.testing.acting import acting_as
from keyguard.testing.guards import ApiKey


class CollectingClock(MovingClock):
    """A clock that collects garbage when it is read while a lock is held."""

    lock: threading.Lock | None = None

    def monotonic(self) -> float:
        if self.lock is not None and self.lock.locked():
            self.lock = None
            gc.collect()
        return super().monotonic()


def by_settling() -> Iterator[None]:
    limits = current_limits()
    try:
        yield
    finally:
        limits.settle_sync(9)


def by_reserving() -> Iterator[None]:
    with current_limits().reserve(50) as reservation:
        reservation.used = 9
        yield


async def _settling(gate: Any) -> None:
    limits = current_limits()
    try:
        await gate
    finally:
        await limits.settle(9)


async def _reserving(gate: Any) -> None:
    async with current_limits().reserve(50) as reservation:
        reservation.used = 9
        await gate


class Gate:
    def __await__(self) -> Iterator[None]:
        yield


def by_awaiting_settle() -> Any:
    return _settling(Gate())


def by_awaiting_the_end_of_a_block() -> Any:
    return _reserving(Gate())


STREAMS: list[Callable[[], Any]] = [
    by_settling,
    by_reserving,
    by_awaiting_settle,
    by_awaiting_the_end_of_a_block,
]


def abandon(stream: Any) -> None:
    """Begin a stream and leave it to the collector of garbage."""
    stream.send(None)
    cycle: list[Any] = [stream]
    cycle.append(cycle)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that settle, so that a test can wait for them."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object], arguments: tuple[()]) -> None:
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        threads[-1].start()

    monkeypatch.setattr(interruptions, "start_new_thread", start)
    return threads


def used(guard: Keyguard, key: ApiKey) -> int:
    [status] = guard.keys.limits(key.id)
    return status.quota - status.remaining


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_that_is_collected_while_the_counters_are_locked_blocks_nobody(
    stream: Callable[[], Any], elsewhere: list[threading.Thread]
) -> None:
    clock = CollectingClock()
    with MemoryGuards(clock=clock) as guards:
        limited = guards.with_settings(default_limits=["1000/day"])
        key, guard = limited.issue(), limited.guard
        done = threading.Event()

        def requests() -> None:
            verdict = guard.admit([key.headers["Authorization"]], path="/")
            with acting_as(verdict.principal, guard=guard):
                current_limits()._state.receipt = verdict.limits._state.receipt
                abandon(stream())
            clock.lock = guard.limiter._lock  # type: ignore[attr-defined]
            guard.admit([key.headers["Authorization"]], path="/")
            done.set()

        gc.disable()
        try:
            worker = threading.Thread(target=requests, daemon=True)
            worker.start()
            assert done.wait(20), "the request waits for a lock that its own thread holds"
        finally:
            gc.enable()
        for thread in elsewhere:
            thread.join(20)
        assert len(elsewhere) == 1
        assert used(guard, key) == 9 + 1
        guard.close()


ASK_BELOW_THE_CORE = """
import sys

sys.path.insert(0, "./src")

from keyguard.core.values import Page
from keyguard.runtime.interruptions import is_interruption

class Compared:
    def __eq__(self, other):
        print(is_interruption())
        return True

Page((Compared(),)) == Page((Compared(),))
"""


def test_an_interruption_is_recognized_however_the_path_of_the_package_is_spelled() -> None:
    command = [sys.executable, "-c", ASK_BELOW_THE_CORE]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
