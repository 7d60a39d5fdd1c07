"""What is done while the limiter fails."""

from __future__ import annotations

import asyncio
import inspect
import threading
import types
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from keyguard import (
    AsyncKeyguard,
    ConfigurationError,
    Keyguard,
    Limit,
    Reason,
    current_limits,
    rate_limit,
    require_scopes,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.core.access.receipt import Receipt, settle
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import remaining
from keyguard.runtime.events import LimiterFailed, LimiterRecovered
from keyguard.runtime.sync import run_sync
from keyguard.stores import failover
from keyguard.stores.failover import ASK_AGAIN_AFTER, CircuitBreaker
from keyguard.stores.memory.counters import MemoryRateLimiter
from tests.adapters.stacks import Request, asgi_app, call_asgi, call_wsgi, wsgi_app
from tests.world import World


class Store:
    """A store of counters across a network, which can fail in every way."""

    def __init__(self, clock: Any) -> None:
        self.counters = MemoryRateLimiter(clock=clock)
        self.fails: Callable[[], Any] | None = None
        self.asked = 0
        self.closed = 0
        self.deadlines: list[float | None] = []

    def answer(self, method: str, *args: Any) -> Any:
        self.asked += 1
        self.deadlines.append(remaining())
        if self.fails is not None:
            return self.fails()
        return getattr(self.counters, method)(*args)

    def migrate(self) -> None: ...

    def close(self) -> None:
        self.closed += 1

    def hit(self, charges: Sequence[Charge]) -> Outcome:
        outcome: Outcome = self.answer("hit", charges)
        return outcome

    def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        outcome: Outcome = self.answer("adjust", charges, units, ends_at)
        return outcome


class AsyncStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.silent = False

    async def migrate(self) -> None: ...

    async def aclose(self) -> None:
        self.store.close()

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        if self.silent:
            self.store.asked += 1
            await asyncio.get_running_loop().create_future()
        return self.store.hit(charges)

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        return self.store.adjust(charges, units, ends_at)


def fail() -> None:
    raise StoreUnavailableError("the store is down")


class Service:
    """One application with a limit of three a minute, in either flavour."""

    def __init__(self, flavour: str, **options: Any) -> None:
        self.flavour = flavour
        self.world = World(
            options={"default_limits": ["3/minute"], "max_staleness": 3600.0} | options
        )
        self.world.clock.uptime = 86400.0
        self.store = Store(self.world.clock)
        self.async_store = AsyncStore(self.store)
        guarded = {
            "clock": self.world.clock,
            "hooks": [self.world.events.append],
            "prefix": "aiaas_live",
            "default_limits": ["3/minute"],
            "max_staleness": 3600.0,
        } | options
        if flavour == "sync":
            self.guard: Any = Keyguard(self.world.store, limiter=self.store, **guarded)
            app: Any = wsgi.KeyguardMiddleware(wsgi_app([]), self.guard)
            self._call = lambda request: call_wsgi(app, request)
        else:
            self.guard = AsyncKeyguard(
                self.world.async_guard._store, limiter=self.async_store, **guarded
            )
            other: Any = asgi.KeyguardMiddleware(asgi_app([]), self.guard)
            self._call = lambda request: call_asgi(other, request)
        self.token = self.world.token()

    def call(self, times: int = 1) -> list[int]:
        request = Request("/any", authorization=(b"Bearer " + self.token.encode(),))
        return [self._call(request).status for _ in range(times)]

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.world.events if isinstance(event, kind)]

    def advance(self, seconds: float) -> None:
        self.world.clock.advance(timedelta(seconds=seconds))


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_a_limiter_that_answers_is_asked_once_a_request_within_its_deadline(flavour: str) -> None:
    service = Service(flavour, limiter_timeout=0.05)
    assert service.call(4) == [200, 200, 200, 429]
    assert service.store.asked == 4
    assert all(left is not None and left <= 0.05 for left in service.store.deadlines)


def test_while_it_fails_requests_are_counted_in_the_process(flavour: str) -> None:
    service = Service(flavour)
    service.store.fails = fail
    assert service.call(5) == [200, 200, 200, 429, 429]
    assert service.store.asked == 1


def test_while_it_fails_requests_are_refused_where_that_is_wanted(flavour: str) -> None:
    service = Service(flavour, on_limiter_error="closed")
    service.store.fails = fail
    assert service.call(3) == [503, 503, 503]
    refused = [event for event in service.world.events if hasattr(event, "reason")]
    assert {event.reason for event in refused} == {Reason.LIMITER_UNAVAILABLE}


