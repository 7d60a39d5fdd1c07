"""The application that WSGI servers serve, guarded or bare."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from keyguard import Keyguard, current_limits
from keyguard.adapters.wsgi import KeyguardMiddleware
from tests.servers.notes import (
    BARE,
    FOLDER,
    TOKEN,
    note,
    settings,
    store_url,
    wait_at_the_gate,
    who,
)

Environ = dict[str, Any]
HEADERS = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


def case_of(environ: Environ) -> str | None:
    return environ.get("HTTP_X_CASE")


def service(environ: Environ, start_response: Any) -> Iterable[bytes]:
    note(
        "served",
        case_of(environ),
        path=environ.get("PATH_INFO", ""),
        principal=who(environ.get("keyguard.principal")),
        method=environ["REQUEST_METHOD"],
    )
    answers: dict[str, Callable[[Environ, Any], Iterable[bytes]]] = {
        "/stream": stream, "/events": events, "/endless": endless, "/upload": upload,
        "/ticking": ticking, "/file": file, "/written": written, "/failing": failing,
        "/billed": billed,
    }  # fmt: skip
    return answers.get(environ.get("PATH_INFO", ""), plain)(environ, start_response)


def plain(environ: Environ, start_response: Any) -> Iterable[bytes]:
    size, _ = read_all(environ)
    start_response("200 OK", list(HEADERS))
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"served %d" % size]


def has_end(environ: Environ) -> bool:
    """Tell whether the server ends the input where the upload ends, so that it may be read."""
    return bool(environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated"))


def read_all(environ: Environ) -> tuple[int, bool]:
    """Return the size of the upload, and whether all of it came."""
    if not has_end(environ):
        return 0, True
    size, wanted = 0, int(environ.get("CONTENT_LENGTH") or sys.maxsize)
    try:
        while size < wanted:
            part = environ["wsgi.input"].read(min(1000, wanted - size))
            if not part:
                break
            size += len(part)
    except Exception:  # noqa: BLE001 - each server has its own way to say that nothing more comes
        return size, False
    return size, wanted in (size, sys.maxsize)


class Closing:
    """A body that notes how often it was closed."""

    def __init__(self, body: Iterator[bytes], environ: Environ) -> None:
        self._body, self._case = body, case_of(environ)

    def __iter__(self) -> Iterator[bytes]:
        return self._body

    def close(self) -> None:
        note("closed", self._case)


def stream(environ: Environ, start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        yield b"first"
        wait_at_the_gate("first")
        yield b"second"

    start_response("200 OK", list(HEADERS))
    return Closing(body(), environ)


def events(environ: Environ, start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        for number in range(3):
            yield b"id: %d\ndata: tick\n\n" % number
            wait_at_the_gate(f"event {number}")

    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return Closing(body(), environ)


def ticking(environ: Environ, start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            time.sleep(0.05)

    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return Closing(body(), environ)


def endless(environ: Environ, start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        yield b"first"
        wait_at_the_gate("first")
        for _ in range(2000):  # until nobody takes it any more
            yield bytes(65536)

    start_response("200 OK", list(HEADERS))
    return Closing(body(), environ)


def billed(environ: Environ, start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        try:
            with current_limits().reserve(200) as reservation:
                reservation.used = 9
                yield b"first"
                wait_at_the_gate("first")
                for _ in range(2000):  # until nobody takes it any more
                    yield bytes(65536)
        finally:
            note("settled", case_of(environ))

    start_response("200 OK", list(HEADERS))
    return body()


def upload(environ: Environ, start_response: Any) -> Iterable[bytes]:
    first = len(environ["wsgi.input"].read(5)) if has_end(environ) else 0
    wait_at_the_gate("read some" if first else "read nothing")
    if environ.get("CONTENT_LENGTH"):
        environ = {**environ, "CONTENT_LENGTH": str(int(environ["CONTENT_LENGTH"]) - first)}
    rest, whole = read_all(environ)
    note("uploaded", case_of(environ), size=first + rest, whole=whole)
    start_response("200 OK", list(HEADERS))
    return [b"served %d" % (first + rest)]


def file(environ: Environ, start_response: Any) -> Iterable[bytes]:
    wrapper = environ.get("wsgi.file_wrapper")
    note("offered", case_of(environ), file_wrapper=wrapper is not None)
    start_response("200 OK", list(HEADERS))
    opened = Path(__file__).open("rb")  # noqa: SIM115 - the server closes it
    if wrapper is not None:
        wrapped: Iterable[bytes] = wrapper(opened, 1000)
        return wrapped
    return Closing(iter(lambda: opened.read(1000), b""), environ)


def written(environ: Environ, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", list(HEADERS))
    write(b"written, ")
    write(b"twice, ")

    def body() -> Iterator[bytes]:
        yield b"and returned"

    return Closing(body(), environ)


def failing(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", list(HEADERS))
    try:
        raise RuntimeError("it failed before anything was sent")
    except RuntimeError:
        start_response("500 Internal Server Error", [("X-Failed", "yes")], sys.exc_info())
    return [b"failed"]


def probe(app: Any) -> Any:
    """Note what the server delivers, before anybody else sees it."""

    def noting(environ: Environ, start_response: Any) -> Iterable[bytes]:
        field = environ.get("HTTP_AUTHORIZATION")
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        note(
            "delivered",
            case_of(environ),
            authorization=[] if field is None else [field],
            path=environ.get("PATH_INFO", ""),
            raw_path=environ.get("RAW_URI") or environ.get("REQUEST_URI"),
            forwarded=[] if forwarded is None else [forwarded],
            client=environ.get("REMOTE_ADDR"),
        )
        body: Iterable[bytes] = app(environ, start_response)
        return body

    return noting


def build() -> Any:
    if os.environ.get(BARE):
        return service
    guard = Keyguard(store_url(os.environ[FOLDER]), settings=settings())
    if TOKEN in os.environ:
        assert guard.authenticate(f"Bearer {os.environ[TOKEN]}")
    return probe(KeyguardMiddleware(service, guard))


app = build()
