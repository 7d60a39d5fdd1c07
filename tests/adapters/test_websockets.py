"""WebSockets: tokens in subprotocols, one charge a connection, and the end of a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import trio

from keyguard import AsyncKeyguard, ConfigurationError, Rule, current_principal
from keyguard.adapters.asgi import KeyguardMiddleware
from keyguard.stores.memory.keys import AsyncMemoryStore
from tests.test_secrecy import frames_of_keyguard, shows
from tests.world import World

EXTENSIONS = {"websocket.http.response": {}}
PROTOCOL = "keyguard.bearer"
PATIENCE = 60.0  # seconds after which a test that waits for what can't come gives up


class Socket:
    """The server's side of one WebSocket."""

    def __init__(
        self, token: str | None = None, *, offers: tuple[str, ...] = (), **scope: Any
    ) -> None:
        headers = [(b"host", b"localhost")]
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        if offers:
            headers.append((b"sec-websocket-protocol", ", ".join(offers).encode()))
        self.scope = {
            "type": "websocket",
            "path": "/any",
            "headers": headers,
            "subprotocols": list(offers),
            "scheme": "ws",
            "client": ("192.0.2.7", 5555),
            "extensions": EXTENSIONS,
        } | scope
        self.sent: list[Any] = []
        self.closed = asyncio.Event()
        self.accepted = asyncio.Event()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self) -> Any:
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.accept":
            self.accepted.set()
        if message["type"] == "websocket.close":
            self.closed.set()
            self.messages.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})


def within(seconds: float, course: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(seconds):
            return await course

    return asyncio.run(bounded())


def world(**options: Any) -> World:
    return World(options=options)


def serve(here: World, socket: Socket, app: Any = echo) -> Awaitable[None]:
    return KeyguardMiddleware(app, here.async_guard)(socket.scope, socket.receive, socket.send)


def seen_by(here: World, socket: Socket) -> Any:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "websocket.accept", "subprotocol": None})

    within(PATIENCE, serve(here, socket, app))
    return seen[0] if seen else None


# A token in a subprotocol


def test_a_browser_offers_its_token_as_a_subprotocol() -> None:
    here = world(websocket_protocol=PROTOCOL)
    issued = here.issue()
    for _ in range(2):  # cold and warm
        socket = Socket(offers=(PROTOCOL, f"{PROTOCOL}.{issued.token.reveal()}"))
        scope = seen_by(here, socket)
        assert scope["keyguard.principal"].key_id == issued.key.id
        assert socket.sent == [{"type": "websocket.accept", "subprotocol": PROTOCOL}]


def test_the_application_sees_no_token() -> None:
    here = world(websocket_protocol=PROTOCOL)
    token = here.token()
    scope = seen_by(here, Socket(offers=("chat", PROTOCOL, f"{PROTOCOL}.{token}")))
    assert scope["subprotocols"] == ["chat"]
    assert (b"sec-websocket-protocol", b"chat") in scope["headers"]
    assert token not in repr(scope)


def test_the_application_s_own_choice_of_a_subprotocol_stays() -> None:
    here = world(websocket_protocol=PROTOCOL)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": "chat"})

    socket = Socket(offers=("chat", PROTOCOL, f"{PROTOCOL}.{here.token()}"))
    within(PATIENCE, serve(here, socket, app))
    assert socket.sent[0]["subprotocol"] == "chat"


def test_a_subprotocol_that_was_not_offered_alone_is_not_answered() -> None:
    here = world(websocket_protocol=PROTOCOL)
    socket = Socket(offers=(f"{PROTOCOL}.{here.token()}",))
    assert seen_by(here, socket) is not None
    assert socket.sent == [{"type": "websocket.accept", "subprotocol": None}]


@pytest.mark.parametrize(
    ("offers", "status"),
    [
        ((PROTOCOL,), 401),
        ((f"{PROTOCOL}.garbage",), 401),
        ((f"{PROTOCOL}.",), 400),
        ((f"{PROTOCOL}.a b",), 400),
    ],
)
def test_a_subprotocol_without_a_live_key_is_refused(offers: tuple[str, ...], status: int) -> None:
    socket = Socket(offers=offers)
    assert seen_by(world(websocket_protocol=PROTOCOL), socket) is None
    assert socket.sent[0]["status"] == status


