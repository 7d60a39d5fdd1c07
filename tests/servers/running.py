"""The servers: how each is started in a process of its own, and ended again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from keyguard import Keyguard
from keyguard.core.tokens.format import TokenFormat, TokenParts
from tests.servers.notes import BARE, FOLDER, GATE, TOKEN, read_notes, settings, store_url
from tests.services import free_port, until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ASGI, WSGI = "tests.servers.served_asgi:app", "tests.servers.served_wsgi:app"
FLASK = "tests.servers.served_flask:app"


@dataclass(frozen=True)
class Server:
    """One server.

    ``module`` is what must be installed, and ``command`` what is run, with a port. ``short`` are
    those of ``make test``. ``deviates`` has the answers to cases that it does not deliver as they
    were sent, so that the guard has nothing to refuse; ``lacks`` is a part of PEP 3333 or ASGI that
    it does not have.
    """

    name: str
    kind: str
    module: str
    command: Callable[[int], list[str]]
    short: bool = False
    deviates: Mapping[str, str] = field(default_factory=dict)
    lacks: str = ""

    @property
    def distribution(self) -> str:
        return self.name.split()[0]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _uvicorn(http: str, ws: str) -> Callable[[int], list[str]]:
    return lambda port: _python(
        "uvicorn", ASGI, "--http", http, "--ws", ws, "--port", str(port), "--no-proxy-headers",
        "--log-level", "critical", "--timeout-graceful-shutdown", "2",
    )  # fmt: skip


def _granian(interface: str, app: str) -> Callable[[int], list[str]]:
    return lambda port: [
        str(BIN / "granian"), "--interface", interface, "--port", str(port), "--no-log",
        "--workers-kill-timeout", "2", app,
    ]  # fmt: skip


def _uwsgi(*options: str) -> Callable[[int], list[str]]:
    return lambda port: [
        str(BIN / "uwsgi"), "--http-socket", f"127.0.0.1:{port}", "--module", WSGI, "--need-app",
        "--home", str(BIN.parent), "--pythonpath", str(ROOT), "--enable-threads",
        "--die-on-term", "--disable-logging", *options,
    ]  # fmt: skip


SERVERS = [
    Server("uvicorn (h11, websockets)", "asgi", "h11", _uvicorn("h11", "websockets-sansio"),
           short=True),
    Server("uvicorn (httptools, wsproto)", "asgi", "httptools", _uvicorn("httptools", "wsproto")),
    Server("hypercorn", "asgi", "hypercorn", lambda port: _python(
        "hypercorn", ASGI, "--bind", f"127.0.0.1:{port}", "--log-level", "critical"
    )),
    Server("granian (ASGI)", "asgi", "granian", _granian("asgi", ASGI)),
    Server("daphne", "asgi", "daphne", lambda port: [
        str(BIN / "daphne"), "--bind", "127.0.0.1", "--port", str(port), "-v", "0", ASGI
    ], lacks="lifespan"),
    Server("gunicorn", "wsgi", "gunicorn", lambda port: _python(
        "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4",
        "--graceful-timeout", "2", "--log-level", "critical", "--no-control-socket", WSGI
    ), short=True),
    # It hands on an empty value in the place of one that is not ASCII.
    Server("granian (WSGI)", "wsgi", "granian", _granian("wsgi", WSGI),
           deviates={"a high byte": "401", "UTF-8": "401"}, lacks="write"),
    Server("waitress", "wsgi", "waitress", lambda port: _python(
        "waitress", f"--listen=127.0.0.1:{port}", WSGI
    )),
    Server("uWSGI", "wsgi", "uwsgidecorators", _uwsgi("--threads", "4"), lacks="exc_info"),
    Server("cheroot", "wsgi", "cheroot", lambda port: _python(
        "cheroot", "--bind", f"127.0.0.1:{port}", WSGI
    ), deviates={
        # It hands on the last of several fields, and of a folded one,
        "two fields": "200",
        "two fields, the last is good": "200",
        "two fields, the first is good": "401 invalid_token",
        "two fields, the first empty": "200",
        "two fields, the last empty": "401",
        "Basic and Bearer": "200",
        "a folded value": "401",
        # and takes off what Python calls white space, also from a name.
        "a blank before the colon": "200",
        "a control byte in front": "200",
    }),
]  # fmt: skip
NAMES = [server.name for server in SERVERS]


def _gunicorn(app: str, worker: str, *options: str) -> Callable[[int], list[str]]:
    return lambda port: _python(
        "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", worker, "--workers", "2",
        "--graceful-timeout", "2", "--log-level", "critical", "--no-control-socket", *options, app
    )  # fmt: skip


# Ways of a server above that tell nothing new about requests, but begin or end in another way.
WAYS = [
    Server("gunicorn (gevent)", "wsgi", "gevent", _gunicorn(WSGI, "gevent")),
    Server("gunicorn (gevent, --preload)", "wsgi", "gevent",
           _gunicorn(WSGI, "gevent", "--preload")),
    Server("gunicorn (gevent, --preload, Flask)", "wsgi", "gevent",
           _gunicorn(FLASK, "gevent", "--preload")),
    Server("gunicorn (gthread, --preload)", "wsgi", "gunicorn",
           _gunicorn(WSGI, "gthread", "--threads", "8", "--preload")),
    Server("gunicorn (uvicorn)", "asgi", "gunicorn",
           _gunicorn(ASGI, "uvicorn.workers.UvicornWorker")),
    Server("gunicorn (asgi)", "asgi", "gunicorn", _gunicorn(ASGI, "asgi")),
    Server("uvicorn (--workers)", "asgi", "uvicorn", lambda port: [
        *_uvicorn("auto", "auto")(port), "--workers", "2"
    ]),
    Server("uWSGI (processes)", "wsgi", "uwsgidecorators",
           _uwsgi("--master", "--processes", "2", "--threads", "8")),
    Server("uWSGI (--py-call-uwsgi-fork-hooks)", "wsgi", "uwsgidecorators",
           _uwsgi("--master", "--processes", "2", "--threads", "8", "--py-call-uwsgi-fork-hooks")),
    Server("uWSGI (--lazy-apps)", "wsgi", "uwsgidecorators",
           _uwsgi("--master", "--processes", "2", "--threads", "8", "--lazy-apps")),
]  # fmt: skip


def chosen(kind: str | None = None, *, websockets: bool = False, ways: bool = False) -> list[Any]:
    """Return the servers to run, as parameters: those of ``make test``, or all with SERVERS=all.

    Both ways of uvicorn to speak WebSockets are run in either case.

    Args:
        kind: The interface; by default both.
        websockets: Whether the test speaks WebSockets.
        ways: Whether to run the ways to start them as well.
    """
    wanted = [server for server in [*SERVERS, *WAYS * ways] if kind in (None, server.kind)]
    if os.environ.get("SERVERS") != "all":
        wanted = [one for one in wanted if one.short or (websockets and "uvicorn" in one.name)]
    return [pytest.param(server, id=server.name) for server in wanted]


@dataclass
class Keys:
    """A store with a key for every fate, as tokens and ids."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        class Past:
            """The time a day ago, when the keys are issued, so that one can have expired."""

            def time(self) -> float:
                return (datetime.now(UTC) - timedelta(days=1)).timestamp()

            def monotonic(self) -> float:
                return 0.0

        with Keyguard(store_url(self.folder), settings=settings(), clock=Past()) as guard:
            guard.migrate()

            def issue(name: str, *scopes: str, organization: str = "acme", **options: Any) -> None:
                issued = guard.keys.issue(
                    organization=organization, name=name, scopes=scopes, **options
                )
                self.ids[name], self.tokens[name] = issued.key.id, issued.token.reveal()

            guard.organizations.create("acme")
            guard.organizations.create("gone")
            issue("live", "inference:write", "inference:read")
            issue("reader", "inference:read")
            issue("revoked", "inference:write")
            issue("expired", "inference:write", expires_in=timedelta(hours=1))
            later = datetime.now(UTC) + timedelta(days=30)
            issue("future", "inference:write", not_before=later)
            issue("orphaned", "inference:write", organization="gone")
            guard.keys.revoke(self.ids["revoked"])
            guard.organizations.disable("gone")
        tokens = TokenFormat("aiaas_live")
        live = self.tokens["live"]
        parts = tokens.parse(live)
        assert parts is not None
        self.tokens |= {
            "unknown": tokens.mint(TokenParts.draw(b"\x01" * 48)).reveal(),
            "wrong secret": tokens.mint(TokenParts(parts.key_id, "0" * 43)).reveal(),
            "wrong prefix": TokenFormat("other_live").mint(parts).reveal(),
            "wrong checksum": live[:-1] + ("0" if live[-1] != "0" else "1"),
            "wrong length": live[:-1],
        }


