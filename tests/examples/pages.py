"""Reading the pages of the documentation, and running what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(name: str, number: int, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run one Python block of a page, and return what is defined after it."""
    code = blocks(page(name), "python")[number]
    exec(compile(code, f"{name}, block {number + 1}", "exec"), namespace)
    return namespace
