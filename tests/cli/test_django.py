"""``manage.py keyguard`` and ``python -m keyguard``: the command line from where people look."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

import keyguard as package
from keyguard import AsyncKeyguard, Keyguard
from tests.adapters.django_site import changed
from tests.cli.conftest import Run, Store

MANAGE = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from keyguard import Keyguard

settings.configure(
    INSTALLED_APPS=["keyguard.adapters.django"],
    KEYGUARD={"guard": lambda: Keyguard("sqlite:///keys.db", prefix="mine_live")},
)
execute_from_command_line(sys.argv)
"""


def test_manage_py_manages_the_keys_of_its_project(
    store: Store, process: Callable[..., Run], tmp_path: Path
) -> None:
    manage = tmp_path / "manage.py"
    manage.write_text(MANAGE)

    arguments = ("key", "create", "--org", "acme", "--name", "ci")
    done = process("keyguard", *arguments, program=(sys.executable, str(manage)))

    assert done.status == 0
    assert done.stdout.startswith("mine_live_")
    (key,) = store.keys()
    assert key.name == "ci"


def test_code_calls_the_command_too_and_hears_of_its_failure(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with Keyguard(store.url) as guard, changed(KEYGUARD={"guard": guard}):
        call_command("keyguard", "org", "list")
        assert "acme" in capsys.readouterr().out
        with pytest.raises(CommandError) as failed:
            call_command("keyguard", "key", "show", "nothing")
    assert failed.value.returncode == 1


def test_a_project_with_an_async_guard_alone_is_told_what_to_add() -> None:
    guard: Any = AsyncKeyguard("memory://")
    with changed(KEYGUARD={"guard": guard}), pytest.raises(CommandError, match="name one in KEYG"):
        call_command("keyguard", "org", "list")


def test_the_package_runs_as_a_module_and_knows_its_version() -> None:
    command = [sys.executable, "-m", "keyguard", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == f"keyguard {package.__version__}\n"
    assert package.__version__ == version("keyguard")
