"""What requests believe of a read replica, over one that says what a test lets it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from keyguard import CorruptDataError, StoreUnavailableError
from keyguard.core.keys.records import KeyRecord
from keyguard.guard.replica import ReplicaPort
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.events import ReplicaFailed, ReplicaRecovered
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import AsyncReplica, Reading, Replica
from tests.world import World

PEPPER, OLDER = "vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo", "Zb8WnTeKc5DyMhRgVq2SxPjAu4LfOo1i"


class Told(Replica):
    """A replica that stands somewhere, or fails."""

    place = "postgresql://replica/app"

    def __init__(self, world: World) -> None:
        self._store = world.store
        self.position = "7-a"
        self.failure: Exception | None = None
        self.asked = 0
        self.left: float | None = None

    def read_key(self, key_id: str) -> Reading:
        self.asked += 1
        self.left = remaining()
        if self.failure is not None:
            raise self.failure
        return Reading(self._store.find_key(key_id), self.position)

    def tend(self) -> None:
        pass

    def close(self) -> None:
        pass


class Silent(AsyncReplica):
    """A replica that never answers."""

    place = "postgresql://replica/app"

    async def read_key(self, key_id: str) -> Reading:
        del key_id
        return await asyncio.get_running_loop().create_future()

    async def tend(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Beside:
    """A world with a replica that is in step."""

    def __init__(self, **options: Any) -> None:
        self.world = World({"max_staleness": 5.0} | options)
        self.issued = self.world.issue()
        self.replica = Told(self.world)
        guard = self.world.guard
        self.tokens = guard._ports.tokens
        self.port = ReplicaPort(
            self.replica,
            self.tokens,
            guard.settings,
            clock=self.world.clock,
            tell=self.world.events.append,
        )
        self.tokens.vouch(self.tokens.begin(), "7-a")
        assert run_sync(self.port.look_after()) is None

    def finds(self) -> bool:
        found = run_sync(self.port.find_key(self.issued.key.id))
        assert found is None or isinstance(found[0], KeyRecord)
        return found is not None

    def told(self) -> list[type[object]]:
        return [type(event) for event in self.world.events]


def test_a_replica_in_step_is_believed() -> None:
    beside = Beside()
    assert beside.finds()
    assert run_sync(beside.port.find_key("unknown")) is None
    assert beside.finds()


def test_a_replica_is_not_asked_before_it_was_seen_in_step() -> None:
    beside = Beside()
    port = ReplicaPort(
        beside.replica,
        beside.tokens,
        beside.world.guard.settings,
        clock=beside.world.clock,
        tell=beside.world.events.append,
    )
    beside.replica.asked = 0
    assert run_sync(port.find_key(beside.issued.key.id)) is None
    assert beside.replica.asked == 0


def test_one_damaged_record_says_nothing_about_the_others() -> None:
    beside = Beside()
    beside.replica.failure = CorruptDataError("damaged")
    assert not beside.finds()
    beside.replica.failure = None
    assert beside.finds()


@pytest.mark.parametrize("position", ["6-z", "8-b", ""])
def test_a_replica_that_stands_elsewhere_is_left_alone_until_it_is_in_step(position: str) -> None:
    beside = Beside()
    beside.replica.position = position
    assert not beside.finds()
    asked = beside.replica.asked
    assert not beside.finds()
    assert beside.replica.asked == asked
    assert run_sync(beside.port.look_after()) == position
    beside.replica.position = "7-a"
    assert not beside.finds()
    assert run_sync(beside.port.look_after()) is None
    assert beside.finds()
    assert beside.told() == []


def test_a_failure_that_is_over_when_the_replica_is_next_asked_is_not_told() -> None:
    beside = Beside()
    beside.replica.failure = StoreUnavailableError("down")
    assert not beside.finds()
    beside.replica.failure = None
    assert run_sync(beside.port.look_after()) is None
    assert beside.finds()
    assert beside.told() == []


def test_failing_and_recovering_are_told_once() -> None:
    beside = Beside()
    beside.replica.failure = StoreUnavailableError("down")
    assert not beside.finds()
    for _ in range(3):
        assert run_sync(beside.port.look_after()) is None
        beside.world.clock.advance(timedelta(seconds=1))
    beside.tokens.vouch(beside.tokens.begin(), "7-a")
    beside.replica.failure = None
    for _ in range(3):
        assert run_sync(beside.port.look_after()) is None
    assert beside.told() == [ReplicaFailed, ReplicaRecovered]
    recovered = beside.world.events[-1]
    assert isinstance(recovered, ReplicaRecovered)
    assert recovered.lasted == 3.0


def test_being_behind_is_told_after_max_staleness() -> None:
    beside = Beside()
    beside.replica.position = "6-z"
    assert not beside.finds()
    for _ in range(5):
        beside.port.note_behind(is_foreign=False)
        beside.world.clock.advance(timedelta(seconds=1))
    assert beside.told() == []
    beside.port.note_behind(is_foreign=False)
    assert beside.told() == [ReplicaFailed]


def test_another_history_is_told_at_once() -> None:
    beside = Beside()
    beside.port.note_behind(is_foreign=True)
    assert beside.told() == [ReplicaFailed]
    assert not beside.finds()


def test_of_a_digest_whose_pepper_is_gone_the_primary_is_asked() -> None:
    beside = Beside(peppers=[OLDER])
    assert beside.finds()
    beside.port._peppers = Beside(peppers=[PEPPER]).port._peppers
    assert not beside.finds()


def test_of_a_request_s_time_half_is_left_for_the_primary() -> None:
    beside = Beside(store_timeout=60.0)
    beside.replica.failure = StoreUnavailableError("down")
    with within(30.0):
        assert not beside.finds()
    assert beside.replica.left is not None
    assert beside.replica.left <= 15.0


def test_the_background_work_waits_no_longer_than_the_feed_may() -> None:
    beside = Beside(store_timeout=60.0, max_staleness=2.0)
    beside.replica.failure = StoreUnavailableError("down")
    assert not beside.finds()
    assert run_sync(beside.port.look_after()) is None
    assert beside.replica.left is not None
    assert beside.replica.left <= 0.5


def test_a_silent_replica_is_given_up_and_left_alone() -> None:
    beside = Beside(store_timeout=0.01)
    beside.port._replica = Silent()
    assert asyncio.run(beside.port.find_key(beside.issued.key.id)) is None
    assert not beside.finds()
    assert asyncio.run(beside.port.look_after()) is None
    assert beside.told() == [ReplicaFailed]


def test_an_observed_look_up_gets_no_more_time_than_the_replica_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"store_timeout": 60.0})
    guard = world.guard
    key_id = world.issue().key.id
    left: list[float | None] = []
    find = world.store.find_key

    def find_key(name: str) -> KeyRecord | None:
        left.append(remaining())
        return find(name)

    monkeypatch.setattr(world.store, "find_key", find_key)
    guard._ports.observers.of_keys += (lambda *_: nullcontext(),)
    with within(5.0):  # what the replica has left of a minute
        assert run_sync(guard._ports._find_observed(key_id)) is not None
    assert guard.authenticate([f"Bearer {world.token()}"])
    nearby, alone = left
    assert nearby is not None
    assert nearby <= 5.0
    assert alone is not None
    assert 5.0 < alone <= 60.0
