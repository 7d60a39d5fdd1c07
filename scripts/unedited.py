"""Serve public applications behind keyguard without a line of code, and call them with keys.

``make unedited`` runs it, in an environment with the applications of requirements/unedited.txt.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from keyguard import Keyguard
from keyguard.cli.settings_file import write_settings

PATIENCE = 120.0  # seconds that a server has to start


class Case(NamedTuple):
    """An application, and a path of it that it answers with 200."""

    app: str
    interface: str
    path: str


CASES = {
    "datasette": Case('datasette.app:Datasette(files=["data.db"]).app()', "asgi", "/data.json"),
    "mlflow": Case("mlflow.server.fastapi_app:app", "asgi", "/health"),
    "httpbin": Case("httpbin:app", "wsgi", "/get"),
    "pypiserver": Case('pypiserver:app(roots=["packages"])', "wsgi", "/simple/"),
}
SERVERS = {
    "asgi": ("uvicorn", "keyguard.asgi:app", "--fd", "{fd}", "--log-level", "warning"),
    "wsgi": ("gunicorn", "keyguard.wsgi:app", "--bind", "fd://{fd}", "--log-level", "warning"),
}
EXPECTED = {"no key": 401, "a key without the scope": 403, "a key": 200}


def statuses(case: Case, folder: Path) -> dict[str, int]:
    """Serve an application in a folder, and return how it answers each client."""
    with closing(sqlite3.connect(folder / "data.db")) as made:
        made.execute("CREATE TABLE notes (text)")
    (folder / "packages").mkdir()
    config, url = folder / "keyguard.toml", f"sqlite:///{folder}/keys.db"
    write_settings(config, url)  # what `keyguard init --config` does
    tokens: dict[str, str | None] = {"no key": None}
    with Keyguard(url) as guard:
        guard.migrate()
        organization = guard.organizations.create("acme").id
        for client, scope in (("a key without the scope", "notes:read"), ("a key", "admin")):
            issued = guard.keys.issue(organization=organization, name="test", scopes=[scope])
            tokens[client] = issued.token.reveal()
    environ = {**os.environ, "KEYGUARD_APP": case.app, "KEYGUARD_CONFIG": str(config)}
    with socket.create_server(("127.0.0.1", 0)) as listening:  # a client waits for the server
        port, fd = listening.getsockname()[1], listening.fileno()
        command = [part.format(fd=fd) for part in SERVERS[case.interface]]
        with subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environ, pass_fds=[fd]
        ) as server:
            try:
                return {
                    client: status(f"http://127.0.0.1:{port}{case.path}", token)
                    for client, token in tokens.items()
                }
            finally:
                server.terminate()


def status(url: str, token: str | None) -> int:
    """Return the status of the answer to one client."""
    fields = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urlopen(Request(url, headers=fields), timeout=PATIENCE) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as refusal:
        refusal.close()
        return refusal.code


def main() -> None:
    """Serve the applications that were named, or all."""
    wrong = False
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = statuses(CASES[name], Path(folder))
        said = ", ".join(f"{client}: {answer}" for client, answer in found.items())
        sys.stdout.write(f"{name} {version(name)}: {said}\n")
        wrong = wrong or found != EXPECTED
    sys.exit(wrong)


if __name__ == "__main__":
    main()
