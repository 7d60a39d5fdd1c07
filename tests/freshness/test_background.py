"""What a guard does beside requests, stepped by hand, and when it begins and ends."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import types
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Allow, AsyncKeyguard, Deny, Keyguard, Reason, StoreUnavailableError
from keyguard.core.keys.records import Use
from keyguard.freshness.background import FLUSH_EVERY
from keyguard.runtime.events import FeedFailed, FeedRecovered
from keyguard.stores.base import News
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from tests.services import until
from tests.world import World

PEPPER = "vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"
OLDER = "Zb8WnTeKc5DyMhRgVq2SxPjAu4LfOo1i"
MINUTE = timedelta(minutes=1)


class Feed:
    """A change feed that tells what a test lets it."""

    def __init__(self) -> None:
        self.answers: list[News | Exception] = []
        self.asked: list[tuple[str | None, float]] = []

    def read(self, position: str | None, patience: float) -> News:
        self.asked.append((position, patience))
        answer = self.answers.pop(0) if self.answers else News(position or "0", ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


@types.coroutine
def slept(seconds: float) -> Generator[float, None, None]:
    """Hand over to the test, which lets the seconds pass."""
    yield seconds


class Beside:
    """A guard whose worker does what a test steps it through, and nothing by itself."""

    def __init__(self, **options: Any) -> None:
        self.world = World({"max_staleness": 5.0} | options)
        self.guard = self.world.guard
        self.feed = Feed()
        self.told: list[list[Use]] = []
        self.looks = 0
        self._watch_store()
        background = self.guard._ports.background
        background.start = lambda: None  # type: ignore[method-assign]
        background._sleep = slept  # type: ignore[method-assign]
        self._work = background._follow(self.feed, lambda: False)

    def _watch_store(self) -> None:
        mark_used, find_key = self.world.store.mark_used, self.world.store.find_key

        def marked(uses: Any) -> None:
            self.told.append(list(uses))
            mark_used(uses)

        def found(key_id: str) -> Any:
            self.looks += 1
            return find_key(key_id)

        self.world.store.mark_used = marked  # type: ignore[method-assign]
        self.world.store.find_key = found  # type: ignore[method-assign]

    def take_over(self, old: World) -> None:
        """Have what another world's store has."""
        ours = self.world.store
        for name in ("_organizations", "_keys", "_digests", "_trail"):
            setattr(ours, name, getattr(old.store, name))

    def turn(self, *answers: News | Exception, sleeps: int = 1) -> None:
        """Go on until the worker has slept, with these answers of the feed."""
        self.feed.answers += answers
        for _ in range(sleeps):
            self.world.clock.advance(timedelta(seconds=self._work.send(None)))

    def ask(self, token: Any, **options: Any) -> Any:
        return self.guard.authenticate([f"Bearer {token.reveal()}"], **options)

    def lets_in(self, token: Any) -> bool:
        return isinstance(self.ask(token), Allow)

    def revoked_elsewhere(self, key_id: str) -> None:
        keys = self.world.store._keys
        keys[key_id] = replace(
            keys[key_id], revoked_at=self.world.clock.now, version=keys[key_id].version + 1
        )


# The change feed


def test_what_the_feed_tells_is_felt_on_the_next_request() -> None:
    one = Beside()
    issued, other = one.world.issue(), one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    assert one.lets_in(other.token)
    looks = one.looks
    one.revoked_elsewhere(issued.key.id)
    assert one.lets_in(issued.token)

    one.turn(News("1", (issued.key.id,)))

    assert one.ask(issued.token).reason is Reason.KEY_REVOKED
    assert one.lets_in(other.token)
    assert one.looks == looks + 1  # of the other nothing was asked again