def test_a_request_without_limits_passes_whatever_the_limiter_does(flavour: str) -> None:
    service = Service(flavour, on_limiter_error="closed", default_limits=[])
    service.store.fails = fail
    assert service.call(3) == [200, 200, 200]
    assert service.store.asked == 0


def test_an_outage_is_told_once_and_so_is_its_end(flavour: str) -> None:
    service = Service(flavour, default_limits=["100/minute"])
    service.store.fails = fail
    for _ in range(3):
        service.call(4)
        service.advance(ASK_AGAIN_AFTER)
    assert len(service.told(LimiterFailed)) == 1
    assert service.told(LimiterFailed)[0].fails_open
    service.store.fails = None
    service.call(2)
    [recovered] = service.told(LimiterRecovered)
    assert recovered.lasted == pytest.approx(3 * ASK_AGAIN_AFTER)
    assert recovered.decisions == 12
    service.store.fails = fail
    service.call()
    assert len(service.told(LimiterFailed)) == 2


def test_it_is_asked_again_after_a_second_and_recovers_by_itself(flavour: str) -> None:
    service = Service(flavour)
    service.store.fails = fail
    service.call(4)
    service.store.fails = None
    assert service.call() == [429]  # still the stand-in's count
    service.advance(ASK_AGAIN_AFTER)
    assert service.call(4) == [200, 200, 200, 429]
    assert service.store.asked == 5


def test_an_answer_that_is_none_is_a_failure(flavour: str) -> None:
    service = Service(flavour)
    service.store.fails = lambda: (True, ())
    assert service.call(4) == [200, 200, 200, 429]
    assert len(service.told(LimiterFailed)) == 1


def test_a_silent_limiter_is_given_up_in_time() -> None:
    service = Service("async", limiter_timeout=0.01)
    service.async_store.silent = True
    assert service.call(4) == [200, 200, 200, 429]
    assert service.store.asked == 1
    cause = service.told(LimiterFailed)[0].cause
    assert isinstance(cause, TimeoutError)
    assert str(cause) == "it took longer than 0.01 seconds"


def test_one_request_at_a_time_asks_a_limiter_that_failed() -> None:
    service = Service("sync", default_limits=["100/minute"])
    service.store.fails = fail
    service.call()
    service.advance(ASK_AGAIN_AFTER)
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go_on.wait(30)
        fail()

    service.store.fails = slow
    first = threading.Thread(target=service.call)
    first.start()
    assert inside.wait(30)
    assert service.call(5) == [200] * 5
    go_on.set()
    first.join()
    assert service.store.asked == 2


def test_what_a_failure_counts_is_not_lost_on_the_client_whose_limiter_fails(flavour: str) -> None:
    service = Service(flavour, on_limiter_error="closed", failure_limit="2/minute")
    service.store.fails = fail
    service.token = "aiaas_live_wrong"
    assert service.call(4) == [401, 401, 401, 401]


def test_settling_fails_where_it_can_t_be_counted_and_must_not_be_lost() -> None:
    service = Service("sync", on_limiter_error="closed")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        service.store.fails = fail
        with pytest.raises(StoreUnavailableError, match="could not be settled"):
            current_limits().settle_sync(5)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    guarded = wsgi.KeyguardMiddleware(app, service.guard)
    request = Request("/any", authorization=(b"Bearer " + service.token.encode(),))
    assert call_wsgi(guarded, request).status == 200


def test_a_guard_closes_the_limiter_that_it_opened_and_no_other(flavour: str) -> None:
    service = Service(flavour)
    if flavour == "sync":
        service.guard.close()
    else:
        asyncio.run(service.guard.aclose())
    assert service.store.closed == 0


def test_how_limits_stand_is_never_a_stand_in_s_word() -> None:
    service = Service("sync")
    issued = service.world.issue()
    service.store.fails = fail
    service.call(2)
    with pytest.raises(StoreUnavailableError):
        service.guard.keys.limits(issued.key.id)


def test_a_limit_s_own_bug_is_no_failure_of_the_limiter() -> None:
    def broken(who: Any, request: Any) -> str:
        raise ZeroDivisionError

    service = Service("sync", default_limits=[Limit("broken", "1/minute", per=broken)])
    with pytest.raises(ZeroDivisionError):
        service.call()
    assert not service.told(LimiterFailed)


