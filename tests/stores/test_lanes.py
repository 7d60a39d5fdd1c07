"""Hits of one owner take turns, and those that wait are counted together."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keyguard.core.limits.charges import Charge, Outcome
from keyguard.exceptions import CorruptDataError
from keyguard.runtime.events import LimiterFailed
from keyguard.runtime.sync import run_sync
from keyguard.stores.failover import CircuitBreaker
from keyguard.stores.lanes import MOST_TOGETHER, TaskLanes
from keyguard.stores.memory.counters import MemoryRateLimiter
from tests.limits.conftest import charge
from tests.world import StandingClock

PATIENCE = 60.0
OWNER = (charge(1, owner="org_1", amount=20),)
OTHER = (charge(1, owner="org_2", amount=20),)


class Gated:
    """A limiter whose calls wait at a gate, each as it is told.

    Args:
        held: The owners whose calls wait until the gate opens.
    """

    def __init__(self, clock: StandingClock, held: str = "org_1") -> None:
        self.memory = MemoryRateLimiter(clock=clock)
        self.calls: list[int] = []  # how many hits each call counted
        self.held = held
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.fails: Exception | None = None
        self.damaged = ""

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        return self.hit_all([charges])[0]

    def hit_all(self, hits: Sequence[Sequence[Charge]]) -> list[Outcome]:
        if self.held in hits[0][0].key:
            self.calls.append(len(hits))
            self.arrived.set()
            assert self.gate.wait(PATIENCE)
            if self.fails is not None:
                raise self.fails
            if any(charge.key == self.damaged for charges in hits for charge in charges):
                raise CorruptDataError("the bucket is damaged")
        return [self.memory.hit(charges) for charges in hits]


class AsyncGated:
    """The same for one event loop."""

    def __init__(self, clock: StandingClock) -> None:
        self.memory = MemoryRateLimiter(clock=clock)
        self.calls: list[int] = []
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.fails: Exception | None = None

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        return (await self.hit_all([charges]))[0]

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> list[Outcome]:
        if "org_1" in hits[0][0].key:
            self.calls.append(len(hits))
            self.arrived.set()
            await self.gate.wait()
            if self.fails is not None:
                raise self.fails
        return [self.memory.hit(charges) for charges in hits]


def breaker_before(limiter: Any, told: list[Any], **options: Any) -> CircuitBreaker:
    return CircuitBreaker(
        limiter,
        timeout=PATIENCE,
        tell=told.append,
        **{"awaited": False, "fails_open": False, "clock": StandingClock()} | options,
    )


def waiting(breaker: CircuitBreaker) -> int:
    lanes = breaker._lanes
    assert lanes is not None
    if isinstance(lanes, TaskLanes):
        return sum(len(lane.waiting) for here in lanes._lanes.values() for lane in here.values())
    return sum(len(lane.waiting) for lane in lanes._lanes.values())


def until(fact: Callable[[], bool]) -> None:
    """Give the other threads way until a fact holds."""
    while not fact():
        os.sched_yield()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(200) as threads:
        yield threads


def admitted(outcomes: Sequence[Outcome | None]) -> int:
    return sum(outcome is not None and outcome.admitted for outcome in outcomes)


def test_threads_that_arrive_meanwhile_are_counted_by_the_next_calls(
    pool: ThreadPoolExecutor,
) -> None:
    told: list[Any] = []
    limiter = Gated(StandingClock())
    breaker = breaker_before(limiter, told)
    first = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    others = [pool.submit(lambda: run_sync(breaker.hit(OWNER))) for _ in range(99)]
    until(lambda: waiting(breaker) == 99)
    # Another owner waits for nobody.
    assert admitted([run_sync(breaker.hit(OTHER))]) == 1
    limiter.gate.set()
    outcomes = [future.result(PATIENCE) for future in (first, *others)]
    assert admitted(outcomes) == 20
    assert limiter.calls == [1, MOST_TOGETHER, 99 - MOST_TOGETHER]
    assert told == []
    assert waiting(breaker) == 0


def test_tasks_that_arrive_meanwhile_are_counted_by_the_next_calls() -> None:
    told: list[Any] = []

    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        breaker = breaker_before(limiter, told, awaited=True)
        first = asyncio.create_task(breaker.hit(OWNER))
        await limiter.arrived.wait()
        others = [asyncio.create_task(breaker.hit(OWNER)) for _ in range(99)]
        await asyncio.sleep(0)  # all begin
        assert waiting(breaker) == 99
        assert admitted([await breaker.hit(OTHER)]) == 1
        limiter.gate.set()
        outcomes = await asyncio.gather(first, *others)
        assert admitted(outcomes) == 20
        # In the order of arrival.
        assert [outcome is not None and outcome.admitted for outcome in outcomes[:20]] == [
            True
        ] * 20
        assert limiter.calls == [1, MOST_TOGETHER, 99 - MOST_TOGETHER]
        assert waiting(breaker) == 0

    asyncio.run(run())
    assert told == []


@pytest.mark.parametrize("fails_open", [True, False], ids=["open", "closed"])
def test_a_call_that_fails_leaves_nobody_waiting(
    pool: ThreadPoolExecutor, *, fails_open: bool
) -> None:
    told: list[Any] = []
    limiter = Gated(StandingClock())
    limiter.fails = OSError("it is down")
    breaker = breaker_before(limiter, told, fails_open=fails_open)
    first = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    others = [pool.submit(lambda: run_sync(breaker.hit(OWNER))) for _ in range(29)]
    until(lambda: waiting(breaker) == 29)
    limiter.gate.set()
    outcomes = [future.result(PATIENCE) for future in (first, *others)]
    assert admitted(outcomes) == (20 if fails_open else 0)
    assert outcomes.count(None) == (0 if fails_open else 30)
    # The others ask no limiter that has just failed.
    assert limiter.calls == [1]
    assert [type(event) for event in told] == [LimiterFailed]
    breaker.close()


def test_a_request_that_is_ended_loses_no_other() -> None:
    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        breaker = breaker_before(limiter, [], awaited=True)
        alone = asyncio.create_task(breaker.hit(OWNER))
        await limiter.arrived.wait()
        under_way, waits, other, *rest = [asyncio.create_task(breaker.hit(OWNER)) for _ in range(6)]
        await asyncio.sleep(0)  # all begin
        waits.cancel()  # while it waits for its turn
        alone.cancel()  # during its own call
        limiter.arrived.clear()
        limiter.gate.set()
        await limiter.arrived.wait()
        under_way.cancel()  # during the call that counts it with the others
        assert admitted(await asyncio.gather(other, *rest)) == 4
        results = await asyncio.gather(alone, waits, under_way, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        assert limiter.calls == [1, 5]
        assert waiting(breaker) == 0

    asyncio.run(run())


def test_a_request_that_is_ended_before_its_turn_is_not_counted() -> None:
    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        limiter.gate.set()
        breaker = breaker_before(limiter, [], awaited=True)
        ended, other = [asyncio.create_task(breaker.hit(OWNER)) for _ in range(2)]
        asyncio.get_running_loop().call_soon(ended.cancel)
        assert admitted([await other]) == 1
        assert ended.cancelled()
        assert limiter.calls == [1]

    asyncio.run(run())


def test_where_all_requests_of_a_turn_have_ended_nothing_is_counted() -> None:
    told: list[Any] = []

    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        limiter.gate.set()
        breaker = breaker_before(limiter, told, awaited=True)
        ended = [asyncio.create_task(breaker.hit(OWNER)) for _ in range(2)]
        for hit in ended:
            asyncio.get_running_loop().call_soon(hit.cancel)
        await asyncio.wait(ended)
        assert admitted([await breaker.hit(OWNER)]) == 1
        assert limiter.calls == [1]

    asyncio.run(run())
    assert told == []


def test_hits_of_one_turn_of_the_loop_are_counted_together() -> None:
    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        limiter.gate.set()
        breaker = breaker_before(limiter, [], awaited=True)
        assert admitted(await asyncio.gather(*[breaker.hit(OWNER) for _ in range(7)])) == 7
        assert admitted([await breaker.hit(OWNER)]) == 1
        assert limiter.calls == [7, 1]

    asyncio.run(run())


class SharedGated(AsyncGated):
    """The same, where one call counts hits of several owners, the first alone named damaged."""

    counts_owners_together = True

    async def hit_all(self, hits: Sequence[Sequence[Charge]]) -> list[Any]:
        outcomes: list[Any] = [*await super().hit_all(hits)]
        if len(hits) > 1:
            outcomes[0] = CorruptDataError("the bucket is damaged")
        return outcomes


def test_hits_of_all_owners_are_counted_together_and_fail_apart() -> None:
    told: list[Any] = []

    async def run() -> None:
        limiter = SharedGated(StandingClock())
        breaker = breaker_before(limiter, told, awaited=True)
        both = [asyncio.create_task(breaker.hit(hit)) for hit in (OWNER, OTHER)]
        await limiter.arrived.wait()
        limiter.arrived.clear()
        # It goes at once, beside the call that is under way.
        third = asyncio.create_task(breaker.hit(OWNER))
        await limiter.arrived.wait()
        limiter.gate.set()
        assert [admitted([await hit]) for hit in (*both, third)] == [0, 1, 1]
        assert limiter.calls == [2, 1]

    asyncio.run(run())
    assert [str(event.cause) for event in told] == ["the bucket is damaged"]


def test_threads_wait_for_no_owner_but_for_the_calls_that_one_process_may_make(
    pool: ThreadPoolExecutor,
) -> None:
    limiter: Any = Gated(StandingClock(), held="org")
    limiter.counts_owners_together = True
    breaker = breaker_before(limiter, [])
    hits = [(charge(1, owner=f"org_{number}", amount=20),) for number in range(20)]
    first = [pool.submit(lambda hit=hit: run_sync(breaker.hit(hit))) for hit in hits[:8]]
    until(lambda: len(limiter.calls) == 8)
    others = [pool.submit(lambda hit=hit: run_sync(breaker.hit(hit))) for hit in hits[8:]]
    until(lambda: waiting(breaker) == 12)
    limiter.gate.set()
    assert admitted([future.result(PATIENCE) for future in (*first, *others)]) == 20
    assert limiter.calls == [1] * 8 + [12]
    assert waiting(breaker) == 0


def test_a_call_ended_from_outside_is_made_again_by_those_who_wait(
    pool: ThreadPoolExecutor,
) -> None:
    limiter = Gated(StandingClock())
    breaker = breaker_before(limiter, [])
    first = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    others = [pool.submit(lambda: run_sync(breaker.hit(OWNER))) for _ in range(5)]
    until(lambda: waiting(breaker) == 5)
    together = limiter.hit_all

    def ended(_hits: Any) -> Any:
        limiter.hit_all = together  # type: ignore[method-assign]
        raise SystemExit

    limiter.hit_all = ended  # type: ignore[method-assign]
    limiter.hit = lambda charges: together([charges])[0]  # type: ignore[method-assign]
    limiter.gate.set()
    assert admitted([first.result(PATIENCE)]) == 1
    results = [future.exception(PATIENCE) or future.result() for future in others]
    assert [type(result) for result in results].count(SystemExit) == 1
    assert admitted([result for result in results if isinstance(result, Outcome)]) == 4
    assert waiting(breaker) == 0


def test_a_call_that_fails_while_others_are_answered_is_no_outage(
    pool: ThreadPoolExecutor,
) -> None:
    told: list[Any] = []
    limiter = Gated(StandingClock())
    limiter.fails = TimeoutError("the row is locked")
    breaker = breaker_before(limiter, told)
    contended = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    assert admitted([run_sync(breaker.hit(OTHER))]) == 1
    limiter.gate.set()
    assert contended.result(PATIENCE) is None
    # It is told once, and nobody else is refused or counted elsewhere.
    assert [str(event.cause) for event in told] == ["the row is locked"]
    outcomes = [run_sync(breaker.hit(OTHER)) for _ in range(3)]
    assert admitted(outcomes) == 3
    assert {outcome and outcome.counter for outcome in outcomes} == {0}
    limiter.fails = None
    assert admitted([run_sync(breaker.hit(OWNER))]) == 1


def test_a_damaged_bucket_fails_none_of_the_hits_that_travel_with_it(
    pool: ThreadPoolExecutor,
) -> None:
    told: list[Any] = []
    limiter = Gated(StandingClock())
    limiter.damaged = charge(2, owner="org_1").key
    breaker = breaker_before(limiter, told)
    first = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    bad = (charge(2, owner="org_1"),)
    others = [pool.submit(lambda: run_sync(breaker.hit(OWNER))) for _ in range(4)]
    refused = pool.submit(lambda: run_sync(breaker.hit(bad)))
    until(lambda: waiting(breaker) == 5)
    limiter.gate.set()
    assert admitted([future.result(PATIENCE) for future in (first, *others)]) == 5
    assert refused.result(PATIENCE) is None
    assert limiter.calls == [1, 5, 1, 1, 1, 1, 1]
    assert [str(event.cause) for event in told] == ["the bucket is damaged"]


def test_a_hook_that_makes_a_hit_of_the_same_owner_waits_for_a_time_only() -> None:
    limiter = Gated(StandingClock())
    limiter.fails = CorruptDataError("the bucket is damaged")
    limiter.gate.set()
    inner: list[Any] = []

    def hook(_event: Any) -> None:
        limiter.fails = None
        inner.append(run_sync(breaker.hit(OWNER)))

    breaker = CircuitBreaker(
        limiter,  # type: ignore[arg-type]  # it has what the breaker asks for
        timeout=0.01,
        tell=hook,
        awaited=False,
        fails_open=False,
        clock=StandingClock(),
    )
    assert run_sync(breaker.hit(OWNER)) is None
    assert admitted(inner) == 1
    assert waiting(breaker) == 0


def test_a_task_leaves_a_lane_that_is_held_for_too_long() -> None:
    async def run() -> None:
        limiter = AsyncGated(StandingClock())
        breaker = breaker_before(limiter, [], awaited=True)
        lanes: Any = breaker._lanes
        lanes._patience = 0.01
        first = asyncio.create_task(breaker.hit(OWNER))
        await limiter.arrived.wait()
        limiter.arrived.clear()
        second = asyncio.create_task(breaker.hit(OWNER))
        await limiter.arrived.wait()  # it is counted by itself
        limiter.gate.set()
        assert admitted(await asyncio.gather(first, second)) == 2
        assert limiter.calls == [1, 1]

    asyncio.run(run())


def test_a_fork_leaves_no_lane_taken(pool: ThreadPoolExecutor) -> None:
    limiter = Gated(StandingClock())
    breaker = breaker_before(limiter, [])
    first = pool.submit(lambda: run_sync(breaker.hit(OWNER)))
    assert limiter.arrived.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        limiter.held = "nobody"
        limiter.memory = MemoryRateLimiter(clock=StandingClock())
        os._exit(0 if admitted([run_sync(breaker.hit(OWNER))]) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    limiter.gate.set()
    assert admitted([first.result(PATIENCE)]) == 1


@pytest.mark.parametrize(("processes", "most"), [(1, 20), (4, 5), (7, 2), (50, 1)])
def test_processes_share_a_limit_while_its_store_is_down(processes: int, most: int) -> None:
    limiter = Gated(StandingClock())
    limiter.fails = OSError("it is down")
    limiter.gate.set()
    breaker = breaker_before(limiter, [], fails_open=True, processes=processes)
    assert admitted([run_sync(breaker.hit(OWNER)) for _ in range(40)]) == most
    breaker.close()