def test_what_the_feed_vouches_for_is_not_looked_up_for_a_minute() -> None:
    one = Beside()
    issued = one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    looks, began = one.looks, one.world.clock.uptime

    while one.world.clock.uptime < began + 59:
        one.turn()
        assert one.lets_in(issued.token)
    assert one.looks == looks

    one.turn(sleeps=2)
    assert one.lets_in(issued.token)
    assert one.looks == looks + 1


def test_without_word_from_the_feed_nothing_is_believed_longer_than_max_staleness() -> None:
    one = Beside()
    issued = one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)
    asked = one.world.clock.uptime

    one.turn(*[StoreUnavailableError("cut")] * 4, sleeps=4)
    assert one.world.clock.uptime < asked + 5
    assert one.lets_in(issued.token)
    one.turn(StoreUnavailableError("cut"))

    assert not one.lets_in(issued.token)


def test_a_word_that_comes_late_revives_nothing() -> None:
    one = Beside()
    issued = one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)
    one.turn(*[StoreUnavailableError("cut")] * 9, sleeps=9)

    one.turn(News("1", (issued.key.id,)))

    assert not one.lets_in(issued.token)


def test_amid_a_backlog_the_feed_vouches_for_nothing() -> None:
    """What a feed that was away tells first need not be all that happened meanwhile."""
    one = Beside()
    issued, other = one.world.issue(), one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)
    one.turn(*[StoreUnavailableError("cut")] * 9, sleeps=9)

    one.turn(
        News("1000", (other.key.id,), whole=False), *[StoreUnavailableError("cut")] * 3, sleeps=1
    )

    assert not one.lets_in(issued.token)


def test_where_the_feed_can_t_tell_everything_is_looked_up_again() -> None:
    one = Beside()
    issued = one.world.issue()
    one.turn()
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)

    one.turn(News("7", None))

    assert not one.lets_in(issued.token)


def test_what_was_remembered_before_the_feed_was_followed_is_looked_up_again() -> None:
    one = Beside()
    issued = one.world.issue()
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)

    one.turn()

    assert not one.lets_in(issued.token)


def test_the_feed_is_asked_for_what_came_after_its_last_word() -> None:
    one = Beside()

    one.turn(News("3", ()), News("5", ("one",)), StoreUnavailableError("cut"))
    one.turn(News("6", ()))

    assert [position for position, _ in one.feed.asked] == [None, "3", "5", "5"]


def test_the_feed_is_asked_four_times_in_max_staleness_and_at_least_each_second() -> None:
    for max_staleness, patience in ((2.0, 0.5), (5.0, 1.0), (600.0, 1.0)):
        one = Beside(max_staleness=max_staleness)
        began = one.world.clock.uptime

        one.turn(sleeps=3)

        assert one.feed.asked[1:] == [("0", patience)] * 3
        assert one.world.clock.uptime == began + 3 * patience


def test_between_where_the_feed_begins_and_its_first_word_nobody_sleeps() -> None:
    one = Beside()
    issued = one.world.issue()
    began = one.world.clock.uptime
    assert one.lets_in(issued.token)
    one.revoked_elsewhere(issued.key.id)

    one.turn(News("7", ()), News("8", (issued.key.id,)))

    assert [position for position, _ in one.feed.asked] == [None, "7", "8"]
    assert one.world.clock.uptime == began + 1


def test_where_nothing_is_believed_no_feed_is_asked() -> None:
    one = Beside(max_staleness=0.0)

    one.turn(sleeps=3)

    assert one.feed.asked == []


def test_a_feed_that_fails_is_told_once_and_so_is_its_end() -> None:
    one = Beside()
    one.turn()
    one.turn(*[StoreUnavailableError("cut")] * 3, sleeps=3)
    failed, *rest = one.world.events
    assert isinstance(failed, FeedFailed)
    assert rest == []
    assert str(failed.cause) == "cut"

    one.turn()

    recovered = one.world.events[-1]
    assert isinstance(recovered, FeedRecovered)
    assert recovered.lasted == 3.0