# Plain functions where counters have to be awaited


def plain_endpoint(service: Service, endpoint: Any) -> Any:
    app = Starlette(
        routes=[Route("/any", endpoint)],
        middleware=[Middleware(KeyguardMiddleware, guard=service.guard)],
    )
    return call_asgi(app, Request("/any", authorization=(b"Bearer " + service.token.encode(),)))


def test_a_plain_endpoint_on_a_thread_waits_for_the_event_loop() -> None:
    service = Service("async", default_limits=[])

    @rate_limit("2/minute")
    def endpoint(request: Any) -> PlainTextResponse:
        current_limits().settle_sync(2)
        return PlainTextResponse("ok")

    assert [plain_endpoint(service, endpoint).status for _ in range(2)] == [200, 429]
    assert service.store.asked == 3


def test_a_plain_function_on_the_event_loop_is_told_to_be_async() -> None:
    service = Service("async", default_limits=[])

    @rate_limit("2/minute")
    def helper() -> str:
        return "helped"

    async def endpoint(request: Any) -> PlainTextResponse:
        with pytest.raises(ConfigurationError, match="make the function async"):
            helper()
        return PlainTextResponse("ok")

    assert plain_endpoint(service, endpoint).status == 200
    assert service.store.asked == 0


def test_the_limits_of_key_and_route_are_one_question_to_the_store() -> None:
    service = Service("async", default_limits=["9/minute", "9/hour", "9/day"])

    @require_scopes("inference:write")
    @rate_limit("5/minute; 7/day", per="organization")
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    service.token = service.world.token("inference:write")
    assert plain_endpoint(service, endpoint).status == 200
    assert service.store.asked == 1
    service.token = service.world.token("inference:read")
    assert plain_endpoint(service, endpoint).status == 403
    assert service.store.asked == 1


def test_what_was_asked_before_an_outage_neither_ends_nor_prolongs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    store = Store(world.clock)
    events: list[Any] = []
    monkeypatch.setattr(failover, "awithin", lambda _: nullcontext())  # there is no event loop
    breaker = breaker_over(AsyncStore(store), world, events, fails_open=True, awaited=True)
    limiter: Any = breaker._limiter
    early = Late(Outcome(True, ()))
    late = Late(OSError())
    # All three are on their way when it fails.
    asked: list[Any] = []
    for question in (early, late, late):
        breaker._limiter = question
        asked.append(breaker.hit([_charge()]))
        asked[-1].send(None)
    answering, failing, too_late = asked
    breaker._limiter = limiter
    store.fails = refuse
    run_sync(breaker.hit([_charge()]))
    assert ended(answering) == Outcome(True, ())
    assert ended(failing) is not None
    assert [type(event) for event in events] == [LimiterFailed]
    assert breaker._admitted_outage() is None
    world.clock.advance(timedelta(seconds=ASK_AGAIN_AFTER))
    store.fails = None
    run_sync(breaker.hit([_charge()]))
    # An answer that is late by now says nothing of how things are.
    ended(too_late)
    assert [type(event) for event in events] == [LimiterFailed, LimiterRecovered]
    assert breaker._admitted_outage() is not None
    breaker.close()


def test_a_limit_that_the_store_cannot_count_is_no_outage() -> None:
    world = World()
    store = Store(world.clock)
    events: list[Any] = []
    breaker = breaker_over(store, world, events, fails_open=False)

    def uncountable() -> None:
        raise ConfigurationError("it can't count limit 'a'")

    store.fails = uncountable
    assert [run_sync(breaker.hit([_charge()])) for _ in range(3)] == [None] * 3
    assert [type(event) for event in events] == [LimiterFailed]  # told once
    store.fails = None
    answer = run_sync(breaker.hit([_charge()]))
    assert answer is not None
    assert answer.admitted
    breaker.close()


def test_refusals_that_differ_are_told_once_a_second() -> None:
    world = World()
    store = Store(world.clock)
    events: list[Any] = []
    breaker = breaker_over(store, world, events, fails_open=False)
    numbers = iter(range(9))

    def uncountable() -> None:
        raise ConfigurationError(f"it can't count limit {next(numbers)}")

    store.fails = uncountable
    for told in (1, 1, 1, 2, 2):
        world.clock.advance(timedelta(seconds=0.4))
        assert run_sync(breaker.hit([_charge()])) is None
        assert len(events) == told
    breaker.close()


