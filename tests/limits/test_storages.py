"""Storages of the package ``limits``, with their weaker promise."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keyguard import AsyncKeyguard, ConfigurationError, Keyguard, Limit, Strategy
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.stores.limits.storages import (
    AsyncStorageRateLimiter,
    StorageRateLimiter,
    is_storage_uri,
)
from tests.garbage import collect
from tests.limits import memcached as servers
from tests.limits.conftest import charge
from tests.limits.memcached import Memcached
from tests.loops import event_loop
from tests.services import free_port

# Storages close nothing: their connections end as they are freed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
memcached = servers.memcached  # the fixture
COUNTED = [Strategy.SLIDING_WINDOW_COUNTER, Strategy.FIXED_WINDOW]


def freed(limiter: StorageRateLimiter) -> None:
    limiter.close()
    vars(limiter).clear()
    collect()


class Counted:
    """A limiter of either flavour, called alike; buckets are new for each test."""

    numbers = iter(range(1_000_000))

    def __init__(self, limiter: Any, call: Callable[[Callable[[], Any]], Any]) -> None:
        self.limiter = limiter
        self.call = call
        self.owner = f"org_{os.getpid()}_{next(self.numbers)}"

    def charge(self, number: int = 1, **fields: Any) -> Any:
        return charge(number, owner=self.owner, window=3600, **fields)

    def hit(self, *charges: Any) -> Any:
        return self.call(lambda: self.limiter.hit(charges))

    def adjust(self, charges: Any, units: Any) -> Any:
        return self.call(lambda: self.limiter.adjust(charges, units, [0] * len(charges)))


@pytest.fixture
def counted(memcached: Memcached, flavour: str) -> Iterator[Counted]:
    url, _ = memcached.create_database()
    if flavour == "sync":
        limiter = StorageRateLimiter(url)
        yield Counted(limiter, lambda call: call())
        freed(limiter)
        return
    with event_loop() as runner:

        async def made() -> AsyncStorageRateLimiter:
            return AsyncStorageRateLimiter(url)

        def awaited(call: Callable[[], Any]) -> Any:
            async def on_the_loop() -> Any:
                return await call()

            return runner.run(on_the_loop())

        limiter = runner.run(made())
        yield Counted(limiter, awaited)
        vars(limiter).clear()
        collect()  # while the loop can still close what the storage left open


@pytest.mark.parametrize("strategy", COUNTED)
def test_as_many_are_admitted_as_the_limit_says(counted: Counted, strategy: Strategy) -> None:
    one = counted.charge(amount=3, strategy=strategy)
    outcomes = [counted.hit(one) for _ in range(5)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, True, False, False]
    assert [outcome.tallies[0].remaining for outcome in outcomes] == [2, 1, 0, 0, 0]
    assert 0 < outcomes[-1].tallies[0].retry_after <= 3600


def test_all_charges_are_counted_or_none_where_nobody_else_counts(counted: Counted) -> None:
    wide, narrow = counted.charge(1, amount=10), counted.charge(2, amount=2)
    outcomes = [counted.hit(wide, narrow) for _ in range(4)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, False, False]
    assert counted.adjust([wide], [0]).tallies[0].remaining == 8


def test_a_charge_that_is_not_enforced_never_refuses(counted: Counted) -> None:
    shadow, wide = counted.charge(1, amount=1, enforce=False), counted.charge(2)
    outcomes = [counted.hit(shadow, wide) for _ in range(3)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, True]
    assert [outcome.tallies[0].fits for outcome in outcomes] == [True, False, False]


def test_more_is_charged_as_far_as_there_is_room_and_nothing_given_back(counted: Counted) -> None:
    one = counted.charge()
    counted.hit(one)
    assert counted.adjust([one], [4]).tallies[0].remaining == 5
    assert counted.adjust([one], [-3]).tallies[0].remaining == 5
    assert counted.adjust([one], [50]).tallies[0].remaining == 0
    assert not counted.hit(one).admitted


def test_a_long_name_has_a_bucket_of_its_own(counted: Counted) -> None:
    long = [counted.charge(key=f"keyguard:{{{counted.owner}}}:{'x' * 220}{end}") for end in "ab"]
    counted.hit(long[0])
    left = [counted.adjust([one], [0]).tallies[0].remaining for one in long]
    assert left == [9, 10]


def test_a_storage_that_is_silent_is_given_up_in_time(memcached: Memcached) -> None:
    limiter = StorageRateLimiter(f"memcached://127.0.0.1:{memcached.port}")
    limiter.hit([charge(window=3600)])
    with memcached.suspended(), within(0.02):
        for _ in range(20):  # when all threads wait, nobody waits for them
            with pytest.raises(StoreUnavailableError):
                limiter.hit([charge(window=3600)])
    freed(limiter)


def test_in_async_code_what_fails_is_named_too() -> None:
    async def hit() -> None:
        limiter = AsyncStorageRateLimiter(f"memcached://user:hunter2@127.0.0.1:{free_port()}")
        with pytest.raises(StoreUnavailableError, match=r"memcached://127\.0\.0\.1") as raised:
            await limiter.hit([charge(window=60)])
        assert "hunter2" not in str(raised.value)
        with pytest.raises(StoreUnavailableError):
            await limiter.adjust([charge(window=60)], [1], [0])

    asyncio.run(hit())


@pytest.mark.parametrize("kind", [Keyguard, AsyncKeyguard])
@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (Limit("log", "5/minute", strategy="moving-window"), "'log' by moving-window; it knows"),
        (Limit("year", "5/year"), "'year': it keeps nothing for more than 30 days"),
        (Limit("month", "5/month"), "sliding-window-counter needs 2 windows of 2592000 seconds"),
    ],
)
def test_a_limit_that_a_storage_cannot_count_stops_the_start(
    kind: Any, limit: Limit, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind("memory://", limiter="memcached://localhost:11211", default_limits=[limit])


def test_a_key_may_still_have_one_and_a_hit_says_so() -> None:
    limiter = StorageRateLimiter("memcached://localhost:11211")
    with pytest.raises(ConfigurationError, match="by moving-window"):
        limiter.hit([charge(strategy=Strategy.MOVING_WINDOW)])
    limiter.close()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nonsense://user:hunter2@host", "keyguard knows no limiter for nonsense://"),
        (
            "valkey://user:hunter2@host:1",
            r"valkey needs a driver: pip install 'limits\[(async-)?valkey\]'",
        ),
        ("memcached://user:hunter2@host:port", r"memcached://host:port can't be used"),
        ("memcached://user:/hunter2?@host:port", r"memcached://host:port can't be used"),
        ("memcached://user:hunter2@[host", r"memcached://\[host can't be used"),
        ("memcached://", "memcached:// can't be used"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_its_password(uri: str, says: str) -> None:
    for kind in (Keyguard, AsyncKeyguard):
        with pytest.raises(ConfigurationError, match=says) as raised:
            kind("memory://", limiter=uri)
        assert "hunter2" not in repr(raised.value)


@pytest.mark.parametrize(
    ("target", "known"),
    [
        ("memcached://host:11211", True),
        ("async+memcached://host:11211", True),
        ("mongodb+srv://host", True),
        ("valkey+sentinel://host:1/name", True),
        ("redis://host", False),
        ("redis+cluster://host:1", False),
        ("memory://", False),
        ("nonsense://host", False),
        ("memcached", False),
    ],
)
def test_a_storage_is_known_by_its_scheme(target: str, known: bool) -> None:
    assert is_storage_uri(target) is known


@pytest.mark.parametrize("strategy", COUNTED)
def test_the_longest_window_that_is_taken_is_counted(
    memcached: Memcached, strategy: Strategy
) -> None:
    days = 15 if strategy is Strategy.SLIDING_WINDOW_COUNTER else 30
    limiter = StorageRateLimiter(memcached.url)
    limiter.check([Limit("long", f"1 per {days} days", strategy=strategy)])
    one = charge(1, owner="org_long", amount=1, window=days * 86400, strategy=strategy)
    assert [limiter.hit([one]).admitted for _ in range(3)] == [True, False, False]
    with pytest.raises(ConfigurationError):
        limiter.hit([one._replace(window=days * 86400 + 1)])
    freed(limiter)


def test_two_limiters_share_their_counts(memcached: Memcached) -> None:
    one = charge(1, owner="org_shared", window=3600, amount=3)
    limiters = [StorageRateLimiter(memcached.url) for _ in range(2)]
    admitted = [limiter.hit([one]).admitted for _ in range(3) for limiter in limiters]
    assert admitted == [True, True, True, False, False, False]
    for limiter in limiters:
        freed(limiter)


def test_two_charges_of_one_bucket_need_room_for_both(counted: Counted) -> None:
    one = counted.charge(amount=3, cost=2)
    assert not counted.hit(one, one).admitted
    assert counted.adjust([one], [0]).tallies[0].remaining == 3


def test_a_cost_is_counted_whole_or_not_at_all(counted: Counted) -> None:
    assert counted.hit(counted.charge(cost=7)).admitted
    assert not counted.hit(counted.charge(cost=4)).admitted
    assert counted.hit(counted.charge(cost=3)).admitted
    assert not counted.hit(counted.charge(cost=11)).admitted


def test_a_request_that_was_given_up_is_not_counted_later(memcached: Memcached) -> None:
    one = charge(1, owner="org_late", window=3600)
    limiter = StorageRateLimiter(memcached.url)
    limiter.hit([one])
    with memcached.suspended():
        for patience in (0.02, 0):
            with within(patience), pytest.raises(StoreUnavailableError):
                limiter.hit([one])
    limiter.close()
    for thread in threading.enumerate():  # now they finish what they were amid
        if thread.name.startswith("keyguard-limiter"):
            thread.join()
    assert limiter.adjust([one], [0], [0]).tallies[0].remaining == 9
    freed(limiter)


def test_a_call_that_hangs_keeps_no_process_from_ending() -> None:
    code = """
