"""What the Redis stores do with a port: calls that are repeated, and the steps of a reader."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any

import pytest
from redis.exceptions import (
    BusyLoadingError,
    ClusterError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostError

from keyguard.exceptions import CorruptDataError, StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import within
from keyguard.runtime.sync import run_sync
from keyguard.stores.base import News
from keyguard.stores.redis import parse, scripts
from keyguard.stores.redis.feed import TrailReader
from keyguard.stores.redis.ports import AsyncScriptPort, ScriptPort
from keyguard.stores.redis.scripts import STORE, Command, Script, ScriptCall, store_call

READ = store_call(scripts.FIND_KEY, keys=("key:1",))
WRITE = store_call(scripts.REHASH_KEY, "old", "new", keys=("key:1",))


class Server(ScriptPort):
    """Answers commands in turn, and records their names."""

    place = "redis://h:1/0"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.names: list[str | bytes] = []

    async def send(self, command: Command, key: str, durability: Any = None) -> Any:
        assert key == f"{STORE}schema"
        self.names.append(command.parts[0])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def drop_idle(self) -> None:
        self.names.append("dropped")

    async def pause(self, seconds: float) -> None:
        assert 0 < seconds <= 0.05
        self.names.append("paused")

    async def aclose(self) -> None:
        """Nothing is open."""


def test_a_damaged_bucket_named_readonly_is_damaged() -> None:
    damaged = ResponseError(f"{scripts.CORRUPT} keyguard:{{org_1}}:READONLY script: 1, on @user:1.")
    server = Server(damaged, "done")
    with pytest.raises(CorruptDataError):
        run_sync(server.run(WRITE))
    assert server.names == ["EVALSHA"]


@pytest.mark.parametrize("call", [READ, WRITE])
@pytest.mark.parametrize(
    "refusal",
    [
        ReadOnlyError("You can't write against a read only replica."),
        ResponseError("Error running script: @user_script: 1: -READONLY You can't write"),
        MasterDownError("Link with MASTER is down"),
        LostError("The previous master is now a slave"),
        BusyLoadingError("Redis is loading the dataset in memory"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_a_change_that_a_replica_refuses_is_sent_once_more(call: Any, refusal: Exception) -> None:
    server = Server(refusal, "done")
    assert run_sync(server.run(call)) == "done"
    assert server.names == ["EVALSHA", "dropped", "EVALSHA"]
    with pytest.raises(StoreUnavailableError):
        run_sync(Server(refusal, refusal, "done").run(call))


@pytest.mark.parametrize("call", [READ, WRITE])
@pytest.mark.parametrize(
    "refusal", [TryAgainError("Multiple keys request"), ClusterError("TTL exhausted.")]
)
def test_a_call_whose_keys_are_moving_is_sent_until_they_have_moved(
    call: Any, refusal: Exception
) -> None:
    server = Server(*[refusal] * 3, "done")
    assert run_sync(server.run(call)) == "done"
    assert server.names == ["EVALSHA", *["paused", "EVALSHA"] * 3]


def test_a_call_whose_keys_never_arrive_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([600.0, 0.0])
    monkeypatch.setattr("keyguard.stores.redis.ports.remaining", lambda: next(left))
    server = Server(TryAgainError(), TryAgainError())
    with pytest.raises(StoreUnavailableError):
        run_sync(server.run(WRITE))
    assert server.names == ["EVALSHA", "paused", "EVALSHA"]


def test_a_script_is_called_by_its_digest() -> None:
    server = Server(b"found")
    assert run_sync(server.run(READ)) == b"found"
    assert server.names == ["EVALSHA"]


def test_a_look_up_on_a_dead_connection_is_sent_again() -> None:
    server = Server(LostError(), b"found")
    assert run_sync(server.run(READ)) == b"found"
    assert server.names == ["EVALSHA"] * 2


def test_a_look_up_is_sent_again_only_once() -> None:
    server = Server(LostError(), LostError())
    with pytest.raises(StoreUnavailableError):
        run_sync(server.run(READ))
    assert server.names == ["EVALSHA"] * 2


def test_a_look_up_whose_time_is_over_is_not_sent_again() -> None:
    server = Server(LostError())
    with within(0), pytest.raises(StoreUnavailableError):
        run_sync(server.run(READ))
    assert server.names == ["EVALSHA"]


def test_a_change_on_a_dead_connection_is_not_sent_again() -> None:
    server = Server(LostError())
    with pytest.raises(StoreUnavailableError):
        run_sync(server.run(WRITE))
    assert server.names == ["EVALSHA"]


@pytest.mark.parametrize("call", [READ, WRITE])
def test_a_script_that_the_server_does_not_know_is_sent_in_full(call: ScriptCall) -> None:
    server = Server(NoScriptError(), b"done")
    assert run_sync(server.run(call)) == b"done"
    assert server.names == ["EVALSHA", "EVAL"]


def test_a_script_may_be_unknown_on_the_second_connection() -> None:
    server = Server(LostError(), NoScriptError(), b"found")
    assert run_sync(server.run(READ)) == b"found"
    assert server.names == ["EVALSHA", "EVALSHA", "EVAL"]


def test_what_the_server_refuses_is_not_sent_again() -> None:
    server = Server(ResponseError("ERR"))
    with pytest.raises(StoreError):
        run_sync(server.run(READ))
    assert server.names == ["EVALSHA"]


@pytest.mark.timeout(20, func_only=True)
def test_closing_waits_only_for_a_time_for_a_server_that_says_no_goodbye(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keyguard.stores.redis.ports._LONGEST_PARTING", 0.01)

    async def scenario() -> None:
        port = AsyncScriptPort(parse("rediss://localhost"))
        client: Any = port.open()
        client.aclose = asyncio.Event().wait
        await port.aclose()

    asyncio.run(scenario())


class Reader(TrailReader):
    """A reader that is answered in turn, and records what it asks."""

    def __init__(self, *news: tuple[str, list[str] | None], wakes: bool = True) -> None:
        self.told = list(news)
        self.wakes = wakes
        self.asked: list[str] = []

    async def run(self, call: ScriptCall) -> Any:
        self.asked.append("news")
        end, subjects = self.told.pop(0)
        told: Any = None if subjects is None else [subject.encode() for subject in subjects]
        return [end.encode(), told, 1]

    async def wait(self, position: str, seconds: float) -> bool:
        assert seconds > 0
        self.asked.append(f"wait after {position}")
        return self.wakes

    async def exchange(self, command: Command) -> Any:
        raise AssertionError  # as run and wait are answered above

    async def disconnect(self, *, moved: bool = False) -> None:
        """Nothing is open."""

    async def pause(self, seconds: float) -> None:
        raise AssertionError  # likewise

    async def aclose(self) -> None:
        """Nothing is open."""


def read(reader: Reader, position: str | None, patience: float) -> News:
    return run_sync(reader.news(position, patience))


def test_a_reader_waits_only_if_nothing_changed() -> None:
    reader = Reader(("1-0", []), ("2-0", ["a"]))
    assert read(reader, "1-0", 600) == News("2-0", ("a",))
    assert reader.asked == ["news", "wait after 1-0", "news"]


def test_a_reader_waits_again_after_it_was_woken_for_nothing() -> None:
    reader = Reader(("1-0", []), ("1-0", []), ("2-0", ["a"]))
    assert read(reader, "1-0", 600) == News("2-0", ("a",))
    assert reader.asked == ["news", "wait after 1-0"] * 2 + ["news"]


def test_a_reader_that_was_not_woken_tells_that_nothing_changed() -> None:
    reader = Reader(("1-0", []), wakes=False)
    assert read(reader, "1-0", 600) == News("1-0", ())
    assert reader.asked == ["news", "wait after 1-0"]


@pytest.mark.parametrize(
    ("position", "patience", "news"),
    [
        (None, 600, News("1-0", ())),
        ("0-0", 600, News("1-0", ())),
        ("1-0", 0, News("1-0", ())),
        ("1-0", 600, News("1-0", None)),
    ],
)
def test_a_reader_does_not_wait(position: str | None, patience: float, news: News) -> None:
    reader = Reader((news.position, None if news.subjects is None else []))
    assert read(reader, position, patience) == news
    assert reader.asked == ["news"]


def test_every_script_is_a_file_of_the_package_and_every_file_is_used() -> None:
    folder = files("keyguard.stores.redis") / "lua"
    found = {file.name.removesuffix(".lua") for file in folder.iterdir()}
    used = [script for script in vars(scripts).values() if isinstance(script, Script)]
    assert {part for script in used for part in script._parts} == found
    assert all(script.text.isascii() for script in used)