def test_a_feed_that_answers_nonsense_ends_nothing() -> None:
    one = Beside()
    one.turn()
    nonsense: Any = "nonsense"

    one.turn(nonsense)
    one.turn(News("1", ()))

    assert [type(event) for event in one.world.events] == [FeedFailed, FeedRecovered]


# When keys were last used


def test_a_thousand_requests_are_one_use_which_is_told_within_a_minute() -> None:
    one = Beside()
    issued = one.world.issue()
    one.turn()
    first = one.world.clock.now

    for _ in range(1000):
        assert one.lets_in(issued.token)
    assert one.told == []
    while not one.told:
        one.turn()

    assert one.told == [[Use(issued.key.id, first.replace(second=0, microsecond=0))]]
    assert one.world.clock.now - first <= timedelta(seconds=FLUSH_EVERY + 1)
    one.turn(sleeps=120)
    assert len(one.told) == 1  # what was told is not told again


def test_uses_are_told_to_the_minute() -> None:
    one = Beside()
    issued = one.world.issue()
    one.world.clock.advance(timedelta(seconds=58, microseconds=999_999))
    one.lets_in(issued.token)
    one.guard.flush()
    one.world.clock.advance(timedelta(microseconds=1))
    one.lets_in(issued.token)
    one.guard.flush()

    minutes = [use.at for uses in one.told for use in uses]
    start = one.world.clock.now
    assert minutes == [start - MINUTE, start]
    assert one.guard.keys.get(issued.key.id).last_used_at == start


def test_uses_are_told_five_hundred_at_a_time() -> None:
    one = Beside()
    for number in range(1200):
        one.guard._ports.tokens.note_use(Use(f"{number:016}", one.world.clock.now))

    one.guard.flush()

    assert [len(uses) for uses in one.told] == [500, 500, 200]


def test_uses_that_could_not_be_told_are_told_later() -> None:
    one = Beside()
    issued = one.world.issue()
    one.lets_in(issued.token)
    really, one.world.store.mark_used = one.world.store.mark_used, _down  # type: ignore[method-assign]

    one.guard.flush()
    one.world.store.mark_used = really  # type: ignore[method-assign]
    one.guard.flush()

    assert [use.key_id for uses in one.told for use in uses] == [issued.key.id]


def _down(uses: Any) -> None:
    raise StoreUnavailableError("down")


def test_a_use_outlives_what_is_remembered_of_its_key() -> None:
    one = Beside(cache_size=1)
    issued, other = one.world.issue(), one.world.issue()
    for token in (issued.token, other.token, issued.token):
        assert one.lets_in(token)
    one.guard.keys.revoke(issued.key.id)

    one.guard.flush()

    assert {use.key_id for use in one.told[0]} == {issued.key.id, other.key.id}


def test_who_was_refused_was_no_use() -> None:
    one = Beside()
    issued = one.world.issue(allowed_networks=["192.0.2.0/24"])
    assert isinstance(one.ask(issued.token, address="198.51.100.1"), Deny)
    one.guard.keys.revoke(issued.key.id)
    assert not one.lets_in(issued.token)

    one.guard.flush()

    assert one.told == []


@pytest.mark.parametrize("records", [True, False])
def test_the_address_of_the_last_use_is_kept_where_that_is_wanted(records: bool) -> None:
    one = Beside(record_addresses=records)
    issued = one.world.issue()
    for address in ("192.0.2.1", "192.0.2.2", "what a proxy says"):
        assert isinstance(one.ask(issued.token, address=address), Allow)
        one.world.clock.advance(timedelta(seconds=1))

    one.guard.flush()

    key = one.guard.keys.get(issued.key.id)
    assert key.last_used_at == one.world.clock.now.replace(second=0)
    assert key.last_used_address == ("192.0.2.2" if records else None)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_closing_tells_of_all_uses(flavour: str) -> None:
    world = World()
    issued = world.issue()
    field = [f"Bearer {issued.token.reveal()}"]

    async def used() -> None:
        async with world.async_guard:
            assert await world.async_guard.authenticate(field)

    if flavour == "async":
        asyncio.run(used())
    else:
        with world.guard:
            assert world.guard.authenticate(field)

    record = world.store.find_key(issued.key.id)
    assert record is not None
    assert record.key.last_used_at == world.clock.now.replace(second=0)