import sys
from keyguard.runtime.deadlines import within
from keyguard.exceptions import StoreUnavailableError
from keyguard.stores.limits import storages
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
storages._TIMEOUTS = {}
limiter = storages.StorageRateLimiter(sys.argv[1])
one = Charge("keyguard:{a}:b", "b", 10, 60, Strategy.FIXED_WINDOW, True, 1)
with within(0.02):
    try:
        limiter.hit([one])
    except StoreUnavailableError:
        print("given up")
"""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"memcached://127.0.0.1:{silent.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", code, url],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "given up\n")


def test_a_forked_child_has_threads_of_its_own(memcached: Memcached) -> None:
    one = charge(1, owner="org_fork", window=3600)
    limiter = StorageRateLimiter(memcached.url)
    limiter.hit([one])
    child = os.fork()
    if not child:
        os._exit(limiter.hit([one]).tallies[0].remaining)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
    assert limiter.hit([one]).tallies[0].remaining == 7
    freed(limiter)


def test_a_limiter_that_was_closed_may_be_used_again(memcached: Memcached) -> None:
    limiter = StorageRateLimiter(memcached.url)
    limiter.close()
    limiter.close()
    assert limiter.hit([charge(1, owner="org_again", window=3600)]).admitted
    freed(limiter)


def test_in_async_code_connecting_that_was_given_up_leaves_the_limiter_working(
    memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hit() -> None:
        one = charge(1, owner="org_slow", window=3600)
        limiter = AsyncStorageRateLimiter(memcached.url)

        async def never(*_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "create_connection", never)
            for _ in range(4):
                with pytest.raises(TimeoutError):
                    async with awithin(0.01):
                        await limiter.hit([one])
        assert (await limiter.hit([one])).tallies[0].remaining == 9
        await limiter.aclose()

    asyncio.run(hit())


def test_in_async_code_a_call_that_was_given_up_fails_no_other(memcached: Memcached) -> None:
    async def hit() -> None:
        one = charge(1, owner="org_beside", window=3600)
        limiter = AsyncStorageRateLimiter(memcached.url)
        await limiter.hit([one])
        with memcached.suspended():
            waiting = asyncio.create_task(limiter.hit([one]))
            with pytest.raises(TimeoutError):
                async with awithin(0.02):
                    await limiter.hit([one])
        assert (await waiting).admitted
        assert (await limiter.hit([one])).tallies[0].remaining <= 7
        await limiter.aclose()

    asyncio.run(hit())
