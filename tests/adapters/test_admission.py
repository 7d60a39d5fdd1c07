"""Admission: what both pure adapters ask before the guard, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import Allow, Rule
from keyguard.adapters import asgi, wsgi
from tests.adapters.stacks import Request, call_asgi, call_wsgi
from tests.world import World


def bearer(token: str, path: str = "/any") -> Request:
    return Request(path=path, authorization=(f"Bearer {token}".encode(),))


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


class Counted:
    """A pure adapter whose guard counts how often the cache is asked before the guard."""

    def __init__(self, interface: str, **options: Any) -> None:
        self.world = World()
        self.asked = 0
        self._is_asgi = interface == "asgi"
        self.guard: Any = self.world.async_guard if self._is_asgi else self.world.guard
        recall = self.guard._recall

        def counted(field: bytes) -> Allow | None:
            self.asked += 1
            found: Allow | None = recall(field)
            return found

        self.guard._recall = counted
        if self._is_asgi:
            self._app: Any = asgi.KeyguardMiddleware(asgi_app, self.guard, **options)
        else:
            self._app = wsgi.KeyguardMiddleware(wsgi_app, self.guard, **options)

    def status(self, request: Request) -> int:
        call = call_asgi if self._is_asgi else call_wsgi
        return call(self._app, request).status


@pytest.fixture(params=["asgi", "wsgi"])
def interface(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("rules", [(), (Rule("/other", scopes=["inference:read"]),)])
def test_a_token_that_is_not_known_is_looked_for_in_the_cache_once(
    interface: str, rules: tuple[Rule, ...]
) -> None:
    counted = Counted(interface, rules=rules)
    token = counted.world.token()

    assert [counted.status(bearer(token)), counted.asked] == [200, 1]
    assert [counted.status(bearer(token)), counted.asked] == [200, 2]


def test_without_credentials_the_cache_is_not_asked(interface: str) -> None:
    counted = Counted(interface)

    assert [counted.status(Request(path="/any")), counted.asked] == [401, 0]


def test_middleware_around_an_adapter_may_change_the_fields_of_an_answer() -> None:
    world = World()
    seen: list[list[tuple[bytes, bytes]]] = []
    guarded = asgi.KeyguardMiddleware(asgi_app, world.async_guard)

    async def around(scope: Any, receive: Any, send: Any) -> None:
        async def changed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-more", b"1"))
                seen.append(message["headers"])
            await send(message)

        await guarded(scope, receive, changed)

    for _ in range(2):
        call_asgi(around, Request(path="/any"))

    assert [name for name, _ in seen[1]].count(b"x-more") == 1


def test_a_request_without_a_path_is_one_for_the_root() -> None:
    world = World()
    guarded: Any = wsgi.KeyguardMiddleware(wsgi_app, world.guard, public=["/"])
    begun: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}

    guarded(environ, lambda status, _headers: begun.append(status))

    assert begun == ["200 OK"]


def test_whoever_asks_for_the_root_without_naming_it_needs_no_key(interface: str) -> None:
    counted = Counted(interface, public=["/"])

    assert counted.status(bearer(counted.world.token(), path="")) == 200
    assert counted.status(bearer("garbage", path="")) == 200
    assert counted.asked == 0
