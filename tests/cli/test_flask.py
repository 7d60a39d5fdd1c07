"""``flask keyguard``: the command line on the guard of a Flask application."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from keyguard import Keyguard, require_scopes
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.cli.flask import command
from tests.cli.conftest import Store

APPLICATION = """
import os
from flask import Flask
from keyguard import Keyguard, require_scopes
from keyguard.adapters.flask import FlaskKeyguard

def create_app():
    app = Flask("app")
    FlaskKeyguard(app, Keyguard(os.environ["KEYGUARD_URL"], prefix="mine_live"))
    return app
"""


@pytest.fixture
def app(store: Store) -> Flask:
    app = Flask("app")
    FlaskKeyguard(app, Keyguard(store.url, prefix="mine_live"))
    return app


def call(app: Flask, *arguments: str) -> Any:
    return app.test_cli_runner().invoke(command, arguments)


def test_a_key_is_created_in_the_application_s_store_with_its_prefix(
    app: Flask, store: Store
) -> None:
    done = call(app, "key", "create", "--org", "acme", "--name", "ci")

    assert done.exit_code == 0
    assert done.stdout.startswith("mine_live_")
    (key,) = store.keys()
    assert key.name == "ci"


def test_the_environment_does_not_lead_to_another_store(
    app: Flask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_URL", "sqlite:///elsewhere.db")

    assert "acme" in call(app, "org", "list").stdout


def test_the_application_s_guard_stays_open(app: Flask) -> None:
    assert [call(app, "org", "list").exit_code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("org", "list", "--url", "sqlite:///elsewhere.db"),
        ("--url", "sqlite:///elsewhere.db", "org", "list"),
    ],
)
def test_another_store_is_refused(app: Flask, arguments: tuple[str, ...]) -> None:
    done = call(app, *arguments)

    assert done.exit_code == 2
    assert "the application's own guard: leave out --url" in done.stderr


@pytest.mark.parametrize("name", ["init", "doctor"])
def test_a_command_that_needs_a_url_says_so(app: Flask, name: str) -> None:
    done = call(app, name)

    assert done.exit_code == 2
    assert "works on a URL, not on an application" in done.stderr


def test_migrate_makes_the_application_s_tables(tmp_path: Path) -> None:
    app = Flask("app")
    guard = Keyguard("sqlite:///new.db")
    FlaskKeyguard(app, guard)

    assert call(app, "migrate").exit_code == 0
    assert guard.organizations.list().items == ()
    guard.close()


def test_routes_are_those_of_the_application(app: Flask) -> None:
    app.add_url_rule("/reports", "reports", lambda: "x")

    done = call(app, "routes")

    assert done.exit_code == 0
    assert "/reports" in done.stdout


def test_a_request_is_explained_by_the_application_s_own_routes(app: Flask) -> None:
    app.add_url_rule("/reports", "reports", require_scopes("reports:read")(lambda: "x"))

    done = call(app, "explain", "GET", "/reports", "--scope", "a:b")

    assert done.exit_code == 1
    assert "Needs    scopes reports:read\n" in done.stdout


def test_help_is_keyguard_s_own(app: Flask) -> None:
    done = call(app, "key", "--help")

    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: flask keyguard key")


def test_help_lists_no_command_that_an_application_can_t_run(app: Flask) -> None:
    listed = re.findall(r"^  (\w+)  ", call(app, "--help").stdout, re.MULTILINE)

    assert set(listed) == {
        *(
            "migrate",
            "org",
            "key",
            "request",
            "audit",
            "purge",
            "usage",
            "hints",
            "routes",
            "explain",
            "pepper",
        ),
        "console",
    }


def test_an_application_without_the_extension_gets_an_error(store: Store) -> None:
    done = call(Flask("bare"), "org", "list")

    assert done.exit_code == 1
    assert "this application has no FlaskKeyguard" in done.stderr


def test_without_the_extra_one_sentence_says_what_to_install(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in list(sys.modules):
        if name.startswith("keyguard.cli."):
            monkeypatch.delitem(sys.modules, name)

    done = call(app, "org", "list")

    assert done.exit_code == 1
    assert done.stderr == (
        "Error: flask keyguard needs the extra 'cli': pip install 'keyguard[cli]'\n"
    )


def test_flask_finds_the_command(store: Store, tmp_path: Path) -> None:
    (found,) = entry_points(group="flask.commands", name="keyguard")
    assert found.value == "keyguard.cli.flask:command"
    (tmp_path / "service.py").write_text(APPLICATION)

    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "service:create_app", "keyguard", "org", "list"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "acme" in done.stdout
