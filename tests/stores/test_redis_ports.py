"""What the Redis stores do with a port: calls that are repeated, and the steps of a reader."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from keyguard.stores.redis.scripts import STORE, Command, Script, ScriptCall, pack, store_call
from keyguard.stores.redis.sync_port import exchange
from tests.stores.sent import parts_of

READ = store_call(scripts.FIND_KEY, keys=("key:1",))
WRITE = store_call(scripts.REHASH_KEY, "old", "new", keys=("key:1",))


class Server(ScriptPort):
    """Answers commands in turn, and records their names."""

    place = "redis://h:1/0"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.names: list[str] = []

    async def send(self, commands: Sequence[Command], key: str, durability: Any = None) -> Any:
        assert key == f"{STORE}schema"
        self.names += [parts_of(command)[0] for command in commands]
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, list) else [answer]

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


def test_scripts_that_the_server_does_not_know_are_sent_in_full_once() -> None:
    server = Server([NoScriptError()] * 3, [b"1", b"2", b"3"])
    assert run_sync(server.run_all([WRITE] * 3)) == [b"1", b"2", b"3"]
    assert server.names == ["EVALSHA"] * 3 + ["EVAL"] + ["EVALSHA"] * 2


def test_a_call_that_fails_by_itself_leaves_the_others_their_replies() -> None:
    damaged = ResponseError(f"{scripts.CORRUPT} keyguard:{{org_1}}:x")
    first, second, third = run_sync(Server([b"1", damaged, b"3"]).run_all([WRITE] * 3))
    assert (first, third) == (b"1", b"3")
    assert isinstance(second, CorruptDataError)
    assert second.__cause__ is damaged


def test_calls_that_a_replica_refuses_are_sent_once_more_together() -> None:
    refusal = ReadOnlyError("You can't write against a read only replica.")
    server = Server([b"1", refusal, refusal], [b"2", b"3"])
    assert run_sync(server.run_all([WRITE] * 3)) == [b"1", b"2", b"3"]
    assert server.names == ["EVALSHA"] * 3 + ["dropped"] + ["EVALSHA"] * 2


def test_calls_on_a_connection_that_ended_fail_and_are_not_sent_again() -> None:
    server = Server([b"1", LostError(), LostError()])
    first, *others = run_sync(server.run_all([WRITE] * 3))
    assert first == b"1"
    assert [type(other) for other in others] == [StoreUnavailableError] * 2
    assert server.names == ["EVALSHA"] * 3


def test_calls_that_all_fail_raise() -> None:
    with pytest.raises(StoreUnavailableError):
        run_sync(Server([LostError(), LostError()]).run_all([WRITE] * 2))


def test_where_nobody_knows_of_one_call_no_error_says_that_nothing_was_done() -> None:
    damaged = ResponseError(f"{scripts.CORRUPT} keyguard:{{org_1}}:x")
    with pytest.raises(StoreUnavailableError):
        run_sync(Server([damaged, LostError()]).run_all([WRITE] * 2))


class Ending:
    """A connection that ends after its first reply."""

    def __init__(self) -> None:
        self.replies: list[Any] = [b"1", ResponseError("refused"), LostError("ended")]
        self.is_open = True
        self.sent = b""

    def get_connection(self) -> Any:
        return self

    def release(self, connection: Any) -> None:
        assert connection is self

    def send_packed_command(self, packed: Any) -> None:
        self.sent += b"".join(packed)

    def read_response(self, *, disconnect_on_error: bool) -> Any:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def disconnect(self) -> None:
        self.is_open = False


def test_replies_that_came_before_the_connection_ended_are_kept() -> None:
    connection: Any = Ending()
    replies = exchange(connection, [pack(f"C{number}") for number in range(5)])
    assert connection.sent == b"".join(b"*1\r\n$2\r\nC%d\r\n" % number for number in range(5))
    assert [type(reply) for reply in replies] == [bytes, ResponseError] + [LostError] * 3
    assert str(replies[2]) == "ended"
    assert not connection.is_open


def test_what_the_server_refuses_is_not_sent_again() -> None:
    server = Server(ResponseError("ERR"))
    with pytest.raises(StoreError):
        run_sync(server.run(READ))
    assert server.names == ["EVALSHA"]


@pytest.mark.timeout(60, func_only=True)
def test_closing_waits_only_for_a_time_for_a_server_that_says_no_goodbye(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keyguard.stores.redis.clients.LONGEST_PARTING", 0.01)

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
