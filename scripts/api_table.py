"""Write the table of endpoints in docs/management-api.md, from the table that routes."""

from __future__ import annotations

from pathlib import Path

from keyguard.admin.api import ENDPOINTS
from keyguard.admin.endpoints import Endpoint
from keyguard.admin.rights import scope_for

PAGE = Path(__file__).parents[1] / "docs" / "management-api.md"
HEAD = "| method, path | what it does | scope of a key | success |\n|---|---|---|---|\n"


def table() -> str:
    """Return the table in Markdown."""
    return HEAD + "".join(map(_row, ENDPOINTS))


def _row(endpoint: Endpoint) -> str:
    if endpoint.right is None:
        scope = "ticket" if endpoint.anyone else "any key"
    else:
        scope = f"`{scope_for(endpoint.right)}`" if scope_for(endpoint.right) else "operators only"
    statuses = [str(status) for status, name in endpoint.answers.items() if name != "Problem"]
    call = f"{endpoint.method} `{endpoint.path}`"
    return f"| {call} | {endpoint.summary} | {scope} | {', '.join(sorted(statuses))} |\n"


if __name__ == "__main__":
    text, mark, _ = PAGE.read_text(encoding="utf-8").partition(HEAD)
    PAGE.write_text(text + table(), encoding="utf-8")
