"""Look-ups that are shared."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Allow, AsyncKeyguard, Deny, Keyguard, Reason, StoreUnavailableError
from keyguard.stores.memory.keys import AsyncMemoryStore
from tests.world import World

MANY = 100
PATIENT: dict[str, Any] = {"store_timeout": 60.0}


class Slow:
    """A world whose store answers a look-up when it is told to.

    Args:
        flavour: Of the guard that asks.
    """

    def __init__(self, flavour: str, **options: Any) -> None:
        self.flavour = flavour
        self.world = World(PATIENT | options)
        self.issued = self.world.issue()
        self.looks = 0
        self.failure: Exception | None = None
        self.guard: Any = self.world.guard if flavour == "sync" else self._async_guard()
        self.guard._ports.background.start = lambda: None
        self.led: list[bool] = []  # of each who boarded, in turn
        self._turn = threading.Condition()
        self._really = self.world.store.find_key
        self.answers = threading.Event()
        self.aanswers: Any = None
        lookups = self.guard._ports.lookups
        board = lookups._board

        def boarded(*args: Any) -> Any:
            found = board(*args)
            with self._turn:
                self.led.append(found[1] is None)
                self._turn.notify_all()
            return found

        lookups._board = boarded
        self.world.store.find_key = self._find_key  # type: ignore[method-assign]

    def _async_guard(self) -> AsyncKeyguard:
        slow = self

        class Store(AsyncMemoryStore):
            async def find_key(self, key_id: str) -> Any:
                slow.looks += 1
                record = slow._really(key_id)
                await slow.aanswers.wait()
                if slow.failure is not None:
                    raise slow.failure
                return record

        return AsyncKeyguard(
            Store(self.world.store),
            settings=self.world.guard.settings,
            clock=self.world.clock,
            hooks=(),
        )

    def _find_key(self, key_id: str) -> Any:
        self.looks += 1
        record = self._really(key_id)
        self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return record

    def revoke(self) -> None:
        """Revoke the key, without asking the store that is silent."""
        keys, key_id = self.world.store._keys, self.issued.key.id
        keys[key_id] = replace(keys[key_id], revoked_at=self.world.clock.now)
        self.guard._ports.tokens.forget([key_id])

    def field(self, token: Any = None) -> list[str | bytes]:
        return [f"Bearer {(token or self.issued.token).reveal()}"]

    def wait_for(self, boarded: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: len(self.led) >= boarded)

    async def await_for(self, boarded: int) -> None:
        while len(self.led) < boarded:  # noqa: ASYNC110 - the others have their turn meanwhile
            await asyncio.sleep(0)

    def asked_together(self, fields: list[list[str | bytes]], act: Callable[[], Any]) -> list[Any]:
        """Ask at the same time; do something once all wait, and have the store answer then."""
        if self.flavour == "sync":
            with ThreadPoolExecutor(len(fields)) as threads:
                futures = [threads.submit(self.guard.authenticate, field) for field in fields]
                self.wait_for(len(fields))
                act()
                self.answers.set()
                return [future.result() for future in futures]

        async def asked() -> list[Any]:
            self.aanswers = asyncio.Event()
            tasks = [asyncio.create_task(self.guard.authenticate(field)) for field in fields]
            await self.await_for(len(fields))
            act()
            self.aanswers.set()
            return await asyncio.gather(*tasks)

        return asyncio.run(asked())

    def asked_in_turn(self, act: Callable[[], Any]) -> list[Any]:
        """Ask, do something while the store is silent, and ask again."""
        self.guard._ports.tokens.forget_all()
        self.led.clear()
        self.answers.clear()
        if self.flavour == "sync":
            with ThreadPoolExecutor(2) as threads:
                first = threads.submit(self.guard.authenticate, self.field())
                self.wait_for(1)
                act()
                second = threads.submit(self.guard.authenticate, self.field())
                self.wait_for(2)
                self.answers.set()
                return [first.result(), second.result()]

        async def asked() -> list[Any]:
            self.aanswers = asyncio.Event()
            first = asyncio.create_task(self.guard.authenticate(self.field()))
            await self.await_for(1)
            act()
            second = asyncio.create_task(self.guard.authenticate(self.field()))
            await self.await_for(2)
            self.aanswers.set()
            return await asyncio.gather(first, second)

        return asyncio.run(asked())


@pytest.fixture(params=["sync", "async"])
def slow(request: pytest.FixtureRequest) -> Slow:
    return Slow(request.param)


def nothing() -> None:
    pass


def test_a_hundred_misses_at_once_are_one_look_up(slow: Slow) -> None:
    decisions = slow.asked_together([slow.field()] * MANY, nothing)

    assert all(isinstance(decision, Allow) for decision in decisions)
    assert slow.looks == 1


def test_a_wrong_secret_gains_nothing_by_a_shared_look_up(slow: Slow) -> None:
    tokens = slow.world.guard.policy.tokens
    parts = tokens.parse(slow.issued.token.reveal())
    assert parts is not None
    wrong = tokens.mint(type(parts)(parts.key_id, "0" * 43))

    genuine, guessed = slow.asked_together([slow.field(), slow.field(wrong)], nothing)

    assert isinstance(genuine, Allow)
    assert guessed == Deny(Reason.SECRET_WRONG, slow.issued.key.id)
    assert slow.looks == 1


def test_a_look_up_that_fails_fails_for_all_who_share_it_and_nobody_after(slow: Slow) -> None:
    slow.failure = StoreUnavailableError("down")

    decisions = slow.asked_together([slow.field()] * 10, nothing)

    assert {decision.reason for decision in decisions} == {Reason.STORE_UNAVAILABLE}
    assert slow.looks == 1
    slow.failure = None
    (decision,) = slow.asked_together([slow.field()], nothing)
    assert isinstance(decision, Allow)


def test_what_was_asked_before_a_change_lets_nobody_in_after_it(slow: Slow) -> None:
    """All wait for an answer that was read before the revocation."""
    decisions = slow.asked_together([slow.field()] * 10, slow.revoke)

    assert {decision.reason for decision in decisions} == {Reason.KEY_REVOKED}


def test_who_comes_after_a_change_waits_for_no_older_look_up(slow: Slow) -> None:
    first, second = slow.asked_in_turn(slow.revoke)

    assert {first.reason, second.reason} == {Reason.KEY_REVOKED}
    assert slow.led[:2] == [True, True]


def test_a_request_after_an_organization_is_enabled_takes_no_older_answer(slow: Slow) -> None:
    owner = slow.issued.key.organization
    slow.world.guard.organizations.disable(owner)

    before, after = slow.asked_in_turn(lambda: slow.world.guard.organizations.enable(owner))

    assert before.reason is Reason.ORGANIZATION_DISABLED
    assert isinstance(after, Allow)
    assert slow.looks == 2


def test_no_look_up_is_shared_for_longer_than_what_is_remembered_is_believed(slow: Slow) -> None:
    slow.asked_in_turn(lambda: slow.world.clock.advance(timedelta(seconds=4.999)))
    assert slow.led == [True, False]

    slow.asked_in_turn(lambda: slow.world.clock.advance(timedelta(seconds=5)))
    assert slow.led == [True, True]


def test_who_is_cancelled_while_it_looks_up_fails_nobody_else() -> None:
    slow = Slow("async")

    async def asked() -> list[Any]:
        slow.aanswers = asyncio.Event()
        first, *others = [
            asyncio.create_task(slow.guard.authenticate(slow.field())) for _ in range(MANY)
        ]
        await slow.await_for(MANY)
        first.cancel()
        await slow.await_for(2 * MANY - 1)  # the others board again, behind a new leader
        slow.aanswers.set()
        assert await asyncio.gather(first, return_exceptions=True) != []
        assert first.cancelled()
        return await asyncio.gather(*others)

    decisions = asyncio.run(asked())

    assert all(isinstance(decision, Allow) for decision in decisions)
    assert slow.looks == 2


def test_who_is_cancelled_while_it_waits_leaves_the_look_up_alone() -> None:
    slow = Slow("async")

    async def asked() -> Any:
        slow.aanswers = asyncio.Event()
        first, second = (
            asyncio.create_task(slow.guard.authenticate(slow.field())) for _ in range(2)
        )
        await slow.await_for(2)
        second.cancel()
        slow.aanswers.set()
        return await first

    assert isinstance(asyncio.run(asked()), Allow)
    assert slow.looks == 1


def test_a_thread_waits_for_another_s_look_up_no_longer_than_its_deadline() -> None:
    slow = Slow("sync", store_timeout=0.001)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slow.guard.authenticate, slow.field())
        slow.wait_for(1)

        second = slow.guard.authenticate(slow.field())

        assert second.reason is Reason.STORE_UNAVAILABLE
        assert "still under way" in str(second.cause)
        slow.answers.set()
        assert isinstance(first.result(), Allow)


def test_fresh_looks_up_whatever_is_remembered_and_shares_nothing() -> None:
    world = World()
    issued = world.issue()
    field = [f"Bearer {issued.token.reveal()}"]
    with Keyguard(world.store, settings=world.guard.settings, clock=world.clock) as guard:
        assert isinstance(guard.authenticate(field), Allow)
        # As another process does it: this guard's memory is told nothing.
        record = world.store._keys.pop(issued.key.id)

        assert isinstance(guard.authenticate(field), Allow)
        assert guard.authenticate(field, fresh=True) == Deny(Reason.KEY_UNKNOWN, issued.key.id)
        world.store._keys[issued.key.id] = record
        assert isinstance(guard.authenticate(field, fresh=True), Allow)