def test_a_request_asks_the_store_for_nothing_but_its_look_up() -> None:
    asked: list[str] = []

    class Watched(MemoryStore):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if callable(found) and not name.startswith("_"):
                asked.append(name)
            return found

    world = World()
    issued = world.issue()
    store = Watched()
    store.__dict__ |= world.store.__dict__
    guard = Keyguard(store, settings=world.guard.settings, clock=world.clock)
    guard._ports.background.start = lambda: None  # type: ignore[method-assign]
    asked.clear()

    for _ in range(3):
        assert guard.authenticate([f"Bearer {issued.token.reveal()}"])

    assert asked == ["find_key"]


# Stored forms


@pytest.mark.parametrize(
    ("before", "after", "scheme"),
    [
        ({"peppers": [OLDER]}, {"peppers": [PEPPER, OLDER]}, "$hmac-sha256$"),
        ({}, {"peppers": [PEPPER]}, "$hmac-sha256$"),
        ({"peppers": [OLDER]}, {"peppers": [OLDER], "hasher": "sha256"}, "$sha256$"),
        ({}, {"hasher": "argon2id"}, "$argon2id$"),
        ({"hasher": "argon2id"}, {}, "$sha256$"),
    ],
)
def test_a_key_is_hashed_anew_beside_its_next_use(
    before: dict[str, Any], after: dict[str, Any], scheme: str
) -> None:
    old = World(before)
    issued = old.issue()
    one = Beside(**after)
    one.take_over(old)
    trail, key = one.guard.audit.list(), one.guard.keys.get(issued.key.id)
    stored = one.world.store._digests[issued.key.id]
    assert one.lets_in(issued.token)
    assert one.world.store._digests[issued.key.id] == stored  # not on the request's way

    one.turn()

    digest = one.world.store._digests[issued.key.id]
    assert digest.startswith(scheme)
    assert digest != stored
    assert (one.guard.audit.list(), one.guard.keys.get(issued.key.id)) == (trail, key)
    one.guard._ports.tokens.forget_all()
    assert one.lets_in(issued.token)
    one.turn()
    assert one.world.store._digests[issued.key.id] == digest


def test_a_key_is_hashed_anew_only_for_its_genuine_token() -> None:
    old = World()
    issued = old.issue()
    one = Beside(peppers=[PEPPER])
    one.take_over(old)
    stored = dict(one.world.store._digests)
    forged = old.guard.policy.tokens.parse(issued.token.reveal())
    assert forged is not None

    one.ask(old.guard.policy.tokens.mint(replace(forged, secret="0" * 43)))
    one.turn()

    assert one.world.store._digests == stored


def test_between_two_slow_hashes_the_feed_is_asked() -> None:
    one = Beside(hasher="argon2id")
    issued = one.world.issue()
    one.turn()
    asked = len(one.feed.asked)
    for _ in range(3):
        one.guard._ports.background.rehash(issued.key.id, "$sha256$old", issued.token)

    one.turn()

    # The first had begun before there was anything to hash.
    assert [patience for _, patience in one.feed.asked[asked + 1 :]] == [0.0, 0.0, 1.0]


# Beginning and ending


def workers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "keyguard-background"]


def test_a_thread_begins_with_the_first_look_up_and_ends_with_close() -> None:
    here = set(workers())
    world = World()
    issued = world.issue()
    assert set(workers()) == here

    with world.guard:
        world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
        world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
        (worker,) = set(workers()) - here
        assert worker.daemon

    assert not worker.is_alive()
    world.clock.advance(timedelta(seconds=6))
    world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
    (other,) = set(workers()) - here
    assert other.is_alive()
    world.guard.close()


