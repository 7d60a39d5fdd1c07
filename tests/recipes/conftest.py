"""The recipes of the documentation, run as they stand, over a store of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient
from werkzeug.test import Client

from keyguard import Keyguard
from tests.examples.pages import run

RECIPES = {
    "litestar": ("docs/how-to/litestar.md", 0),
    "quart": ("docs/how-to/quart.md", 0),
    "falcon over WSGI": ("docs/how-to/falcon.md", 0),
    "falcon over ASGI": ("docs/how-to/falcon.md", 1),
}


@dataclass
class Store:
    """Issues keys of the organization acme."""

    guard: Keyguard

    def bearer(self, *scopes: str) -> dict[str, str]:
        issued = self.guard.keys.issue(organization="acme", name="test", scopes=scopes)
        return {"Authorization": f"Bearer {issued.token.reveal()}"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db", prefix="aiaas_live") as guard:
        guard.migrate()
        guard.organizations.create("acme")
        yield Store(guard)


@pytest.fixture
def recipe(
    store: Store, monkeypatch: pytest.MonkeyPatch, patience: None
) -> Iterator[Callable[[str], tuple[dict[str, Any], Any]]]:
    """Return what a recipe defines, and a client of its application."""
    opened: list[Any] = []

    def make(name: str) -> tuple[dict[str, Any], Any]:
        module = ModuleType("recipe")
        monkeypatch.setitem(sys.modules, "recipe", module)  # where Litestar looks annotations up
        names = run(*RECIPES[name], vars(module))
        if isinstance(names["guard"], Keyguard):
            opened.append(names["guard"])
            return names, Client(names["app"])
        client = TestClient(_as_servers_call(names["app"]), raise_server_exceptions=False)
        opened.append(client)
        return names, client.__enter__()

    yield make
    for recipe in opened:
        recipe.__exit__(None, None, None)


def _as_servers_call(app: Any) -> Any:
    """Return an application that gets ASGI's version with lifespan too, as Falcon insists."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "asgi": {"version": "3.0"}}, receive, send)

    return called
