"""No lock of keyguard's is held where a thread may wait: under gevent another greenlet runs there.

A worker that was forked before gevent patched it has locks that know of no greenlets. A second
greenlet that wants one would stop the process, and with it the greenlet that holds the lock.
"""

from __future__ import annotations

import ast
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import keyguard
from keyguard import Keyguard, Settings
from keyguard.adapters.wsgi import KeyguardMiddleware
from tests.stores.conftest import make_database

SOURCES = Path(keyguard.__file__).parent
WAITS = {"acquire", "join", "sleep", "start", "wait"}
"""Calls that let another greenlet run."""

_make_lock = threading.Lock


class _Watch:
    """Notes where a thread may wait while it holds a lock of keyguard's."""

    def __init__(self) -> None:
        self.held = threading.local()
        self.locks = 0
        self.found: list[str] = []

    def lock(self) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if not caller.startswith("keyguard."):
            return _make_lock()
        self.locks += 1
        return _WatchedLock(self, caller)

    def around(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            holders = getattr(self.held, "by", [])
            if holders:
                self.found.append(f"{wait.__qualname__} while {holders[-1]} holds a lock")
            return wait(*args, **options)

        return watched


class _WatchedLock:
    def __init__(self, watch: _Watch, owner: str) -> None:
        self._watch, self._owner = watch, owner
        self._lock = _make_lock()

    def acquire(self, *args: Any, **options: Any) -> bool:
        is_held = self._lock.acquire(*args, **options)
        if is_held:
            vars(self._watch.held).setdefault("by", []).append(self._owner)
        return is_held

    def release(self) -> None:
        self._watch.held.by.remove(self._owner)
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> _Watch:
    watch = _Watch()
    monkeypatch.setattr(threading, "Lock", watch.lock)
    waits: list[tuple[Any, str]] = [
        (threading.Condition, "wait"),
        (threading.Thread, "start"),
        (threading.Thread, "join"),
        (time, "sleep"),
        *((socket.socket, name) for name in ("connect", "send", "sendall", "recv", "recv_into")),
        (socket.socket, "shutdown"),
    ]
    for place, name in waits:
        monkeypatch.setattr(place, name, watch.around(getattr(place, name)))
    return watch


@pytest.mark.campaign("memory", "sqlite", "redis]")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "redis_cluster", "mariadb"])
def test_no_lock_is_held_while_a_thread_waits_for_anything(
    watch: _Watch, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind.startswith("redis"):
        url = request.getfixturevalue(kind).url
    else:
        url = "memory://" if kind == "memory" else make_database(kind, request, tmp_path).url
    settings = Settings(default_limits=["1000/minute"], store_timeout=30.0)
    with Keyguard(url, settings=settings) as guard:
        guard.migrate()
        owner = guard.organizations.create(f"acme-{time.time_ns()}")
        tokens = [guard.keys.issue(organization=owner.id, name=n).token.reveal() for n in "abc"]
        app = KeyguardMiddleware(lambda _, start: start("200 OK", []) or [b""], guard)

        def ask(token: str) -> str:
            said: list[str] = []
            environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}
            app(environ | {"HTTP_AUTHORIZATION": f"Bearer {token}"}, lambda s, *_: said.append(s))
            return said[0]

        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, tokens * 4))
        guard.organizations.disable(owner.id)

    assert set(answers) == {"200 OK"}
    assert watch.locks > 5
    assert watch.found == []


def _sources() -> Iterator[tuple[Path, str]]:
    for path in SOURCES.rglob("*.py"):
        yield path, path.read_text(encoding="utf-8")


def _is_lock(item: ast.withitem) -> bool:
    return ast.unparse(item.context_expr).lower().endswith("lock")


def test_no_lock_s_block_awaits_or_calls_what_waits() -> None:
    found: list[str] = []
    blocks = 0
    for path, text in _sources():
        for block in ast.walk(ast.parse(text)) if "ock:" in text else ():
            if not isinstance(block, ast.With) or not any(map(_is_lock, block.items)):
                continue
            blocks += 1
            for node in ast.walk(block):
                called = node.func if isinstance(node, ast.Call) else None
                is_wait = isinstance(called, ast.Attribute) and called.attr in WAITS
                if is_wait or isinstance(node, ast.Await):
                    found.append(f"{path.relative_to(SOURCES)}:{node.lineno}")
    assert blocks > 50
    assert found == []


def test_no_part_waits_for_a_queue_that_knows_of_no_greenlets() -> None:
    """``SimpleQueue`` is written in C: gevent can't mend one that was made before it patched."""
    assert [path for path, text in _sources() if "SimpleQueue" in text] == []
