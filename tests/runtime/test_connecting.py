"""Connections that are opened beside the calls which want them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from keyguard.runtime.connecting import AsyncConnector, SyncConnector
from keyguard.runtime.deadlines import Patience, awithin, within
from keyguard.runtime.sync import run_sync

SERVER = "keyguard.runtime.connecting"


class Server:
    """A server that lets connections in when the test says so."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.dropped: list[int] = []
        self.lets_in = threading.Event()
        self.fails: Exception | None = None
        self.asked = threading.Semaphore(0)

    async def connect(self) -> int:
        self.asked.release()
        self.lets_in.wait(60)
        return self._answer()

    async def aconnect(self) -> int:
        self.asked.release()
        await asyncio.to_thread(self.lets_in.wait, 60)
        return self._answer()

    def _answer(self) -> int:
        if self.fails is not None:
            raise self.fails
        self.opened.append(len(self.opened))
        return self.opened[-1]

    def over(self) -> SyncConnector[int]:
        return SyncConnector(self.connect, self.dropped.append, Patience(60.0, 300.0))


@pytest.fixture
def server() -> Server:
    return Server()


def _in_time(connector: SyncConnector[int], seconds: float) -> int:
    with within(seconds):
        return run_sync(connector.take())


def _until(is_so: Any) -> None:
    while not is_so():
        threading.Event().wait(0.001)


def test_a_connection_that_comes_too_late_serves_the_next_call(server: Server) -> None:
    connector = server.over()
    with pytest.raises(TimeoutError):
        _in_time(connector, 0.01)
    server.lets_in.set()
    assert _in_time(connector, 60.0) == 0
    assert server.dropped == []


def test_on_an_event_loop_a_late_connection_serves_the_next_call(server: Server) -> None:
    async def run() -> None:
        connector = AsyncConnector(server.aconnect, server.dropped.append, Patience(60.0, 300.0))
        with pytest.raises(TimeoutError):
            async with awithin(0.01):
                await connector.take()
        server.lets_in.set()
        async with awithin(60.0):
            assert await connector.take() == 0
        await connector.aclose()

    asyncio.run(run())


def test_a_failure_is_told_to_one_call_and_frees_the_others_to_ask(server: Server) -> None:
    connector = server.over()
    server.fails = OSError("refused")
    server.lets_in.set()
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            _in_time(connector, 60.0)
    server.fails = None
    assert _in_time(connector, 60.0) == 0


def test_after_a_stall_few_late_connections_are_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = server.over()
    now = [0.0]
    monkeypatch.setattr(f"{SERVER}.time", SimpleNamespace(monotonic=lambda: now[0]))
    for _ in range(40):
        with pytest.raises(TimeoutError):
            _in_time(connector, 0.001)
        now[0] += 2.0  # what has been opening for so long is no longer counted on
    begun = len(connector._begun)
    assert begun == 20
    server.lets_in.set()
    _until(lambda: not connector._begun)
    _until(lambda: len(server.dropped) == begun - 2)
    assert len(connector._ready) == 2


def test_calls_that_lose_their_connections_in_time_find_one_that_is_ready(server: Server) -> None:
    connector = server.over()
    server.lets_in.set()
    for _ in range(2):  # each is late with its question, and so gives none back
        _in_time(connector, 60.0)
        connector.note_loss()
    _until(lambda: len(connector._ready) == 1)
    assert _in_time(connector, 0.0) in (1, 2)


def test_a_call_gets_the_only_connection_though_others_were_lost_meanwhile(server: Server) -> None:
    connector = server.over()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_in_time, connector, 60.0)
        server.asked.acquire()
        for _ in range(2):
            connector.note_loss()
        server.lets_in.set()
        assert waiting.result() is not None


def test_a_failure_is_told_to_nobody_while_another_opening_may_succeed(server: Server) -> None:
    first = threading.Event()

    async def connect() -> int:
        if first.is_set():
            return await server.connect()
        first.set()
        raise OSError("too many clients")

    connector = SyncConnector(connect, server.dropped.append, Patience(60.0, 300.0))
    connector.note_loss()  # so that one is opened to be kept
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_in_time, connector, 60.0)
        server.asked.acquire()
        server.lets_in.set()
        assert waiting.result() == 0


def test_what_comes_for_a_call_that_ends_serves_the_next_that_waits(server: Server) -> None:
    async def run() -> None:
        connector = AsyncConnector(server.aconnect, server.dropped.append, Patience(60.0, 300.0))
        ended, other = [asyncio.create_task(connector.take()) for _ in range(2)]
        await asyncio.sleep(0)  # both begin
        connector.waiting.popleft().set_result(7)
        ended.cancel()
        assert await other == 7
        assert ended.cancelled()
        server.lets_in.set()
        await connector.aclose()

    asyncio.run(run())


def test_closing_ends_the_wait_of_a_call(server: Server) -> None:
    connector = server.over()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_in_time, connector, 60.0)
        server.asked.acquire()
        run_sync(connector.aclose())
        with pytest.raises(TimeoutError, match="closed"):
            waiting.result()
    server.lets_in.set()
    _until(lambda: server.dropped == [0])


def test_a_call_that_must_open_a_connection_itself_has_its_own_deadline(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float | None] = []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def connect() -> int:
        from keyguard.runtime.deadlines import remaining

        patience.append(remaining())
        return 7

    connector = SyncConnector(connect, server.dropped.append, Patience(60.0, 300.0))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert _in_time(connector, 5.0) == 7
    assert patience[0] is not None
    assert patience[0] <= 5.0


def test_what_is_distrusted_is_dropped_and_not_lent(server: Server) -> None:
    connector = server.over()
    server.lets_in.set()
    assert _in_time(connector, 60.0) == 0
    connector.keep_ready()
    _until(lambda: len(connector._ready) == 1)
    connector.distrust()
    assert server.dropped == [1]
    assert connector.epoch == 1
    assert _in_time(connector, 60.0) == 2
