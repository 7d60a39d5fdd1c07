"""The lowest versions of other packages, in pyproject.toml, `make matrix` and the docs."""

from __future__ import annotations

from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts import floors


def test_the_page_shows_the_lowest_versions_of_pyproject_toml() -> None:
    text = floors.PAGE.read_text(encoding="utf-8")
    assert floors.page(text) == text, "python3 scripts/floors.py page"


def test_each_lowest_version_is_pinned_with_what_keyguard_needs_of_the_package() -> None:
    pins = [floor.pin for floor in floors.floors()]
    assert "sqlalchemy[asyncio]==2.0.43" in pins
    assert len(pins) == len(set(pins))
    assert [floor.pin for floor in floors.floors("starlette")] == ["starlette==0.40"]


def test_the_environment_of_the_lowest_versions_has_each_of_them() -> None:
    installed = floors.pinned("floors.txt")
    others = [
        floor.pin
        for floor in floors.floors()
        if Version(floor.version) != Version(installed[canonicalize_name(floor.name)])
    ]
    assert others == [], "make pins"


def test_what_holds_a_version_is_what_stands_beside_it() -> None:
    reasons = {floor.name: floor.reason for floor in floors.floors()}
    assert reasons["fastapi"] == "it is the first that accepts Starlette 0.40"