def breaker_over(
    store: Any, world: World, events: list[Any], *, fails_open: bool, awaited: bool = False
) -> CircuitBreaker:
    return CircuitBreaker(
        store,
        awaited=awaited,
        timeout=0.05,
        fails_open=fails_open,
        clock=world.clock,
        tell=events.append,
    )


class Late:
    """A question that is under way until its answer is wanted.

    Args:
        outcome: The answer; an exception is raised.
    """

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    async def hit(self, _charges: Any) -> Any:
        await _on_its_way()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@types.coroutine
def _on_its_way() -> Generator[None, None, None]:
    yield


def ended(asking: Any) -> Any:
    with pytest.raises(StopIteration) as end:
        asking.send(None)
    return end.value.value


def refuse() -> None:
    raise StoreUnavailableError("it is down")


def _charge() -> Charge:
    return Charge("keyguard:{org_1}:x", "x", 10, 60, Strategy.FIXED_WINDOW, True, 1)


class Shared:
    """The store of a breaker that others use too, and a job that is settled after a while."""

    def __init__(self, flavour: str) -> None:
        self.clock = World().clock
        self.store = Store(self.clock)
        store: Any = self.store
        other: Any = AsyncStore(self.store)
        self.breaker = CircuitBreaker(
            store if flavour == "sync" else other,
            awaited=flavour == "async",
            timeout=0.05,
            fails_open=True,
            clock=self.clock,
            tell=lambda _: None,
        )

    def hit(self, cost: int) -> Receipt:
        charges = (_charge()._replace(amount=100, cost=cost),)
        outcome = self.answer(self.breaker.hit(charges))
        return Receipt(None, charges, outcome.tallies, "", 0, counter=outcome.counter)

    def settle(self, charged: Receipt, cost: int) -> None:
        self.answer(settle(self.breaker, charged, cost, ()))

    def answer(self, answer: Any) -> Any:
        async def awaited() -> Any:
            return await answer

        return asyncio.run(awaited()) if inspect.isawaitable(answer) else answer

    def remaining(self, limiter: Any) -> int:
        left: int = limiter.adjust([_charge()._replace(amount=100)], [0], [0]).tallies[0].remaining
        return left

    def wait(self) -> None:
        self.clock.advance(timedelta(seconds=ASK_AGAIN_AFTER))


def test_what_the_stand_in_counted_is_no_credit_in_the_store(flavour: str) -> None:
    shared = Shared(flavour)
    shared.hit(100)  # full
    shared.store.fails = fail
    job = shared.hit(90)
    shared.store.fails = None
    shared.wait()
    shared.settle(job, 10)  # nobody has noticed yet that the store is back
    shared.answer(shared.breaker.hit([_charge()._replace(key="keyguard:{org_1}:y")]))
    assert shared.remaining(shared.store.counters) == 0
    shared.settle(job, 0)
    assert shared.remaining(shared.store.counters) == 0


def test_what_the_store_counted_is_no_credit_in_the_stand_in(flavour: str) -> None:
    shared = Shared(flavour)
    job = shared.hit(90)
    shared.store.fails = fail
    shared.hit(80)
    shared.settle(job, 1)
    assert shared.remaining(shared.breaker._stand_in) == 20
    shared.store.fails = None
    shared.wait()
    other = shared.hit(5)
    shared.store.fails = fail
    shared.settle(other, 1)  # which is how it is noticed that the store is down again
    assert shared.remaining(shared.breaker._stand_in) == 20


def test_what_the_stand_in_counted_it_gives_back(flavour: str) -> None:
    shared = Shared(flavour)
    shared.store.fails = fail
    job = shared.hit(90)
    shared.settle(job, 20)
    assert shared.remaining(shared.breaker._stand_in) == 80


def test_what_is_charged_more_is_counted_by_whoever_can(flavour: str) -> None:
    shared = Shared(flavour)
    shared.store.fails = fail
    job = shared.hit(10)
    shared.store.fails = None
    shared.wait()
    shared.hit(1)
    shared.settle(job, 40)
    assert shared.remaining(shared.store.counters) == 69


def test_what_the_store_counted_before_an_answer_that_ended_an_outage_it_gives_back(
    flavour: str,
) -> None:
    shared = Shared(flavour)
    shared.store.fails = fail
    shared.hit(1)
    shared.store.fails = None
    shared.wait()
    job = shared.hit(50)
    shared.settle(job, 10)
    assert shared.remaining(shared.store.counters) == 90
