"""Several reservations of one request, inside of one another and at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context

import pytest
from starlette.responses import PlainTextResponse

from keyguard import ConfigurationError, CurrentLimits, InvalidValueError, current_limits
from keyguard.testing import MemoryGuards
from keyguard.testing.acting import acting_as
from tests.request.test_settling import Service, paid

Work = Callable[[], None]


def held() -> int:
    """Return how many units the request is charged for at present."""
    [status] = current_limits()
    return status.quota - status.remaining


def nested() -> None:
    with current_limits().reserve(100) as outer:
        outer.used += 10
        with current_limits().reserve(50) as inner:
            inner.used += 7
            assert held() == 150
        assert held() == 107
        outer.used += 3


def with_a_settlement_inside() -> None:
    with current_limits().reserve(100) as reservation:
        reservation.used += 10
        current_limits().settle_sync(5)
        assert held() == 105


def overlapping() -> None:
    first, second = current_limits().reserve(100), current_limits().reserve(30)
    a, b = first.__enter__(), second.__enter__()
    a.used += 8
    first.__exit__(None, None, None)
    with current_limits().reserve(20) as third:
        assert third.used == 8
        third.used += 2
        assert held() == 50
    b.used += 4
    second.__exit__(None, None, None)


def in_threads() -> None:
    ready, over = threading.Barrier(3), threading.Barrier(3)

    def work(used: int) -> None:
        with current_limits().reserve(100) as reservation:
            ready.wait(10)
            over.wait(10)
            reservation.used += used

    threads = [
        threading.Thread(target=copy_context().run, args=(work, used)) for used in (10, 20, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize(
    ("work", "units"),
    [(nested, 20), (with_a_settlement_inside, 15), (overlapping, 14), (in_threads, 60)],
)
def test_reservations_at_once_add_up(work: Work, units: int) -> None:
    assert paid(work) == units


def test_reservations_at_once_need_room_for_all() -> None:
    def work() -> None:
        with current_limits().reserve(600), current_limits().reserve(600):
            raise AssertionError

    assert paid(work, status=429) == 0


def test_a_reservation_whose_count_is_no_number_holds_nothing_further() -> None:
    def work() -> None:
        with (
            pytest.raises(InvalidValueError, match="whole number"),
            current_limits().reserve(300) as reservation,
        ):
            reservation.used = -1
        current_limits().settle_sync(4)

    assert paid(work) == 4


def test_one_reservation_is_not_open_twice() -> None:
    def work() -> None:
        reservation = current_limits().reserve(100)
        with reservation as opened:
            opened.used += 5
            with pytest.raises(ConfigurationError, match="open already"):
                reservation.__enter__()

    assert paid(work) == 5


async def reserve(
    limits: CurrentLimits, used: int, others: Callable[[], Awaitable[object]]
) -> None:
    async with limits.reserve(100) as reservation:
        reservation.used += used
        await others()


def test_reservations_of_tasks_across_a_network_add_up() -> None:
    async def endpoint(request: object) -> object:
        limits, all_in = current_limits(), asyncio.Barrier(3)
        await asyncio.gather(*(reserve(limits, used, all_in.wait) for used in (10, 20, 30)))
        return PlainTextResponse("done")

    service = Service(endpoint)
    assert service.call() == 200
    assert service.used() == 60


def test_a_request_without_limits_is_counted_for_all_its_reservations() -> None:
    with MemoryGuards() as guards, acting_as(guard=guards.guard):
        state = current_limits()._state
        nested_used()
        assert state.settled == state.units == 17


def nested_used() -> None:
    with current_limits().reserve(100) as outer, current_limits().reserve(50) as inner:
        outer.used += 10
        inner.used += 7
