"""A page of another origin calls the service of each framework's page, and reads every answer."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, Error

from keyguard import Keyguard
from tests.examples.pages import blocks, page
from tests.examples.running import over_asgi, over_wsgi

ORIGIN = "https://app.example"  # that of the documentation
ASK = blocks(page("docs/how-to/browsers.md"), "js")[0]
LIMIT = "1/day"  # no new day begins within the test, but at midnight

Names: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[[socket.socket, Names, str], AbstractContextManager[object]]


def defined(name: str, number: int, origin: str, namespace: Names) -> Names:
    """Return what a block of a page defines, for pages of another origin than those it names."""
    code = blocks(page(f"docs/how-to/{name}.md"), "python")[number].replace(ORIGIN, origin)
    exec(compile(code, f"{name}, block {number + 1}", "exec"), namespace)
    return namespace


@contextmanager
def asgi(sock: socket.socket, names: Names, origin: str) -> Iterator[None]:
    with over_asgi(sock, names["app"]) as loop:
        yield
        asyncio.run_coroutine_threadsafe(names["guard"].aclose(), loop).result(30)


@contextmanager
def wsgi(sock: socket.socket, names: Names, origin: str) -> Iterator[None]:
    with names["guard"], over_wsgi(sock, names["app"]):
        yield


def flask(sock: socket.socket, names: Names, origin: str) -> AbstractContextManager[None]:
    return wsgi(sock, names | {"app": names["create_app"]()}, origin)


def falcon(sock: socket.socket, names: Names, origin: str) -> AbstractContextManager[None]:
    layer = defined("browsers", 1, origin, {})
    layer["guard"].close()
    return wsgi(sock, names | {"app": layer["CORSLayer"](names["app"])}, origin)


@contextmanager
def django(sock: socket.socket, names: Names, origin: str) -> Iterator[None]:
    from django.core.handlers.wsgi import WSGIHandler
    from django.urls import path

    from tests.adapters.django_site import changed

    settings = defined("django", 1, origin, {})
    kept = {name: settings[name] for name in settings if name.startswith(("CORS_", "MIDDLEWARE"))}
    urls = ModuleType("urls")
    defined("django", 2, origin, vars(urls))
    views = blocks(page("docs/how-to/django.md"), "python")
    (number,) = (at for at, code in enumerate(views) if "\nclass Report(APIView)" in code)
    report = defined("django", number, origin, {"__name__": "reports"})["Report"]
    urls.urlpatterns.append(path("v1/rest", report.as_view()))
    setup = changed(KEYGUARD={"guard": names["guard"]}, ROOT_URLCONF=urls, **kept)
    with setup, wsgi(sock, names | {"app": WSGIHandler()}, origin):
        yield


CASES: dict[str, tuple[str, int, Serve, str, str, str]] = {
    "starlette": ("starlette", 0, asgi, "POST", "/v1/inference", "inference:write"),
    "flask": ("flask", 0, flask, "POST", "/v1/inference", "inference:write"),
    "fastapi": ("fastapi", 0, asgi, "POST", "/v1/inference", "inference:write"),
    "django": ("django", 0, django, "GET", "/v1/inference", "inference:write"),
    "django rest framework": ("django", 0, django, "GET", "/v1/rest", "analytics:read"),
    "litestar": ("litestar", 0, asgi, "POST", "/v1/inference", "inference:write"),
    "quart": ("quart", 0, asgi, "POST", "/v1/inference", "inference:write"),
    "falcon over ASGI": ("falcon", 1, asgi, "POST", "/v1/inference", "inference:write"),
    "falcon over WSGI": ("falcon", 0, falcon, "POST", "/v1/inference", "inference:write"),
    "any ASGI": ("browsers", 0, asgi, "DELETE", "/", ""),
    "any WSGI": ("browsers", 1, wsgi, "DELETE", "/", ""),
}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: None) -> Iterator[Keyguard]:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
        yield guard


@pytest.mark.campaign("starlette", "flask")
@pytest.mark.parametrize("case", CASES)
def test_a_script_of_another_origin_reads_every_answer(
    case: str, browser: Browser, guard: Keyguard, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, number, serve, method, path, scope = CASES[case]
    service = ModuleType("service")
    monkeypatch.setitem(sys.modules, "service", service)  # where Litestar looks annotations up
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = sock.getsockname()[1]
        origin, url = f"http://localhost:{port}", f"http://127.0.0.1:{port}{path}"
        names = defined(name, number, origin, vars(service))
        stack.enter_context(serve(sock, names, origin))
        visitor = stack.enter_context(browser.new_page())
        visitor.goto(f"{origin}/healthz")

        def ask(*scopes: str, times: int = 1) -> Names:
            issued = guard.keys.issue(organization="acme", name="ci", scopes=scopes, limits=[LIMIT])
            options = {"method": method, "key": issued.token.reveal()}
            for _ in range(times):
                answer: Names = visitor.evaluate(f"([url, o]) => ({ASK})(url, o)", [url, options])
            return answer

        scopes = (scope,) if scope else ()
        accepted, limited = ask(*scopes), ask(*scopes, times=3)
        nobody = visitor.evaluate(f"([url, method]) => ({ASK})(url, {{ method }})", [url, method])

        assert (accepted["status"], limited["status"], nobody["status"]) == (200, 429, 401)
        assert ";r=0;" in accepted["left"]
        assert ";q=1;w=86400" in accepted["policy"]
        assert int(limited["wait"]) > 0
        assert nobody["challenge"].startswith("Bearer realm=")
        if scope:
            denied = ask()
            assert denied["status"] == 403
            assert f'scope="{scope}"' in denied["challenge"]
        visitor.goto(f"http://other.localhost:{port}/healthz")
        with pytest.raises(Error, match="Failed to fetch"):
            ask(*scopes)
