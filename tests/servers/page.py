"""``docs/servers.md``, written from a run: ``python -m tests.servers.page``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.servers.cases import cases
from tests.servers.running import NAMES, SERVERS, Running, running
from tests.servers.wire import outcome

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
HEADING = "## Every case"
REFUSED = "refused"

INTRODUCTION = """# Behind each server

% Written by `make servers` from a run against these servers; change tests/servers/page.py instead.

A server parses a request before keyguard sees it. These tables come from a run of one case table, byte by byte over a
socket, against each server; `make servers` repeats it. No request without a live key is ever let in: a request that the
server does not refuse by itself gets keyguard's answer, and the run compares it with what the application served.

What to know:

- **Several `Authorization` fields** get 400, whether they arrive one by one or joined. cheroot passes on the last one only,
  so the key in it counts. Put nothing in front of cheroot that reads the first one.
- **`X_Forwarded_For`** looks the same as `X-Forwarded-For` to a WSGI application. Where the table shows it, trust a proxy
  (`trusted_proxies`) only if it drops such names, as nginx does by default.
- **uvicorn believes `X-Forwarded-*` by itself** from 127.0.0.1 and rewrites the client's address. Start it with
  `--no-proxy-headers` if you set `trusted_proxies`: only one of the two should read the fields.
- **The path as it was sent** does not reach keyguard behind a server that shows no raw path. keyguard then judges the
  decoded path, as the router sees it.
- **uWSGI** accepts 4096 bytes of head (`--buffer-size`).
- **WebSockets** are refused with keyguard's HTTP answer if the server offers `websocket.http.response`. Otherwise the
  client gets the server's answer to a close before accept, 403.
"""


def cell(outcome: str) -> str:
    """Return an outcome as the table shows it; all refusals by a server look alike."""
    return " + ".join(
        REFUSED if part.startswith(("server ", "closed", "silent")) else part[:3]
        for part in outcome.split(" + ")
    )


def cells_of_page(server: str) -> dict[str, str]:
    """Return the answers of one server by case, as the page has them."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition(HEADING)
    rows = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    column = NAMES.index(server) + 1
    return {_unquoted(row[0]): row[column] for row in rows[2:]}


def _quoted(text: str) -> str:
    if not text:
        return "an empty value"
    return f"`` {text} ``"


def _unquoted(text: str) -> str:
    return text.removeprefix("`` ").removesuffix(" ``")


class Delivery:
    """What one server delivered and answered."""

    def __init__(self, served: Running) -> None:
        self.live = served.keys.tokens["live"]
        self.answers: dict[str, str] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        for name, case in cases(served.keys.tokens).items():
            self.answers[name] = outcome(served.port, case.request, case.method, case.answers)
            for note in served.notes("delivered", name)[:1]:
                self.notes[name] = note

    def authorization(self, case: str) -> str:
        values = self.notes[case]["authorization"]
        return " and ".join(_quoted(self._shown(value)) for value in values) or "nothing"

    def path(self, case: str) -> str:
        return _quoted(self._shown(self.notes[case]["path"]))

    def raw_path(self, case: str) -> str:
        raw = self.notes[case]["raw_path"]
        return "nothing" if raw is None else _quoted(self._shown(raw))

    def forwarded(self, case: str) -> str:
        return " and ".join(map(_quoted, self.notes[case]["forwarded"])) or "nothing"

    def show(self, what: str, case: str) -> str:
        if case not in self.notes:
            return REFUSED
        show: Callable[[str], str] = getattr(self, what)
        return show(case)

    def _shown(self, value: str) -> str:
        shown = value.replace(self.live, "KEY")
        for start in ("aiaas_live_", "other_live_"):
            if start in shown:
                before, _, after = shown.partition(start)
                shown = before + "OTHER" + after[66:]
        return shown.encode("unicode_escape").decode() if shown else ""


DELIVERED = [
    ("two fields, the last is good", "authorization"),
    ("Basic and Bearer", "authorization"),
    ("a tab as separator", "authorization"),
    ("blanks around it", "authorization"),
    ("a high byte", "authorization"),
    ("a control byte", "authorization"),
    ("a NUL", "authorization"),
    ("a blank before the colon", "authorization"),
    ("a folded value", "authorization"),
    ("behind a bare LF", "authorization"),
    ("X_Forwarded_For", "forwarded"),
    ("both of them", "forwarded"),
    ("path /wr%69te", "raw_path"),
    ("path //open", "path"),
    ("path /x/../open", "path"),
    ("path /open%2f", "path"),
    ("path /open%00", "path"),
    ("public /open#/write", "path"),
    ("path http://localhost/open", "path"),
    ("path http://localhost/open", "raw_path"),
    ("OPTIONS *", "path"),
]


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render(deliveries: dict[str, Delivery]) -> str:
    heads = [f"{server.name} {version(server.distribution)}" for server in SERVERS]
    delivered = [
        [
            f"{case}: {what.replace('_', ' ')}",
            *(delivery.show(what, case) for delivery in deliveries.values()),
        ]
        for case, what in DELIVERED
    ]
    first = next(iter(deliveries.values()))
    answered = [
        [_quoted(case), *(cell(delivery.answers[case]) for delivery in deliveries.values())]
        for case in first.answers
    ]
    return (
        f"{INTRODUCTION}\n## What each delivers\n\n`KEY` stands for a live key, `OTHER` for one that is "
        f"revoked; `{REFUSED}` means that the server itself refused.\n\n"
        f"{table(['case', *heads], delivered)}\n{HEADING}\n\nThe status that the client gets from "
        f"keyguard or the application. `{REFUSED}` means that the server itself refused. Paths are "
        f"requested without a key, unless a line says otherwise.\n\n{table(['case', *heads], answered)}"
    )


def main() -> None:
    deliveries = {}
    for server in SERVERS:
        with running(server) as served:
            deliveries[server.name] = Delivery(served)
    PAGE.write_text(render(deliveries), encoding="utf-8")
    sys.stdout.write(f"{PAGE} was written\n")


if __name__ == "__main__":
    main()
