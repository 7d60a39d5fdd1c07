"""The console served by the command line, and links that sign in to it."""

from __future__ import annotations

import errno
import http.client
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import make_server

import pytest

from keyguard.admin import Console
from keyguard.cli import console
from keyguard.cli.console import _ending_on, _Handler, _Server
from tests.admin.pages.rooms import Browser, text_of
from tests.cli.conftest import Program, Store

_LINK = re.compile(r"http://localhost:(\d+)(/sign-in/[\w-]{43})\n")


class Visitor(Browser):
    """A browser in front of a console over the store of the runs."""

    def follow(self, link: str) -> int:
        path = link.removeprefix("https://keys.example/keys").strip()
        return self.send(path, path, {}).status


@pytest.fixture
def visitor(store: Store) -> Iterator[Visitor]:
    with store.open() as guard:
        yield Visitor(Console(guard, key_sign_in=True))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--operator", "--person", "root"], "operator"),
        (["--role", "acme=developer", "--person", "dev@acme.example"], "dev@acme.example"),
        (["--role", "acme=auditor", "--role", "other=approver", "--person", "uma"], "uma"),
    ],
)
def test_a_link_signs_a_person_in(
    keyguard: Program, store: Store, visitor: Visitor, arguments: list[str], name: str
) -> None:
    with store.open() as guard:
        guard.organizations.create("other")

    run = keyguard("console", "login", *arguments, "--at", "https://keys.example/keys/")

    assert run.status == 0
    assert visitor.follow(run.stdout) == 303
    assert name in text_of(visitor.get("/organizations"))


def test_a_link_signs_a_key_in(keyguard: Program, store: Store, visitor: Visitor) -> None:
    key = store.issue(scopes=["admin"]).key

    run = keyguard(
        "console", "login", "--key", key.id, "--at", "https://keys.example/keys", "--json"
    )

    assert run.json["expires_in"] == 300
    assert visitor.follow(run.json["link"]) == 303
    assert key.id in text_of(visitor.get("/organizations"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --operator, --key, or a --role"),
        (["--operator", "--role", "acme=auditor"], "give --operator"),
        (["--key", "0" * 16, "--person", "ada"], "give --operator"),
        (["--role", "acme"], "--role takes ORG=ROLE"),
        (["--role", "acme=boss"], "'boss' is not a valid role"),
        (["--role", "acme=boss"], "For an operator give --operator"),
        (
            ["--operator", "--at", "keys.example/keys"],
            "--at takes an address that begins with http:// or https://",
        ),
        (["--operator", "--at", "http://"], "--at takes an address"),
        (["--operator", "--at", "HTTP://keys.example/?a=1"], "--at takes an address"),
        (["--role", "acme=auditor", "--role", "acme=developer"], "--role gives 'acme' twice"),
        (["--role", "acme=auditor", "--role", "acne=developer"], "there is no organization 'acne'"),
        (["--key", "0" * 16], "there is no key"),
    ],
    ids=str,
)
def test_a_link_for_nobody_is_refused(
    keyguard: Program, store: Store, arguments: list[str], said: str
) -> None:
    assert said in keyguard("console", "login", *arguments).sentence


def test_a_link_for_a_key_without_admin_is_refused(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["inference:read"]).key

    run = keyguard("console", "login", "--key", key.id)

    assert f"key '{key.id}' does not have the scope admin" in run.sentence


def test_the_console_is_served_until_it_is_interrupted(
    store: Store, terminal: Callable[..., Any]
) -> None:
    run = terminal("console", "--port", "0")
    run.wait_for("within 5 minutes")
    run.wait_for("/sign-in/")
    found = None
    while found is None:
        run.wait_for("\n")
        found = _LINK.search(run.text.replace("\r\n", "\n"))
    port = int(found[1])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET / HT")  # others are served meanwhile
        assert b"This link signs you in once." in answered(200, port, found[2])
        elsewhere = answered(421, port, found[2], host="keys.evil.example").decode()
        assert f"Open http://localhost:{port}/</p>" in elsewhere
    run.interrupt()
    assert run.finish() == 130
    assert run.text.count("/sign-in/") == 1


def answered(status: int, port: int, path: str, host: str = "localhost") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == status
    return body


def test_the_end_waits_for_what_is_under_way() -> None:
    arrived, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        arrived.set()
        assert go_on.wait(60)
        start_response("200 OK", [("Content-Length", "4")])
        done.append("answered")
        return [b"done"]

    def close() -> None:
        server.server_close()
        done.append("ended")

    server = make_server("127.0.0.1", 0, application, _Server, _Handler)
    threads = [
        threading.Thread(target=answered, args=(200, server.server_port, "/")),
        threading.Thread(target=close),
    ]
    threads[0].start()
    server.handle_request()
    assert arrived.wait(60)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert done == ["answered", "ended"]
    assert _Handler.timeout is not None  # or a silent client would put the end off


def test_sigterm_ends_it_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _ending_on(signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_taken_is_told(keyguard: Program, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = keyguard("console", "--port", str(port))

    another = port + 1 if port < 65535 else 8123
    assert (run.status, run.sentence) == (
        2,
        f"port {port} is taken; choose another one, such as: keyguard console --port {another}",
    )


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_can_not_be_is_told(keyguard: Program, store: Store, port: str) -> None:
    run = keyguard("console", "--port", port)

    assert (run.status, run.sentence) == (2, "--port takes 1 to 65535, or 0 for any that is free")


def test_an_address_that_can_not_be_listened_on_is_told(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(console, "make_server", refuse)

    run = keyguard("console", "--port", "80")

    assert (run.status, run.sentence) == (2, "can't listen on port 80 (Permission denied)")