def test_a_path_that_takes_another_login_leaves_it_to_the_application() -> None:
    here = world(rules=[Rule("/any", also="session")], close_on_revoke=True)
    jwt, guess = Socket("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"), Socket("aiaas_live_4711")
    assert seen_by(here, Socket())["keyguard.principal"] is None
    assert seen_by(here, jwt)["keyguard.principal"] is None
    assert seen_by(here, guess) is None


def test_two_tokens_are_one_too_many() -> None:
    here = world(websocket_protocol=PROTOCOL)
    token = here.token()
    for socket in (
        Socket(token, offers=(f"{PROTOCOL}.{token}",)),
        Socket(offers=(f"{PROTOCOL}.{token}", f"{PROTOCOL}.{token}")),
    ):
        assert seen_by(here, socket) is None
        assert socket.sent[0]["status"] == 400


def test_unless_it_is_settled_subprotocols_carry_no_token() -> None:
    here = world()
    offers = (PROTOCOL, f"{PROTOCOL}.{here.token()}")
    socket = Socket(offers=offers)
    assert seen_by(here, socket) is None
    assert socket.sent[0]["status"] == 401
    assert seen_by(here, Socket(here.token(), offers=offers))["subprotocols"] == list(offers)


def test_a_server_that_says_nothing_of_subprotocols_gives_no_token() -> None:
    here = world(websocket_protocol=PROTOCOL)
    socket = Socket()
    del socket.scope["subprotocols"]
    assert seen_by(here, socket) is None


# Limits and rules


def test_a_connection_is_charged_once() -> None:
    here = world(default_limits=["2/minute"])
    token = here.token()

    async def talk() -> list[str]:
        socket = Socket(token)
        for text in "abc":
            socket.messages.put_nowait({"type": "websocket.receive", "text": text})
        socket.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serve(here, socket)
        return socket.kinds

    spoken = ["websocket.accept", *["websocket.send"] * 3]
    assert [within(PATIENCE, talk()) for _ in range(2)] == [spoken, spoken]
    refused = Socket(token)
    within(PATIENCE, serve(here, refused))
    assert refused.sent[0]["type"] == "websocket.http.response.start"
    assert refused.sent[0]["status"] == 429


def test_a_websocket_is_guarded_by_the_rule_for_get() -> None:
    here = world(rules=[Rule("/any", methods=["GET"], scopes=["admin"])])
    socket = Socket(here.token())
    within(PATIENCE, serve(here, socket))
    assert socket.sent[0]["status"] == 403


# The end of a key


Ending = Callable[[World, Any], object]