class Gate:
    """Where the application waits until the test lets it go on."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(60)
        self.port: int = self._socket.getsockname()[1]

    @contextmanager
    def waiting(self) -> Iterator[str]:
        """Wait for the application; give how far it is, and let it go on afterwards."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(60)
            yield connection.makefile().readline().strip()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Running:
    """A server that runs, and what it is served with."""

    server: Server
    port: int
    keys: Keys
    gate: Gate
    process: subprocess.Popen[bytes]

    def notes(self, kind: str, case: str) -> list[dict[str, Any]]:
        """Return what was noted of one case."""
        return [
            note
            for note in read_notes(self.keys.folder)
            if note["kind"] == kind and note["case"] == case
        ]

    def all_notes(self, kind: str) -> list[dict[str, Any]]:
        return [note for note in read_notes(self.keys.folder) if note["kind"] == kind]


def answers(port: int) -> bool:
    """Tell whether a server answers on a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /open HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            return bool(connection.recv(1))
    except OSError:
        return False


@contextmanager
def running(server: Server, *, bare: bool = False, used: bool = False) -> Iterator[Running]:
    """Run a server; skip the test where it is not installed, but fail where CI runs.

    Args:
        server: The server.
        bare: Whether its application has no guard.
        used: Whether its guard, for sync code, verifies a key before the server forks.
    """
    if find_spec(server.module) is None:
        missing = f"no {server.name} here: make servers installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    gate = Gate()
    with tempfile.TemporaryDirectory(prefix="keyguard-served-") as name:
        folder = Path(name)
        keys = Keys(folder)
        port = free_port()
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith("KEYGUARD_")
        } | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", FOLDER: name, GATE: str(gate.port)}
        if bare:
            environ[BARE] = "1"
        if used:
            environ[TOKEN] = keys.tokens["reader"]
        log = folder / "log"
        with log.open("wb") as output:
            # A group of its own, so that workers end with it.
            process = subprocess.Popen(
                server.command(port), cwd=folder, env=environ, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:

            def up() -> bool:
                if process.poll() is not None:
                    raise RuntimeError(f"{server.name} did not start: {log.read_text()}")
                return answers(port)

            until(up)
            (folder / "notes").unlink(missing_ok=True)
            yield Running(server, port, keys, gate, process)
        finally:
            end(process)
            gate.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
