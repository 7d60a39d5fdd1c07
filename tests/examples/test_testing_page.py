"""What docs/how-to/testing.md shows is written to files, and run by pytest and by Django."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path
from types import ModuleType

import pytest
from django.conf import settings

from tests.adapters.django_site import KEYGUARD
from tests.examples.pages import ROOT, blocks, page

PAGE = "docs/how-to/testing.md"
PYTEST = ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
PYTEST += ["-o", "asyncio_default_fixture_loop_scope=function"]
DJANGO = "project/tests.py"


def files() -> dict[str, str]:
    """Return the files that the page shows, by their names."""
    codes = blocks(page(PAGE), "python")
    return {code.splitlines()[0].removeprefix("# "): code for code in codes}


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for name, code in files().items():
        if name != DJANGO:
            (tmp_path / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", *PYTEST],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout


def test_the_test_case_of_django_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.MIDDLEWARE == [KEYGUARD]
    module = ModuleType("project.tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(files()[DJANGO], DJANGO, "exec"), vars(module))
    result = unittest.TestResult()

    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)

    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
