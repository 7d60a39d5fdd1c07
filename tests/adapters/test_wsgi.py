"""What only WSGI has: lazy bodies, close, write, exc_info, file wrappers (PEP 3333)."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from keyguard import (
    AccessDenied,
    AsyncKeyguard,
    ConfigurationError,
    current_principal,
    require_scopes,
)
from keyguard.adapters.wsgi import KeyguardMiddleware
from keyguard.request.context import present_request
from tests.world import World


class Wire:
    """The server's side of one request."""

    def __init__(self, token: str | None = None, **environ: Any) -> None:
        self.environ: dict[str, Any] = {"PATH_INFO": "/any"} | environ
        setup_testing_defaults(self.environ)
        if token is not None:
            self.environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        self.started: list[Any] = []
        self.written: list[bytes] = []

    def start_response(self, status: str, headers: Any, *exc_info: Any) -> Any:
        if self.started and not exc_info:
            raise AssertionError("start_response was called twice without exc_info")
        self.started.append((int(status[:3]), *exc_info))
        return self.written.append

    def run(self, app: Any) -> bytes:
        body = app(self.environ, self.start_response)
        try:
            return b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()

    @property
    def status(self) -> int:
        status: int = self.started[-1][0]
        return status


@pytest.fixture
def world() -> World:
    return World()


def guarded(world: World, app: Any) -> KeyguardMiddleware:
    return KeyguardMiddleware(app, world.guard)


def refuse() -> None:
    require_scopes("admin")(lambda: None)()


