"""Each request of a known key is counted once, by what became of it, behind every adapter."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from keyguard import AccessDenied, Allow, Deny, UsageTags, current_limits, rate_limit
from keyguard.adapters.asgi import KeyguardMiddleware
from keyguard.adapters.wsgi import KeyguardMiddleware as WSGIMiddleware
from keyguard.core.usage.values import GroupBy, Period, Question
from keyguard.runtime.sync import run_sync
from keyguard.stores.failover import CircuitBreaker
from tests.adapters.stacks import Answer, Request, Stack, call_asgi, call_wsgi, stacks, write
from tests.adapters.test_cases import Cast, bearer
from tests.world import World

YEAR = timedelta(days=365)


def counted(world: World, group_by: GroupBy = GroupBy.OUTCOME, **only: Any) -> Counter[str]:
    """Return the number of requests that the store was told of, by group."""
    found: Counter[str] = Counter()
    for _, group, n, _ in _totals(world, group_by, **only):
        found[group] += n
    return found


def units(world: World, group_by: GroupBy = GroupBy.OUTCOME) -> Counter[str]:
    return Counter({group: units for _, group, _, units in _totals(world, group_by)})


def _totals(world: World, group_by: GroupBy, **only: Any) -> Iterator[Any]:
    world.guard.flush()
    asyncio.run(world.async_guard.flush())
    start = world.acme.created_at.replace(minute=0, second=0) - YEAR
    for owner in (world.acme.id, world.other.id):
        question = Question(owner, (Period(start, start + 2 * YEAR),), group_by, **only)
        yield from run_sync(world.store.kept_usage.totals(question))


def by_status(answer: Answer) -> str:
    return {200: "allowed", 403: "scope_missing", 404: "object_not_found", 429: "rate_limited"}[
        answer.status
    ]


STACKS = [stack.name for stack in stacks(World())]


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("seed", range(3))
def test_totals_are_the_requests_that_were_answered(name: str, seed: int) -> None:
    world = World({"max_staleness": 3600.0})
    cast = Cast(world)
    (stack,) = [stack for stack in stacks(world) if stack.name == name]
    rng = random.Random(seed)
    live = ("live", "reader", "wildcard")
    dead = {
        "revoked": "key_revoked",
        "expired": "key_expired",
        "future": "key_not_yet_valid",
        "orphaned": "organization_disabled",
    }
    paths = ["/any", "/write", "/either", "/infer", "/object/none", "/settled/7", "/open"]
    expected: Counter[str] = Counter()
    for _ in range(120):
        who = rng.choice([*live, *live, *dead, "unknown", "wrong_secret", "wrong_checksum"])
        path = rng.choice(paths)
        answer = stack.call(bearer(getattr(cast, who), path=path))
        if path != "/open":
            if who in live:
                expected[by_status(answer)] += 1
            elif who in dead:
                expected[dead[who]] += 1
        if rng.random() < 0.1:
            world.clock.advance(timedelta(minutes=rng.choice([1, 16])))
            world.guard.flush()
            asyncio.run(world.async_guard.flush())

    # A refusal after its request was told waits for the next request of that key.
    for who in live:
        assert stack.call(bearer(getattr(cast, who))).status == 200
    expected["allowed"] += len(live)
    assert counted(world) == expected
    assert counted(world, GroupBy.NOTHING)[""] == expected.total()


def test_a_key_s_requests_are_those_of_its_family() -> None:
    world = World()
    issued = world.issue()
    rotated = world.guard.keys.rotate(issued.key.id, grace=timedelta(hours=1))
    assert rotated.token is not None
    for token, times in ((issued.token, 2), (rotated.token, 3)):
        for _ in range(times):
            world.guard.authenticate([f"Bearer {token.reveal()}"])

    assert counted(world, GroupBy.KEY) == {issued.key.id: 2, rotated.key.id: 3}
    assert counted(world, GroupBy.FAMILY) == {issued.key.family: 5}


def test_a_call_of_authenticate_is_a_request_with_or_without_the_scopes() -> None:
    world = World()
    token = world.token("inference:read")
    field = [f"Bearer {token}"]
    assert isinstance(world.guard.authenticate(field, scopes=["inference:read"]), Allow)
    assert isinstance(world.guard.authenticate(field, scopes=["admin"]), Deny)
    assert isinstance(world.guard.authenticate(field, fresh=True), Allow)

    assert counted(world) == {"allowed": 2, "scope_missing": 1}


def test_a_decision_that_is_renewed_for_an_open_websocket_is_no_request() -> None:
    world = World()
    field = [f"Bearer {world.token()}".encode()]
    asyncio.run(world.async_guard.decide(field))
    for _ in range(3):
        asyncio.run(world.async_guard.decide(field, fresh=True, is_attempt=False))

    assert counted(world) == {"allowed": 1}


# Refusals that an application handles itself


def asgi_service(handle: Callable[[], int]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = handle()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


def swallowed() -> int:
    try:
        write()
    except AccessDenied:
        return 200
    raise AssertionError


@pytest.mark.parametrize("warm", [False, True])
def test_a_refusal_that_the_application_swallows_is_none(warm: bool) -> None:
    world = World()
    app = KeyguardMiddleware(asgi_service(swallowed), world.async_guard)
    request = bearer(world.token("inference:read"))
    for _ in range(1 + warm):
        assert call_asgi(app, request).status == 200

    assert counted(world) == {"allowed": 1 + warm}


def test_a_refusal_that_the_application_answers_in_its_own_words_is_one() -> None:
    world = World()

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        try:
            write()
        except AccessDenied:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        try:
            write()
        except AccessDenied:
            start_response("403 No", [("Content-Type", "text/plain")])
            return [b"no"]

    request = bearer(world.token("inference:read"))
    for _ in range(2):
        asgi = KeyguardMiddleware(asgi_app, world.async_guard)
        assert call_asgi(asgi, request).body == b"no"
        assert call_wsgi(WSGIMiddleware(wsgi_app, world.guard), request).body == b"no"

    assert counted(world) == {"scope_missing": 4}


def test_a_refusal_that_is_answered_twice_is_counted_once() -> None:
    world = World()

    def fails(environ: Any, start_response: Any) -> Any:
        try:
            write()
        except AccessDenied:
            start_response("500 Oh", [])
            write()

    request = bearer(world.token("inference:read"))
    started: list[Any] = []
    app = WSGIMiddleware(fails, world.guard)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/any", "wsgi.url_scheme": "http",
               "HTTP_AUTHORIZATION": request.authorization[0].decode()}  # fmt: skip
    list(app(environ, lambda *start: started.append(start)))

    assert [start[0][:3] for start in started] == ["403"]
    assert counted(world) == {"scope_missing": 1}


def test_a_request_that_no_counter_could_count_is_counted_as_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"on_limiter_error": "closed", "default_limits": ["9/minute"]})

    async def down(self: Any, charges: Any) -> None:
        return None

    monkeypatch.setattr(world.async_guard.breaker, "memory", None)
    monkeypatch.setattr(CircuitBreaker, "hit", down)
    app = KeyguardMiddleware(asgi_service(lambda: 200), world.async_guard)
    request = bearer(world.token())
    assert [call_asgi(app, request).status for _ in range(3)] == [503] * 3

    assert counted(world) == {"limiter_unavailable": 3}


# Units and tags


@rate_limit("100/minute", cost=5)
def costly() -> int:
    return 200


def settled() -> int:
    costly()
    current_limits().settle_sync(40)
    current_limits().settle_sync(30)
    return 200


def settled_without_limits() -> int:
    current_limits().settle_sync(7)
    return 200


def refused_in_the_end() -> int:
    settled()
    return swallowed.__globals__["write"]() and 200


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (lambda: 200, {"allowed": 2}),
        (costly, {"allowed": 10}),
        (settled, {"allowed": 60}),
        (settled_without_limits, {"allowed": 14}),
        (refused_in_the_end, {"scope_missing": 0}),
    ],
)
def test_units_are_what_was_settled_or_the_cost(
    handle: Callable[[], int], expected: dict[str, int]
) -> None:
    world = World()
    request = bearer(world.token("inference:read"))
    app = KeyguardMiddleware(asgi_service(handle), world.async_guard)
    for _ in range(2):
        call_asgi(app, request)

    assert units(world) == expected


def test_requests_are_told_apart_by_tags() -> None:
    def tag_of(principal: Any, request: Any) -> Any:
        name = request.path.strip("/")
        if name == "fails":
            raise RuntimeError("the service's own fault")
        return None if name == "any" else name

    world = World({"usage_tags": UsageTags(["write", "chat"], tag_of)})
    token = world.token("inference:read")
    app = KeyguardMiddleware(asgi_service(lambda: 200), world.async_guard, public=["/open"])
    for _ in range(2):
        for path in ("/any", "/chat", "/fails", "/unknown", "/open"):
            assert call_asgi(app, bearer(token, path=path)).status == 200
    stack = stacks(world)[1]
    assert stack.call(bearer(token, path="/write")).status == 403

    assert counted(world, GroupBy.TAG) == {"": 2, "chat": 2, "other": 4, "write": 1}
    assert counted(world, GroupBy.TAG, outcome="scope_missing") == {"write": 1}


# Threads, rotations, evictions and drains at once


def mixed(stack: Stack, tokens: list[str], answers: int, seed: int, dead: set[int]) -> Counter[str]:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(answers):
        token = rng.choice(tokens)
        path = rng.choice(["/any", "/any", "/any", "/write", "/object/none", "/infer"])
        status = stack.call(bearer(token, path=path)).status
        seen["dead" if status in dead else by_status(Answer(status, (), b""))] += 1
    return seen


@pytest.mark.parametrize("cache_size", [3, 10_000])
def test_threads_lose_and_double_nothing_while_keys_rotate_and_counts_are_told(
    cache_size: int,
) -> None:
    world = World({"cache_size": cache_size, "max_staleness": 3600.0, "store_timeout": 60.0})
    stack = stacks(world)[1]
    issued = [world.issue("inference:write") for _ in range(4)]
    issued += [world.issue("inference:read") for _ in range(4)]
    tokens = [found.token.reveal() for found in issued]
    over = threading.Event()

    def disturb() -> None:
        rng = random.Random(1)
        while not over.is_set():
            world.guard.flush()
            world.guard.counts.outcomes()
            # Quarters go by, but not the ten seconds in which a request counts in an entry that it
            # found before it was dropped: threads are not as fast as this clock.
            world.clock.now += timedelta(minutes=1)
            world.clock.uptime += 0.01
            world.guard.keys.update(rng.choice(issued).key.id, name=f"name {rng.random()}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            work = [threads.submit(mixed, stack, tokens, 400, n, {401}) for n in range(8)]
            seen = sum((done.result() for done in work), Counter[str]())
    finally:
        over.set()
        disturber.join()
        sys.setswitchinterval(interval)
    for token in tokens:
        assert stack.call(bearer(token)).status == 200
    seen["allowed"] += len(tokens)

    assert counted(world) == seen
    assert world.guard.counts.lost == 0
    outcomes = world.guard.counts.outcomes()
    assert {name: n for name, n in outcomes.items() if n} == seen


def test_a_thousand_tasks_lose_and_double_nothing() -> None:
    world = World({"max_staleness": 3600.0, "cache_size": 2})
    tokens = [world.token("inference:write") for _ in range(4)]
    app = KeyguardMiddleware(asgi_service(lambda: write() and 200), world.async_guard)

    async def ask(number: int) -> None:
        token = tokens[number % 4]
        scope = {
            "type": "http", "method": "GET", "path": "/any", "query_string": b"", "scheme": "http",
            "headers": [(b"authorization", b"Bearer " + token.encode())],
        }  # fmt: skip
        sent: list[Any] = []

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        await app(scope, _nothing, send)
        assert sent[0]["status"] == 200
        if number % 50 == 0:
            await world.async_guard.flush()

    async def all_at_once() -> None:
        await asyncio.gather(*(ask(number) for number in range(1000)))

    asyncio.run(all_at_once())

    assert counted(world) == {"allowed": 1000}


async def _nothing() -> Any:
    raise AssertionError


def test_an_entry_that_was_forgotten_while_a_request_held_it_still_counts() -> None:
    """The request has found the entry; it adds one after the next collection."""
    world = World({"max_staleness": 3600.0})
    issued = world.issue()
    world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
    tokens = world.guard._ports.tokens
    (entry,) = tokens._entries.values()
    world.guard.keys.update(issued.key.id, name="other")
    assert len(tokens) == 0
    assert counted(world) == {"allowed": 1}

    entry.allowed += 1
    assert counted(world) == {"allowed": 2}


def test_requests_of_a_forked_child_are_its_own(tmp_path: Any) -> None:
    import os

    world = World({"max_staleness": 3600.0})
    token = world.token()
    field = f"Bearer {token}".encode()
    world.guard.authenticate([field])
    for _ in range(3):
        assert isinstance(world.guard._recall(field), Allow)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = world.guard.counts.outcomes()
            world.guard.authenticate([field])
            flush = [world.guard.counts.next_flush() for _ in range(1)]
            os.write(writing, f"{told.get('allowed')} {flush[0] is not None}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"0 True"
    os.close(reading)
    os.close(writing)

    assert counted(world) == {"allowed": 4}


def test_requests_go_on_while_no_usage_is_wanted() -> None:
    world = World({"usage": False})
    request = bearer(world.token())
    app = KeyguardMiddleware(asgi_service(lambda: 200), world.async_guard)
    assert [call_asgi(app, request).status for _ in range(3)] == [200] * 3

    assert counted(world) == {}
    assert world.async_guard.counts.outcomes() == {"allowed": 3}


def test_requests_of_public_paths_are_not_counted() -> None:
    world = World()
    app = KeyguardMiddleware(asgi_service(lambda: 200), world.async_guard)
    assert call_asgi(app, Request(path="/open")).status == 200
    assert call_asgi(app, bearer(world.token(), path="/open")).status == 200

    assert counted(world) == {}
