"""What docs/how-to/testing.md shows is written to files, and run by pytest and by Django."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.pages import ROOT, blocks, page

PAGE = "docs/how-to/testing.md"
PYTEST = ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
PYTEST += ["-o", "asyncio_default_fixture_loop_scope=function"]
# The environment of the tests may be older than the entry point of the plugin.
PYTEST += ["-p", "pytest_keyguard"]
DJANGO = ["django", "test", "project", "--settings", "project.settings"]
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["keyguard.adapters.django"]
MIDDLEWARE = ["keyguard.adapters.django.KeyguardMiddleware"]
ROOT_URLCONF = "project.tests"
KEYGUARD = {"guard": "project.guards.guard"}
"""
GUARD = 'from keyguard import Keyguard\nguard = Keyguard("sqlite:///keys.db")\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for code in blocks(page(PAGE), "python"):
        file = tmp_path / code.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    (tmp_path / "project/settings.py").write_text(SETTINGS)
    (tmp_path / "project/guards.py").write_text(GUARD)
    (tmp_path / "project/__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "said"), [(PYTEST, "14 passed"), (DJANGO, "Ran 2 tests")], ids=["pytest", "django"]
)
def test_the_tests_of_the_page_pass(folder: Path, command: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert not (folder / "keys.db").exists()
