"""Count keyguard's own calls on four paths: ``python scripts/paths.py``, or ``make paths``.

Each path is run for real, once to warm everything up and once to be counted:

- warm: an ASGI request whose token is already verified.
- cold: an ASGI request with a key that the process has not seen, on SQLite, asynchronous. The pool
  of connections is warm.
- limited: an ASGI request through ``@rate_limit``, counted in Redis. The key is already verified.
- rotate: ``keyguard key rotate`` on SQLite.

A call counts if its code is a file of keyguard's. The resumption of a coroutine or generator is a
call; a comprehension is not, nor is the body of a module. A change of file is a call in another
file than the call before it. What other threads and earlier tasks do meanwhile does not count; the
list of the cold path has the thread's calls apart.

``--trace`` prints each path as a list of files and functions, in the order of first use.
``--write`` puts that list into docs/architecture.md. The path "limited" needs redis-server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import keyguard
from keyguard import AsyncKeyguard, Keyguard, rate_limit
from keyguard.adapters.asgi import KeyguardMiddleware

PACKAGE = Path(keyguard.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN = "<!-- made by `make paths`: begin -->"
END = "<!-- made by `make paths`: end -->"

TITLES = {
    "warm": "Warm: an ASGI request whose token is already verified",
    "cold": "Cold: an ASGI request with a key that the process has not seen, on SQLite",
    "limited": "Limited: an ASGI request through `@rate_limit`, counted in Redis",
    "rotate": "Rotate: `keyguard key rotate` on SQLite",
}

_counting = ContextVar("counting", default=False)
"""Set by what is counted, and by the tasks that it starts; not by tasks that ran before."""

_PREFIX = str(PACKAGE) + os.sep
_NOT_CALLS = {"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
_SETTINGS: dict[str, Any] = {"max_staleness": 3600.0}

App = Callable[..., Awaitable[None]]


@dataclass
class Recording:
    """Records the calls of keyguard's functions in this thread.

    Attributes:
        calls: The code of each call, in order.
        beside: The code of each call meanwhile in a thread that began after :func:`_watch_threads`.
    """

    calls: list[CodeType] = field(default_factory=list[CodeType])
    beside: list[CodeType] = field(default_factory=list[CodeType])
    is_running: bool = False

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Record while it is entered."""

        def profile(frame: FrameType, event: str, _argument: Any) -> None:
            if _is_call(frame, event) and _counting.get():
                self.calls.append(frame.f_code)

        token = _counting.set(True)
        self.is_running = True
        sys.setprofile(profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.is_running = False
            _counting.reset(token)

    @property
    def changes(self) -> int:
        """How often a call is in another file than the call before it."""
        files = [code.co_filename for code in self.calls]
        return sum(before != after for before, after in itertools.pairwise(files))

    def figures(self) -> list[int]:
        """Return the numbers of calls, functions, files and changes of file."""
        files = {code.co_filename for code in self.calls}
        return [len(self.calls), len(set(self.calls)), len(files), self.changes]


def _is_call(frame: FrameType, event: str) -> bool:
    code = frame.f_code
    return (
        event == "call" and code.co_filename.startswith(_PREFIX) and code.co_name not in _NOT_CALLS
    )


def _by_file(calls: list[CodeType]) -> dict[str, list[str]]:
    """Return the functions of each file, both in the order of first use."""
    found: dict[str, list[str]] = {}
    for code in calls:
        file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        functions = found.setdefault(file, list[str]())
        name = code.co_qualname.replace(".<locals>", "")
        if name not in functions:
            functions.append(name)
    return found


def warm(folder: str) -> Recording:
    """Record a request whose token is verified, through the adapter for plain ASGI."""

    async def run() -> Recording:
        async with AsyncKeyguard(f"sqlite:///{folder}/warm.db", **_SETTINGS) as guard:
            await guard.migrate()
            (token,) = await _issue(guard)
            app = KeyguardMiddleware(_answer, guard)
            await _request(app, token)
            return await _recorded(app, token)

    return asyncio.run(run())


def cold(folder: str) -> Recording:
    """Record the first request of a key, when another key has warmed the pool up."""
    recordings: list[Recording] = []

    async def run() -> None:
        async with AsyncKeyguard(f"sqlite:///{folder}/cold.db", **_SETTINGS) as guard:
            await guard.migrate()
            first, second, *counted = await _issue(guard, 7)
            app = KeyguardMiddleware(_answer, guard)
            for token in (first, second):
                await _request(app, token)
            # The feed's first look may hold the thread for a moment, and has one request wait.
            for token in counted:
                recordings.append(Recording())
                await _recorded(app, token, recordings[-1])

    _watch_threads(recordings)
    asyncio.run(run())
    threading.setprofile(None)
    return _least(recordings)


def limited(url: str) -> Recording:
    """Record a request that one limit of its route counts in Redis."""

    async def run() -> Recording:
        async with AsyncKeyguard(url, limiter_timeout=10.0, **_SETTINGS) as guard:
            await guard.migrate()
            (token,) = await _issue(guard)
            app = KeyguardMiddleware(rate_limit("1000/minute")(_answer), guard)
            await _request(app, token)
            # The feed's first answer, whenever it comes, has one request look its key up again.
            recordings = [await _recorded(app, token) for _ in range(5)]
            return _least(recordings)

    return asyncio.run(run())


def rotate(folder: str) -> Recording:
    """Record a rotation on the command line. The modules are loaded before."""
    from keyguard.cli import main

    url = f"sqlite:///{folder}/rotate.db"
    with Keyguard(url) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        keys = [guard.keys.issue(organization="acme", name=name).key.id for name in ("a", "b")]
    recording = Recording()
    status: object = None
    for number, key in enumerate(keys):
        arguments = ["keyguard", "key", "rotate", key, "--url", url]
        with (
            mock.patch.object(sys, "argv", arguments),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as complaints,
            recording.running() if number else contextlib.nullcontext(),
        ):
            try:
                main()
            except SystemExit as end:
                status = end.code
        if status:
            raise SystemExit(f"keyguard key rotate failed: {complaints.getvalue()}")
    return recording


def _watch_threads(recordings: list[Recording]) -> None:
    """Have threads that begin from now on add their calls to the last recording, if it runs."""

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if recordings and recordings[-1].is_running and _is_call(frame, event):
            recordings[-1].beside.append(frame.f_code)

    threading.setprofile(profile)


def _least(recordings: list[Recording]) -> Recording:
    return min(recordings, key=lambda recording: len(recording.calls))


async def _issue(guard: AsyncKeyguard, number: int = 1) -> list[str]:
    await guard.organizations.create("acme")
    return [
        (await guard.keys.issue(organization="acme", name=f"key {n}")).token.reveal()
        for n in range(number)
    ]


async def _answer(
    _scope: Any, _receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def _recorded(app: App, token: str, recording: Recording | None = None) -> Recording:
    recording = recording or Recording()
    with recording.running():
        await _request(app, token)
    return recording


async def _request(app: App, token: str) -> None:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/models",
        "raw_path": b"/v1/models",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 5555),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    if statuses != [200]:
        raise SystemExit(f"a request was answered {statuses} instead of 200")


@contextlib.contextmanager
def _redis(folder: str) -> Generator[str]:
    """Run redis-server on a free port of the loopback interface, and give its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("the path 'limited' needs redis-server: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise SystemExit("redis-server did not start within 10 seconds")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


def _listed(recordings: dict[str, Recording]) -> str:
    """Return the paths as the lists that docs/architecture.md shows."""
    lines: list[str] = []
    for name, recording in recordings.items():
        lines += [f"### {TITLES[name]}", ""]
        lines += _steps(recording.calls)
        if recording.beside:
            lines += ["Meanwhile, on a thread:", "", *_steps(recording.beside)]
    return "\n".join(lines)


def _steps(calls: list[CodeType]) -> list[str]:
    lines = [
        f"- `{file}`: {', '.join(f'`{function}`' for function in functions)}"
        for file, functions in _by_file(calls).items()
    ]
    return [*lines, ""]


def _write(text: str) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run the four paths, and print what was counted."""
    parser = argparse.ArgumentParser(description="Count keyguard's own calls on four paths.")
    parser.add_argument("--trace", action="store_true", help="list each path's files and functions")
    parser.add_argument("--write", action="store_true", help=f"put the lists into {PAGE.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _redis(folder) as url:
        recordings = {
            "warm": warm(folder),
            "cold": cold(folder),
            "limited": limited(url),
            "rotate": rotate(folder),
        }
    print(f"{'path':8} {'calls':>6} {'functions':>10} {'files':>6} {'changes of file':>16}")
    for name, recording in recordings.items():
        calls, functions, files, changes = recording.figures()
        print(f"{name:8} {calls:6} {functions:10} {files:6} {changes:16}")
    if arguments.trace:
        print(f"\n{_listed(recordings)}")
    if arguments.write:
        _write(_listed(recordings))


if __name__ == "__main__":
    main()