def test_a_guard_that_nobody_holds_leaves_no_thread_behind() -> None:
    guard: Any = Keyguard("memory://")
    guard.authenticate([f"Bearer {World({'prefix': 'kg_live'}).token()}"])
    thread = guard._ports.background._thread

    del guard
    gc.collect()

    until(lambda: not thread.is_alive())


def test_a_guard_is_freed_even_amid_the_wait_of_its_own_thread() -> None:
    guard: Any = Keyguard("memory://")
    guard.authenticate([f"Bearer {World({'prefix': 'kg_live'}).token()}"])
    thread, over = guard._ports.background._thread, guard._ports.background._over

    with over._cond:  # which the thread holds as it begins to wait
        del guard
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join(5)
        assert not collector.is_alive()

    until(lambda: not thread.is_alive())


def test_where_no_thread_is_to_be_had_keys_work_and_the_next_look_up_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    world = World()
    token = world.issue().token.reveal()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert isinstance(world.guard.authenticate([f"Bearer {token}"]), Allow)
    assert world.guard._ports.background._thread is None

    world.clock.advance(timedelta(seconds=6))
    assert isinstance(world.guard.authenticate([f"Bearer {token}"]), Allow)
    assert world.guard._ports.background._thread is not None
    world.guard.close()


def test_a_task_begins_with_the_first_look_up_and_ends_with_aclose() -> None:
    async def lived() -> None:
        world = World()
        issued = world.issue()
        tasks = asyncio.all_tasks()
        async with world.async_guard as guard:
            assert asyncio.all_tasks() == tasks
            for _ in range(2):
                await guard.authenticate([f"Bearer {issued.token.reveal()}"])
                world.clock.advance(timedelta(seconds=6))
            (worker,) = asyncio.all_tasks() - tasks
            assert worker.get_name() == "keyguard-background"
        assert worker.done()
        assert asyncio.all_tasks() == tasks

    asyncio.run(lived())


IMPATIENT: dict[str, Any] = {"max_staleness": 0.04, "store_timeout": 0.02}


@pytest.mark.timeout(60, func_only=True)
def test_a_guard_closes_though_its_feed_does_not_answer() -> None:
    asked, answers = threading.Event(), threading.Event()

    class Held(Feed):
        def read(self, position: str | None, patience: float) -> News:
            asked.set()
            answers.wait()
            return super().read(position, patience)

    class Store(MemoryStore):
        def feed(self) -> Any:
            return Held()

    guard = Keyguard(Store(), **IMPATIENT)
    guard.organizations.create("acme")
    issued = guard.keys.issue(organization="acme", name="ci")
    guard.authenticate([f"Bearer {issued.token.reveal()}"])
    asked.wait()
    worker: Any = guard._ports.background._thread
    guard.close()
    assert worker.is_alive()
    answers.set()
    worker.join()


@pytest.mark.timeout(60, func_only=True)
def test_closing_a_guard_ends_the_wait_of_its_feed() -> None:
    asked, closed = threading.Event(), threading.Event()

    class Waiting(Feed):
        def read(self, position: str | None, patience: float) -> News:
            asked.set()
            closed.wait()
            raise StoreUnavailableError("closed")

        def close(self) -> None:
            closed.set()

    class Store(MemoryStore):
        def feed(self) -> Any:
            return Waiting()

    events: list[Any] = []
    guard = Keyguard(Store(), hooks=[events.append], store_timeout=60.0)
    guard.organizations.create("acme")
    issued = guard.keys.issue(organization="acme", name="ci")
    guard.authenticate([f"Bearer {issued.token.reveal()}"])
    asked.wait()
    worker: Any = guard._ports.background._thread
    guard.close()
    assert not worker.is_alive()
    assert events == []  # the feed did not fail


