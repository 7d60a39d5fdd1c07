"""Django around the service of stacks.py, over WSGI and ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.adapters.django_site import READS, asgi_handler, wsgi_handler
from tests.world import World


def django_wsgi(reads: list[str], world: World) -> Any:
    return _read_into(reads, wsgi_handler(world.guard))


def django_asgi(reads: list[str], world: World) -> Any:
    inner = over_asgi(asgi_handler(world.async_guard))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        READS.set(reads)
        await inner(scope, receive, send)

    return app


def over_asgi(handler: Any) -> Any:
    """Return a handler as a server calls it, for a client that sends no body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = _Body()

        async def lower(message: Any) -> None:
            if "headers" in message:  # Django leaves the case of names to the server
                headers = [(name.lower(), value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                body.answered.set()

        await handler(scope, body, lower)

    return app


def _read_into(reads: list[str], handler: Callable[..., Any]) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        READS.set(reads)
        return handler(environ, start_response)

    return app


class _Body:
    """Nothing, and the client's end once it has the answer, for which Quart waits.

    Django reads the body before any middleware.
    """

    _read = False

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def __call__(self) -> Any:
        if self._read:
            await self.answered.wait()
            return {"type": "http.disconnect"}
        self._read = True
        return {"type": "http.request", "body": b"", "more_body": False}
