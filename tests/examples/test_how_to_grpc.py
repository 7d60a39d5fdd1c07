"""What docs/how-to/grpc.md shows is run as it stands, by servers and clients of grpcio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from keyguard import Keyguard
from tests.examples.pages import blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

PAGE = "docs/how-to/grpc.md"
SYNC, SERVE, CALL, ASYNC, QUEUE = range(5)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    url = f"sqlite:///{tmp_path}/keys.db"
    monkeypatch.setenv("KEYGUARD_URL", url)
    names: dict[str, Any] = {"__name__": "how_to_grpc"}
    for block in (SYNC, SERVE, CALL, ASYNC, QUEUE):
        run(PAGE, block, names)
    with Keyguard(url, prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
        for name, *scopes in (("reader", "inference:read"), ("writer", "inference:write")):
            issued = guard.keys.issue(organization="acme", name=name, scopes=scopes)
            names[name] = (("authorization", f"Bearer {issued.token.reveal()}"),)
    yield names
    names["guard"].close()


def handlers(names: dict[str, Any], *, is_async: bool) -> Any:
    """Return a service whose methods say who calls."""

    def who() -> bytes:
        principal: Any = names["present"].get().principal
        return str(sorted(principal.scopes)).encode()

    def unary(request: bytes, context: Any) -> bytes:
        return who()

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield who()
        yield b"second"

    async def aunary(request: bytes, context: Any) -> bytes:
        return who()

    async def astream(request: Any, context: Any) -> AsyncIterator[bytes]:
        for answer in stream(request, context):
            yield answer

    return grpc.method_handlers_generic_handler(
        "demo.Models",
        {
            "Complete": grpc.unary_unary_rpc_method_handler(aunary if is_async else unary),
            "List": grpc.stream_stream_rpc_method_handler(astream if is_async else stream),
        },
    )


COMPLETE, LIST = "/demo.Models/Complete", "/demo.Models/List"
# The name of a key, and how calls of Complete and List end.
CODE = grpc.StatusCode
CALLS: dict[str, list[Any]] = {
    "nobody": [CODE.UNAUTHENTICATED, CODE.UNAUTHENTICATED],
    "reader": [CODE.PERMISSION_DENIED, [b"['inference:read']", b"second"]],
    "writer": [b"['inference:write']", CODE.PERMISSION_DENIED],
}


def checked(failure: grpc.RpcError | grpc.aio.AioRpcError) -> Any:
    found: Any = failure
    trailing = dict(found.trailing_metadata())
    if found.code() is CODE.RESOURCE_EXHAUSTED:
        assert int(trailing["retry-after"]) > 0
        assert found.details().startswith("Rate limit exceeded: demo-Models-Complete")
    else:
        assert trailing["www-authenticate"].startswith("Bearer realm=")
    assert trailing["cache-control"] == "no-store"
    return found.code()


def test_an_interceptor_lets_calls_in_by_rules_and_limits(names: dict[str, Any]) -> None:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=names["interceptors"])
    server.add_generic_rpc_handlers((handlers(names, is_async=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:

        def call(method: str, metadata: Any) -> Any:
            try:
                if method == LIST:
                    return [*channel.stream_stream(LIST)(iter([b"x"]), metadata=metadata)]
                return channel.unary_unary(method)(b"x", metadata=metadata)
            except grpc.RpcError as failure:
                return checked(failure)

        for name, expected in CALLS.items():
            metadata = names.get(name, ())
            assert [call(COMPLETE, metadata), call(LIST, metadata)] == expected
        again = [call(COMPLETE, names["writer"]) for _ in range(2)]
    server.stop(None).wait()

    assert again == [b"['inference:write']", CODE.RESOURCE_EXHAUSTED]


def test_the_call_of_the_page_is_answered_by_its_server(names: dict[str, Any]) -> None:
    server, port = names["serve"]("127.0.0.1:0")
    token = names["writer"][0][1].removeprefix("Bearer ")

    assert names["call"](f"127.0.0.1:{port}", token).startswith("org_")
    server.stop(None).wait()


def test_an_async_interceptor_does_the_same(names: dict[str, Any]) -> None:
    async def serve() -> list[Any]:
        server = grpc.aio.server(interceptors=names["async_interceptors"])
        server.add_generic_rpc_handlers((handlers(names, is_async=True),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()

        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

                async def call(method: str, metadata: Any) -> Any:
                    try:
                        if method == LIST:
                            # A stream sends its message later, and fails if it is refused then.
                            answers = channel.unary_stream(LIST)(b"x", metadata=metadata)
                            return [answer async for answer in answers]
                        return await channel.unary_unary(method)(b"x", metadata=metadata)
                    except grpc.aio.AioRpcError as failure:
                        return checked(failure)

                for name, expected in CALLS.items():
                    metadata = names.get(name, ())
                    assert [await call(COMPLETE, metadata), await call(LIST, metadata)] == expected
                again = [await call(COMPLETE, names["writer"]) for _ in range(2)]
        finally:  # or its end would fail in another test
            await server.stop(None)
        await names["async_guard"].aclose()
        return again

    assert asyncio.run(serve()) == [b"['inference:write']", CODE.RESOURCE_EXHAUSTED]


def test_a_worker_asks_for_each_job(names: dict[str, Any]) -> None:
    token = names["writer"][0][1]
    assert names["work"]({"authorization": token, "texts": 3}).startswith("org_")
    assert names["work"]({"authorization": "Bearer x", "texts": 3}) == "token_malformed"


def test_the_page_has_no_other_code() -> None:
    assert len(blocks(page(PAGE), "python")) == 5
