"""What a request cost is settled, though the client leaves and the work breaks off."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from keyguard import AsyncKeyguard, current_limits
from keyguard.adapters import wsgi
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.core.access.receipt import Receipt
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.exceptions import InvalidValueError, StoreUnavailableError
from keyguard.freshness.usage_counts import UsageCounts
from keyguard.runtime.process import receipt_lock
from keyguard.runtime.shielding import shielded
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.memory.keys import AsyncMemoryStore
from tests.adapters.stacks import Request, call_asgi, call_wsgi
from tests.world import World

RATE = "1000/day"


class Distant:
    """Counters across a network: each call suspends its task a few times before it counts."""

    def __init__(self, world: World) -> None:
        self.counters = MemoryRateLimiter(clock=world.clock)
        self.is_down = False
        self.asked: asyncio.Event | None = None  # set as a call is made
        self.adjustments = 0  # a reservation is a hit, and is settled by one of these

    async def migrate(self) -> None: ...

    async def aclose(self) -> None: ...

    async def hit(self, charges: Sequence[Charge]) -> Outcome:
        await self._travel()
        return self.counters.hit(charges)

    async def adjust(
        self, charges: Sequence[Charge], units: Sequence[int], ends_at: Sequence[float]
    ) -> Outcome:
        await self._travel()
        self.adjustments += 1
        return self.counters.adjust(charges, units, ends_at)

    async def _travel(self) -> None:
        if self.asked is not None:
            self.asked.set()
        for _ in range(3):
            await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailableError("down")


class Service:
    """A Starlette application in front of distant counters, with one endpoint."""

    def __init__(self, endpoint: Callable[[Any], Any], **options: Any) -> None:
        world = World()
        self.limiter = Distant(world)
        self.guard = AsyncKeyguard(
            AsyncMemoryStore(world.store),
            limiter=self.limiter,
            clock=world.clock,
            prefix="aiaas_live",
            default_limits=[RATE],
            **options,
        )
        self.app = Starlette(
            routes=[Route("/", endpoint)],
            middleware=[Middleware(KeyguardMiddleware, guard=self.guard)],
        )
        issued = world.issue()
        self.key_id, self.field = issued.key.id, b"Bearer " + issued.token.reveal().encode()

    def call(self) -> int:
        return call_asgi(self.app, Request("/", authorization=(self.field,))).status

    def used(self) -> int:
        """Return how many units were counted in all."""
        [status] = asyncio.run(self.guard.keys.limits(self.key_id))
        return status.quota - status.remaining

    async def serve(
        self, *, leaves: bool = True, breaks: bool = False, begun: asyncio.Event | None = None
    ) -> None:
        """Ask; once the answer begins to come, leave or break the connection."""
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                if breaks:
                    raise OSError
                if leaves:
                    gone.set()
                if begun is not None:
                    begun.set()

        scope = {
            "type": "http", "method": "GET", "path": "/", "query_string": b"",
            "headers": [(b"authorization", self.field)],
            "asgi": {"spec_version": "2.4" if breaks else "2.3"},
        }  # fmt: skip
        with suppress(Exception):  # as a server does
            await self.app(scope, receive, send)
        gc.collect()  # Python closes what was not closed, outside of the request
        for _ in range(20):
            await asyncio.sleep(0)

    async def serve_until_settled(self, *, breaks: bool = False) -> None:
        """Ask, and wait until what was reserved is settled.

        A thread that makes the next part of an answer closes the stream once it has made it.
        """
        await self.serve(breaks=breaks)
        async with asyncio.timeout(60):
            while self.limiter.adjustments == 0:
                gc.collect()
                await asyncio.sleep(0)


async def with_settle() -> AsyncIterator[bytes]:
    try:
        yield b"first"
        await asyncio.Event().wait()
    finally:
        await current_limits().settle(9)


async def with_reservation() -> AsyncIterator[bytes]:
    async with current_limits().reserve(200) as reservation:
        reservation.used = 9
        yield b"first"
        await asyncio.Event().wait()


def in_sync_code() -> Iterator[bytes]:
    with current_limits().reserve(200) as reservation:
        reservation.used = 9
        while True:
            yield b"chunk"


def streaming(body: Callable[[], Any]) -> Callable[[Any], Any]:
    async def endpoint(request: Any) -> StreamingResponse:
        return StreamingResponse(body())

    return endpoint


@pytest.mark.parametrize("body", [with_settle, with_reservation, in_sync_code])
def test_a_stream_whose_client_leaves_is_charged_what_it_used(body: Callable[[], Any]) -> None:
    service = Service(streaming(body))  # Starlette cancels the scope in which the stream is made
    asyncio.run(service.serve_until_settled())
    assert service.used() == 9


@pytest.mark.parametrize("body", [with_reservation, in_sync_code])
def test_a_stream_that_can_t_be_sent_is_charged_what_it_used(body: Callable[[], Any]) -> None:
    service = Service(streaming(body))
    asyncio.run(service.serve_until_settled(breaks=True))
    assert service.used() == 9


@pytest.mark.parametrize("body", [with_settle, with_reservation])
def test_a_task_that_is_cancelled_settles_and_then_ends(body: Callable[[], Any]) -> None:
    service = Service(streaming(body))

    async def serve() -> bool:
        begun = asyncio.Event()
        task = asyncio.create_task(service.serve(leaves=False, begun=begun))
        await begun.wait()
        service.limiter.asked = asyncio.Event()
        task.cancel()
        await service.limiter.asked.wait()
        task.cancel()  # a second time, while it settles
        with suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(serve())
    assert service.used() == 9


def test_a_request_that_ends_while_it_reserves_is_charged_for_nothing() -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        begun.set()
        async with current_limits().reserve(200):
            raise AssertionError

    service, begun = Service(endpoint), asyncio.Event()

    async def serve() -> None:
        task = asyncio.create_task(service.serve())
        await begun.wait()
        service.limiter.asked = asyncio.Event()
        await service.limiter.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    assert service.used() == 0


def test_work_goes_on_while_a_scope_of_anyio_or_trio_is_cancelled() -> None:
    async def work() -> str:
        for _ in range(5):
            await anyio.lowlevel.cancel_shielded_checkpoint()
        return "done"

    async def in_scope() -> tuple[str, bool]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            done = await shielded(work())
            await anyio.lowlevel.checkpoint()
        return done, scope.cancelled_caught

    assert anyio.run(in_scope) == ("done", True)
    assert trio.run(in_scope) == ("done", True)


def test_a_failure_of_shielded_work_reaches_who_waits_unless_it_was_cancelled() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise StoreUnavailableError("down")

    async def run(*, cancelled: bool) -> None:
        task = asyncio.create_task(shielded(failing()))
        await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        await task

    with pytest.raises(StoreUnavailableError):
        asyncio.run(run(cancelled=False))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(cancelled=True))


# Reservations


def test_a_reservation_without_room_is_refused_and_charges_nothing() -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        async with current_limits().reserve(1001):
            return PlainTextResponse("never")

    service = Service(endpoint)
    assert service.call() == 429
    assert service.used() == 0


def test_a_reservation_that_can_t_be_counted_is_refused_where_limits_must_hold() -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        service.limiter.is_down = True
        async with current_limits().reserve(5):
            return PlainTextResponse("never")

    service = Service(endpoint, on_limiter_error="closed")
    assert service.call() == 503


@pytest.mark.parametrize(("reserved", "used", "names"), [(200, 9, ()), (5, 300, ("key-day",))])
def test_work_that_fails_is_charged_what_it_used(
    reserved: int, used: int, names: tuple[str, ...]
) -> None:
    world = World(options={"default_limits": [RATE]})
    held: list[int] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        with suppress(ZeroDivisionError), current_limits().reserve(reserved, *names) as reservation:
            held.extend(status.remaining for status in current_limits())
            reservation.used += used
            raise ZeroDivisionError
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str([status.remaining for status in current_limits()]).encode()]

    guarded = wsgi.KeyguardMiddleware(app, world.guard)
    answer = call_wsgi(guarded, Request(authorization=(b"Bearer " + world.token().encode(),)))
    assert held == [1000 - reserved]
    assert answer.body == f"[{1000 - used}]".encode()


def test_what_was_paid_already_is_not_reserved_again() -> None:
    world = World(options={"default_limits": [RATE]})

    def app(environ: Any, start_response: Any) -> list[bytes]:
        current_limits().settle_sync(300)
        with current_limits().reserve(200):
            left = [status.remaining for status in current_limits()]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(left).encode()]

    guarded = wsgi.KeyguardMiddleware(app, world.guard)
    request = Request(authorization=(b"Bearer " + world.token().encode(),))
    assert call_wsgi(guarded, request).body == b"[700]"


def test_a_reservation_names_a_policy_of_the_request_and_takes_whole_units() -> None:
    world = World(options={"default_limits": [RATE]})

    def app(environ: Any, start_response: Any) -> list[bytes]:
        with pytest.raises(InvalidValueError, match="it has: key-day"):
            current_limits().reserve(5, "tokens").__enter__()
        with pytest.raises(InvalidValueError, match="whole number"):
            current_limits().reserve(0).__enter__()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    guarded = wsgi.KeyguardMiddleware(app, world.guard)
    request = Request(authorization=(b"Bearer " + world.token().encode(),))
    assert call_wsgi(guarded, request).status == 200


def test_a_wsgi_server_that_closes_a_stream_settles_it() -> None:
    world = World(options={"default_limits": [RATE]})
    issued = world.issue()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return in_sync_code()

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "http",
        "HTTP_AUTHORIZATION": f"Bearer {issued.token.reveal()}",
    }
    body: Any = wsgi.KeyguardMiddleware(app, world.guard)(environ, lambda *_: lambda _: None)
    assert next(body) == b"chunk"
    body.close()
    [status] = world.guard.keys.limits(issued.key.id)
    assert status.remaining == 991


# Work that is done stays charged


def paid(work: Callable[[], None], stream: Any = None, *, status: int = 200) -> int:
    """Return how many units a request is charged whose endpoint does some work.

    A stream is closed once the answer is there.
    """
    world = World(options={"default_limits": [RATE]})
    issued = world.issue()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        work()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    field = b"Bearer " + issued.token.reveal().encode()
    guarded = wsgi.KeyguardMiddleware(app, world.guard)
    assert call_wsgi(guarded, Request(authorization=(field,))).status == status
    if stream is not None:
        stream.close()
    [limit] = world.guard.keys.limits(issued.key.id)
    return limit.quota - limit.remaining


def test_a_refusal_after_work_is_done_refunds_what_is_beyond_it() -> None:
    def work() -> None:
        current_limits().settle_sync(40)
        with current_limits().reserve(60):
            current_limits().reserve(1001).__enter__()

    assert paid(work, status=429) == 40


def test_a_stream_of_a_refused_request_is_charged_what_it_used() -> None:
    stream = in_sync_code()

    def work() -> None:
        next(stream)
        with current_limits().reserve(1001):
            raise AssertionError

    assert paid(work, stream, status=429) == 9


def test_reservations_of_one_request_add_up() -> None:
    def work() -> None:
        for used in (40, 5):
            with current_limits().reserve(50) as reservation:
                reservation.used += used

    assert paid(work) == 45


def test_a_request_that_ends_while_it_reserves_stays_charged_for_what_it_settled() -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        await current_limits().settle(40)
        service.limiter.asked = asyncio.Event()
        begun.set()
        async with current_limits().reserve(200):
            raise AssertionError

    service, begun = Service(endpoint), asyncio.Event()

    async def serve() -> None:
        task = asyncio.create_task(service.serve())
        await begun.wait()
        assert service.limiter.asked is not None
        await service.limiter.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    assert service.used() == 40


def test_a_coroutine_that_is_closed_while_it_reserves_ends_at_once() -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        reserving = current_limits().reserve(200).__aenter__()
        reserving.send(None)
        reserving.close()
        return PlainTextResponse("closed")

    assert Service(endpoint).call() == 200


class OneAtATime:
    """A lock that tells when a second thread wants it."""

    def __init__(self, wanted: threading.Event) -> None:
        self._lock, self._wanted = threading.Lock(), wanted

    def acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._wanted.set()
            self._lock.acquire()

    def release(self) -> None:
        self._lock.release()


@pytest.mark.parametrize("where", [(Receipt, "paid"), (UsageCounts, "weigh")])
def test_two_threads_of_a_request_settle_the_same_difference_once(
    where: tuple[type[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(options={"default_limits": [RATE]})
    issued = world.issue()
    verdict: Any = world.guard.admit([f"Bearer {issued.token.reveal()}"], cost=100)
    halfway = threading.Event()
    met: list[bool] = []
    weighed: list[int] = []
    monkeypatch.setattr(receipt_lock, "_lock", OneAtATime(halfway))
    other = threading.Thread(target=lambda: (verdict.limits.settle_sync(9), halfway.set()))
    place, name = where
    original = getattr(place, name)

    def interrupted(self: Any, *args: Any) -> Any:
        result = original(self, *args)
        weighed.extend(args[2:])
        if not met:
            met.append(True)
            other.start()
            halfway.wait()
        return result

    monkeypatch.setattr(place, name, interrupted)
    verdict.limits.settle_sync(9)
    other.join()
    [limit] = world.guard.keys.limits(issued.key.id)
    assert (met, limit.quota - limit.remaining) == ([True], 9)
    assert sum(weighed) == (-91 if name == "weigh" else 0)
