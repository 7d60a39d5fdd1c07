"""Services whose metrics the tests of telemetry read."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from keyguard import AsyncKeyguard, Keyguard, Limit, rate_limit
from keyguard.adapters import asgi, wsgi
from keyguard.telemetry._readings import AnyGuard

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Return every sample of an exposition, by its name and the labels that are not empty."""
    return {
        (sample.name, frozenset((name, label) for name, label in sample.labels.items() if label)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(registry: CollectorRegistry) -> Samples:
    """Return what Prometheus gets from a registry, over HTTP."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            return parsed(answer.read().decode())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sample(samples: Samples, name: str, **labels: str) -> float | None:
    """Return the value of the sample that has a name and at least these labels."""
    wanted = set(labels.items())
    found = [value for (known, has), value in samples.items() if known == name and wanted <= has]
    assert len(found) <= 1, found
    return found[0] if found else None


def names(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


TWICE = rate_limit(Limit("twice", "2/year"))


@TWICE
def limited() -> None:
    """Let two requests a year through."""


@TWICE
async def alimited() -> None:
    """Let two requests a year through."""


def wsgi_app(environ: Any, start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/limited":
        limited()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    if scope["path"] == "/limited":
        await alimited()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


class Service:
    """A service behind a guard of either flavour, over a file of SQLite.

    Args:
        guard: The guard.
        client: Sends requests to the service.
        run: Calls a method of the guard, and waits for it.
    """

    def __init__(self, guard: AnyGuard, client: httpx.Client | TestClient, run: Any) -> None:
        self.guard = guard
        self._client = client
        self.run = run
        run(guard.migrate)
        self.owner = run(guard.organizations.create, "acme").id
        self.issued = run(guard.keys.issue, organization="acme", name="test", scopes=["a:b"])

    def ask(self, path: str = "/", token: str | None = None) -> int:
        token = self.issued.token.reveal() if token is None else token
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        return self._client.get(path, headers=fields).status_code

    def close(self) -> None:
        self.run(self.guard.close if isinstance(self.guard, Keyguard) else self.guard.aclose)


@contextmanager
def service(guard: AnyGuard, wrap: Any = lambda app: app) -> Generator[Service]:
    """Serve requests behind a guard.

    Args:
        guard: The guard.
        wrap: Puts more middleware around the guard's.
    """
    if isinstance(guard, Keyguard):
        app = wrap(wsgi.KeyguardMiddleware(wsgi_app, guard=guard))
        with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
            yield Service(guard, client, lambda method, *args, **named: method(*args, **named))
            guard.close()
        return
    app = wrap(asgi.KeyguardMiddleware(asgi_app, guard=guard))
    with TestClient(app, base_url="http://test") as client:

        def run(method: Any, *args: Any, **named: Any) -> Any:
            async def called() -> Any:
                result = method(*args, **named)
                return await result if inspect.isawaitable(result) else result

            return client.portal.call(called)

        yield Service(guard, client, run)
        run(guard.aclose)


def guard_of(flavour: str, folder: Path, **options: Any) -> AnyGuard:
    url = f"sqlite:///{folder / 'keys.db'}"
    make = Keyguard if flavour == "sync" else AsyncKeyguard
    return make(url, failure_limit=None, store_timeout=60.0, limiter_timeout=10.0, **options)