ENDINGS: dict[str, Ending] = {
    "revoked": lambda here, key: here.guard.keys.revoke(key.id),
    "rotated": lambda here, key: here.guard.keys.rotate(key.id, grace=timedelta(0)),
    "organization disabled": lambda here, key: here.guard.organizations.disable("acme"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_connection_ends_with_its_key(how: str) -> None:
    here = world(close_on_revoke=True, max_staleness=3600.0)
    issued, other = here.issue(), here.issue(organization="other")

    async def main() -> None:
        ending, staying = Socket(issued.token.reveal()), Socket(other.token.reveal())
        middleware = KeyguardMiddleware(echo, here.async_guard)
        tasks = [
            asyncio.create_task(middleware(socket.scope, socket.receive, socket.send))
            for socket in (ending, staying)
        ]
        await ending.accepted.wait()
        await staying.accepted.wait()
        ENDINGS[how](here, issued.key)
        await ending.closed.wait()
        await tasks[0]
        assert ending.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": ""}
        staying.messages.put_nowait({"type": "websocket.receive", "text": "still here"})
        staying.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await tasks[1]
        assert staying.kinds == ["websocket.accept", "websocket.send"]

    within(PATIENCE, main())


def test_a_change_that_was_not_told_is_found_in_time() -> None:
    # Two guards that know nothing of each other's memory, over one store without a feed.
    here = World(options={"close_on_revoke": True, "max_staleness": 0.4})
    guard = AsyncKeyguard(
        AsyncMemoryStore(here.store), settings=here.guard.settings, hooks=[here.events.append]
    )
    issued = here.issue()

    async def main() -> float:
        socket = Socket(issued.token.reveal())
        middleware = KeyguardMiddleware(echo, guard)
        task = asyncio.create_task(middleware(socket.scope, socket.receive, socket.send))
        await socket.accepted.wait()
        record = here.store.find_key(issued.key.id)
        assert record is not None
        # As another process would: this one's memories hear nothing of it.
        from dataclasses import replace

        here.store._keys[issued.key.id] = replace(record.key, revoked_at=here.clock.now)
        await socket.closed.wait()
        await task
        return socket.sent[-1]["code"]

    assert within(PATIENCE, main()) == 1008
    assert here.events == []  # the client has tried nothing


def test_open_websockets_close_while_the_store_is_down() -> None:
    here = World()

    class Failing:
        down = False

        def __getattr__(self, name: str) -> Any:
            return getattr(here.async_guard._store, name)

        async def find_key(self, key_id: str) -> Any:
            if self.down:
                raise OSError("the store is down")
            return here.store.find_key(key_id)

    store = Failing()
    guard = AsyncKeyguard(
        store,
        settings=here.guard.settings,
        hooks=[here.events.append],
        close_on_revoke=True,
        max_staleness=0.4,
    )
    token = here.token()

    async def main() -> int:
        socket = Socket(token)
        middleware = KeyguardMiddleware(echo, guard)
        task = asyncio.create_task(middleware(socket.scope, socket.receive, socket.send))
        await socket.accepted.wait()
        began = time.monotonic()
        store.down = True
        await socket.closed.wait()
        assert time.monotonic() - began < PATIENCE
        await task
        code: int = socket.sent[-1]["code"]
        return code

    assert within(PATIENCE, main()) == 1013


async def opened(middleware: Any, token: str, **options: Any) -> tuple[Socket, Any]:
    socket = Socket(token)
    for name, value in options.items():
        setattr(socket, name, value)
    task = asyncio.create_task(middleware(socket.scope, socket.receive, socket.send))
    await socket.accepted.wait()
    return socket, task


async def left(socket: Socket, task: Any) -> None:
    socket.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await task


def test_a_websocket_that_opens_while_the_last_closes_is_watched_too() -> None:
    here = world(close_on_revoke=True, max_staleness=3600.0)
    first, second = here.issue(), here.issue()

    async def main() -> None:
        middleware = KeyguardMiddleware(echo, here.async_guard)
        leaving, going = await opened(middleware, first.token.reveal())
        leaving.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        staying, task = await opened(middleware, second.token.reveal())
        await going
        here.guard.keys.revoke(second.key.id)
        await staying.closed.wait()
        await task

    within(PATIENCE, main())


def test_a_client_that_left_or_reads_nothing_delays_no_other_close() -> None:
    here = world(close_on_revoke=True, max_staleness=3600.0)
    gone, stuck, other = here.issue(), here.issue(), here.issue()

    async def main() -> None:
        async def lingering(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await asyncio.Event().wait()

        closing: list[str] = []

        def unable(how: str, socket_send: Any) -> Any:
            async def send(message: Any) -> None:
                if message["type"] == "websocket.close":
                    closing.append(how)
                    if how == "gone":
                        raise RuntimeError("it was closed before")
                    await asyncio.Event().wait()
                await socket_send(message)

            return send

        middleware = KeyguardMiddleware(lingering, here.async_guard)
        tasks = []
        for how, issued in (("gone", gone), ("stuck", stuck)):
            socket = Socket(issued.token.reveal())
            socket.send = unable(how, socket.send)  # type: ignore[method-assign]
            tasks.append(asyncio.create_task(middleware(socket.scope, socket.receive, socket.send)))
            await socket.accepted.wait()
        last, task = await opened(middleware, other.token.reveal())
        for issued in (gone, stuck, other):
            here.guard.keys.revoke(issued.key.id)
        await last.closed.wait()
        assert set(closing) == {"gone", "stuck"}
        for running in (*tasks, task):
            running.cancel()
        await asyncio.wait([*tasks, task])

    within(PATIENCE, main())


def test_a_finished_event_loop_is_not_kept_alive() -> None:
    here = world(close_on_revoke=True)
    middleware = KeyguardMiddleware(echo, here.async_guard)
    token = here.token()

    async def main() -> None:
        await left(*(await opened(middleware, token)))

    within(PATIENCE, main())
    assert middleware._open_websockets is not None
    assert len(middleware._open_websockets._watches) == 0


def test_no_frame_of_ours_shows_the_token_of_a_watched_connection() -> None:
    here = world(close_on_revoke=True)
    token = here.token()

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    socket = Socket(token)
    with pytest.raises(ZeroDivisionError) as failed:
        within(PATIENCE, serve(here, socket, failing))
    assert not shows(frames_of_keyguard(failed.value), token)


def test_an_application_that_only_sends_is_told_that_it_is_over() -> None:
    here = world(close_on_revoke=True, max_staleness=3600.0)
    issued = here.issue()
    raised: list[BaseException] = []

    async def sending(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0)
        except OSError as over:
            raised.append(over)

    async def main() -> None:
        socket = Socket(issued.token.reveal())
        task = asyncio.create_task(serve(here, socket, sending))  # type: ignore[arg-type]
        await socket.accepted.wait()
        here.guard.keys.revoke(issued.key.id)
        await task
        assert socket.kinds[-1] == "websocket.close"
        assert socket.kinds.count("websocket.close") == 1

    within(PATIENCE, main())
    assert "its key was revoked" in str(raised[0])


def test_an_application_that_receives_after_the_end_is_told_of_it() -> None:
    here = world(close_on_revoke=True, max_staleness=3600.0)
    issued = here.issue()
    received: list[Any] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await socket.closed.wait()
        received.append(await receive())

    async def main() -> None:
        task = asyncio.create_task(serve(here, socket, late))  # type: ignore[arg-type]
        await socket.accepted.wait()
        here.guard.keys.revoke(issued.key.id)
        await task

    async def whole() -> None:
        global_socket = Socket(issued.token.reveal())
        nonlocal socket
        socket = global_socket
        await main()

    socket = Socket()
    within(PATIENCE, whole())
    assert received == [{"type": "websocket.disconnect", "code": 1008, "reason": ""}]


def test_without_the_setting_a_connection_outlives_its_key() -> None:
    here = world()
    issued = here.issue()

    async def main() -> list[str]:
        socket = Socket(issued.token.reveal())
        task = asyncio.create_task(serve(here, socket))  # type: ignore[arg-type]
        await socket.accepted.wait()
        here.guard.keys.revoke(issued.key.id)
        socket.messages.put_nowait({"type": "websocket.receive", "text": "still here"})
        socket.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task
        return socket.kinds

    assert within(PATIENCE, main()) == ["websocket.accept", "websocket.send"]


def test_the_worker_ends_with_the_last_connection() -> None:
    here = world(close_on_revoke=True)
    token = here.token()

    async def main() -> None:
        socket = Socket(token)
        socket.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serve(here, socket)
        workers = [task for task in asyncio.all_tasks() if task.get_name() == "keyguard-websockets"]
        await asyncio.wait(workers) if workers else None
        assert all(task.done() for task in workers)
        assert here.async_guard._ports.tokens._watchers == []

    within(PATIENCE, main())


def test_a_public_path_has_no_key_that_could_end() -> None:
    here = world(close_on_revoke=True)

    async def main() -> list[str]:
        socket = Socket(path="/open")
        socket.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serve(here, socket)
        assert not [
            task for task in asyncio.all_tasks() if task.get_name() == "keyguard-websockets"
        ]
        return socket.kinds

    assert within(PATIENCE, main()) == ["websocket.accept"]


def test_another_kind_of_event_loop_is_refused() -> None:
    here = world(close_on_revoke=True)
    socket = Socket(here.token())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        current_principal()
        raise AssertionError("it was let in")

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="needs an event loop of asyncio"):
            await serve(here, socket, app)

    trio.run(main)
    assert socket.sent == []