@pytest.mark.timeout(60, func_only=True)
def test_an_async_guard_closes_though_its_feed_does_not_end() -> None:
    async def scenario() -> None:
        asked, answers = asyncio.Event(), asyncio.Event()

        class Held:
            async def read(self, position: str | None, patience: float) -> News:
                asked.set()
                while not answers.is_set():
                    with suppress(asyncio.CancelledError):
                        await answers.wait()
                return News("0", ())

            async def aclose(self) -> None: ...

        class Store(AsyncMemoryStore):
            def feed(self) -> Any:
                return Held()

        guard = AsyncKeyguard(Store(), **IMPATIENT)
        await guard.organizations.create("acme")
        issued = await guard.keys.issue(organization="acme", name="ci")
        await guard.authenticate([f"Bearer {issued.token.reveal()}"])
        await asked.wait()
        (worker,) = guard._ports.background._tasks.values()
        await guard.aclose()
        assert not worker.done()
        answers.set()
        await asyncio.wait([worker])

    asyncio.run(scenario())


def test_each_event_loop_has_a_task_of_its_own() -> None:
    guard = AsyncKeyguard(AsyncMemoryStore())

    async def begun() -> asyncio.Task[None]:
        guard._ports.background.start()
        return guard._ports.background._tasks[asyncio.get_running_loop()]

    assert asyncio.run(begun()) is not asyncio.run(begun())


def test_event_loops_that_were_closed_are_not_kept() -> None:
    guard = AsyncKeyguard(AsyncMemoryStore())

    async def begun() -> weakref.ref[asyncio.AbstractEventLoop]:
        guard._ports.background.start()
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(begun()) for _ in range(3)]
    gc.collect()
    assert [loop() is None for loop in loops] == [True, True, False]


def test_a_forked_child_has_a_worker_of_its_own() -> None:
    world = World()
    issued = world.issue()
    context = multiprocessing.get_context("fork")
    with world.guard as guard:
        guard.authenticate([f"Bearer {issued.token.reveal()}"])
        assert guard._ports.background._thread is not None
        answers = context.Queue()
        child = context.Process(
            target=_in_child, args=(guard, issued.token.reveal(), answers.put), daemon=True
        )
        child.start()
        assert answers.get(timeout=30) == (False, True)
        child.join()


def _in_child(guard: Keyguard, token: str, answer: Callable[[Any], None]) -> None:
    before = guard._ports.background._thread is not None
    guard.authenticate([f"Bearer {token}"])
    thread = guard._ports.background._thread
    answer((before, thread is not None and thread.is_alive()))


# What metrics learn of it


def test_the_lag_is_the_time_since_every_change_was_known() -> None:
    one = Beside()
    assert one.guard.statistics().feed_is_up is None
    assert one.guard.statistics().feed_lag is None

    one.turn()
    known = one.world.clock.uptime
    assert one.guard.statistics().feed_is_up is True

    one.turn(*[StoreUnavailableError("cut")] * 9, sleeps=9)
    statistics = one.guard.statistics()
    assert statistics.feed_is_up is False
    assert statistics.feed_lag is not None
    assert statistics.feed_lag >= one.world.clock.uptime - known

    one.turn(News("1", (), whole=False))
    assert one.guard.statistics().feed_is_up is True
    assert (one.guard.statistics().feed_lag or 0) > 9  # there is more to tell
    one.turn(News("2", ()))
    assert (one.guard.statistics().feed_lag or 0) < 2


def test_observers_are_told_every_few_seconds_and_one_that_fails_disturbs_nobody() -> None:
    one = Beside()
    beats: list[float] = []

    def fail() -> None:
        raise OSError("the disk is full")

    one.guard.observers.of_beat += (fail, lambda: beats.append(one.world.clock.uptime))
    began = one.world.clock.uptime
    while one.world.clock.uptime < began + 21:
        one.turn()
    assert len(beats) == 4

    one.guard.close()
    assert len(beats) == 5
