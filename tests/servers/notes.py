"""What the served applications have in common: their guard's settings, their notes, the gate."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from keyguard import Limit, Principal, Rule, Settings

FOLDER = "SERVED_FOLDER"  # the variable that names where the store and the notes are
GATE = "SERVED_GATE"  # the port of the test, which says when to go on
BARE = "SERVED_BARE"  # set where there is to be no guard
TOKEN = "SERVED_TOKEN"  # a token that the guard verifies as it is made, before any fork
CASE = "x-case"  # the field that says which case a request belongs to

PUBLIC = "/open"
STATIC = "/static/"


def settings() -> Settings:
    return Settings(
        realm="AIaaS",
        prefix="aiaas_live",
        public=[PUBLIC],
        rules=[
            Rule("/write", scopes=["inference:write"]),
            Rule("/models/{model_id}", methods=["GET"], scopes=["inference:read"]),
            Rule("/static/{path:path}", public=True),
            Rule("/billed", limits=Limit("tokens", "1000/day"), cost=200),
        ],
        failure_limit=None,
        close_on_revoke=True,
        websocket_protocol="keyguard.bearer",
        store_timeout=30.0,  # however slow the disk is
        limiter_timeout=10.0,
    )


def store_url(folder: str | Path) -> str:
    return f"sqlite:///{folder}/keys.db"


def note(kind: str, case: str | None, **values: Any) -> None:
    """Write down what happened. One write a line: several threads and processes write here."""
    line = json.dumps({"kind": kind, "case": case, **values}) + "\n"
    notes = os.open(
        Path(os.environ[FOLDER]) / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    try:
        os.write(notes, line.encode())
    finally:
        os.close(notes)


def read_notes(folder: Path) -> list[dict[str, Any]]:
    notes = folder / "notes"
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def who(principal: Principal | None) -> str | None:
    return None if principal is None else principal.key_id


def wait_at_the_gate(where: str) -> None:
    """Tell the test how far it is, and wait until it may go on."""
    with socket.create_connection(("127.0.0.1", int(os.environ[GATE])), timeout=60) as gate:
        gate.sendall(where.encode() + b"\n")
        gate.recv(1)
