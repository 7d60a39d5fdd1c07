"""What the landing page, and the page on coming from another library, show is run as it stands."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.test import Client
from flask import Flask
from starlette.testclient import TestClient

from keyguard import AsyncKeyguard, Keyguard
from tests.adapters.django_site import changed
from tests.examples.pages import ROOT, blocks, page, run

pytestmark = pytest.mark.usefixtures("patience")

LANDING, COMING = "docs/index.md", "docs/how-to/coming-from.md"
DJANGO = 2  # blocks, which are files


def issued(prefix: str, *scopes: str) -> dict[str, str]:
    with Keyguard("sqlite:///keys.db", prefix=prefix) as guard:
        key = guard.keys.issue(organization="acme", name="ci", scopes=scopes)
        return {"Authorization": f"Bearer {key.token.reveal()}"}


def call(app: Any, method: str, path: str, headers: dict[str, str]) -> int:
    if isinstance(app, Flask):
        return app.test_client().open(path, method=method, headers=headers).status_code
    return TestClient(app).request(method, path, headers=headers).status_code


CASES = [
    *(
        (LANDING, number, "aiaas_live", ("POST", "/v1/inference", "inference:write"))
        for number in range(3)
    ),
    *(
        (COMING, number, "kg_live", ("GET", "/report", "reports:read"))
        for number in range(DJANGO, DJANGO + 3)
    ),
]


@pytest.mark.parametrize(("name", "number", "prefix", "asked"), CASES)
def test_the_application_lets_in_a_key_with_the_scope(
    name: str,
    number: int,
    prefix: str,
    asked: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db") as store:
        store.migrate()
        store.organizations.create("acme")
    names = run(name, number, {"__name__": "docs"})
    method, path, scope = asked

    for headers, status in ((issued(prefix, scope), 200), (issued(prefix), 403), ({}, 401)):
        assert call(names["app"], method, path, headers) == status
    guard = names["guard"]
    asyncio.run(guard.aclose()) if isinstance(guard, AsyncKeyguard) else guard.close()


def test_the_key_of_the_page_is_issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(COMING, DJANGO + 2, {"__name__": "docs"})

    async def issue() -> tuple[str, ...]:
        async with names["guard"]:
            return tuple((await names["issue"]()).key.scopes)

    assert asyncio.run(issue()) == ("reports:read",)


def test_the_project_of_the_page_lets_in_a_key_with_the_scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = run(COMING, 0, {"__name__": "project.settings"})
    views = ModuleType("project.views")
    run(COMING, 1, vars(views))
    monkeypatch.setitem(sys.modules, "project.views", views)
    names = ("KEYGUARD", "MIDDLEWARE", "ROOT_URLCONF")
    with project["guard"] as guard, changed(**{name: project[name] for name in names}):
        guard.migrate()
        guard.organizations.create("acme")
        for headers, status in (
            (issued("kg_live", "reports:read"), 200),
            (issued("kg_live"), 403),
            ({}, 401),
        ):
            assert Client().get("/report", headers=headers).status_code == status


def test_every_block_is_run_and_every_page_is_listed_once() -> None:
    assert [len(blocks(page(name), "python")) for name in (LANDING, COMING)] == [3, DJANGO + 3]
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", page(LANDING), re.M | re.S)
    parts = [re.findall(r":caption: (.+)", tree)[0] for tree in trees]
    listed = [line for tree in trees for line in tree.splitlines() if re.match(r"[\w/-]+$", line)]
    pages = [file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")]

    assert parts == ["Tutorial", "How-to", "Reference", "Explanation"]
    assert sorted([*listed, "index"]) == sorted(str(name.with_suffix("")) for name in pages)
