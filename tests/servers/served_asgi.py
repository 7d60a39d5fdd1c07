"""The application that ASGI servers serve, guarded or bare."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from keyguard import AsyncKeyguard, current_limits
from keyguard.adapters.asgi import KeyguardMiddleware
from tests.servers.notes import BARE, CASE, FOLDER, note, settings, store_url, wait_at_the_gate, who


def fields(scope: Any, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def case_of(scope: Any) -> str | None:
    return next(iter(fields(scope, CASE)), None)


async def service(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    note(
        "served",
        case_of(scope),
        path=scope["path"],
        principal=who(scope.get("keyguard.principal")),
        method=scope.get("method", "WEBSOCKET"),
    )
    if scope["type"] == "websocket":
        await talk(scope, receive, send)
    else:
        answers = {
            "/stream": stream, "/events": events, "/endless": endless, "/upload": upload,
            "/ticking": ticking, "/pathsend": pathsend, "/trailers": trailers, "/billed": billed,
        }  # fmt: skip
        await answers.get(scope["path"], plain)(scope, receive, send)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    size, _ = await read_all(receive)
    await start(send)
    await send({"type": "http.response.body", "body": b"served %d" % size})


async def start(send: Any, content_type: bytes = b"text/plain", **more: Any) -> None:
    headers = [(b"content-type", content_type), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, **more})


async def read_all(receive: Any) -> tuple[int, bool]:
    """Return the size of the upload, and whether all of it came."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return size, False
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return size, True


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await asyncio.to_thread(wait_at_the_gate, "first")
    await send({"type": "http.response.body", "body": b"second", "more_body": True})
    await send({"type": "http.response.body"})


async def events(scope: Any, receive: Any, send: Any) -> None:
    await start(send, b"text/event-stream")
    for number in range(3):
        event = b"id: %d\ndata: tick\n\n" % number
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.to_thread(wait_at_the_gate, f"event {number}")
    await send({"type": "http.response.body"})


async def ticking(scope: Any, receive: Any, send: Any) -> None:
    await start(send, b"text/event-stream")
    while True:
        await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
        await asyncio.sleep(0.05)


async def endless(scope: Any, receive: Any, send: Any) -> None:
    await read_all(receive)
    await start(send)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    message = await receive()
    note("ended", case_of(scope), by=message["type"])


async def billed(scope: Any, receive: Any, send: Any) -> None:
    async def tokens() -> AsyncIterator[bytes]:
        try:
            async with current_limits().reserve(200) as reservation:
                reservation.used = 9
                yield b"first"
                await asyncio.Event().wait()
        finally:
            note("settled", case_of(scope))

    await StreamingResponse(tokens())(scope, receive, send)


async def upload(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    size = len(message.get("body", b""))
    while size == 0 and message["type"] == "http.request":  # some tell of the request first
        message = await receive()
        size = len(message.get("body", b""))
    await asyncio.to_thread(wait_at_the_gate, "read some" if size else "read nothing")
    rest, whole = await read_all(receive)
    note("uploaded", case_of(scope), size=size + rest, whole=whole)
    if whole:
        await start(send)
        await send({"type": "http.response.body", "body": b"served %d" % (size + rest)})


async def pathsend(scope: Any, receive: Any, send: Any) -> None:
    offered = "http.response.pathsend" in (scope.get("extensions") or ())
    note("offered", case_of(scope), pathsend=offered)
    await start(send)
    if offered:
        await send({"type": "http.response.pathsend", "path": __file__})
    else:
        await send({"type": "http.response.body", "body": b"not offered"})


async def trailers(scope: Any, receive: Any, send: Any) -> None:
    offered = "http.response.trailers" in (scope.get("extensions") or ())
    note("offered", case_of(scope), trailers=offered)
    await start(send, trailers=offered)
    await send({"type": "http.response.body", "body": b"body"})
    if offered:
        await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"1")]})


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """Say back what is said, and what the handshake looked like from here."""
    message = await receive()
    assert message["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text") or ""
        answer = repr(scope["subprotocols"]) if text == "subprotocols" else text
        await send({"type": "websocket.send", "text": answer})
    note("ended", case_of(scope), by=message["type"], code=message.get("code"))


class Probe:
    """Notes what the server delivers, before anybody else sees it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            raw = scope.get("raw_path")
            note(
                "delivered",
                case_of(scope),
                authorization=fields(scope, "authorization"),
                path=scope["path"],
                raw_path=None if raw is None else raw.decode("latin-1"),
                forwarded=fields(scope, "x-forwarded-for"),
                client=scope.get("client") and scope["client"][0],
                refusable="websocket.http.response" in (scope.get("extensions") or ()),
            )
        await self.app(scope, receive, send)


def build() -> Any:
    if os.environ.get(BARE):
        return service
    guard = AsyncKeyguard(store_url(os.environ[FOLDER]), settings=settings())
    return Probe(KeyguardMiddleware(service, guard))


app = build()
