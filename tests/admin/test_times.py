"""The time of an answer does not tell that another organization has an object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio

from keyguard.admin.application import STEP, until_next_step
from keyguard.runtime.deadlines import asleep
from tests.admin.api.office import Office


@pytest.mark.parametrize("front", ["asgi", "wsgi"])
def test_what_is_unknown_or_another_s_is_answered_at_a_whole_step(front: str) -> None:
    office = Office()
    foreign = office.issue(organization="other").key.id
    own = office.issue().key.id
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    office.fronts[front][1].application.pause = pause

    def call(path: str, **who: Any) -> int:
        return office.call("GET", path, front=front, **who).status

    assert call(f"/keys/{foreign}", person="auditor") == 404
    assert call(f"/keys/{'7' * 16}", person="auditor") == 404
    assert len(pauses) == 2
    assert all(0 < seconds <= STEP for seconds in pauses)
    assert call(f"/keys/{own}", person="auditor") == 200
    assert call(f"/keys/{own}", person="nobody") == 403
    assert call(f"/keys/{own}") == 401
    assert len(pauses) == 2


def test_the_rest_of_a_step_is_waited_for() -> None:
    times = (0.0, 0.3 * STEP, 1.0 * STEP, 7.6 * STEP)
    answered = [(seconds + until_next_step(seconds)) / STEP for seconds in times]
    assert answered == pytest.approx([1, 1, 2, 8])


def test_waiting_works_on_either_event_loop() -> None:
    asyncio.run(asleep(0))
    trio.run(asleep, 0)
