"""Calling an application as a server would, but without a server: the time is its own."""

from __future__ import annotations

import asyncio
import io
import itertools
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, thread_time
from typing import Any

from benchmarks.timing import Burst

PATH = "/v1/models"

_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": PATH,
    "raw_path": PATH.encode(),
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 5555),
    "server": ("127.0.0.1", 8000),
}
_HEADERS = [(b"host", b"localhost"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]
_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": PATH,
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "localhost",
    "HTTP_USER_AGENT": "benchmark",
    "HTTP_ACCEPT": "*/*",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}

_status = 0


def asgi(
    loop: asyncio.AbstractEventLoop,
    app: Any,
    fields: Sequence[str | None],
    *,
    expect: int = 200,
    waits: bool = False,
) -> Burst:
    """Return the burst that calls an ASGI application.

    Args:
        loop: Where it runs.
        app: The application.
        fields: ``Authorization`` values, used in turn; None for a request without one.
        expect: The status that every answer must have.
        waits: Whether it waits for anything. Then time is measured by the clock on the wall, else
            by this thread's own, in which other programs have no part.
    """
    clock = perf_counter if waits else thread_time
    headers = [
        [*_HEADERS, *([(b"authorization", field.encode())] if field else [])] for field in fields
    ]

    async def calls(size: int) -> float:
        begin = clock()
        for present in itertools.islice(itertools.cycle(headers), size):
            await app({**_SCOPE, "headers": present, "state": {}}, _receive, _send)
        return clock() - begin

    def burst(size: int) -> float:
        seconds = loop.run_until_complete(calls(size))
        _check(expect)
        return seconds

    return burst


def one_asgi(app: Any, field: str) -> Callable[[], Awaitable[None]]:
    """Return a coroutine function that sends an ASGI application one request.

    Args:
        app: The application.
        field: The ``Authorization`` value.
    """
    headers = [*_HEADERS, (b"authorization", field.encode())]

    async def request() -> None:
        await app({**_SCOPE, "headers": headers, "state": {}}, _receive, _send)
        _check(200)

    return request


def wsgi(
    app: Any, fields: Sequence[str | None], *, expect: int = 200, waits: bool = False
) -> Burst:
    """Return the burst that calls a WSGI application; else like :func:`asgi`."""
    clock = perf_counter if waits else thread_time
    headers = [{"HTTP_AUTHORIZATION": field} if field else {} for field in fields]

    def burst(size: int) -> float:
        begin = clock()
        for present in itertools.islice(itertools.cycle(headers), size):
            body = app({**_ENVIRON, "wsgi.input": io.BytesIO(), **present}, _start_response)
            for _ in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()
        seconds = clock() - begin
        _check(expect)
        return seconds

    return burst


def burst(
    loop: asyncio.AbstractEventLoop,
    interface: str,
    app: Any,
    fields: Sequence[str | None],
    **options: Any,
) -> Burst:
    """Return the burst that calls an application of either interface.

    Args:
        loop: Where async code runs.
        interface: ``"asgi"`` or ``"wsgi"``, in either case of letters.
        app: The application.
        fields: As for :func:`asgi`.
        options: Likewise.
    """
    if interface.lower() == "asgi":
        return asgi(loop, app, fields, **options)
    return wsgi(app, fields, **options)


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    global _status  # noqa: PLW0603 - the cheapest server there is
    if message["type"] == "http.response.start":
        _status = message["status"]


def _start_response(status: str, headers: Any, exc_info: Any = None) -> Any:  # noqa: ARG001
    global _status  # noqa: PLW0603 - likewise
    _status = int(status[:3])


def _check(expect: int) -> None:
    if _status != expect:
        raise AssertionError(f"a benchmark answered {_status} instead of {expect}")
