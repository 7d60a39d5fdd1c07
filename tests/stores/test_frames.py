"""No password is in the frames of what fails, which reporters of errors show with their locals."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.runtime.deadlines import within
from keyguard.runtime.frames import frameless
from keyguard.stores.opening import open_async_store, open_store
from tests.services import free_port
from tests.stores.records import key

TESTS = str(Path(__file__).parent.parent)
PASSWORD = "hunter2-and-more"
SCHEMES = ("redis", "redis+cluster", "redis+sentinel", "postgresql", "mysql")

# Nothing here measures time. A call that does not come back ends with the test's own watchdog.
pytestmark = pytest.mark.timeout(60, func_only=True)


def url_of(scheme: str, port: int) -> str:
    path = "primary/0" if scheme == "redis+sentinel" else "0"
    options = f"?sentinel_password={PASSWORD}" if scheme == "redis+sentinel" else ""
    return f"{scheme}://somebody:{PASSWORD}@127.0.0.1:{port}/{path}{options}"


def chain_of(failure: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending = [failure]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [one.__cause__, one.__context__]


def locals_of(failure: BaseException) -> str:
    """All that a reporter would show of a failure and what it comes of, but for the tests' own."""
    shown: list[str] = []
    for one in chain_of(failure):
        shown.append(repr(one))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if not frame.f_code.co_filename.startswith(TESTS):
                shown.append(f"{frame.f_code.co_qualname}: {frame.f_locals!r}")
    return "\n".join(shown)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_frame_holds_the_password_where_nobody_listens(scheme: str) -> None:
    store = open_store(url_of(scheme, free_port()))
    with pytest.raises(StoreUnavailableError) as raised:
        store.find_key(key().id)
    assert PASSWORD not in locals_of(raised.value)
    store.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_frame_holds_the_password_where_nobody_listens_on_asyncio(scheme: str) -> None:
    async def scenario() -> None:
        store = open_async_store(url_of(scheme, free_port()))
        with pytest.raises(StoreUnavailableError) as raised:
            await store.find_key(key().id)
        assert PASSWORD not in locals_of(raised.value)
        await store.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("reads_the_feed", [False, True])
def test_no_frame_holds_the_password_where_time_is_over_as_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, *, reads_the_feed: bool
) -> None:
    # Connecting has time; sending the password after it has none.
    waits = iter([5.0])
    monkeypatch.setattr("keyguard.stores.redis.pools.patience", lambda: next(waits, 0.001))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(url_of("redis", silent.getsockname()[1]))
        feed = store.feed()
        with within(5.0), pytest.raises(StoreUnavailableError) as raised:
            feed.read(None, 0) if reads_the_feed else store.find_key(key().id)
        causes = list(chain_of(raised.value))
        assert "the server did not answer in time" in map(str, causes)
        assert PASSWORD not in locals_of(raised.value)
        feed.close()
        store.close()


@pytest.mark.parametrize("reads_the_feed", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_frame_holds_the_password_where_its_sending_is_cancelled(
    scheme: str, *, reads_the_feed: bool
) -> None:
    async def scenario(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        store = open_async_store(url_of(scheme, listener.getsockname()[1]))
        feed = store.feed()

        async def ask() -> None:
            await (feed.read(None, 0) if reads_the_feed else store.find_key(key().id))

        asking = asyncio.create_task(ask())
        connection, _ = await loop.sock_accept(listener)
        with connection:
            connection.setblocking(False)
            if scheme != "mysql":  # where the server speaks first
                await loop.sock_recv(connection, 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError) as raised:
                await asking
            assert PASSWORD not in locals_of(raised.value)
            await feed.aclose()
            await store.aclose()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        asyncio.run(scenario(silent))


class ServerError(Exception):
    pass


def failed(failure: BaseException) -> BaseException:
    with pytest.raises(type(failure)) as raised:
        raise failure
    return raised.value


def fail(failure: BaseException) -> None:
    raise failure


def test_frames_go_from_the_whole_chain_though_it_be_a_circle() -> None:
    first, second, third = ServerError(), failed(ValueError()), failed(KeyError())
    first.__cause__, first.__context__ = second, third
    third.__context__ = first
    with pytest.raises(ServerError) as raised, frameless():
        fail(first)
    assert raised.value is first
    assert (first.__cause__, first.__context__) == (second, third)
    assert second.__traceback__ is third.__traceback__ is None
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(first.__traceback__)]
    assert "fail" not in frames


def test_what_the_application_handles_keeps_its_frames() -> None:
    own = LookupError("the application's own")
    try:
        fail(own)
    except LookupError:
        with pytest.raises(ServerError) as raised, frameless():
            fail(ServerError())
    assert raised.value.__context__ is own
    assert own.__traceback__ is not None
