"""Slow hashes take turns, so that guesses do not hold up the first use of a key."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from keyguard import Allow, Deny, Reason
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.pool import HashPool
from keyguard.runtime.shares import Shares
from tests.world import World

# Nothing here measures time. A turn that never comes ends with the test's own watchdog.
pytestmark = pytest.mark.timeout(60, func_only=True)


class Asked:
    """Asks for turns, and keeps in which order they came."""

    def __init__(self, turns: Shares) -> None:
        self.turns = turns
        self.came: list[str] = []
        self._begin: dict[str, Callable[[], object]] = {}

    def ask(self, name: str) -> None:
        share = name.rstrip("0123456789")
        self._begin[name] = partial(self.came.append, name)
        self.turns.ask(share, self._begin[name])

    def leave(self, name: str) -> None:
        self.turns.leave(name.rstrip("0123456789"), self._begin[name])


def test_named_shares_take_turns_and_the_unnamed_one_has_every_other() -> None:
    asked = Asked(Shares(most=1, places=40))
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2", "1", "2", "3"):
        asked.ask(name)
    assert asked.came == ["a1"]
    for number in range(9):
        asked.leave(asked.came[number])
    first, *others = asked.came
    assert first == "a1"
    assert [name for name in others if name[0] not in "123"] == ["a2", "b1", "c1", "a3", "b2", "a4"]
    assert {others.index(name) // 2 for name in ("1", "2", "3")} == {0, 1, 2}


def test_as_many_have_a_turn_at_once_as_may() -> None:
    asked = Asked(Shares(most=2, places=20))
    for name in ("a1", "a2", "a3"):
        asked.ask(name)
    assert asked.came == ["a1", "a2"]
    asked.leave("a2")
    assert asked.came == ["a1", "a2", "a3"]


def test_who_no_longer_waits_gets_no_turn_and_leaves_its_place() -> None:
    asked = Asked(Shares(most=1, places=6))
    for name in ("a1", "b1", "c1"):
        asked.ask(name)
    with pytest.raises(StoreUnavailableError):
        asked.ask("d1")
    asked.leave("b1")
    asked.ask("d1")
    for name in ("a1", "c1", "d1"):
        asked.leave(name)
    assert asked.came == ["a1", "c1", "d1"]
    asked.ask("e1")
    assert asked.came[-1] == "e1"


def test_named_shares_leave_half_of_the_places_to_the_unnamed_one() -> None:
    asked = Asked(Shares(most=1, places=8))
    for name in ("a1", "a2"):
        asked.ask(name)
    with pytest.raises(StoreUnavailableError, match="too many slow hashes"):
        asked.ask("a3")
    for name in ("b1", "c1"):
        asked.ask(name)
    with pytest.raises(StoreUnavailableError):
        asked.ask("d1")
    for name in ("1", "2", "3", "4"):
        asked.ask(name)
    with pytest.raises(StoreUnavailableError):
        asked.ask("5")


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_hashes_of_a_pool_take_shares(flavour: str) -> None:
    pool, order = HashPool(workers=1, waiting=40, patience=30), list[str]()
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait()

    names = ["a", "a", "a", "a", "b", "c"]
    jobs = [(hold, "a"), *((partial(order.append, name), name) for name in names)]

    async def flood() -> None:
        running = []
        for job, share in jobs:
            running.append(asyncio.ensure_future(pool.arun(job, share)))
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*running)

    if flavour == "async":
        asyncio.run(flood())
    else:
        threads = [threading.Thread(target=pool.run, args=job) for job in jobs]
        for number, thread in enumerate(threads, 1):
            thread.start()
            while pool._shares._taken.total() < number:
                begun.wait(0.001)
        release.set()
        for thread in threads:
            thread.join()
    assert order == ["a", "b", "c", "a", "a", "a"]
    pool.close()


def test_a_good_key_gets_its_turn_among_guesses_at_any_key() -> None:
    world = World(
        {
            "hasher": "argon2id",
            "hash_workers": 1,
            "store_timeout": 30.0,
            "failure_limit": "30/minute",
        }
    )
    attacked, good = world.token(), world.token()
    tokens = world.guard.policy.tokens
    parts = tokens.parse(attacked)
    assert parts is not None
    guesses = [f"Bearer {tokens.mint(replace(parts, secret='0' * 43)).reveal()}"]
    guard, answered = world.async_guard, list[str]()

    async def ask(name: str, fields: list[str], address: str) -> None:
        decision = await guard.authenticate(fields, address=address)
        answered.append(name if isinstance(decision, Allow) else f"{name} refused")

    async def attack() -> None:
        attackers = [f"198.51.100.{number}" for number in range(4)]
        for address in attackers:  # each is known for a guess
            await ask("guess", guesses, address)
        answered.clear()
        running = []
        for name, fields, address in (
            *(("guess", guesses, address) for address in attackers * 2),
            ("good", [f"Bearer {good}"], "192.0.2.7"),
            ("attacked", [f"Bearer {attacked}"], "192.0.2.8"),
        ):
            running.append(asyncio.ensure_future(ask(name, fields, address)))
            await asyncio.sleep(0)
        await asyncio.gather(*running)

    asyncio.run(attack())

    assert answered.index("good") <= 3
    assert answered.index("attacked") <= 6
    assert answered.count("guess refused") == 8


def test_a_failure_is_remembered_for_a_minute() -> None:
    world = World({"failure_limit": "30/minute"})
    blocklist = world.guard._ports.blocklist
    assert not blocklist.has_failed("192.0.2.7")
    decision = world.guard.authenticate(["Bearer x"], address="192.0.2.7")
    assert decision == Deny(Reason.TOKEN_MALFORMED)
    assert blocklist.has_failed("192.0.2.7")
    world.clock.uptime += 61
    assert not blocklist.has_failed("192.0.2.7")
