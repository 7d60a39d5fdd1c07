"""What streams passes the guard untouched: a server with a guarded and with a bare application.

Every scene is played in front of both, and has to look the same from both ends.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.servers.cases import bearer, head
from tests.servers.running import Running, chosen, running
from tests.servers.wire import OF_THE_SERVER, Answer, Wire, connected
from tests.services import until


@contextmanager
def both(server: Any) -> Iterator[tuple[Running, Running]]:
    with running(server) as guarded, running(server, bare=True) as bare:
        yield guarded, bare


@pytest.fixture(scope="module", params=chosen())
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Running, Running]]:
    with both(request.param) as pair:
        yield pair


@pytest.fixture(scope="module", params=chosen("asgi"))
def asgi_pair(request: pytest.FixtureRequest) -> Iterator[tuple[Running, Running]]:
    with both(request.param) as pair:
        yield pair


@pytest.fixture(scope="module", params=chosen("wsgi"))
def wsgi_pair(request: pytest.FixtureRequest) -> Iterator[tuple[Running, Running]]:
    with both(request.param) as pair:
        yield pair


def ask(served: Running, path: str, *fields: bytes, method: bytes = b"GET") -> bytes:
    """Return a request with a live key; its case is its path."""
    key = bearer(served.keys.tokens["live"])
    return head(path, key, *fields, target=path.encode(), method=method)


def seen(served: Running, path: str, kind: str) -> list[dict[str, Any]]:
    """Return what was noted, but for what differs with a guard: who it is."""
    return [{**note, "principal": None} for note in served.notes(kind, path)]


def shown(status: int, headers: Any, body: bytes) -> Answer:
    """Return an answer without what the server adds."""
    kept = tuple(
        sorted(
            (name.lower(), value) for name, value in headers if name.lower() not in OF_THE_SERVER
        )
    )
    return Answer(status, kept, body)


def same(pair: tuple[Running, Running], play: Callable[[Running], Any]) -> Any:
    """Play a scene in front of both, and return what came of it."""
    guarded, bare = map(play, pair)
    assert guarded == bare
    return guarded


def whole(served: Running, path: str, *fields: bytes) -> tuple[Answer, Any]:
    with connected(served.port) as wire:
        wire.send(ask(served, path, *fields))
        response = wire.begin()
        answer = shown(response.status, response.getheaders(), response.read())
    return answer, [seen(served, path, kind) for kind in ("served", "offered", "closed")]


def read_exactly(response: http.client.HTTPResponse, count: int) -> bytes:
    return response.read(count)


def test_a_chunk_arrives_before_the_next_is_made(pair: tuple[Running, Running]) -> None:
    def play(served: Running) -> Any:
        with connected(served.port) as wire:
            wire.send(ask(served, "/stream"))
            with served.gate.waiting() as where:
                response = wire.begin()
                first = read_exactly(response, 5)
            second = response.read()
        if served.server.kind == "wsgi":
            until(lambda: bool(seen(served, "/stream", "closed")))
        return where, first, second, seen(served, "/stream", "closed")

    where, first, second, closed = same(pair, play)

    assert (where, first, second) == ("first", b"first", b"second")
    assert len(closed) == (1 if pair[0].server.kind == "wsgi" else 0)


def test_each_server_sent_event_arrives_by_itself(pair: tuple[Running, Running]) -> None:
    def play(served: Running) -> Any:
        events = []
        with connected(served.port) as wire:
            wire.send(ask(served, "/events"))
            response = None
            for _ in range(3):
                with served.gate.waiting() as where:
                    response = response or wire.begin()
                    events.append((where, read_exactly(response, 18)))
            assert response is not None
            return events, response.getheader("Content-Type"), response.read()

    events, content_type, rest = same(pair, play)

    assert content_type == "text/event-stream"
    assert events == [(f"event {n}", b"id: %d\ndata: tick\n\n" % n) for n in range(3)]
    assert rest == b""


def test_the_application_sees_that_the_client_has_gone(pair: tuple[Running, Running]) -> None:
    wsgi = pair[0].server.kind == "wsgi"
    kind = "closed" if wsgi else "ended"

    def play(served: Running) -> Any:
        with connected(served.port) as wire:
            wire.send(ask(served, "/endless"))
            first = read_exactly(wire.begin(), 5)
            if wsgi:
                with served.gate.waiting():
                    wire.close()
        until(lambda: bool(seen(served, "/endless", kind)))
        return first, seen(served, "/endless", kind)

    first, gone = same(pair, play)

    assert first == b"first"
    assert len(gone) == 1
    assert wsgi or gone[0]["by"] == "http.disconnect"


def test_a_stream_that_its_client_leaves_is_charged_what_it_used(
    pair: tuple[Running, Running],
) -> None:
    served = pair[0]
    left = []
    for case in ("left", "asked again"):
        with connected(served.port) as wire:
            key = bearer(served.keys.tokens["live"])
            wire.send(head(case, key, target=b"/billed"))
            response = wire.begin()
            left.append(response.getheader("RateLimit"))
            assert read_exactly(response, 5) == b"first"
            if served.server.kind == "wsgi":
                with served.gate.waiting():
                    wire.close()
        until(lambda case=case: bool(served.notes("settled", case)))

    assert [field.partition(";t=")[0] for field in left if field] == [
        '"tokens";r=800',
        '"tokens";r=791',
    ]


def start_upload(wire: Wire, served: Running, case: str, framing: bytes) -> None:
    key = bearer(served.keys.tokens["live"])
    wire.send(head(case, key, framing, target=b"/upload", method=b"POST", close=False))


# Longer than what a server reads ahead.
FIRST, SECOND = b"a" * 5000, b"b" * 6000
UPLOADS = {
    "sized": (b"Content-Length: 11000", FIRST, SECOND),
    "chunked": (
        b"Transfer-Encoding: chunked",
        b"%x\r\n%s\r\n" % (len(FIRST), FIRST),
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(SECOND), SECOND),
    ),
}
# They take in the whole upload before they call the application.
HOARDERS = ("daphne", "waitress")
# They hand on chunked uploads without saying where these end, so that no application can read them.
ENDLESS = ("uWSGI",)


@pytest.mark.parametrize("way", UPLOADS)
def test_an_upload_is_handed_on_as_it_comes(pair: tuple[Running, Running], way: str) -> None:
    framing, first, second = UPLOADS[way]
    name = pair[0].server.name
    if way == "chunked" and name in ENDLESS:
        pytest.skip(f"{name} hands on no chunked uploads")

    def play(served: Running) -> Any:
        with connected(served.port) as wire:
            start_upload(wire, served, way, framing)
            wire.send(first)
            if name in HOARDERS:
                wire.send(second)
            with served.gate.waiting() as where:
                pass
            if name not in HOARDERS:
                wire.send(second)
            answer = wire.answer("POST")
        return where, answer.status, answer.body, seen(served, way, "uploaded")

    where, status, body, (uploaded,) = same(pair, play)

    assert (where, status, body) == ("read some", 200, b"served 11000")
    assert uploaded["whole"]


@pytest.mark.parametrize("way", UPLOADS)
def test_an_upload_that_is_broken_off_ends_for_the_application_as_before(
    pair: tuple[Running, Running], way: str
) -> None:
    framing, first, _ = UPLOADS[way]
    case, name = f"{way}, broken off", pair[0].server.name
    if name in HOARDERS or (way == "chunked" and name in ENDLESS):
        pytest.skip(f"{name} hands on nothing of such an upload")

    def play(served: Running) -> Any:
        with connected(served.port) as wire:
            start_upload(wire, served, case, framing)
            wire.send(first)
            with served.gate.waiting() as where:
                wire.close()
        until(lambda: bool(seen(served, case, "uploaded")))
        return where, seen(served, case, "uploaded")

    where, (uploaded,) = same(pair, play)

    assert where == "read some"
    assert 0 < uploaded["size"] <= len(FIRST)


def test_files_and_trailers_are_sent_as_the_server_offers(
    asgi_pair: tuple[Running, Running],
) -> None:
    for path in ("/pathsend", "/trailers"):
        answer, (served, offered, _) = same(asgi_pair, lambda one, path=path: whole(one, path))

        assert answer.status == 200
        assert answer.body
        assert len(served) == len(offered) == 1


def test_files_and_what_is_written_are_sent_and_closed_once(
    wsgi_pair: tuple[Running, Running],
) -> None:
    for path in ("/file", "/written"):
        if path == "/written" and wsgi_pair[0].server.lacks == "write":
            pytest.skip("its start_response returns no write")

        def play(served: Running, path: str = path) -> Any:
            answer, _ = whole(served, path)
            if path == "/written":
                until(lambda: bool(seen(served, path, "closed")))
            return answer, seen(served, path, "closed"), seen(served, path, "offered")

        answer, closed, _ = same(wsgi_pair, play)

        assert answer.status == 200
        assert path == "/file" or answer.body == b"written, twice, and returned"
        assert path == "/file" or len(closed) == 1


def test_an_answer_that_is_taken_back_with_exc_info_is(
    wsgi_pair: tuple[Running, Running],
) -> None:
    if wsgi_pair[0].server.lacks == "exc_info":
        pytest.skip("its start_response takes no exc_info")
    answer, _ = same(wsgi_pair, lambda one: whole(one, "/failing"))

    assert answer.status == 500
    assert ("x-failed", "yes") in answer.headers
    assert answer.body == b"failed"
