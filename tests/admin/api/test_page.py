"""docs/management-api.md: its table is the one that routes, and its lines for curl work."""

from __future__ import annotations

import json
import os
import subprocess
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from keyguard import Keyguard
from keyguard.admin import ManagementAPI
from scripts.api_table import table
from tests.examples.pages import blocks, page, run
from tests.examples.running import curl

PAGE = "docs/management-api.md"


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_the_page_lists_the_endpoints() -> None:
    assert page(PAGE).endswith(f"\n\n{table()}"), "run .venv/bin/python -m scripts.api_table"


def test_the_page_makes_an_application(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(PAGE, 0, {})
    with made["guard"]:
        assert callable(made["api"])


def test_the_lines_for_curl_work_in_their_order() -> None:
    curl()
    guard = Keyguard("memory://", prefix="aiaas_live")
    guard.organizations.create("acme")
    keys = [
        guard.keys.issue(organization="acme", name=name, scopes=["admin", "inference:read"])
        for name in ("key", "other")
    ]
    with make_server("127.0.0.1", 0, ManagementAPI(guard), handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", "".join(blocks(page(PAGE), "bash"))],
                env={
                    "PATH": os.environ["PATH"],
                    "API": f"http://127.0.0.1:{server.server_port}",
                    "KEY": keys[0].token.reveal(),
                    "OTHER": keys[1].token.reveal(),
                },
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
            )
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    claimed = done.stdout[done.stdout.rindex('{"token": ') :]
    token = json.loads(claimed)["token"]
    assert guard.keys.check_token(token).reason is None
