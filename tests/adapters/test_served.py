"""`keyguard.asgi` and `keyguard.wsgi`: an application behind keyguard without a line of code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from keyguard import ConfigurationError, InvalidValueError, Keyguard
from keyguard.adapters._served import asgi_of, wsgi_of
from keyguard.settings.sources import Stores, read_stores
from scripts.unedited import EXPECTED, Case, statuses

PLAIN = """
states = []

async def over_asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while message := await receive():
            states.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    status = 200 if states == ["lifespan.startup"] else 500
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})

def over_wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b""]

def make(kind, *, wrap=None):
    return over_wsgi if kind == "wsgi" else over_asgi

class Maker:
    def app(self):
        return over_wsgi

def fails(): raise ValueError("hunter2")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the module of an application."""
    for name in list(os.environ):
        if name.startswith("KEYGUARD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_app.py").write_text(PLAIN)
    return tmp_path


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_server_serves_what_the_environment_names(folder: Path, interface: str) -> None:
    case = Case(f"plain_app:over_{interface}", interface, "/notes")

    assert statuses(case, folder) == EXPECTED


@pytest.mark.parametrize("name", ["over_wsgi", "make('wsgi', wrap=None)", "Maker().app()"])
def test_an_application_and_what_makes_it_are_named_alike(folder: Path, name: str) -> None:
    app = wsgi_of({"KEYGUARD_URL": "memory://", "KEYGUARD_APP": f"plain_app:{name}"})

    assert app.app.__name__ == "over_wsgi"  # type: ignore[attr-defined]
    app.guard.close()


@pytest.mark.parametrize(
    ("make", "environ", "said"),
    [
        (asgi_of, {}, "no key store is named: set KEYGUARD_URL"),
        (wsgi_of, {"KEYGUARD_URL": "memory://"}, "no application is named: set KEYGUARD_APP"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app"}, "'plain_app' names no application"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:make(x)"}, "names no application"),
        (wsgi_of, {"KEYGUARD_APP": "no_such:app"}, "'no_such' can't be imported"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:none"}, "has no 'none'"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:fails()"}, "fails.* ValueError at plain_app.py"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:fails"}, "no WSGI .* write \\(\\) after its name"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:states"}, "names a list, .* name the attribute"),
        (asgi_of, {"KEYGUARD_APP": "plain_app:over_wsgi"}, "serve keyguard.wsgi:app"),
        (wsgi_of, {"KEYGUARD_APP": "plain_app:over_asgi"}, "serve keyguard.asgi:app"),
    ],
)
def test_what_is_missing_or_wrong_is_said_at_the_start(
    folder: Path, make: Any, environ: dict[str, str], said: str
) -> None:
    store = {"KEYGUARD_URL": "memory://"} if "KEYGUARD_APP" in environ else {}
    with pytest.raises(ConfigurationError, match=said) as raised:
        make(store | environ)
    assert "hunter2" not in str(raised.value)


def test_the_file_names_the_stores_unless_variables_do(folder: Path) -> None:
    file = folder / "keyguard.toml"
    file.write_text('realm = "AIaaS"\nurl = "sqlite:///a.db"\nlimiter = " memory:// "\n')
    environ = {"KEYGUARD_CONFIG": str(file)}

    assert read_stores(environ) == Stores("sqlite:///a.db", "memory://")
    assert read_stores(environ | {"KEYGUARD_URL": "sqlite:///b.db"}).url == "sqlite:///b.db"
    assert read_stores({}) == Stores(None, None)
    served = wsgi_of(environ | {"KEYGUARD_APP": "plain_app:over_wsgi"})
    assert isinstance(served.guard, Keyguard)
    assert served.guard.settings.realm == "AIaaS"
    served.guard.close()
    file.write_text("url = 7\n")
    with pytest.raises(InvalidValueError, match=r"url in .* takes text, not 7"):
        read_stores(environ)