class Body:
    """A body that counts what is done to it."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        assert present_request() is not None
        self.closed += 1


def test_the_principal_is_in_the_environ_and_in_the_context(world: World) -> None:
    issued = world.issue()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["keyguard.principal"] is current_principal()
        start_response("200 OK", [])
        return [current_principal().key_id.encode()]

    assert Wire(issued.token.reveal()).run(guarded(world, app)) == issued.key.id.encode()
    assert present_request() is None


def test_a_client_can_t_name_a_principal(world: World) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["keyguard.principal"] is None
        start_response("200 OK", [])
        return []

    wire = Wire(PATH_INFO="/open", HTTP_KEYGUARD_PRINCIPAL="root")
    wire.environ["keyguard.principal"] = "left over"
    wire.run(guarded(world, app))
    assert wire.status == 200


def test_the_principal_is_there_while_a_generator_runs(world: World) -> None:
    issued = world.issue()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield current_principal().key_id.encode()

    wire = Wire(issued.token.reveal())
    body = guarded(world, app)(wire.environ, wire.start_response)
    assert present_request() is None
    assert next(iter(body)) == issued.key.id.encode()
    assert present_request() is None


@pytest.mark.parametrize("read", [True, False])
def test_a_body_is_closed_once_read_or_not(world: World, *, read: bool) -> None:
    body = Body(b"a", b"b")

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return body

    wire = Wire(world.token())
    result: Any = guarded(world, app)(wire.environ, wire.start_response)
    if read:
        assert b"".join(result) == b"ab"
    result.close()
    result.close()

    assert body.closed == 1


def test_lists_pass_as_they_are(world: World) -> None:
    made = [b"a", b"b"]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return made

    wire = Wire(world.token())
    assert guarded(world, app)(wire.environ, wire.start_response) is made


def test_the_server_s_file_wrapper_passes_as_it_is(world: World) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))

    wire = Wire(world.token())
    wire.environ["wsgi.file_wrapper"] = FileWrapper
    body = guarded(world, app)(wire.environ, wire.start_response)

    assert type(body) is FileWrapper


def test_write_and_exc_info_reach_the_server(world: World) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            write = start_response("500 Oops", [], sys.exc_info())
        write(b"written")
        return []

    wire = Wire(world.token())
    wire.run(guarded(world, app))

    assert wire.written == [b"written"]
    assert [started[0] for started in wire.started] == [200, 500]
    assert wire.started[1][1][0] is ZeroDivisionError


def at_once(environ: Any, start_response: Any) -> Iterable[bytes]:
    refuse()
    return []


def at_first_chunk(environ: Any, start_response: Any) -> Iterator[bytes]:
    refuse()
    yield b"never"


def after_start(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    refuse()
    return []


def at_first_chunk_after_start(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    refuse()
    yield b"never"


def hiding(environ: Any, start_response: Any) -> Iterable[bytes]:
    try:
        refuse()
    except AccessDenied:
        write = start_response("500 INTERNAL SERVER ERROR", [], sys.exc_info())
        write(b"discarded")
    return Body(b"framework's page")


def hiding_lazily(environ: Any, start_response: Any) -> Iterator[bytes]:
    try:
        refuse()
    except AccessDenied:
        start_response("500 INTERNAL SERVER ERROR", [])
    yield b"framework's"
    yield b"page"


def in_a_list_of_two(environ: Any, start_response: Any) -> Iterable[bytes]:
    try:
        refuse()
    except AccessDenied:
        start_response("500 INTERNAL SERVER ERROR", [])
    return [b"framework's", b"page"]


@pytest.mark.parametrize(
    "app",
    [
        at_once,
        at_first_chunk,
        after_start,
        at_first_chunk_after_start,
        hiding,
        hiding_lazily,
        in_a_list_of_two,
    ],
    ids=lambda app: app.__name__,
)
def test_a_refusal_inside_is_answered_once_however_it_comes_out(world: World, app: Any) -> None:
    wire = Wire(world.token())

    content = wire.run(guarded(world, app))

    assert wire.status == 403
    assert b"It needs the scopes: admin" in content
    assert b"framework" not in content
    assert wire.written == []
    assert len(world.events) == 1


def empty_after_start(environ: Any, start_response: Any) -> Iterator[bytes]:
    try:
        refuse()
    except AccessDenied:
        start_response("500 INTERNAL SERVER ERROR", [])
    yield from ()


def test_a_replaced_answer_is_whole_though_the_application_s_is_empty(world: World) -> None:
    wire = Wire(world.token())

    assert b"It needs the scopes: admin" in wire.run(guarded(world, empty_after_start))


@pytest.mark.parametrize("app", [hiding, hiding_lazily, in_a_list_of_two, at_first_chunk])
def test_a_replaced_answer_to_head_has_no_body(world: World, app: Any) -> None:
    wire = Wire(world.token(), REQUEST_METHOD="HEAD")

    assert wire.run(guarded(world, app)) == b""
    assert wire.status == 403


def test_an_application_may_take_over_after_its_error_was_replaced(world: World) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            refuse()
        except AccessDenied:
            start_response("500 INTERNAL SERVER ERROR", [])
            start_response("200 OK", [], sys.exc_info())
        return [b"ok"]

    wire = Wire(world.token())

    assert wire.run(guarded(world, app)) == b"ok"
    assert wire.status == 200


def test_the_application_s_own_errors_after_a_refusal_are_its_own(world: World) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        with contextlib.suppress(AccessDenied):
            refuse()
        start_response("503 Service Unavailable", [])
        return [b"mine"]

    wire = Wire(world.token())

    assert wire.run(guarded(world, app)) == b"mine"
    assert wire.status == 503


def test_an_application_may_answer_a_refusal_itself(world: World) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            refuse()
        except AccessDenied:
            start_response("402 Payment Required", [])
        return [b"pay"]

    wire = Wire(world.token())
    assert wire.run(guarded(world, app)) == b"pay"
    assert wire.status == 402


def test_a_refusal_after_the_first_chunk_breaks_the_answer_off(world: World) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        refuse()

    wire = Wire(world.token())

    def start_response(status: str, headers: Any, *exc_info: Any) -> Any:
        if exc_info:  # as a server must, once it has sent the headers
            raise exc_info[0][1].with_traceback(exc_info[0][2])
        return wire.start_response(status, headers)

    with pytest.raises(AccessDenied):
        b"".join(guarded(world, app)(wire.environ, start_response))


def test_an_error_of_the_application_comes_out_and_the_context_is_as_before(world: World) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise ZeroDivisionError

    def lazily(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise ZeroDivisionError

    for failing in (app, lazily):
        with pytest.raises(ZeroDivisionError):
            Wire(world.token()).run(guarded(world, failing))
        assert present_request() is None


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"PATH_INFO": "/open"}, 200),
        ({"PATH_INFO": "/open", "SCRIPT_NAME": "/api"}, 200),
        ({"PATH_INFO": "", "SCRIPT_NAME": "/open"}, 401),
        ({"PATH_INFO": "/api/open", "SCRIPT_NAME": ""}, 401),
        ({"PATH_INFO": "/open", "REQUEST_URI": "/%2fopen"}, 401),
        ({"PATH_INFO": "/open", "REQUEST_URI": "/open?x=%2f"}, 200),
        ({"PATH_INFO": "/open", "REQUEST_URI": "http://host/open"}, 401),
        ({"PATH_INFO": "/caf\u00c3\u00a9"}, 200),
        ({"PATH_INFO": "/caf\u00e9"}, 401),
    ],
)
def test_a_public_path_is_the_one_that_the_router_sees(
    world: World, environ: Any, status: int
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    wire = Wire(**environ)
    wire.run(KeyguardMiddleware(app, world.guard, public=["/open", "/café"]))

    assert wire.status == status


def test_only_a_sync_guard_stands_in_front_of_wsgi() -> None:
    with pytest.raises(ConfigurationError, match="takes a Keyguard, not AsyncKeyguard"):
        KeyguardMiddleware(at_once, AsyncKeyguard("memory://"))  # type: ignore[arg-type]


def test_asking_for_the_principal_on_a_public_path_changes_no_answer_of_the_application(
    world: World,
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        with contextlib.suppress(AccessDenied):
            current_principal()
        start_response("500 Mine", [])
        return [b"mine"]

    wire = Wire(PATH_INFO="/open")

    assert wire.run(guarded(world, app)) == b"mine"
    assert wire.status == 500
    assert world.events == []
